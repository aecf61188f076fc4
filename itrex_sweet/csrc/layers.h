// The parts of an encoder with packed weights, and the feed-forward part of a layer for a team of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "attention.h"
#include "buffer.h"
#include "check.h"
#include "convolution.h"
#include "disentangled.h"
#include "first_token_positions.h"
#include "gemm.h"
#include "norm.h"
#include "linear_input.h"
#include "packed_linear.h"
#include "relative_positions.h"
#include "rotary.h"
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
    // Query, key and value, fused where they share the quantized input. Without the key if the layer is used by probes only,
    // which need no keys unless they are rotated.
    std::vector<PackedLinear> projections;
    std::vector<int64_t> column_offsets;  // first column of each projection in a row of queries, keys and values
    PackedLinear attention_output, down;
    PackedLinear up;    // with the gate, interleaved, if they share the quantized input
    PackedLinear gate;  // if it does not
    bool is_gated;
    bool norm_first;                             // the norms are before the attention and feed-forward parts
    Norm attention_norm, output_norm;       // with `norm_first`, the first may be absent
    std::shared_ptr<const RotaryTable> rotary;   // null: none
    int window;                                  // 0: none
    std::unique_ptr<TransposedKeyWeights> keys;  // if the layer is used by a probe and its keys are not rotated
    std::unique_ptr<DisentangledTerms> relative;
    std::unique_ptr<FirstTokenPositions> first_token_positions;  // if the layer is used by a probe
    std::unique_ptr<Convolution> convolution;

    Layer(const sweet_layer& from, const RelativePositions& positions, std::shared_ptr<const RotaryTable> rotary,
          bool norm_first, int num_heads, bool is_probed, bool is_run_in_full)
        : attention_output(from.attention_output),
          down(from.down),
          is_gated(from.gate.out > 0),
          norm_first(norm_first),
          attention_norm(from.attention_norm),
          output_norm(from.output_norm),
          rotary(std::move(rotary)),
          window(from.window) {
        if (is_gated && have_same_input_quantization(from.up, from.gate)) {
            const sweet_linear up_and_gate[] = {from.up, from.gate};
            up = PackedLinear(up_and_gate, 2, true);
        } else {
            up = PackedLinear(from.up);
            gate = PackedLinear(from.gate);
        }
        std::vector<sweet_linear> parts{from.query, from.key, from.value};
        if (!is_run_in_full && !this->rotary) parts.erase(parts.begin() + 1);
        int64_t column = 0;
        for (size_t first = 0; first < parts.size();) {
            size_t last = first + 1;
            while (last < parts.size() && have_same_input_quantization(parts[first], parts[last])) ++last;
            projections.emplace_back(parts.data() + first, static_cast<int>(last - first));
            column_offsets.push_back(column);
            column += projections.back().out;
            first = last;
        }
        if (is_probed && !this->rotary) keys = std::make_unique<TransposedKeyWeights>(from.key, num_heads);
        if (is_present(from.convolution)) convolution = std::make_unique<Convolution>(from);
        if (from.relative_key.size == 0 && from.relative_query.size == 0) return;
        relative = std::make_unique<DisentangledTerms>(from, positions, num_heads, from.query.out / num_heads);
        if (is_probed && from.relative_query.size > 0)
            first_token_positions = std::make_unique<FirstTokenPositions>(from, positions, num_heads);
    }

    // Multiply-accumulates per token, without the attention scores and context.
    int64_t macs() const {
        int64_t total =
            attention_output.macs() + up.macs() + gate.macs() + down.macs() + (convolution ? convolution->linear.macs() : 0);
        for (const PackedLinear& projection : projections) total += projection.macs();
        return total;
    }

    // Number of tokens that a token attends to, at most.
    int64_t attended_tokens(int64_t length) const { return window > 0 ? std::min(length, 2 * int64_t{window} + 1) : length; }

    // Without the table of rotary positions, which layers share.
    int64_t bytes() const {
        int64_t total = attention_output.bytes() + up.bytes() + gate.bytes() + down.bytes() + attention_norm.bytes() +
                        output_norm.bytes() + (keys ? keys->bytes() : 0) + (relative ? relative->bytes() : 0) +
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
    LinearInput projection_inputs[3], attention_output_input, up_input, gate_input, down_input;
    Buffer<float> qkv;           // queries, keys and values; of a probe: queries, then pooled states
    Buffer<float> attended;      // output of the attention part of a layer; with `norm_first`: normalized states
    Buffer<float> gate_values;   // of a gate that is not fused with `up`
    Buffer<float> first_tokens;  // states of the first tokens; in `embed`: sums of embeddings before a projection
    Buffer<float> probe_states;  // of a probe: normalized states of all tokens, or a copy of the states
    Buffer<float> probe_keys;    // of a probe: keys to be rotated
    ConvolutionScratch convolution;
    std::vector<ThreadScratch> threads;

    int64_t bytes() const {
        int64_t total = convolution.bytes() + attention_output_input.bytes() + up_input.bytes() + gate_input.bytes() +
                        down_input.bytes() + qkv.bytes() + attended.bytes() + gate_values.bytes() + first_tokens.bytes() +
                        probe_states.bytes() + probe_keys.bytes();
        for (const LinearInput& input : projection_inputs) total += input.bytes();
        for (const ThreadScratch& thread : threads) total += thread.bytes();
        return total;
    }
};
