// The probe of an exit: one layer, for the first token only unless the head reads the mean of all, then the head.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "attention.h"
#include "encoder.h"
#include "feed_forward.h"
#include "gemm.h"
#include "layers.h"
#include "sequences.h"
#include "threads.h"

struct Head {
    PackedLinear dense, classifier;
    LayerNorm norm;
    int32_t activation;
    bool is_mean_pooled;

    explicit Head(const sweet_head& head)
        : dense(head.dense),
          classifier(head.classifier),
          norm(head.norm),
          activation(head.activation),
          is_mean_pooled(head.is_mean_pooled != 0) {}

    int64_t bytes() const { return dense.bytes() + classifier.bytes() + norm.bytes(); }
};

class Probe {
   public:
    // `norm`: of the states between the layer and the head; may be absent.
    Probe(const EncoderConfig& config, const RelativePositions& positions, const Layer& layer, const LayerNorm& norm,
          const Head& head)
        : config_(config),
          positions_(positions),
          layer_(layer),
          norm_(norm),
          head_(head),
          normalizes_input_(layer.norm_first && layer.attention_norm.is_present()),
          reads_own_rows_(normalizes_input_ || layer.rotary) {}

    // Sequences per team, at least.
    int64_t min_sequences() const { return head_.is_mean_pooled ? 1 : 4; }

    // Multiply-accumulates of the probe.
    int64_t macs(const Sequences& sequences) const {
        const int64_t of_heads = sequences.count * (head_.dense.macs() + head_.classifier.macs());
        if (head_.is_mean_pooled) return of_heads + Encoder::layer_macs(config_, layer_, sequences);
        int64_t tokens = 0;
        for (int64_t i = 0; i < sequences.count; ++i) tokens += visible_tokens(sequences, i);
        const int64_t products = layer_.first_token_positions ? 3 : 2;  // of a head with a token's state
        const int64_t per_token =
            products * config_.hidden * config_.num_heads + (layer_.rotary ? config_.hidden * config_.hidden : 0);
        return of_heads + sequences.count * layer_.macs() + tokens * per_token;
    }

    // Reserves the memory of `run`. Called before threads run, where an allocation may fail.
    void reserve(const Sequences& sequences, int64_t threads, Workspace& workspace) const {
        const int64_t rows = sequences.count, hidden = config_.hidden;
        workspace.first_tokens.reserve(rows * hidden);
        workspace.qkv.reserve(rows * std::max<int64_t>(round_up(hidden, kMaxPanel), head_.dense.out));
        if (head_.is_mean_pooled) {
            int64_t max_tokens = 0;
            for_each_chunk(sequences, threads,
                           [&](const Sequences& chunk) { max_tokens = std::max(max_tokens, chunk.tokens()); });
            workspace.probe_states.reserve(max_tokens * hidden);
            return Encoder::reserve_layer(config_, layer_, sequences, threads, workspace);
        }
        int64_t max_length = 0;
        for (int64_t i = 0; i < rows; ++i) max_length = std::max(max_length, visible_tokens(sequences, i));
        const int64_t size = config_.head_size(), block = std::min(rows, kBlock);
        workspace.projection_inputs[0].reserve(layer_.projections[0], rows, false);
        reserve_feed_forward(layer_, rows, workspace);
        if (reads_own_rows_) reserve_own_rows(sequences, threads, workspace);
        for (int64_t index = 0; index < threads; ++index) {
            ThreadScratch& scratch = workspace.threads[static_cast<size_t>(index)];
            scratch.attention.scores.reserve(config_.num_heads * round_up(max_length, kLanes));
            scratch.projected_query.reserve(block * config_.num_heads * round_up(hidden, kLanes));
            scratch.context.reserve(block * (size + 2 * kMaxPanel));
            scratch.int16_input.reserve(hidden, block);
            if (layer_.relative) {
                scratch.position_scores.reserve(block * config_.num_heads * round_up(max_length, kLanes));
                scratch.position_products.reserve(positions_.buckets() + kLanes);
            }
            if (layer_.keys) scratch.float_input.reserve(layer_.keys->heads.front(), block, false);
            scratch.float_input.reserve(layer_.projections.back(), block, false);
        }
        if (layer_.convolution) workspace.convolution.reserve(*layer_.convolution, rows);
    }

