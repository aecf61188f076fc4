// The parts of an encoder, packed, and one layer in full for a team of threads.
#pragma once

#include <memory>
#include <vector>

#include "attention.h"

struct Norm {
    Buffer<float> weight, bias;
    float eps = 0.0f;
    int size = 0;

    Norm() = default;
    explicit Norm(const sweet_norm& norm) : weight(norm.size), bias(norm.size), eps(norm.eps), size(norm.size) {
        std::copy_n(norm.weight, norm.size, weight.get());
        std::copy_n(norm.bias, norm.size, bias.get());
    }

    int64_t bytes() const { return weight.bytes() + bias.bytes(); }

    // Layer norm of one row, in place or elsewhere.
    void apply(const float* x, float* y) const {
        const float mean = total(x, [](f32x16 v) { return v; }) / static_cast<float>(size);
        const float variance = total(x, [&](f32x16 v) { return (v - mean) * (v - mean); }) / static_cast<float>(size);
        const float share = 1.0f / std::sqrt(variance + eps);
        for (int column = 0; column < size; column += kLanes) {
            const int count = std::min(kLanes, size - column);
            const f32x16 normal = (load_some(x + column, count) - mean) * share;
            store_some(y + column, normal * load(weight.get() + column) + load(bias.get() + column), count);
        }
    }

   private:
    template <class Term>
    float total(const float* x, Term term) const {
        f32x16 sums = {};
        int column = 0;
        for (; column + kLanes <= size; column += kLanes) sums += term(load(x + column));
        if (column < size) {
            const int count = size - column;
            sums += keep_some(term(load_some(x + column, count)), count, 0.0f);
        }
        return sum(sums);
    }
};

SWEET_INLINE f32x16 activate(int32_t activation, f32x16 x) {
    switch (activation) {
        case SWEET_GELU: return x * 0.5f * (error_function(x * 0.70710678f) + 1.0f);
        case SWEET_GELU_TANH: return x * 0.5f * (hyperbolic_tangent((x * x * x * 0.044715f + x) * 0.79788456f) + 1.0f);
        case SWEET_RELU: return greatest(f32x16{}, x);
        case SWEET_TANH: return hyperbolic_tangent(x);
        default: return x / (exponential(-x) + 1.0f);  // SWEET_SILU
    }
}

// What a probe needs of its layer beside the layer itself: key and value weights as they are, for one query.
struct Unformed {
    // Key weights (size, hidden) and value weights transposed, (hidden, size): int8, or float where the layer is float.
    Buffer<int8_t> key, value;
    Buffer<float> float_key, float_value;
    Buffer<float> key_scale, value_scale;          // per output; ones where the layer is float
    Buffer<float> key_smoothing, value_smoothing;  // per input, or empty
    Buffer<float> value_bias;

    Unformed(const sweet_linear& key_layer, const sweet_linear& value_layer) {
        copy(key_layer, key, float_key, key_scale, key_smoothing, false);
        copy(value_layer, value, float_value, value_scale, value_smoothing, true);
        value_bias.reserve(round_up(value_layer.out, kLanes));
        if (value_layer.bias != nullptr) std::copy_n(value_layer.bias, value_layer.out, value_bias.get());
    }

    int64_t bytes() const {
        return key.bytes() + value.bytes() + float_key.bytes() + float_value.bytes() + key_scale.bytes() +
               value_scale.bytes() + key_smoothing.bytes() + value_smoothing.bytes() + value_bias.bytes();
    }

   private:
    static void copy(const sweet_linear& layer, Buffer<int8_t>& bytes, Buffer<float>& floats, Buffer<float>& scale,
                     Buffer<float>& smoothing, bool transposed) {
        scale.reserve(round_up(layer.out, kLanes));
        std::fill_n(scale.get(), layer.out, 1.0f);
        const auto place = [&](int64_t row, int64_t column) {
            return transposed ? column * layer.out + row : row * layer.in + column;
        };
        const auto copy_as = [&](auto& to) {
            auto* from = static_cast<const std::remove_reference_t<decltype(to[0])>*>(layer.weight);
            to.reserve(int64_t{layer.in} * layer.out);
            for (int64_t row = 0; row < layer.out; ++row) {
                for (int64_t column = 0; column < layer.in; ++column) to[place(row, column)] = from[row * layer.in + column];
            }
        };
        if (layer.weight_scale == nullptr) return copy_as(floats);
        std::copy_n(layer.weight_scale, layer.out, scale.get());
        if (layer.smoothing != nullptr) std::copy_n(layer.smoothing, layer.in, smoothing.reserve(round_up(layer.in, kLanes)));
        copy_as(bytes);
    }
};

inline bool same_input(const sweet_linear& a, const sweet_linear& b) {
    if ((a.weight_scale == nullptr) != (b.weight_scale == nullptr)) return false;
    if (a.weight_scale == nullptr) return true;
    if (a.input_scale != b.input_scale || a.input_zero_point != b.input_zero_point) return false;
    if ((a.smoothing == nullptr) != (b.smoothing == nullptr)) return false;
    return a.smoothing == nullptr || std::equal(a.smoothing, a.smoothing + a.in, b.smoothing);
}

