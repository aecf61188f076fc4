// Relative-position terms of a probe, whose only query is the first token (He et al. 2021, arXiv 2006.03654, equation 4).
//
// Keys are not computed: the position-to-content term k_j · Q[b] is x_j · (W_kᵀ Q[b]) + b_k · Q[b], both factors of which
// depend on the weights and the bucket b only, and are computed when the model is packed.
#pragma once

#include <algorithm>
#include <cstdint>

#include "api.h"
#include "attention.h"
#include "buffer.h"
#include "gemm_dense.h"
#include "packed_linear.h"
#include "relative_positions.h"
#include "vector.h"

class FirstTokenPositions {
   public:
    FirstTokenPositions(const sweet_layer& layer, const RelativePositions& positions, int heads)
        : heads_(heads), hidden_(layer.key.in), wide_(round_up(hidden_, kLanes)) {
        const sweet_linear& key = layer.key;
        const auto [lowest, highest] = positions.first_token_range();
        first_ = lowest;
        count_ = highest - lowest + 1;
        const int64_t size = key.out / heads;
        has_int16_ = key.weight_scale.values != nullptr || key.is_bfloat16 != 0;
        if (has_int16_) {
            words_.reserve(count_ * heads * wide_);
            scales_.reserve(count_ * heads);
        } else {
            floats_.reserve(count_ * heads * wide_);
        }
        biases_.reserve(count_ * heads);
        Buffer<float> weights(size * wide_), products(count_ * wide_);
        for (int64_t head = 0; head < heads; ++head) {
            const float* queries = layer.relative_query.values + (head * positions.buckets() + first_) * size;
            for (int64_t row = 0; row < size; ++row) copy_row(key, head * size + row, weights.get() + row * wide_);
            gemm_dense<Float32>(queries, size, static_cast<int>(count_), weights.get(), wide_, static_cast<int>(hidden_),
                                static_cast<int>(size), products.get(), wide_);
            for (int64_t bucket = 0; bucket < count_; ++bucket) {
                const int64_t place = bucket * heads + head;
                const float* from = products.get() + bucket * wide_;
                if (has_int16_) {
                    scales_[place] = quantize_int16(from, static_cast<int>(hidden_), 32767.0f, words_.get() + place * wide_);
                } else {
                    std::copy_n(from, hidden_, floats_.get() + place * wide_);
                }
                if (key.bias.values == nullptr) continue;
                for (int64_t row = 0; row < size; ++row)
                    biases_[place] += queries[bucket * size + row] * key.bias.values[head * size + row];
            }
        }
    }

    int64_t bytes() const { return floats_.bytes() + words_.bytes() + scales_.bytes() + biases_.bytes(); }

    static constexpr int kRows = 4;  // of states that are multiplied at a time

    // Adds the terms of up to `kRows` tokens with one bucket, for the heads [first, last): to[row][(head - first) · stride].
    void add(int64_t bucket, int64_t first, int64_t last, int rows, const float* const* states, float* const* to,
             int64_t stride) const {
        const int64_t place = (std::clamp(bucket, first_, first_ + count_ - 1) - first_) * heads_;
        switch (rows) {
            case 1: return add_rows<1>(place, first, last, states, to, stride);
            case 2: return add_rows<2>(place, first, last, states, to, stride);
            case 3: return add_rows<3>(place, first, last, states, to, stride);
            default: return add_rows<4>(place, first, last, states, to, stride);
        }
    }

   private:
    // Copies a row of the key weights in float32, with smoothing undone.
    static void copy_row(const sweet_linear& key, int64_t row, float* to) {
        if (key.weight_scale.values == nullptr) {
            std::copy_n(static_cast<const float*>(key.weight) + row * key.in, key.in, to);
            return;
        }
        const int8_t* from = static_cast<const int8_t*>(key.weight) + row * key.in;
        for (int64_t input = 0; input < key.in; ++input) {
            const float smoothing = key.smoothing.values == nullptr ? 1.0f : key.smoothing.values[input];
            to[input] = static_cast<float>(from[input]) * key.weight_scale.values[row] * smoothing;
        }
    }

    template <int Rows>
    void add_rows(int64_t place, int64_t first, int64_t last, const float* const* states, float* const* to,
                  int64_t stride) const {
        if (has_int16_) {
            multiply<Rows>(
                place, first, last, states, to, stride, [&](int64_t offset) __attribute__((always_inline)) {
                    const i16x16 words = load_as<i16x16>(words_.get() + offset);
                    return __builtin_convertvector(__builtin_convertvector(words, i32x16), f32x16);
                });
        } else {
            multiply<Rows>(
                place, first, last, states, to,
                stride, [&](int64_t offset) __attribute__((always_inline)) { return load(floats_.get() + offset); });
        }
    }

    // Two heads at a time, the last one twice if their number is odd.
    template <int Rows, class Load>
    void multiply(int64_t place, int64_t first, int64_t last, const float* const* states, float* const* to, int64_t stride,
                  Load load_table) const {
        for (int64_t head = first; head < last; head += 2) {
            const int64_t next = std::min(head + 1, last - 1);
            const int64_t offset = (place + head) * wide_, next_offset = (place + next) * wide_;
            f32x16 sums[Rows][2] = {};
            const auto step = [&](int64_t column, auto load_states) __attribute__((always_inline)) {
                const f32x16 one = load_table(offset + column), other = load_table(next_offset + column);
#pragma GCC unroll 4
                for (int row = 0; row < Rows; ++row) {
                    const f32x16 values = load_states(states[row] + column);
                    sums[row][0] += values * one;
                    sums[row][1] += values * other;
                }
            };
            int64_t column = 0;
            for (; column + kLanes <= hidden_; column += kLanes) step(column, [](const float* from) { return load(from); });
            if (column < hidden_) {
                const int count = static_cast<int>(hidden_ - column);
                step(column, [=](const float* from) { return load_partial(from, count); });
            }
            for (int row = 0; row < Rows; ++row) {
                to[row][(head - first) * stride] += scaled(reduce_add(sums[row][0]), place + head);
                if (next != head) to[row][(next - first) * stride] += scaled(reduce_add(sums[row][1]), place + next);
            }
        }
    }

    // Not inlined, so that the compiler contracts the multiplication and the addition alike for every number of rows.
    __attribute__((noinline)) float scaled(float sum, int64_t place) const {
        return (has_int16_ ? sum * scales_[place] : sum) + biases_[place];
    }

    int64_t heads_, hidden_, wide_, first_ = 0, count_ = 0;
    bool has_int16_ = false;
    Buffer<float> floats_;   // [buckets][heads][wide_], W_kᵀ Q of the buckets from first_ on
    Buffer<int16_t> words_;  // the same as int16
    Buffer<float> scales_;   // [buckets][heads], of words_
    Buffer<float> biases_;   // [buckets][heads], b_k · Q
};