    // Writes the outputs of the head (sequences, outputs). `starts`: the states of each sequence before the layer.
    void run(const float* const* starts, const Sequences& sequences, float* outputs, Workspace& workspace,
             const Team& team) const {
        if (head_.is_mean_pooled) {
            pool_means(starts, sequences, workspace, team);
        } else {
            run_first_tokens(starts, sequences, workspace, team);
        }
        team.barrier();
        const int count = static_cast<int>(sequences.count);
        float* pooled = workspace.qkv.get();
        InputRows input;
        input.floats = workspace.first_tokens.get();
        input.float_stride = config_.hidden;
        gemm(
            head_.dense, input, count,
            team, [&](int64_t row, int64_t column, f32x16 values, int lanes) __attribute__((always_inline)) {
                store_partial(pooled + row * head_.dense.out + column, activate(head_.activation, values), lanes);
            });
        team.barrier();
        if (head_.norm.is_present()) {
            const auto [first, last] = team.range(count);
            for (int64_t row = first; row < last; ++row)
                head_.norm.apply(pooled + row * head_.dense.out, pooled + row * head_.dense.out);
            team.barrier();
        }
        input.floats = pooled;
        input.float_stride = head_.dense.out;
        gemm(
            head_.classifier, input, count,
            team, [&](int64_t row, int64_t column, f32x16 values, int lanes) __attribute__((always_inline)) {
                store_partial(outputs + row * head_.classifier.out + column, values, lanes);
            });
    }

   private:
    static constexpr int64_t kBlock = 16;  // sequences whose projected queries and weighted sums are in memory at a time

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

    // Calls each(first sequence, block) for consecutive blocks of at most `kBlock` sequences. Where the probe keeps rows of
    // its own, a block has at most `kChunkTokens` tokens per thread, or one sequence.
    template <class Each>
    void for_each_block(const Sequences& sequences, int64_t threads, Each each) const {
        for (int64_t first = 0; first < sequences.count;) {
            Sequences block = sequences.slice(first, std::min(kBlock, sequences.count - first));
            while (reads_own_rows_ && block.count > 1 && visible_tokens(block) > kChunkTokens * threads) --block.count;
            each(first, block);
            first += block.count;
        }
    }

    // Writes the mean of the states of each sequence after the layer and the norm to `workspace.first_tokens`.
    void pool_means(const float* const* starts, const Sequences& sequences, Workspace& workspace, const Team& team) const {
        const int64_t hidden = config_.hidden;
        int64_t next = 0;
        for_each_chunk(sequences, team.size, [&](const Sequences& chunk) {
            float* states = workspace.probe_states.get();
            const auto [first, last] = team.range(chunk.count);
            const auto start_of = [&](int64_t i) { return states + (chunk.starts[i] - chunk.starts[0]) * hidden; };
            for (int64_t i = first; i < last; ++i) std::copy_n(starts[next + i], chunk.lengths[i] * hidden, start_of(i));
            team.barrier();
            Encoder::run_layer(config_, positions_, layer_, states, chunk, workspace, team);
            team.barrier();
            for (int64_t i = first; i < last; ++i) {
                float* mean = workspace.first_tokens.get() + (next + i) * hidden;
                std::fill_n(mean, hidden, 0.0f);
                for (int64_t token = 0; token < chunk.lengths[i]; ++token) {
                    float* state = start_of(i) + token * hidden;
                    if (norm_.is_present()) norm_.apply(state, state);
                    for (int64_t column = 0; column < hidden; ++column) mean[column] += state[column];
                }
                const float inverse_length = 1.0f / static_cast<float>(chunk.lengths[i]);
                for (int64_t column = 0; column < hidden; ++column) mean[column] *= inverse_length;
            }
            team.barrier();
            next += chunk.count;
        });
    }

    // Writes the first token's state of each sequence after the layer and the norm to `workspace.first_tokens`. No barrier at
    // the end.
    void run_first_tokens(const float* const* starts, const Sequences& sequences, Workspace& workspace,
                          const Team& team) const {
        const int64_t rows = sequences.count, hidden = config_.hidden;
        float *states = workspace.first_tokens.get(), *queries = workspace.qkv.get(), *inputs = states;
        if (normalizes_input_) inputs = workspace.attended.get();
        const auto [first, last] = team.range(rows);
        for (int64_t row = first; row < last; ++row) {
            std::copy_n(starts[row], hidden, states + row * hidden);
            if (normalizes_input_) layer_.attention_norm.apply(starts[row], inputs + row * hidden);
            workspace.projection_inputs[0].quantize_row(layer_.projections[0], row, inputs + row * hidden);
        }
        team.barrier();
        const PackedLinear& projection = layer_.projections[0];
        const int64_t panel = projection.panel_columns(), panels = round_up(hidden, panel) / panel, stride = panels * panel;
        const auto [first_panel, last_panel] = team.range(panels);
        gemm(
            projection, workspace.projection_inputs[0].rows(projection, inputs), static_cast<int>(rows),
            Panels{first_panel, last_panel},
            [&](int64_t row, int64_t column, f32x16 values, int)
                __attribute__((always_inline)) { store(queries + row * stride + column, values); });
        team.barrier();
        for_each_block(sequences, team.size, [&](int64_t start, const Sequences& block) {
            if (reads_own_rows_) write_own_rows(starts + start, block, workspace, team);
            first_token_attention(queries + start * stride, stride, start, starts + start, block, workspace, team);
            if (reads_own_rows_) team.barrier();
        });
        if (layer_.convolution) convolve(starts, sequences, workspace, team);
        feed_forward(layer_, config_.activation, states, rows, workspace, team);
        if (layer_.convolution) workspace.convolution.add(*layer_.convolution, states, rows, team);
        if (!norm_.is_present()) return;
        for (int64_t row = first; row < last; ++row) norm_.apply(states + row * hidden, states + row * hidden);
    }