struct Layer {
    std::vector<Packed> projections;  // query, key and value, as one where they quantize their input alike
    Packed query;                     // alone, for the probe of a layer before which there is an exit
    Packed attention_output, up, down;
    Norm attention_norm, output_norm;
    std::unique_ptr<Unformed> unformed;  // where the layer is probed
    bool runs_in_full;

    Layer(const sweet_layer& from, bool is_probed, bool in_full)
        : attention_output(from.attention_output),
          up(from.up),
          down(from.down),
          attention_norm(from.attention_norm),
          output_norm(from.output_norm),
          runs_in_full(in_full) {
        const sweet_linear parts[] = {from.query, from.key, from.value};
        if (in_full) {
            if (same_input(parts[0], parts[1]) && same_input(parts[0], parts[2])) {
                projections.emplace_back(parts, 3);
            } else {
                for (const sweet_linear& part : parts) projections.emplace_back(part);
            }
        }
        if (is_probed) {
            query = Packed(from.query);
            unformed = std::make_unique<Unformed>(from.key, from.value);
        }
    }

    int64_t bytes() const {
        int64_t total = query.bytes() + attention_output.bytes() + up.bytes() + down.bytes() + attention_norm.bytes() +
                        output_norm.bytes() + (unformed ? unformed->bytes() : 0);
        for (const Packed& part : projections) total += part.bytes();
        return total;
    }
};

// What a team needs to run layers, whatever their number: it grows with the tokens of a call and is kept.
struct Workspace {
    Input projected_from[3], attention_output_from, up_from, down_from;
    Buffer<float> projected, attended, first, reached, summed;
    std::vector<AttentionMemory> attention;  // one per thread

    int64_t memory() const {
        int64_t total = attention_output_from.memory() + up_from.memory() + down_from.memory() + projected.bytes() +
                        attended.bytes() + first.bytes() + reached.bytes() + summed.bytes();
        for (const Input& input : projected_from) total += input.memory();
        for (const AttentionMemory& memory : attention) total += memory.memory();
        return total;
    }
};

// Several texts, packed: text t has `lengths[t]` tokens from `starts[t]`.
struct Texts {
    int64_t count;
    const int64_t* lengths;
    const int64_t* starts;
    int64_t tokens() const { return count ? starts[count - 1] + lengths[count - 1] - starts[0] : 0; }
};

// Quantizes rows that a layer could not quantize as it wrote them; all of the team come back together.
inline void finish_input(const Input& input, int64_t rows, const Team& team) {
    team.meet();
    if (!input.layer().is_integer || input.layer().has_fixed_scale()) return;
    const auto [first, last] = team.part(rows);
    for (int64_t row = first; row < last; ++row) input.quantize_row(row, input.floats() + row * input.layer().in);
    team.meet();
}

// The rest of a layer after attention: `attention_output_from` holds the context, `states` what entered and then what
// leaves; `next`, if any, are the inputs to prepare from what leaves.
inline void feed_forward(const Layer& layer, int32_t activation, float* states, int64_t rows, Workspace& work,
                         const Team& team, const Input* next, int num_next) {
    const int hidden = layer.output_norm.size, count = static_cast<int>(rows);
    float* attended = work.attended.get();
    const auto [first, last] = team.part(rows);
    finish_input(work.attention_output_from, rows, team);
    multiply(layer.attention_output, work.attention_output_from.rows(), count, team,
             [&](int64_t row, int64_t column, f32x16 values, int lanes) __attribute__((always_inline)) {
                 const float* residual = states + row * hidden + column;
                 store_some(attended + row * hidden + column, values + load_some(residual, lanes), lanes);
             });
    team.meet();
    for (int64_t row = first; row < last; ++row) {
        layer.attention_norm.apply(attended + row * hidden, attended + row * hidden);
        work.up_from.quantize_row(row, attended + row * hidden);
    }
    team.meet();
    multiply(layer.up, work.up_from.rows(attended), count, team,
             [&](int64_t row, int64_t column, f32x16 values, int lanes) __attribute__((always_inline)) {
                 work.down_from.put(row, column, activate(activation, values), lanes);
             });
    finish_input(work.down_from, rows, team);
    multiply(layer.down, work.down_from.rows(), count, team,
             [&](int64_t row, int64_t column, f32x16 values, int lanes) __attribute__((always_inline)) {
                 const float* residual = attended + row * hidden + column;
                 store_some(states + row * hidden + column, values + load_some(residual, lanes), lanes);
             });
    team.meet();
    for (int64_t row = first; row < last; ++row) {
        layer.output_norm.apply(states + row * hidden, states + row * hidden);
        for (int part = 0; part < num_next; ++part) next[part].quantize_row(row, states + row * hidden);
    }
    team.meet();
}

// Makes room for what layers of this shape need. Called by one thread before the team runs.
inline void prepare_feed_forward(const Layer& layer, int64_t rows, Workspace& work) {
    work.attended.reserve(rows * layer.output_norm.size);
    work.attention_output_from.prepare(layer.attention_output, rows, true);
    work.up_from.prepare(layer.up, rows, false);
    work.down_from.prepare(layer.down, rows, true);
}
