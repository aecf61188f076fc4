// Token, position and token-type embeddings, normalized and projected to the hidden size.
#pragma once

#include <algorithm>
#include <cstdint>

#include "buffer.h"
#include "gemm.h"
#include "layers.h"
#include "packed_linear.h"
#include "threads.h"
#include "word_table.h"

struct Embeddings {
    WordTable words;
    Buffer<float> positions, token_types;
    int64_t vocabulary, num_positions, num_token_types, width, position_offset;
    Norm norm;
    PackedLinear before_norm, after_norm;

    explicit Embeddings(const sweet_embeddings& from)
        : words(from),
          vocabulary(from.vocabulary),
          num_positions(from.num_positions),
          num_token_types(from.num_token_types),
          width(from.width),
          position_offset(from.position_offset),
          norm(from.norm),
          before_norm(from.before_norm),
          after_norm(from.after_norm) {
        copy(from.positions, positions);
        copy(from.token_types, token_types);
    }

    bool is_projected() const { return before_norm.is_present() || after_norm.is_present(); }

    int64_t bytes() const {
        return words.bytes() + positions.bytes() + token_types.bytes() + norm.bytes() + before_norm.bytes() +
               after_norm.bytes();
    }

    // Multiply-accumulates that take as long as `lookup`: about 0.4 microseconds per token of 384 values.
    int64_t equivalent_macs(int64_t tokens) const { return tokens * (48 * width + before_norm.macs() + after_norm.macs()); }

    void reserve(int64_t tokens, Workspace& workspace) const {
        if (is_projected()) workspace.first_tokens.reserve(tokens * width);
    }

    // Writes states (tokens, hidden); all threads of the team have finished at return.
    void lookup(int64_t tokens, const int64_t* ids, const int64_t* types, const int64_t* position_ids, float* states,
                Workspace& workspace, const Team& team) const {
        float* sums = is_projected() ? workspace.first_tokens.get() : states;
        const std::pair<int64_t, int64_t> range = team.range(tokens);
        const auto project = [&](const PackedLinear& layer, const float* from, float* to) {
            InputRows rows;
            rows.floats = from;
            rows.float_stride = layer.in;
            gemm(
                layer, rows, static_cast<int>(tokens),
                team, [&](int64_t row, int64_t column, f32x16 values, int lanes) __attribute__((always_inline)) {
                    store_partial(to + row * layer.out + column, values, lanes);
                });
            team.barrier();
        };
        for (int64_t token = range.first; token < range.second; ++token) {
            if (token + kPrefetchDistance < range.second) words.prefetch(ids[token + kPrefetchDistance]);
            const float* type = token_types.empty() ? nullptr : token_types.get() + types[token] * width;
            const float* position =
                positions.empty() ? nullptr : positions.get() + (position_ids[token] + position_offset) * width;
            float* to = sums + token * width;
            words.with_row(ids[token], [&](const auto& word) __attribute__((always_inline)) {
                for (int64_t column = 0; column < width; column += kLanes) {
                    f32x16 total = word(column);
                    if (type != nullptr) total += load(type + column);
                    if (position != nullptr) total += load(position + column);
                    store_partial(to + column, total, static_cast<int>(std::min<int64_t>(kLanes, width - column)));
                }
            });
            if (norm.is_present() && !before_norm.is_present()) norm.apply(to, to);  // while the row is in the L1 cache
        }
        team.barrier();
        if (before_norm.is_present()) {
            project(before_norm, sums, states);
            if (norm.is_present())
                for (int64_t token = range.first; token < range.second; ++token)
                    norm.apply(states + token * norm.size, states + token * norm.size);
            team.barrier();
        } else if (after_norm.is_present()) {
            project(after_norm, sums, states);
        }
    }

   private:
    // Tokens. Their rows are far apart in a table that exceeds the caches.
    static constexpr int64_t kPrefetchDistance = 3;

    static void copy(const sweet_floats& from, Buffer<float>& to) {
        if (from.size > 0) std::copy_n(from.values, from.size, to.reserve(from.size));
    }
};
