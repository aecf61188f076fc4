// Terms of relative positions in the scores of the first token: of disentangled attention, see `first_token_positions.h`, or a
// bias.
#pragma once

#include <algorithm>
#include <cstdint>

#include "encoder.h"
#include "first_token_positions.h"
#include "layers.h"
#include "relative_positions.h"
#include "sequences.h"

class FirstTokenTerms {
   public:
    FirstTokenTerms(const EncoderConfig& config, const RelativePositions& positions, const Layer& layer)
        : config_(config), positions_(positions), layer_(layer) {}

    bool are_present() const { return layer_.relative != nullptr || positions_.bias().is_present(); }

    // Computes the terms: `position_scores` (sequences, heads, maximum length).
    void write(const float* queries, int64_t query_stride, const float* const* starts, const Sequences& sequences,
               int64_t first_head, int64_t last_head, const ThreadScratch& scratch) const {
        const int64_t stride = round_up(sequences.max_length(), kLanes), heads = last_head - first_head;
        float* const scores = scratch.position_scores.get();
        if (layer_.relative == nullptr) return write_bias(sequences, first_head, last_head, scores, stride);
        for (int64_t i = 0; i < sequences.count; ++i) {
            for (int64_t head = 0; head < heads; ++head) {
                const float* query = queries + i * query_stride + (first_head + head) * config_.head_size();
                write_content_to_position(first_head + head, query, sequences.lengths[i], sequences.positions_of(i),
                                          scratch.position_products.get(), scores + (i * heads + head) * stride);
            }
        }
        if (!layer_.first_token_positions) return;
        // All sequences at one position before the next one, so that they share its part of the table.
        const FirstTokenPositions& table = *layer_.first_token_positions;
        const float* states[FirstTokenPositions::kRows];
        float* to[FirstTokenPositions::kRows];
        for (int64_t token = 0; token < sequences.max_length(); ++token) {
            int rows = 0;
            int64_t shared = 0;
            const auto add = [&] {
                if (rows > 0) table.add(shared, first_head, last_head, rows, states, to, stride);
                rows = 0;
            };
            for (int64_t i = 0; i < sequences.count; ++i) {
                if (token >= sequences.lengths[i]) continue;
                const int64_t bucket = positions_.bucket(distance_of(token, sequences.positions_of(i)));
                if (rows == FirstTokenPositions::kRows || bucket != shared) add();
                shared = bucket;
                states[rows] = starts[i] + token * config_.hidden;
                to[rows++] = scores + i * heads * stride + token;
            }
            add();
        }
    }

   private:
    // Distance of the first token from another.
    static int64_t distance_of(int64_t token, const int64_t* positions) {
        return positions == nullptr ? -token : positions[0] - positions[token];
    }

    void write_bias(const Sequences& sequences, int64_t first_head, int64_t last_head, float* scores, int64_t stride) const {
        for (int64_t i = 0; i < sequences.count; ++i) {
            for (int64_t head = first_head; head < last_head; ++head, scores += stride) {
                for (int64_t token = 0; token < sequences.lengths[i]; ++token)
                    scores[token] = positions_.bias().at(head, -distance_of(token, sequences.positions_of(i)));
            }
        }
    }

    // Writes the content-to-position terms of one head of one sequence, zeros without them.
    void write_content_to_position(int64_t head, const float* query, int64_t length, const int64_t* positions,
                                   float* products, float* to) const {
        const PositionTable& keys = layer_.relative->keys;
        if (!keys.is_present()) {
            std::fill_n(to, length, 0.0f);
            return;
        }
        const auto column_of = [&](int64_t token) { return keys.column(positions_.bucket(distance_of(token, positions))); };
        int64_t first = column_of(0), last = first;
        for (int64_t token = 1; token < length; ++token) {
            first = std::min(first, column_of(token));
            last = std::max(last, column_of(token));
        }
        keys.multiply(head, query, first, last, products);
        for (int64_t token = 0; token < length; ++token) to[token] = products[column_of(token) - first];
    }

    const EncoderConfig& config_;
    const RelativePositions& positions_;
    const Layer& layer_;
};
