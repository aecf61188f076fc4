// Rows that the first token of a sequence attends to, and keys that are rotated, which a probe computes for itself.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "encoder.h"
#include "gemm.h"
#include "layers.h"
#include "sequences.h"
#include "threads.h"

class FirstTokenRows {
   public:
    static constexpr int64_t kBlock = 16;  // sequences whose projected queries and weighted sums are in memory at a time

    FirstTokenRows(const EncoderConfig& config, const Layer& layer)
        : config_(config),
          layer_(layer),
          normalizes_input_(layer.norm_first && layer.attention_norm.is_present()),
          are_copied_(normalizes_input_ || layer.rotary) {}

    // True if the attention norm is applied to the states before the attention.
    bool normalizes_input() const { return normalizes_input_; }
    // True if the attention reads `workspace.probe_states` and `workspace.probe_keys`, see `write`.
    bool are_copied() const { return are_copied_; }

    // Number of tokens that the first token of a sequence attends to.
    int64_t visible_tokens(const Sequences& sequences, int64_t sequence) const {
        const int64_t length = sequences.lengths[sequence], *positions = sequences.positions_of(sequence);
        if (layer_.window == 0) return length;
        if (positions == nullptr) return std::min(length, int64_t{layer_.window} + 1);
        return std::upper_bound(positions, positions + length, positions[0] + layer_.window) - positions;
    }
    int64_t visible_tokens(const Sequences& sequences) const {
        int64_t tokens = 0;
        for (int64_t i = 0; i < sequences.count; ++i) tokens += visible_tokens(sequences, i);
        return tokens;
    }

    // Calls each(first sequence, block) for consecutive blocks of at most `kBlock` sequences. Where rows are copied, a block
    // has at most `kChunkTokens` tokens per thread, or one sequence.
    template <class Each>
    void for_each_block(const Sequences& sequences, int64_t threads, Each each) const {
        for (int64_t first = 0; first < sequences.count;) {
            Sequences block = sequences.slice(first, std::min(kBlock, sequences.count - first));
            while (are_copied_ && block.count > 1 && visible_tokens(block) > kChunkTokens * threads) --block.count;
            each(first, block);
            first += block.count;
        }
    }

    // Reserves the memory of `write`.
    void reserve(const Sequences& sequences, int64_t threads, Workspace& workspace) const {
        int64_t max_tokens = 0;
        for_each_block(sequences, threads,
                       [&](int64_t, const Sequences& block) { max_tokens = std::max(max_tokens, visible_tokens(block)); });
        workspace.probe_states.reserve(max_tokens * config_.hidden);
        if (!layer_.rotary) return;
        const auto [part, column] = key_columns();
        const PackedLinear& projection = layer_.projections[part];
        workspace.projection_inputs[part].reserve(projection, max_tokens, false);
        workspace.probe_keys.reserve(max_tokens * key_stride(projection, key_panels(projection, column)));
    }

    // Writes the input of the attention for all tokens that the first ones attend to, packed, to `workspace.probe_states`,
    // and the keys, if they are to be rotated, to `workspace.probe_keys`.
    void write(const float* const* starts, const Sequences& sequences, Workspace& workspace, const Team& team) const {
        const int64_t hidden = config_.hidden, tokens = visible_tokens(sequences);
        const auto [part, column] = layer_.rotary ? key_columns() : std::pair<size_t, int64_t>{0, 0};
        const PackedLinear& projection = layer_.projections[part];
        float* rows = workspace.probe_states.get();
        const auto [first, last] = team.range(tokens);
        for (int64_t i = 0, start = 0; i < sequences.count; start += visible_tokens(sequences, i++)) {
            const int64_t end = start + visible_tokens(sequences, i);
            for (int64_t token = std::max(start, first); token < std::min(end, last); ++token) {
                const float* from = starts[i] + (token - start) * hidden;
                float* to = rows + token * hidden;
                if (normalizes_input_) {
                    layer_.attention_norm.apply(from, to);
                } else {
                    std::copy_n(from, hidden, to);
                }
                if (layer_.rotary) workspace.projection_inputs[part].quantize_row(projection, token, to);
            }
        }
        team.barrier();
        if (!layer_.rotary) return;
        const Panels panels = key_panels(projection, column);
        const int64_t first_column = panels.first * projection.panel_columns(), stride = key_stride(projection, panels);
        const auto [first_panel, last_panel] = team.range(panels.last - panels.first);
        float* keys = workspace.probe_keys.get();
        gemm(
            projection, workspace.projection_inputs[part].rows(projection, rows), static_cast<int>(tokens),
            Panels{panels.first + first_panel, panels.first + last_panel},
            [=](int64_t row, int64_t place, f32x16 values, int)
                __attribute__((always_inline)) { store(keys + row * stride + place - first_column, values); });
        team.barrier();
    }

    // Computes the scores (heads, length) of one sequence with rotated keys, from row `token` of the keys on.
    void score_rotated(int64_t first_head, int heads, float* queries, int64_t token, int length, const int64_t* positions,
                       float* scores, Workspace& workspace) const {
        const int64_t size = config_.head_size(), padded = round_up(length, kLanes);
        const auto [part, column] = key_columns();
        const PackedLinear& projection = layer_.projections[part];
        const Panels panels = key_panels(projection, column);
        const int64_t stride = key_stride(projection, panels);
        float* keys = workspace.probe_keys.get() + token * stride + column - panels.first * projection.panel_columns();
        for (int head = 0; head < heads; ++head) {
            const int64_t place = (first_head + head) * size;
            for (int64_t row = 0; row < length; ++row)
                layer_.rotary->rotate(keys + row * stride + place, positions == nullptr ? row : positions[row]);
            layer_.rotary->rotate(queries + place, positions == nullptr ? 0 : positions[0]);
            gemm_transposed(queries + place, size, 1, keys + place, stride, length, static_cast<int>(size),
                            scores + head * padded, padded);
        }
    }

   private:
    // Returns the projection that computes the keys, and their first column in it.
    std::pair<size_t, int64_t> key_columns() const {
        size_t part = 0;
        while (part + 1 < layer_.projections.size() && layer_.column_offsets[part + 1] <= config_.hidden) ++part;
        return {part, config_.hidden - layer_.column_offsets[part]};
    }
    Panels key_panels(const PackedLinear& projection, int64_t column) const {
        const int64_t panel = projection.panel_columns();
        return {column / panel, (column + config_.hidden + panel - 1) / panel};
    }
    static int64_t key_stride(const PackedLinear& projection, Panels panels) {
        return (panels.last - panels.first) * projection.panel_columns();
    }

    const EncoderConfig& config_;
    const Layer& layer_;
    bool normalizes_input_;
    bool are_copied_;
};
