// Norms and the activation functions.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "api.h"
#include "buffer.h"
#include "vector.h"

struct Norm {
    Buffer<float> weight, bias;
    float eps = 0.0f;
    int size = 0;
    bool is_rms = false;

    Norm() = default;
    explicit Norm(const sweet_norm& norm)
        : weight(norm.size), bias(norm.size), eps(norm.eps), size(norm.size), is_rms(norm.is_rms != 0) {
        std::copy_n(norm.weight.values, norm.size, weight.get());
        if (norm.bias.values != nullptr) std::copy_n(norm.bias.values, norm.size, bias.get());
    }

    bool is_present() const { return size > 0; }

    int64_t bytes() const { return weight.bytes() + bias.bytes(); }

    // Normalizes one row; `x` and `y` may be the same.
    void apply(const float* x, float* y) const {
        const float mean = is_rms ? 0.0f : sum(x, [](f32x16 v) { return v; }) / static_cast<float>(size);
        const float variance = sum(x, [&](f32x16 v) { return (v - mean) * (v - mean); }) / static_cast<float>(size);
        const float inverse_std = 1.0f / std::sqrt(variance + eps);
        for (int column = 0; column < size; column += kLanes) {
            const int count = std::min(kLanes, size - column);
            const f32x16 normalized = (load_partial(x + column, count) - mean) * inverse_std;
            store_partial(y + column, normalized * load(weight.get() + column) + load(bias.get() + column), count);
        }
    }

   private:
    template <class Term>
    float sum(const float* x, Term term) const {
        f32x16 sums = {};
        int column = 0;
        for (; column + kLanes <= size; column += kLanes) sums += term(load(x + column));
        if (column < size) {
            const int count = size - column;
            sums += mask(term(load_partial(x + column, count)), count, 0.0f);
        }
        return reduce_add(sums);
    }
};

SWEET_INLINE f32x16 activate(int32_t activation, f32x16 x) {
    switch (activation) {
        case SWEET_GELU: return x * 0.5f + x * 0.5f * erf(x * 0.70710678f);  // exactly 0 where erf is -1
        case SWEET_GELU_TANH: return x * 0.5f * (tanh((x * x * x * 0.044715f + x) * 0.79788456f) + 1.0f);
        case SWEET_RELU: return max(f32x16{}, x);
        case SWEET_TANH: return tanh(x);
        default: return x / (exp(-x) + 1.0f);  // SWEET_SILU
    }
}
