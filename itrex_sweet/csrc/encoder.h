// Encoder layers run in full, for every token.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "attention.h"
#include "blocked_attention.h"
#include "feed_forward.h"
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
        return positions_.bias().is_present() || std::any_of(layers_.begin(), layers_.end(), [](const Layer& layer) {
            return layer.relative || layer.convolution || layer.rotary || layer.window > 0;
        });
    }
    const Layer& layer(int32_t index) const { return layers_[static_cast<size_t>(index)]; }

    int64_t bytes() const {
        int64_t total = positions_.bytes();
        for (const Layer& layer : layers_) total += layer.bytes();
        return total;
    }

    // Multiply-accumulates of layers [first, last).
    int64_t macs(const Sequences& sequences, int first, int last) const {
        int64_t total = 0;
        for (int index = first; index < last; ++index) total += layer_macs(config_, layer(index), sequences);
        return total;
    }

    // Reserves the memory of `run`. Called before threads run, where an allocation may fail.
    void reserve(const Sequences& sequences, int64_t threads, int first, int last, Workspace& workspace) const {
        for (int index = first; index < last; ++index) reserve_layer(config_, layer(index), sequences, threads, workspace);
    }

    // Runs layers [first, last) in place on packed states; all threads of the team have finished at return.
    void run(int first, int last, float* states, const Sequences& sequences, Workspace& workspace, const Team& team) const {
        for (int index = first; index < last; ++index) {
            for_each_chunk(sequences, team.size, [&](const Sequences& chunk) {
                float* chunk_states = states + (chunk.starts[0] - sequences.starts[0]) * config_.hidden;
                run_layer(config_, positions_, layer(index), chunk_states, chunk, workspace, team);
            });
        }
        team.barrier();
    }

    // Multiply-accumulates of one layer.
    static int64_t layer_macs(const EncoderConfig& config, const Layer& layer, const Sequences& sequences) {
        int64_t pairs = 0;
        for (int64_t i = 0; i < sequences.count; ++i)
            pairs += sequences.lengths[i] * layer.attended_tokens(sequences.lengths[i]);
        const int64_t products = layer.relative ? 4 : 2;  // per pair of tokens
        return sequences.tokens() * layer.macs() + products * pairs * config.hidden;
    }

    // Reserves the memory of `run_layer` for every chunk of the sequences.
    static void reserve_layer(const EncoderConfig& config, const Layer& layer, const Sequences& sequences, int64_t threads,
                              Workspace& workspace) {
        int64_t max_tokens = 0;
        const int64_t max_length = sequences.max_length();
        for_each_chunk(sequences, threads,
                       [&](const Sequences& chunk) { max_tokens = std::max(max_tokens, chunk.tokens()); });
        for (size_t part = 0; part < layer.projections.size(); ++part) {
            workspace.projection_inputs[part].reserve(layer.projections[part], max_tokens, false);
        }
        reserve_feed_forward(layer, max_tokens, workspace);
        workspace.qkv.reserve(max_tokens * 3 * config.hidden);
        for (int64_t thread = 0; thread < threads; ++thread) {
            ThreadScratch& scratch = workspace.threads[static_cast<size_t>(thread)];
            scratch.attention.reserve(max_length, config.head_size());
            if (layer.relative) scratch.disentangled.reserve(max_length, config.head_size());
        }
        if (layer.convolution) workspace.convolution.reserve(*layer.convolution, max_tokens);
    }

    // Runs one layer in place on one chunk. No barrier at the end, see `feed_forward`.
    static void run_layer(const EncoderConfig& config, const RelativePositions& positions, const Layer& layer, float* states,
                          const Sequences& sequences, Workspace& workspace, const Team& team) {
        const int64_t hidden = config.hidden, tokens = sequences.tokens(), stride = 3 * hidden;
        const auto [first, last] = team.range(tokens);
        const float* inputs = states;
        if (layer.norm_first && layer.attention_norm.is_present()) {
            float* normalized = workspace.attended.get();
            for (int64_t token = first; token < last; ++token)
                layer.attention_norm.apply(states + token * hidden, normalized + token * hidden);
            inputs = normalized;
        }
        for (size_t part = 0; part < layer.projections.size(); ++part) {
            for (int64_t token = first; token < last; ++token) {
                workspace.projection_inputs[part].quantize_row(layer.projections[part], token, inputs + token * hidden);
            }
        }
        team.barrier();
        float* qkv = workspace.qkv.get();
        for (size_t part = 0; part < layer.projections.size(); ++part) {
            float* to = qkv + layer.column_offsets[part];
            const PackedLinear& projection = layer.projections[part];
            gemm(
                projection, workspace.projection_inputs[part].rows(projection, inputs), static_cast<int>(tokens), team,
                [=](int64_t row, int64_t column, f32x16 values, int lanes)
                    __attribute__((always_inline)) { store_partial(to + row * stride + column, values, lanes); },
                [=](int64_t row, int64_t column) {
                    for (int64_t line = 0; line < kPanel; line += kLanes) prefetch_line(to + row * stride + column + line);
                });
        }
        team.barrier();
        self_attention(config, positions, layer, qkv, sequences, workspace, team);
        if (layer.convolution) convolve(*layer.convolution, states, sequences, workspace, team);
        feed_forward(layer, config.activation, states, tokens, workspace, team);
        if (layer.convolution) workspace.convolution.add(*layer.convolution, states, tokens, team);
    }

    // Computes the convolution of the layer's input, before it is replaced by the output.
    static void convolve(const Convolution& convolution, const float* states, const Sequences& sequences,
                         Workspace& workspace, const Team& team) {
        const int64_t hidden = convolution.linear.out;
        for (int64_t i = 0; i < sequences.count; ++i) {
            const int64_t start = sequences.starts[i] - sequences.starts[0], length = sequences.lengths[i];
            const auto [first, last] = team.range(length);
            for (int64_t token = first; token < last; ++token) {
                workspace.convolution.write_window(convolution, start + token, states + start * hidden, token, length,
                                                   sequences.positions_of(i));
            }
        }
        workspace.convolution.multiply(convolution, sequences.tokens(), team);
    }

   private:
    // Computes every `team.size`-th pair of a sequence and a head.
    static void self_attention(const EncoderConfig& config, const RelativePositions& relative_positions, const Layer& layer,
                               float* qkv, const Sequences& sequences, Workspace& workspace, const Team& team) {
        const int64_t hidden = config.hidden, stride = 3 * hidden;
        const int size = static_cast<int>(config.head_size());
        const ThreadScratch& scratch = workspace.threads[static_cast<size_t>(team.index)];
        const LinearInput::Writer write = workspace.attention_output_input.writer(layer.attention_output);
        const bool is_integer = layer.attention_output.is_integer;
        int64_t turn = 0;
        for (int64_t i = 0; i < sequences.count; ++i) {
            const int64_t start = sequences.starts[i] - sequences.starts[0];
            for (int head = 0; head < config.num_heads; ++head, ++turn) {
                if (turn % team.size != team.index) continue;
                float* query = qkv + start * stride + head * size;
                const auto write_head = [=](int64_t row, int64_t column, f32x16 values, int lanes)
                    __attribute__((always_inline)) {
                    write(start + row, head * size + column, values, lanes);
                };
                const int length = static_cast<int>(sequences.lengths[i]);
                const bool use_int16 = is_integer && length >= kInt16MinLength;
                const int64_t* positions = sequences.positions_of(i);
                float *key = query + hidden, *value = query + 2 * hidden;
                if (layer.rotary) {
                    for (int64_t token = 0; token < length; ++token) {
                        const int64_t position = positions == nullptr ? token : positions[token];
                        layer.rotary->rotate(query + token * stride, position);
                        layer.rotary->rotate(key + token * stride, position);
                    }
                }
                if (layer.relative) {
                    const DisentangledScores scores(relative_positions, *layer.relative, head, length, size, positions,
                                                    scratch.disentangled);
                    attention(use_int16 && positions == nullptr, query, key, value, stride, length, size, config.scale,
                              scratch.attention, write_head, scores);
                } else if (relative_positions.bias().is_present()) {
                    const BiasedScores scores(relative_positions.bias(), head, length, positions);
                    attention(use_int16, query, key, value, stride, length, size, config.scale, scratch.attention, write_head,
                              scores);
                } else if (needs_blocks(length, layer.window, positions)) {
                    blocked_attention(use_int16, query, key, value, stride, length, size, config.scale, layer.window,
                                      positions, scratch.attention, write_head);
                } else {
                    attention(use_int16, query, key, value, stride, length, size, config.scale, scratch.attention,
                              write_head);
                }
            }
        }
    }

    EncoderConfig config_;
    RelativePositions positions_;
    std::vector<Layer> layers_;  // those that are run in full, then those that are used by probes only
};
