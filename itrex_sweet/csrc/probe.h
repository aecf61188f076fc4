// The probe of an exit: one layer, for the first token only unless the head reads the mean of all, then the head.
#pragma once

#include <algorithm>
#include <cstdint>

#include "encoder.h"
#include "feed_forward.h"
#include "first_token_attention.h"
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
          attention_(config, positions, layer) {}

    // Sequences per team, at least.
    int64_t min_sequences() const { return head_.is_mean_pooled ? 1 : 4; }

    // Multiply-accumulates of the probe.
    int64_t macs(const Sequences& sequences) const {
        const int64_t of_heads = sequences.count * (head_.dense.macs() + head_.classifier.macs());
        if (head_.is_mean_pooled) return of_heads + Encoder::layer_macs(config_, layer_, sequences);
        int64_t tokens = 0;
        for (int64_t i = 0; i < sequences.count; ++i) tokens += attention_.rows().visible_tokens(sequences, i);
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
        workspace.projection_inputs[0].reserve(layer_.projections[0], rows, false);
        reserve_feed_forward(layer_, rows, workspace);
        attention_.reserve(sequences, threads, workspace);
        if (layer_.convolution) workspace.convolution.reserve(*layer_.convolution, rows);
    }

    // Returns the query that the first tokens of all sequences share, or null if they have several or it is not known yet.
    const SharedQuery* find_shared_query(const float* const* starts, const Sequences& sequences, SharedQuery& shared,
                                         Workspace& workspace) const {
        if (head_.is_mean_pooled || layer_.keys == nullptr) return nullptr;
        const auto compute = [&] {
            reserve(sequences.slice(0, 1), 1, workspace);
            float* query = shared.query.reserve(query_stride());
            float* projected = shared.projected.reserve(config_.num_heads * round_up(config_.hidden, kLanes));
            Barrier barrier;
            write_queries(starts, 1, workspace, Team{0, 1, &barrier, nullptr});
            std::copy_n(workspace.qkv.get(), query_stride(), query);
            attention_.project(query, projected, workspace.threads.front());
        };
        return shared.find(starts, sequences.count, config_.hidden, compute) ? &shared : nullptr;
    }

    // Writes the outputs of the head (sequences, outputs). `starts`: the states of each sequence before the layer. `shared`:
    // a result of `find_shared_query`.
    void run(const float* const* starts, const Sequences& sequences, const SharedQuery* shared, float* outputs,
             Workspace& workspace, const Team& team) const {
        if (head_.is_mean_pooled) {
            pool_means(starts, sequences, workspace, team);
        } else {
            run_first_tokens(starts, sequences, shared, workspace, team);
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
    void run_first_tokens(const float* const* starts, const Sequences& sequences, const SharedQuery* shared,
                          Workspace& workspace, const Team& team) const {
        const FirstTokenRows& rows_of = attention_.rows();
        const int64_t rows = sequences.count, hidden = config_.hidden, stride = shared == nullptr ? query_stride() : 0;
        float *states = workspace.first_tokens.get(), *queries = workspace.qkv.get();
        const auto [first, last] = team.range(rows);
        for (int64_t row = first; row < last; ++row) std::copy_n(starts[row], hidden, states + row * hidden);
        if (shared == nullptr) {
            write_queries(starts, rows, workspace, team);
        } else {
            queries = shared->query.get();
        }
        rows_of.for_each_block(sequences, team.size, [&](int64_t start, const Sequences& block) {
            if (rows_of.are_copied()) rows_of.write(starts + start, block, workspace, team);
            attention_.run(queries + start * stride, stride, shared, start, starts + start, block, workspace, team);
            if (rows_of.are_copied()) team.barrier();
        });
        if (layer_.convolution) convolve(starts, sequences, workspace, team);
        feed_forward(layer_, config_.activation, states, rows, workspace, team);
        if (layer_.convolution) workspace.convolution.add(*layer_.convolution, states, rows, team);
        if (!norm_.is_present()) return;
        for (int64_t row = first; row < last; ++row) norm_.apply(states + row * hidden, states + row * hidden);
    }

    // Writes the queries of the first tokens to `workspace.qkv`; all threads of the team have finished at return.
    void write_queries(const float* const* starts, int64_t rows, Workspace& workspace, const Team& team) const {
        const int64_t hidden = config_.hidden, stride = query_stride();
        const PackedLinear& projection = layer_.projections[0];
        const LinearInput& input = workspace.projection_inputs[0];
        float *queries = workspace.qkv.get(), *inputs = workspace.attended.get();
        const auto [first, last] = team.range(rows);
        for (int64_t row = first; row < last; ++row) {
            float* to = inputs + row * hidden;
            if (attention_.rows().normalizes_input()) {
                layer_.attention_norm.apply(starts[row], to);
            } else {
                std::copy_n(starts[row], hidden, to);
            }
            input.quantize_row(projection, row, to);
        }
        team.barrier();
        const auto [first_panel, last_panel] = team.range(stride / projection.panel_columns());
        gemm(
            projection, input.rows(projection, inputs), static_cast<int>(rows), Panels{first_panel, last_panel},
            [&](int64_t row, int64_t column, f32x16 values, int)
                __attribute__((always_inline)) { store(queries + row * stride + column, values); });
        team.barrier();
    }
    int64_t query_stride() const { return round_up(config_.hidden, layer_.projections[0].panel_columns()); }

    void convolve(const float* const* starts, const Sequences& sequences, Workspace& workspace, const Team& team) const {
        const auto [first, last] = team.range(sequences.count);
        for (int64_t i = first; i < last; ++i) {
            workspace.convolution.write_window(*layer_.convolution, i, starts[i], 0, sequences.lengths[i],
                                               sequences.positions_of(i));
        }
        workspace.convolution.multiply(*layer_.convolution, sequences.count, team);
    }

    const EncoderConfig& config_;
    const RelativePositions& positions_;
    const Layer& layer_;
    const LayerNorm& norm_;
    const Head& head_;
    FirstTokenAttention attention_;
};
