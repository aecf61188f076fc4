// The parts of an encoder with packed weights, and the feed-forward part of a layer for a team of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "attention.h"
#include "buffer.h"
#include "convolution.h"
#include "disentangled.h"
#include "first_token_positions.h"
#include "gemm.h"
#include "layer_norm.h"
#include "linear_input.h"
#include "packed_linear.h"
#include "relative_positions.h"
#include "threads.h"
#include "vector.h"

// Key weights of a layer transposed for the probe: one layer (head size → hidden) per head.
struct TransposedKeyWeights {
    std::vector<PackedLinear> heads;
    Buffer<float> scale;      // (outputs of the key layer,), or empty
    Buffer<float> smoothing;  // (inputs of the key layer,), or empty

    TransposedKeyWeights(const sweet_linear& key, int num_heads) {
        const int size = key.out / num_heads;
        const bool is_integer = key.weight_scale.values != nullptr;
        if (is_integer) std::copy_n(key.weight_scale.values, key.out, scale.reserve(key.out));
        if (key.smoothing.values != nullptr) std::copy_n(key.smoothing.values, key.in, smoothing.reserve(key.in));
        const std::vector<float> ones(static_cast<size_t>(key.in), 1.0f);
        const auto pack = [&](auto* weights) {
            std::vector<std::remove_const_t<std::remove_pointer_t<decltype(weights)>>> transposed(
                static_cast<size_t>(int64_t{key.in} * size));
            for (int head = 0; head < num_heads; ++head, weights += int64_t{size} * key.in) {
                for (int64_t input = 0; input < key.in; ++input) {
                    for (int64_t output = 0; output < size; ++output) {
                        transposed[static_cast<size_t>(input * size + output)] = weights[output * key.in + input];
                    }
                }
                sweet_linear layer{};
                layer.weight = transposed.data();
                layer.weight_size = static_cast<int64_t>(transposed.size());
                if (is_integer) layer.weight_scale = {ones.data(), key.in};
                layer.in = size;
                layer.out = key.in;
                layer.is_bfloat16 = key.is_bfloat16;
                heads.emplace_back(layer);
            }
        };
        is_integer ? pack(static_cast<const int8_t*>(key.weight)) : pack(static_cast<const float*>(key.weight));
    }

    int64_t bytes() const {
        int64_t total = scale.bytes() + smoothing.bytes();
        for (const PackedLinear& head : heads) total += head.bytes();
        return total;
    }
};

// Returns true if two layers convert a common input to the same values.
inline bool have_same_input_quantization(const sweet_linear& a, const sweet_linear& b) {
    if ((a.weight_scale.values == nullptr) != (b.weight_scale.values == nullptr)) return false;
    if (a.weight_scale.values == nullptr) return a.is_bfloat16 == b.is_bfloat16;
    if (a.is_static != b.is_static) return false;
    if (a.is_static != 0 && (a.input_scale != b.input_scale || a.input_zero_point != b.input_zero_point)) return false;
    if (a.smoothing.size != b.smoothing.size) return false;
    return std::equal(a.smoothing.values, a.smoothing.values + a.smoothing.size, b.smoothing.values);
}

struct Layer {
    // Query, key and value, fused where they share the quantized input. Without the key if the layer is used by probes only.
    std::vector<PackedLinear> projections;
    std::vector<int64_t> column_offsets;  // first column of each projection in a row of queries, keys and values
    PackedLinear attention_output, up, down;
    LayerNorm attention_norm, output_norm;
    std::unique_ptr<TransposedKeyWeights> keys;  // if the layer is used by a probe
    std::unique_ptr<DisentangledTerms> relative;
    std::unique_ptr<FirstTokenPositions> first_token_positions;  // if the layer is used by a probe
    std::unique_ptr<Convolution> convolution;

    Layer(const sweet_layer& from, const RelativePositions& positions, int num_heads, bool is_probed, bool is_run_in_full)
        : attention_output(from.attention_output),
          up(from.up),
          down(from.down),
          attention_norm(from.attention_norm),
          output_norm(from.output_norm) {
        std::vector<sweet_linear> parts{from.query, from.key, from.value};
        if (!is_run_in_full) parts.erase(parts.begin() + 1);
        int64_t column = 0;
        for (size_t first = 0; first < parts.size();) {
            size_t last = first + 1;
            while (last < parts.size() && have_same_input_quantization(parts[first], parts[last])) ++last;
            projections.emplace_back(parts.data() + first, static_cast<int>(last - first));
            column_offsets.push_back(column);
            column += projections.back().out;
            first = last;
        }
        if (is_probed) keys = std::make_unique<TransposedKeyWeights>(from.key, num_heads);
        if (is_present(from.convolution)) convolution = std::make_unique<Convolution>(from);
        if (from.relative_key.size == 0 && from.relative_query.size == 0) return;
        relative = std::make_unique<DisentangledTerms>(from, positions, num_heads, from.query.out / num_heads);
        if (is_probed && from.relative_query.size > 0)
            first_token_positions = std::make_unique<FirstTokenPositions>(from, positions, num_heads);
    }

