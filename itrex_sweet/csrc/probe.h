// The probe of an exit: one layer, for the first token only unless the head pools all tokens, then the head.
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
    Norm norm;
    int32_t activation, pooling;

    explicit Head(const sweet_head& head)
        : dense(head.dense),
          classifier(head.classifier),
          norm(head.norm),
          activation(head.activation),
          pooling(head.pooling) {}

    bool pools_all_tokens() const { return pooling != SWEET_FIRST; }
    int64_t bytes() const { return dense.bytes() + classifier.bytes() + norm.bytes(); }
};

class Probe {
   public:
    // `norm`: of the states between the layer and the head; may be absent.
    Probe(const EncoderConfig& config, const RelativePositions& positions, const Layer& layer, const Norm& norm,
          const Head& head)
        : config_(config),
          positions_(positions),
          layer_(layer),
          norm_(norm),
          head_(head),
          attention_(config, positions, layer) {}

    // Sequences per team, at least.
    int64_t min_sequences() const { return head_.pools_all_tokens() ? 1 : 4; }

    // Multiply-accumulates of the probe.
    int64_t macs(const Sequences& sequences) const {
        const int64_t transformed = head_.pooling == SWEET_LATE ? sequences.tokens() : sequences.count;
        const int64_t of_heads = transformed * head_.dense.macs() + sequences.count * head_.classifier.macs();
        if (head_.pools_all_tokens()) return of_heads + Encoder::layer_macs(config_, layer_, sequences);
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
        workspace.first_tokens.reserve(rows * std::max<int64_t>(hidden, head_.dense.out));
        workspace.qkv.reserve(rows * std::max<int64_t>(round_up(hidden, kMaxPanel), head_.dense.out));
        if (head_.pools_all_tokens()) {
            int64_t max_tokens = 0;
            for_each_chunk(sequences, threads,
                           [&](const Sequences& chunk) { max_tokens = std::max(max_tokens, chunk.tokens()); });
            workspace.probe_states.reserve(max_tokens * hidden);
            if (head_.pooling == SWEET_LATE) workspace.qkv.reserve(max_tokens * head_.dense.out);
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
        if (head_.pools_all_tokens() || layer_.keys == nullptr) return nullptr;
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
        if (head_.pools_all_tokens()) {
            pool_means(starts, sequences, workspace, team);
        } else {
            run_first_tokens(starts, sequences, shared, workspace, team);
        }
        team.barrier();
        InputRows input;
        input.floats = workspace.first_tokens.get();
        input.float_stride = head_.dense.out;
        if (head_.pooling != SWEET_LATE) {
            float* pooled = workspace.qkv.get();
            transform(workspace.first_tokens.get(), sequences.count, pooled, team);
            input.floats = pooled;
        }
        gemm(
            head_.classifier, input, static_cast<int>(sequences.count),
            team, [&](int64_t row, int64_t column, f32x16 values, int lanes) __attribute__((always_inline)) {
                store_partial(outputs + row * head_.classifier.out + column, values, lanes);
            });
    }

   private:
    // Computes the inputs of the classifier (rows, outputs of `dense`) from states (rows, hidden); all threads of the team have
    // finished at return.
    void transform(const float* states, int64_t rows, float* outputs, const Team& team) const {
        const int64_t stride = head_.dense.out;
        InputRows input;
        input.floats = states;
        input.float_stride = config_.hidden;
        gemm(
            head_.dense, input, static_cast<int>(rows),
            team, [&](int64_t row, int64_t column, f32x16 values, int lanes) __attribute__((always_inline)) {
                store_partial(outputs + row * stride + column, activate(head_.activation, values), lanes);
            });
        team.barrier();
        if (!head_.norm.is_present()) return;
        const auto [first, last] = team.range(rows);
        for (int64_t row = first; row < last; ++row) head_.norm.apply(outputs + row * stride, outputs + row * stride);
        team.barrier();
    }

    // Writes the means that the head reads to `workspace.first_tokens`: of the states of each sequence after the layer and the
    // norm, or of what the classifier reads.
    void pool_means(const float* const* starts, const Sequences& sequences, Workspace& workspace, const Team& team) const {
        const int64_t hidden = config_.hidden;
        const bool is_late = head_.pooling == SWEET_LATE;
        int64_t next = 0;
        for_each_chunk(sequences, team.size, [&](const Sequences& chunk) {
            float* states = workspace.probe_states.get();
            const auto [first, last] = team.range(chunk.count);
            const auto start_of = [&](int64_t i) { return states + (chunk.starts[i] - chunk.starts[0]) * hidden; };
            for (int64_t i = first; i < last; ++i) std::copy_n(starts[next + i], chunk.lengths[i] * hidden, start_of(i));
            team.barrier();
            Encoder::run_layer(config_, positions_, layer_, states, chunk, workspace, team);
            team.barrier();
            if (norm_.is_present()) {
                const auto [first_token, last_token] = team.range(chunk.tokens());
                for (int64_t token = first_token; token < last_token; ++token)
                    norm_.apply(states + token * hidden, states + token * hidden);
                team.barrier();
            }
            const float* pooled = states;
            if (is_late) {
                transform(states, chunk.tokens(), workspace.qkv.get(), team);
                pooled = workspace.qkv.get();
            }
            const int64_t size = is_late ? head_.dense.out : hidden;
            for (int64_t i = first; i < last; ++i) {
                const float* of_sequence = pooled + (chunk.starts[i] - chunk.starts[0]) * size;
                write_mean(of_sequence, chunk.lengths[i], size, workspace.first_tokens.get() + (next + i) * size);
            }
            team.barrier();
            next += chunk.count;
        });
    }

    static void write_mean(const float* rows, int64_t count, int64_t size, float* mean) {
        std::fill_n(mean, size, 0.0f);
        for (int64_t row = 0; row < count; ++row)
            for (int64_t column = 0; column < size; ++column) mean[column] += rows[row * size + column];
        const float inverse = 1.0f / static_cast<float>(count);
        for (int64_t column = 0; column < size; ++column) mean[column] *= inverse;
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
    const Norm& norm_;
    const Head& head_;
    FirstTokenAttention attention_;
};
