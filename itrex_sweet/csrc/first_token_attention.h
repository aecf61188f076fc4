// Attention of the first tokens, without keys and values of the others.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "attention.h"
#include "encoder.h"
#include "first_token_rows.h"
#include "first_token_terms.h"
#include "gemm.h"
#include "layers.h"
#include "sequences.h"
#include "shared_query.h"
#include "threads.h"

class FirstTokenAttention {
   public:
    FirstTokenAttention(const EncoderConfig& config, const RelativePositions& positions, const Layer& layer)
        : config_(config), positions_(positions), layer_(layer), rows_(config, layer), terms_(config, positions, layer) {}

    const FirstTokenRows& rows() const { return rows_; }

    // Reserves the memory of `run` and of `FirstTokenRows::write`.
    void reserve(const Sequences& sequences, int64_t threads, Workspace& workspace) const {
        const int64_t rows = sequences.count, hidden = config_.hidden;
        int64_t max_length = 0;
        for (int64_t i = 0; i < rows; ++i) max_length = std::max(max_length, rows_.visible_tokens(sequences, i));
        const int64_t size = config_.head_size(), block = std::min(rows, FirstTokenRows::kBlock);
        if (rows_.are_copied()) rows_.reserve(sequences, threads, workspace);
        for (int64_t index = 0; index < threads; ++index) {
            ThreadScratch& scratch = workspace.threads[static_cast<size_t>(index)];
            scratch.attention.scores.reserve(config_.num_heads * round_up(max_length, kLanes));
            scratch.projected_query.reserve(block * config_.num_heads * round_up(hidden, kLanes));
            scratch.context.reserve(block * (size + 2 * kMaxPanel));
            scratch.int16_input.reserve(hidden, block);
            if (terms_.are_present()) {
                scratch.position_scores.reserve(block * config_.num_heads * round_up(max_length, kLanes));
                scratch.position_products.reserve(positions_.buckets() + kLanes);
            }
            if (layer_.keys) scratch.float_input.reserve(layer_.keys->heads.front(), block, false);
            scratch.float_input.reserve(layer_.projections.back(), block, false);
        }
    }

    // Projects the queries of one row, for all heads, through the key weights: `projected` (heads, hidden), padded rows.
    void project(const float* queries, float* projected, const ThreadScratch& scratch) const {
        const int64_t wide = round_up(config_.hidden, kLanes);
        for (int64_t head = 0; head < config_.num_heads; ++head)
            project_queries(head, queries, 0, 1, projected + head * wide, 0, scratch);
    }

    // Attention of the first token of each sequence, for this thread's heads, without computing keys and values: the query is
    // projected through the key weights, (W_kᵀ q) · x_j = q · (W_k x_j), and the value weights are applied to the weighted
    // sum of the states. The key bias adds the same to all scores and cancels in the softmax; the attention weights sum to
    // one, so the value bias is added once.
    //
    // Keys that are rotated are computed: the rotation is between the query and the key weights.
    //
    // `shared`: the query of all sequences, instead of `queries`; may be null.
    void run(float* queries, int64_t query_stride, const SharedQuery* shared, int64_t first_row, const float* const* starts,
             const Sequences& sequences, Workspace& workspace, const Team& team) const {
        const int size = static_cast<int>(config_.head_size()), hidden = static_cast<int>(config_.hidden);
        const int count = static_cast<int>(sequences.count);
        const int64_t wide = round_up(hidden, kLanes);
        const ThreadScratch& scratch = workspace.threads[static_cast<size_t>(team.index)];
        const auto [first_head, last_head] = team.range(config_.num_heads);
        const int heads = static_cast<int>(last_head - first_head);
        const int64_t sequence_stride = heads * wide;
        float* scores = scratch.attention.scores.get();
        for (int head = 0; head < heads && !layer_.rotary && shared == nullptr; ++head) {
            project_queries(first_head + head, queries, query_stride, count, scratch.projected_query.get() + head * wide,
                            sequence_stride, scratch);
        }
        int64_t token = 0;  // of the rows of `FirstTokenRows::write`
        const int64_t position_stride = round_up(sequences.max_length(), kLanes);
        const float* position_scores = scratch.position_scores.get();
        if (terms_.are_present()) terms_.write(queries, query_stride, starts, sequences, first_head, last_head, scratch);
        for (int64_t i = 0; i < count; ++i) {
            const int length = static_cast<int>(rows_.visible_tokens(sequences, i));
            const int64_t padded = round_up(length, kLanes);
            float* sums = scratch.projected_query.get() + i * sequence_stride;
            const float* projected = shared == nullptr ? sums : shared->projected.get() + first_head * wide;
            const float* rows = rows_.are_copied() ? workspace.probe_states.get() + token * hidden : starts[i];
            if (layer_.rotary) {
                rows_.score_rotated(first_head, heads, queries + i * query_stride, token, length, sequences.positions_of(i),
                                    scores, workspace);
            } else {
                gemm_transposed(projected, wide, heads, rows, hidden, length, hidden, scores, padded);
            }
            token += length;
            for (int head = 0; head < heads; ++head) {
                if (terms_.are_present()) {
                    const float* from = position_scores + (i * heads + head) * position_stride;
                    for (int64_t token = 0; token < length; ++token) scores[head * padded + token] += from[token];
                }
                const float inverse_total = 1.0f / softmax_numerators(scores + head * padded, length, config_.scale);
                for (int64_t place = 0; place < length; ++place) scores[head * padded + place] *= inverse_total;
            }
            // The weighted sums of states replace the projected queries.
            gemm_dense<Float32>(scores, padded, heads, rows, hidden, hidden, length, sums, wide);
        }
        const LinearInput::Writer write = workspace.attention_output_input.writer(layer_.attention_output);
        for (int head = 0; head < heads; ++head) {
            const int64_t column = (first_head + head) * size;
            const auto [context, stride] =
                project_values(column, scratch.projected_query.get() + head * wide, sequence_stride, count, scratch);
            for (int row = 0; row < count; ++row) {
                for (int part = 0; part < size; part += kLanes) {
                    write(first_row + row, column + part, load(context + row * stride + part), std::min(kLanes, size - part));
                }
            }
        }
    }

