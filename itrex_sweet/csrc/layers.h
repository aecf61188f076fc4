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
        std::copy_n(norm.weight.values, norm.size, weight.get());
        std::copy_n(norm.bias.values, norm.size, bias.get());
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
        case SWEET_GELU: return x * 0.5f + x * 0.5f * error_function(x * 0.70710678f);  // 0 where erf is -1
        case SWEET_GELU_TANH: return x * 0.5f * (hyperbolic_tangent((x * x * x * 0.044715f + x) * 0.79788456f) + 1.0f);
        case SWEET_RELU: return greatest(f32x16{}, x);
        case SWEET_TANH: return hyperbolic_tangent(x);
        default: return x / (exponential(-x) + 1.0f);  // SWEET_SILU
    }
}

// Key weights as a probe reads them: transposed, one layer (size of a head → hidden) per head, and what stands before it.
struct KeysTransposed {
    std::vector<Packed> heads;
    Buffer<float> scale;      // per output of the key layer, or empty
    Buffer<float> smoothing;  // per input of the key layer, or empty

    KeysTransposed(const sweet_linear& key, int num_heads) {
        const int size = key.out / num_heads;
        const bool is_integer = key.weight_scale.values != nullptr;
        if (is_integer) std::copy_n(key.weight_scale.values, key.out, scale.reserve(key.out));
        if (key.smoothing.values != nullptr) std::copy_n(key.smoothing.values, key.in, smoothing.reserve(key.in));
        const std::vector<float> ones(static_cast<size_t>(key.in), 1.0f);
        const auto pack = [&](auto* weights) {
            std::vector<std::remove_const_t<std::remove_pointer_t<decltype(weights)>>> turned(
                static_cast<size_t>(int64_t{key.in} * size));
            for (int head = 0; head < num_heads; ++head, weights += int64_t{size} * key.in) {
                for (int64_t input = 0; input < key.in; ++input) {
                    for (int64_t part = 0; part < size; ++part) {
                        turned[static_cast<size_t>(input * size + part)] = weights[part * key.in + input];
                    }
                }
                sweet_linear of_head{};
                of_head.weight = turned.data();
                of_head.weight_size = static_cast<int64_t>(turned.size());
                if (is_integer) of_head.weight_scale = {ones.data(), key.in};
                of_head.in = size;
                of_head.out = key.in;
                of_head.in_bfloat16 = key.in_bfloat16;
                heads.emplace_back(of_head);
            }
        };
        is_integer ? pack(static_cast<const int8_t*>(key.weight)) : pack(static_cast<const float*>(key.weight));
    }

    int64_t bytes() const {
        int64_t total = scale.bytes() + smoothing.bytes();
        for (const Packed& head : heads) total += head.bytes();
        return total;
    }
};

inline bool same_input(const sweet_linear& a, const sweet_linear& b) {
    if ((a.weight_scale.values == nullptr) != (b.weight_scale.values == nullptr)) return false;
    if (a.weight_scale.values == nullptr) return a.in_bfloat16 == b.in_bfloat16;
    if (a.input_is_fixed != b.input_is_fixed) return false;
    if (a.input_is_fixed != 0 && (a.input_scale != b.input_scale || a.input_zero_point != b.input_zero_point)) return false;
    if (a.smoothing.size != b.smoothing.size) return false;
    return std::equal(a.smoothing.values, a.smoothing.values + a.smoothing.size, b.smoothing.values);
}

struct Layer {
    // Query, key and value, as one where they quantize their input alike. Of a layer that is never run in full, no key.
    std::vector<Packed> projections;
    std::vector<int64_t> columns;  // where each of them begins among the projected columns
    Packed attention_output, up, down;
    Norm attention_norm, output_norm;
    std::unique_ptr<KeysTransposed> keys;  // where the layer is probed

    Layer(const sweet_layer& from, int num_heads, bool is_probed, bool in_full)
        : attention_output(from.attention_output),
          up(from.up),
          down(from.down),
          attention_norm(from.attention_norm),
          output_norm(from.output_norm) {
        std::vector<sweet_linear> parts{from.query, from.key, from.value};
        if (!in_full) parts.erase(parts.begin() + 1);
        int64_t column = 0;
        for (size_t first = 0; first < parts.size();) {
            size_t last = first + 1;
            while (last < parts.size() && same_input(parts[first], parts[last])) ++last;
            projections.emplace_back(parts.data() + first, static_cast<int>(last - first));
            columns.push_back(column);
            column += projections.back().out;
            first = last;
        }
        if (is_probed) keys = std::make_unique<KeysTransposed>(from.key, num_heads);
    }

