// Attention over rows that are packed without padding: each text by itself, one head at a time.
#pragma once

#include <cmath>

#include "buffer.h"
#include "multiply.h"

constexpr int kQueryBlock = 24;  // queries whose scores are held at a time

// What one thread needs for one head of one text.
class AttentionMemory {
   public:
    void reserve(int64_t longest, int64_t size) {
        const int64_t padded = round_up(longest, kLanes), wide = round_up(size, kLanes);
        keys.reserve(wide * padded);
        scores.reserve(kQueryBlock * padded);
        context.reserve(kQueryBlock * wide);
    }
    int64_t memory() const { return keys.bytes() + scores.bytes() + context.bytes(); }
    Buffer<float> keys, scores, context;
};

// Exponentials of scaled scores minus their greatest, in place, zeros up to a multiple of 16; returns their sum.
inline float exponentials(float* scores, int length, float scale) {
    const int whole = length / kLanes * kLanes;
    f32x16 high = splat(-INFINITY);
    for (int column = 0; column < whole; column += kLanes) high = greatest(high, load(scores + column));
    if (whole < length) high = greatest(high, keep_some(load(scores + whole), length - whole, -INFINITY));
    const float most = greatest_of(high) * scale;
    f32x16 total = {};
    const auto weights = [&](int column) __attribute__((always_inline)) {
        return exponential(load(scores + column) * scale - most);
    };
    for (int column = 0; column < whole; column += kLanes) {
        const f32x16 values = weights(column);
        store(scores + column, values);
        total += values;
    }
    if (whole < length) {
        const f32x16 values = keep_some(weights(whole), length - whole, 0.0f);
        store(scores + whole, values);
        total += values;
    }
    return sum(total);
}

// One head of one text: query, key and value are (length, size), rows `stride` apart, and may be read in whole vectors.
// put(row, column, values, count) gets the context, row from 0, column from 0 to size.
//
// In floats also where layers are in 8 bits. 16-bit integers, whose products are twice as fast, were tried: 4 % of
// BERT-base's time at 128 tokens, nothing at 25, and ten times as far from the reference as what other roundings cost.
template <class Put>
void attend(const float* query, const float* key, const float* value, int64_t stride, int length, int size, float scale,
            const AttentionMemory& memory, Put put) {
    const int64_t padded = round_up(length, kLanes), wide = round_up(size, kLanes);
    float *keys = memory.keys.get(), *scores = memory.scores.get(), *context = memory.context.get();
    for (int token = 0; token < length; token += kLanes) {
        for (int part = 0; part < size; part += kLanes) {
            transpose(key + token * stride + part, stride, std::min(kLanes, length - token), keys + part * padded + token, padded);
        }
    }
    for (int first = 0; first < length; first += kQueryBlock) {
        const int queries = std::min(kQueryBlock, length - first);
        multiply_dense(query + first * stride, stride, queries, keys, padded, length, size, scores, padded);
        float totals[kQueryBlock];
        for (int row = 0; row < queries; ++row) totals[row] = exponentials(scores + row * padded, length, scale);
        multiply_dense(scores, padded, queries, value, stride, size, length, context, wide);
        for (int row = 0; row < queries; ++row) {
            const float share = 1.0f / totals[row];
            for (int column = 0; column < size; column += kLanes) {
                put(first + row, column, load(context + row * wide + column) * share, std::min(kLanes, size - column));
            }
        }
    }
}
