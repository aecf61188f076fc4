// Encoder layers run in full, for every token.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "attention.h"
#include "gemm.h"
#include "layers.h"
#include "relative_positions.h"
#include "sequences.h"
#include "threads.h"

// Dimensions that all layers share.
struct EncoderConfig {
    int32_t num_heads;
    int32_t activation;
    float scale;  // of the attention scores
    int64_t hidden;

    int64_t head_size() const { return hidden / num_heads; }
};

// Sequences run through a layer in chunks, so that the intermediate results stay in the L2 cache.
constexpr int64_t kChunkTokens = 128;

// Calls each(chunk) for consecutive sequences of together at most `kChunkTokens` tokens per thread, at least one sequence.
template <class Each>
void for_each_chunk(const Sequences& sequences, int64_t threads, Each each) {
    for (int64_t first = 0; first < sequences.count;) {
        Sequences chunk = sequences.slice(first, 1);
        while (first + chunk.count < sequences.count &&
               chunk.tokens() + chunk.lengths[chunk.count] <= kChunkTokens * threads) {
            ++chunk.count;
        }
        each(chunk);
        first += chunk.count;
    }
}

class Encoder {
   public:
    Encoder(const EncoderConfig& config, RelativePositions positions, std::vector<Layer> layers)
        : config_(config), positions_(std::move(positions)), layers_(std::move(layers)) {}

    const EncoderConfig& config() const { return config_; }
    const RelativePositions& positions() const { return positions_; }
    // True if the result depends on the positions of the tokens.
    bool uses_positions() const {
        return std::any_of(layers_.begin(), layers_.end(),
                           [](const Layer& layer) { return layer.relative || layer.convolution; });
    }
    const Layer& layer(int32_t index) const { return layers_[static_cast<size_t>(index)]; }

    int64_t bytes() const {
        int64_t total = positions_.bytes();
        for (const Layer& layer : layers_) total += layer.bytes();
        return total;
    }

    // Multiply-accumulates of layers [first, last).
    int64_t macs(const Sequences& sequences, int first, int last) const {
        int64_t per_token = 0, pairs = 0, products = 0;
        for (int index = first; index < last; ++index) {
            per_token += layer(index).macs();
            products += layer(index).relative ? 4 : 2;  // per pair of tokens
        }
        for (int64_t i = 0; i < sequences.count; ++i) pairs += sequences.lengths[i] * sequences.lengths[i];
        return sequences.tokens() * per_token + products * pairs * config_.hidden;
    }

    // Reserves the memory of `run`. Called before threads run, where an allocation may fail.
    void reserve(const Sequences& sequences, int64_t threads, int first, int last, Workspace& workspace) const {
        int64_t max_tokens = 0;
        const int64_t max_length = sequences.max_length();
        for_each_chunk(sequences, threads,
                       [&](const Sequences& chunk) { max_tokens = std::max(max_tokens, chunk.tokens()); });
        for (int index = first; index < last; ++index) {
            for (size_t part = 0; part < layer(index).projections.size(); ++part) {
                workspace.projection_inputs[part].reserve(layer(index).projections[part], max_tokens, false);
            }
            reserve_feed_forward(layer(index), max_tokens, workspace);
            workspace.qkv.reserve(max_tokens * 3 * config_.hidden);
            for (int64_t thread = 0; thread < threads; ++thread) {
                ThreadScratch& scratch = workspace.threads[static_cast<size_t>(thread)];
                scratch.attention.reserve(max_length, config_.head_size());
                if (layer(index).relative) scratch.disentangled.reserve(max_length, config_.head_size());
            }
            if (layer(index).convolution) workspace.convolution.reserve(*layer(index).convolution, max_tokens);
        }
    }

    // Runs layers [first, last) in place on packed states; all threads of the team have finished at return.
    void run(int first, int last, float* states, const Sequences& sequences, Workspace& workspace, const Team& team) const {
        for (int index = first; index < last; ++index) {
            for_each_chunk(sequences, team.size, [&](const Sequences& chunk) {
                float* chunk_states = states + (chunk.starts[0] - sequences.starts[0]) * config_.hidden;
                run_layer(layer(index), chunk_states, chunk, workspace, team);
            });
        }
        team.barrier();
    }

