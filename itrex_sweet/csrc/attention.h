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
        const int64_t padded = round_up(longest, kLanes);
        keys.reserve(size * padded);
        scores.reserve(kQueryBlock * padded);
        context.reserve(kQueryBlock * round_up(size, kLanes));
    }
    int64_t memory() const { return keys.bytes() + scores.bytes() + context.bytes(); }
    Buffer<float> keys, scores, context;
};

// Exponentials of scaled scores minus their greatest, in place, zeros up to a multiple of 16; returns their sum.
inline float exponentials(float* scores, int length, float scale) {
    f32x16 high = splat(-INFINITY);
    for (int column = 0; column < length; column += kLanes) {
        high = greatest(high, keep_some(load(scores + column), length - column, -INFINITY));
    }
    const float most = greatest_of(high) * scale;
    f32x16 total = {};
    for (int column = 0; column < length; column += kLanes) {
        const f32x16 weights = keep_some(exponential(load(scores + column) * scale - most), length - column, 0.0f);
        store(scores + column, weights);
        total += weights;
    }
    return sum(total);
}

// One head of one text: query, key and value are (length, size), rows `stride` apart. put(row, column, values, count)
// gets the context, row from 0, column from 0 to size.
template <class Put>
void attend(const float* query, const float* key, const float* value, int64_t stride, int length, int size, float scale,
            const AttentionMemory& memory, Put put) {
    const int64_t padded = round_up(length, kLanes), wide = round_up(size, kLanes);
    float *keys = memory.keys.get(), *scores = memory.scores.get(), *context = memory.context.get();
    for (int64_t token = 0; token < length; ++token) {
        for (int64_t part = 0; part < size; ++part) keys[part * padded + token] = key[token * stride + part];
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
