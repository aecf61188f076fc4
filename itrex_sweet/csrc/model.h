// The immutable part of a model: packed weights and tables, which all its contexts share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "check.h"
#include "embeddings.h"
#include "encoder.h"
#include "probe.h"

struct Exit {
    Head head;
    Norm norm;
    int32_t full_layers, layer;

    explicit Exit(const sweet_exit& exit)
        : head(exit.head), norm(exit.norm), full_layers(exit.full_layers), layer(exit.layer) {}
};

class Model {
   public:
    // The description must have passed `check_description`.
    explicit Model(const sweet_description& from)
        : embeddings(from.embeddings),
          encoder({from.num_attention_heads, from.activation, 1.0f / from.score_scale, from.hidden}, RelativePositions(from),
                  pack_layers(from)),
          uses_positions(encoder.uses_positions()),
          hidden(from.hidden),
          max_length(from.max_length),
          exits_(from.exits, from.exits + from.num_exits) {}

    int64_t bytes() const {
        int64_t total = embeddings.bytes() + encoder.bytes();
        for (const Exit& exit : exits_) total += exit.head.bytes() + exit.norm.bytes();
        return total;
    }

    int32_t num_outputs() const { return exits_.back().head.classifier.out; }
    int32_t last_exit() const { return static_cast<int32_t>(exits_.size()) - 1; }
    const Exit& exit_at(int32_t exit) const { return exits_[static_cast<size_t>(exit)]; }

    const Embeddings embeddings;
    const Encoder encoder;
    const bool uses_positions;
    const int64_t hidden;
    const int64_t max_length;  // 0: unlimited

   private:
    static std::vector<Layer> pack_layers(const sweet_description& from) {
        std::vector<Layer> layers;
        const RelativePositions positions(from);
        std::vector<std::shared_ptr<const RotaryTable>> tables;  // layers with the same frequencies share one
        for (int32_t index = 0; index < from.num_layers; ++index) {
            const auto is_used = [&](bool by_all_tokens) {
                return std::any_of(from.exits, from.exits + from.num_exits, [=](const sweet_exit& exit) {
                    return exit.layer == index && (exit.head.pooling != SWEET_FIRST) == by_all_tokens;
                });
            };
            const sweet_rotary& rotary = from.layers[index].rotary;
            std::shared_ptr<const RotaryTable> table;
            if (rotary.inverse_frequencies.size > 0) {
                for (const auto& other : tables) {
                    if (other->is_of(rotary)) table = other;
                }
                if (!table) tables.push_back(table = std::make_shared<RotaryTable>(rotary, from.max_length));
            }
            layers.emplace_back(from.layers[index], positions, table, from.norm_first != 0, from.num_attention_heads,
                                is_used(false), index < from.num_full_layers || is_used(true));
        }
        return layers;
    }

    const std::vector<Exit> exits_;
};