   private:
    void run_layer(const Layer& layer, float* states, const Sequences& sequences, Workspace& workspace,
                   const Team& team) const {
        const int64_t hidden = config_.hidden, tokens = sequences.tokens(), stride = 3 * hidden;
        const auto [first, last] = team.range(tokens);
        for (size_t part = 0; part < layer.projections.size(); ++part) {
            for (int64_t token = first; token < last; ++token) {
                workspace.projection_inputs[part].quantize_row(layer.projections[part], token, states + token * hidden);
            }
        }
        team.barrier();
        float* qkv = workspace.qkv.get();
        for (size_t part = 0; part < layer.projections.size(); ++part) {
            float* to = qkv + layer.column_offsets[part];
            const PackedLinear& projection = layer.projections[part];
            gemm(
                projection, workspace.projection_inputs[part].rows(projection, states), static_cast<int>(tokens), team,
                [=](int64_t row, int64_t column, f32x16 values, int lanes)
                    __attribute__((always_inline)) { store_partial(to + row * stride + column, values, lanes); },
                [=](int64_t row, int64_t column) {
                    for (int64_t line = 0; line < kPanel; line += kLanes) prefetch_line(to + row * stride + column + line);
                });
        }
        team.barrier();
        self_attention(layer, qkv, sequences, workspace, team);
        if (layer.convolution) convolve(*layer.convolution, states, sequences, workspace, team);
        feed_forward(layer, config_.activation, states, tokens, workspace, team);
        if (layer.convolution) workspace.convolution.add(*layer.convolution, states, tokens, team);
    }

    // Computes the convolution of the layer's input, before it is replaced by the output.
    void convolve(const Convolution& convolution, const float* states, const Sequences& sequences, Workspace& workspace,
                  const Team& team) const {
        for (int64_t i = 0; i < sequences.count; ++i) {
            const int64_t start = sequences.starts[i] - sequences.starts[0], length = sequences.lengths[i];
            const auto [first, last] = team.range(length);
            for (int64_t token = first; token < last; ++token) {
                workspace.convolution.write_window(convolution, start + token, states + start * config_.hidden, token, length,
                                                   sequences.positions_of(i));
            }
        }
        workspace.convolution.multiply(convolution, sequences.tokens(), team);
    }

    // Computes every `team.size`-th pair of a sequence and a head.
    void self_attention(const Layer& layer, const float* qkv, const Sequences& sequences, Workspace& workspace,
                        const Team& team) const {
        const int64_t hidden = config_.hidden, stride = 3 * hidden;
        const int size = static_cast<int>(config_.head_size());
        const ThreadScratch& scratch = workspace.threads[static_cast<size_t>(team.index)];
        const LinearInput::Writer write = workspace.attention_output_input.writer(layer.attention_output);
        const bool is_integer = layer.attention_output.is_integer;
        int64_t turn = 0;
        for (int64_t i = 0; i < sequences.count; ++i) {
            const int64_t start = sequences.starts[i] - sequences.starts[0];
            for (int head = 0; head < config_.num_heads; ++head, ++turn) {
                if (turn % team.size != team.index) continue;
                const float* query = qkv + start * stride + head * size;
                const auto write_head = [=](int64_t row, int64_t column, f32x16 values, int lanes)
                    __attribute__((always_inline)) {
                    write(start + row, head * size + column, values, lanes);
                };
                const int length = static_cast<int>(sequences.lengths[i]);
                const bool use_int16 = is_integer && length >= kInt16MinLength;
                if (!layer.relative) {
                    attention(use_int16, query, query + hidden, query + 2 * hidden, stride, length, size, config_.scale,
                              scratch.attention, write_head);
                    continue;
                }
                const int64_t* positions = sequences.positions_of(i);
                const DisentangledScores scores(positions_, *layer.relative, head, length, size, positions,
                                                scratch.disentangled);
                attention(use_int16 && positions == nullptr, query, query + hidden, query + 2 * hidden, stride, length, size,
                          config_.scale, scratch.attention, write_head, scores);
            }
        }
    }

    EncoderConfig config_;
    RelativePositions positions_;
    std::vector<Layer> layers_;  // those that are run in full, then those that are used by probes only
};