    // Multiply-accumulates per token, without the attention scores and context.
    int64_t macs() const {
        int64_t total = attention_output.macs() + up.macs() + down.macs() + (convolution ? convolution->linear.macs() : 0);
        for (const PackedLinear& projection : projections) total += projection.macs();
        return total;
    }

    int64_t bytes() const {
        int64_t total = attention_output.bytes() + up.bytes() + down.bytes() + attention_norm.bytes() + output_norm.bytes() +
                        (keys ? keys->bytes() : 0) + (relative ? relative->bytes() : 0) +
                        (first_token_positions ? first_token_positions->bytes() : 0) +
                        (convolution ? convolution->bytes() : 0);
        for (const PackedLinear& projection : projections) total += projection.bytes();
        return total;
    }
};

// Memory of one thread.
struct ThreadScratch {
    AttentionScratch attention;
    Buffer<float> projected_query, context;            // of a probe
    Buffer<float> position_scores, position_products;  // of a probe
    DisentangledScratch disentangled;
    Int16Input int16_input;
    LinearInput float_input;

    int64_t bytes() const {
        return attention.bytes() + projected_query.bytes() + context.bytes() + position_scores.bytes() +
               position_products.bytes() + disentangled.bytes() + int16_input.bytes() + float_input.bytes();
    }
};

// Memory of a team. One workspace serves all layers and grows to the largest chunk of sequences.
struct Workspace {
    LinearInput projection_inputs[3], attention_output_input, up_input, down_input;
    Buffer<float> qkv;           // queries, keys and values; of a probe: queries, then pooled states
    Buffer<float> attended;      // output of the attention part of a layer
    Buffer<float> first_tokens;  // states of the first tokens; in `embed`: sums of embeddings before a projection
    ConvolutionScratch convolution;
    std::vector<ThreadScratch> threads;

    int64_t bytes() const {
        int64_t total = convolution.bytes() + attention_output_input.bytes() + up_input.bytes() + down_input.bytes() +
                        qkv.bytes() + attended.bytes() + first_tokens.bytes();
        for (const LinearInput& input : projection_inputs) total += input.bytes();
        for (const ThreadScratch& thread : threads) total += thread.bytes();
        return total;
    }
};

// Waits until the team has written the input of `layer`, and quantizes what needs whole rows.
inline void finish_input(const PackedLinear& layer, const LinearInput& input, int64_t rows, const Team& team) {
    team.barrier();
    if (!layer.is_integer || layer.quantizes_elementwise()) return;
    const auto [first, last] = team.range(rows);
    for (int64_t row = first; row < last; ++row) input.quantize_row(layer, row, input.floats() + row * layer.in);
    team.barrier();
}

// Runs a layer from after the attention. `attention_output_input` holds the context; `states` are the layer's input and are
// replaced by its output. No barrier at the end: a thread may read only its own range of rows.
inline void feed_forward(const Layer& layer, int32_t activation, float* states, int64_t rows, Workspace& workspace,
                         const Team& team) {
    const int hidden = layer.output_norm.size, count = static_cast<int>(rows);
    float* attended = workspace.attended.get();
    const auto [first, last] = team.range(rows);
    // to = from + linear(input).
    const auto add_linear = [&](const PackedLinear& linear, const LinearInput& input, const float* from, float* to) {
        gemm(
            linear, input.rows(linear), count, team,
            [=](int64_t row, int64_t column, f32x16 values, int lanes) __attribute__((always_inline)) {
                const int64_t offset = row * hidden + column;
                store_partial(to + offset, values + load_partial(from + offset, lanes), lanes);
            },
            [=](int64_t row, int64_t column) {
                for (int64_t offset = row * hidden + column, line = 0; line < kPanel; line += kLanes) {
                    prefetch_line(from + offset + line);
                    if (to != from) prefetch_line(to + offset + line);
                }
            });
        team.barrier();
    };
    finish_input(layer.attention_output, workspace.attention_output_input, rows, team);
    add_linear(layer.attention_output, workspace.attention_output_input, states, attended);
    for (int64_t row = first; row < last; ++row) {
        layer.attention_norm.apply(attended + row * hidden, attended + row * hidden);
        workspace.up_input.quantize_row(layer.up, row, attended + row * hidden);
    }
    team.barrier();
    gemm(
        layer.up, workspace.up_input.rows(layer.up, attended), count, team,
        [ activation, write = workspace.down_input.writer(layer.down) ](int64_t row, int64_t column, f32x16 values, int lanes)
            __attribute__((always_inline)) { write(row, column, activate(activation, values), lanes); });
    finish_input(layer.down, workspace.down_input, rows, team);
    add_linear(layer.down, workspace.down_input, attended, states);
    for (int64_t row = first; row < last; ++row) layer.output_norm.apply(states + row * hidden, states + row * hidden);
}

// Reserves the memory of `feed_forward`. Called before threads run, where an allocation may fail.
inline void reserve_feed_forward(const Layer& layer, int64_t rows, Workspace& workspace) {
    workspace.attended.reserve(rows * layer.output_norm.size);
    workspace.attention_output_input.reserve(layer.attention_output, rows, true);
    workspace.up_input.reserve(layer.up, rows, false);
    workspace.down_input.reserve(layer.down, rows, true);
}