   private:
    // Projects one head's queries (sequences, size) through its key weights: `projected` (sequences, hidden).
    void project_queries(int64_t head, const float* queries, int64_t query_stride, int count, float* projected,
                         int64_t stride, const ThreadScratch& scratch) const {
        const TransposedKeyWeights& keys = *layer_.keys;
        const PackedLinear& weights = keys.heads[static_cast<size_t>(head)];
        const int64_t offset = head * weights.in;
        const auto write = [&](int64_t row, int64_t column, f32x16 values, int lanes) __attribute__((always_inline)) {
            if (!keys.smoothing.empty()) values *= load(keys.smoothing.get() + column);
            store_partial(projected + row * stride + column, values, lanes);
        };
        if (!weights.is_integer) {
            const InputRows rows = float_rows(weights, queries + offset, query_stride, count, scratch);
            return gemm_float(weights, rows, count, {0, weights.panels()}, write);
        }
        for (int64_t row = 0; row < count; ++row) {
            const float* query = queries + row * query_stride + offset;
            scratch.int16_input.quantize_row(
                weights, row, [&](int column) __attribute__((always_inline)) {
                    return load(query + column) * load(keys.scale.get() + offset + column);
                });
        }
        gemm_int16(weights, scratch.int16_input.rows(weights), count, {0, weights.panels()}, write);
    }

    // Returns rows as a float32 or bfloat16 layer reads them.
    static InputRows float_rows(const PackedLinear& layer, const float* from, int64_t stride, int count,
                                const ThreadScratch& scratch) {
        for (int64_t row = 0; row < count; ++row) scratch.float_input.quantize_row(layer, row, from + row * stride);
        InputRows rows = scratch.float_input.rows(layer, from);
        rows.float_stride = stride;
        return rows;
    }

    // Projects one head's weighted sums of states (sequences, hidden) through its value weights, whose outputs begin at
    // `column`. Returns the address of the result (sequences, size) and its stride.
    std::pair<const float*, int64_t> project_values(int64_t column, const float* sums, int64_t sums_stride, int count,
                                                    const ThreadScratch& scratch) const {
        const PackedLinear& values = layer_.projections.back();
        const int64_t size = config_.head_size(), panel = values.panel_columns();
        column += values.out - config_.hidden;  // the values follow the queries and keys
        const Panels panels{column / panel, (column + size + panel - 1) / panel};
        const int64_t stride = (panels.last - panels.first) * panel;
        float* context = scratch.context.get();
        const auto write = [&](int64_t row, int64_t place, f32x16 result, int) __attribute__((always_inline)) {
            store(context + row * stride + place - panels.first * panel, result);
        };
        if (values.is_integer) {
            for (int64_t row = 0; row < count; ++row) {
                scratch.int16_input.quantize_row(
                    values, row, [&](int input) __attribute__((always_inline)) {
                        const f32x16 loaded = load(sums + row * sums_stride + input);
                        return values.smoothing.empty() ? loaded : loaded * load(values.smoothing.get() + input);
                    });
            }
            gemm_int16(values, scratch.int16_input.rows(values), count, panels, write);
        } else {
            gemm_float(values, float_rows(values, sums, sums_stride, count, scratch), count, panels, write);
        }
        return {context + column - panels.first * panel, stride};
    }

    const EncoderConfig& config_;
    const RelativePositions& positions_;
    const Layer& layer_;
    FirstTokenRows rows_;
    FirstTokenTerms terms_;
};