    // Multiply-adds of one token, attention itself left out.
    int64_t work() const {
        int64_t total = attention_output.work() + up.work() + down.work();
        for (const Packed& part : projections) total += part.work();
        return total;
    }

    int64_t bytes() const {
        int64_t total = attention_output.bytes() + up.bytes() + down.bytes() + attention_norm.bytes() + output_norm.bytes() +
                        (keys ? keys->bytes() : 0);
        for (const Packed& part : projections) total += part.bytes();
        return total;
    }
};

// What one thread needs for attention.
struct ThreadMemory {
    AttentionMemory attention;
    Buffer<float> reached, queries, context;  // of a probe
    WideInput wide;
    Input narrow;

    int64_t memory() const {
        return attention.memory() + reached.bytes() + queries.bytes() + context.bytes() + wide.memory() + narrow.memory();
    }
};

// What a team needs to run layers, whatever their number. It grows to what the largest chunk of texts needed.
struct Workspace {
    Input projected_from[3], attention_output_from, up_from, down_from;
    Buffer<float> projected, attended, first;
    std::vector<ThreadMemory> threads;

    int64_t memory() const {
        int64_t total = attention_output_from.memory() + up_from.memory() + down_from.memory() + projected.bytes() +
                        attended.bytes() + first.bytes();
        for (const Input& input : projected_from) total += input.memory();
        for (const ThreadMemory& thread : threads) total += thread.memory();
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
inline void finish_input(const Packed& layer, const Input& input, int64_t rows, const Team& team) {
    team.meet();
    if (!layer.is_integer || layer.takes_single_values()) return;
    const auto [first, last] = team.part(rows);
    for (int64_t row = first; row < last; ++row) input.quantize_row(layer, row, input.floats() + row * layer.in);
    team.meet();
}

// The rest of a layer after attention: `attention_output_from` holds the context, `states` what entered and then what
// leaves, this thread's part of the rows at return.
inline void feed_forward(const Layer& layer, int32_t activation, float* states, int64_t rows, Workspace& work,
                         const Team& team) {
    const int hidden = layer.output_norm.size, count = static_cast<int>(rows);
    float* attended = work.attended.get();
    const auto [first, last] = team.part(rows);
    // A product whose results are added to rows of `from` and written to rows of `to`.
    const auto add_product = [&](const Packed& product, const Input& input, const float* from, float* to) {
        multiply(product, input.rows(product), count, team,
                 [=](int64_t row, int64_t column, f32x16 values, int lanes) __attribute__((always_inline)) {
                     const int64_t place = row * hidden + column;
                     store_some(to + place, values + load_some(from + place, lanes), lanes);
                 },
                 [=](int64_t row, int64_t column) {
                     for (int64_t place = row * hidden + column, line = 0; line < kPanel; line += kLanes) {
                         fetch_ahead(from + place + line);
                         if (to != from) fetch_ahead(to + place + line);
                     }
                 });
        team.meet();
    };
    finish_input(layer.attention_output, work.attention_output_from, rows, team);
    add_product(layer.attention_output, work.attention_output_from, states, attended);
    for (int64_t row = first; row < last; ++row) {
        layer.attention_norm.apply(attended + row * hidden, attended + row * hidden);
        work.up_from.quantize_row(layer.up, row, attended + row * hidden);
    }
    team.meet();
    multiply(layer.up, work.up_from.rows(layer.up, attended), count, team,
             [activation, put = work.down_from.writer(layer.down)](int64_t row, int64_t column, f32x16 values, int lanes)
                 __attribute__((always_inline)) { put(row, column, activate(activation, values), lanes); });
    finish_input(layer.down, work.down_from, rows, team);
    add_product(layer.down, work.down_from, attended, states);
    for (int64_t row = first; row < last; ++row) layer.output_norm.apply(states + row * hidden, states + row * hidden);
}

// Makes room for what layers of this shape need. Called before threads run, where failing is safe.
inline void reserve_feed_forward(const Layer& layer, int64_t rows, Workspace& work) {
    work.attended.reserve(rows * layer.output_norm.size);
    work.attention_output_from.reserve(layer.attention_output, rows, true);
    work.up_from.reserve(layer.up, rows, false);
    work.down_from.reserve(layer.down, rows, true);
}