    // Reserves the memory of `write_own_rows`.
    void reserve_own_rows(const Sequences& sequences, int64_t threads, Workspace& workspace) const {
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
    void write_own_rows(const float* const* starts, const Sequences& sequences, Workspace& workspace,
                        const Team& team) const {
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

    // Attention of the first token of each sequence, for this thread's heads, without computing keys and values: the query is
    // projected through the key weights, (W_kᵀ q) · x_j = q · (W_k x_j), and the value weights are applied to the weighted
    // sum of the states. The key bias adds the same to all scores and cancels in the softmax; the attention weights sum to
    // one, so the value bias is added once.
    //
    // Keys that are rotated are computed: the rotation is between the query and the key weights.
    void first_token_attention(float* queries, int64_t query_stride, int64_t first_row, const float* const* starts,
                               const Sequences& sequences, Workspace& workspace, const Team& team) const {
        const int size = static_cast<int>(config_.head_size()), hidden = static_cast<int>(config_.hidden);
        const int count = static_cast<int>(sequences.count);
        const int64_t wide = round_up(hidden, kLanes);
        const ThreadScratch& scratch = workspace.threads[static_cast<size_t>(team.index)];
        const auto [first_head, last_head] = team.range(config_.num_heads);
        const int heads = static_cast<int>(last_head - first_head);
        const int64_t sequence_stride = heads * wide;
        float* scores = scratch.attention.scores.get();
        for (int head = 0; head < heads && !layer_.rotary; ++head) {
            project_queries(first_head + head, queries, query_stride, count, scratch.projected_query.get() + head * wide,
                            sequence_stride, scratch);
        }
        int64_t token = 0;  // of the rows of `write_own_rows`
        const int64_t position_stride = round_up(sequences.max_length(), kLanes);
        const float* position_scores = scratch.position_scores.get();
        if (layer_.relative) add_position_scores(queries, query_stride, starts, sequences, first_head, last_head, scratch);
        for (int64_t i = 0; i < count; ++i) {
            const int length = static_cast<int>(visible_tokens(sequences, i));
            const int64_t padded = round_up(length, kLanes);
            float* projected_query = scratch.projected_query.get() + i * sequence_stride;
            const float* rows = reads_own_rows_ ? workspace.probe_states.get() + token * hidden : starts[i];
            if (layer_.rotary) {
                score_rotated(first_head, heads, queries + i * query_stride, token, length, sequences.positions_of(i), scores,
                              workspace);
            } else {
                gemm_transposed(projected_query, wide, heads, rows, hidden, length, hidden, scores, padded);
            }
            token += length;
            for (int head = 0; head < heads; ++head) {
                if (layer_.relative) {
                    const float* from = position_scores + (i * heads + head) * position_stride;
                    for (int64_t token = 0; token < length; ++token) scores[head * padded + token] += from[token];
                }
                const float inverse_total = 1.0f / softmax_numerators(scores + head * padded, length, config_.scale);
                for (int64_t place = 0; place < length; ++place) scores[head * padded + place] *= inverse_total;
            }
            // The weighted sums of states replace the projected queries.
            gemm_dense<Float32>(scores, padded, heads, rows, hidden, hidden, length, projected_query, wide);
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

    // Computes the relative-position terms of the scores: `position_scores` (sequences, heads, maximum length).
    void add_position_scores(const float* queries, int64_t query_stride, const float* const* starts,
                             const Sequences& sequences, int64_t first_head, int64_t last_head,
                             const ThreadScratch& scratch) const {
        const int64_t stride = round_up(sequences.max_length(), kLanes), heads = last_head - first_head;
        float* const scores = scratch.position_scores.get();
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

    // Distance of the first token from another.
    static int64_t distance_of(int64_t token, const int64_t* positions) {
        return positions == nullptr ? -token : positions[0] - positions[token];
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

    void convolve(const float* const* starts, const Sequences& sequences, Workspace& workspace, const Team& team) const {
        const auto [first, last] = team.range(sequences.count);
        for (int64_t i = first; i < last; ++i) {
            workspace.convolution.write_window(*layer_.convolution, i, starts[i], 0, sequences.lengths[i],
                                               sequences.positions_of(i));
        }
        workspace.convolution.multiply(*layer_.convolution, sequences.count, team);
    }

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
    const LayerNorm& norm_;
    const Head& head_;
    bool normalizes_input_;
    bool reads_own_rows_;  // the attention reads rows and keys that the probe has computed, see `write_own_rows`
};
