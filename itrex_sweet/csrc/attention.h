// Attention over rows that are packed without padding: each text by itself, one head at a time.
#pragma once

#include <cfloat>
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
        words.reserve(std::max(kLanes * wide, kQueryBlock * std::max(wide, padded)));
        values.reserve(padded * wide);
        key_scales.reserve(padded);
        value_scales.reserve(wide);
    }
    int64_t memory() const {
        return keys.bytes() + scores.bytes() + context.bytes() + words.bytes() + values.bytes() + key_scales.bytes() +
               value_scales.bytes();
    }
    Buffer<float> keys, scores, context;
    // Of `attend_in_words`.
    Buffer<int16_t> words;
    Buffer<int32_t> values;
    Buffer<float> key_scales, value_scales;
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
template <class Put>
void attend_in_floats(const float* query, const float* key, const float* value, int64_t stride, int length, int size,
                      float scale, const AttentionMemory& memory, Put put) {
    const int64_t padded = round_up(length, kLanes), wide = round_up(size, kLanes);
    float *keys = memory.keys.get(), *scores = memory.scores.get(), *context = memory.context.get();
    for (int token = 0; token < length; token += kLanes) {
        for (int part = 0; part < size; part += kLanes) {
            const int count = std::min(kLanes, length - token);
            transpose(key + token * stride + part, stride, count, keys + part * padded + token, padded);
        }
    }
    for (int first = 0; first < length; first += kQueryBlock) {
        const int queries = std::min(kQueryBlock, length - first);
        multiply_dense<Floats>(query + first * stride, stride, queries, keys, padded, length, size, scores, padded);
        float totals[kQueryBlock];
        for (int row = 0; row < queries; ++row) totals[row] = exponentials(scores + row * padded, length, scale);
        multiply_dense<Floats>(scores, padded, queries, value, stride, size, length, context, wide);
        for (int row = 0; row < queries; ++row) {
            const float share = 1.0f / totals[row];
            for (int column = 0; column < size; column += kLanes) {
                put(first + row, column, load(context + row * wide + column) * share, std::min(kLanes, size - column));
            }
        }
    }
}

// `size` values as 16-bit integers of at most `most`, zeros up to a multiple of 16; returns what one step is worth.
inline float in_words(const float* from, int size, float most, int16_t* to) {
    const auto value = [&](int column) __attribute__((always_inline)) {
        const f32x16 loaded = load(from + column);
        return column + kLanes <= size ? loaded : keep_some(loaded, size - column, 0.0f);
    };
    f32x16 high = {};
    for (int column = 0; column < size; column += kLanes) high = greatest(size_of(value(column)), high);
    const float reach = greatest_of(high), steps = reach > FLT_MIN ? most / reach : 0.0f;
    for (int column = 0; column < size; column += kLanes) {
        store_some(to + column, __builtin_convertvector(nearest_integer(value(column) * steps), i16x16), kLanes);
    }
    return reach / most;
}

// The same as `attend_in_floats` with products of 16-bit integers, which are twice as fast: for layers whose inputs have 8
// bits anyway.
//
// A query and a key are scaled to the largest integers whose product over the head cannot overflow 32 bits: 12 bits and a
// sign where heads are 64 wide. Weights get up to 15 bits: as many as their sum, known by then, and values of 13 bits and
// a sign leave room for. On random numbers the context is off by 5e-5 of the largest on average
// and by less than 1e-3 at most; a step of 8 bits is 4e-3.
template <class Put>
void attend_in_words(const float* query, const float* key, const float* value, int64_t stride, int length, int size,
                     float scale, const AttentionMemory& memory, Put put) {
    constexpr float kMostSum = 2147483000.0f, kMostValue = 8191.0f, kMostWeight = 32767.0f;
    const float most = std::floor(std::sqrt(kMostSum / static_cast<float>(size)));
    const int64_t padded = round_up(length, kLanes), wide = round_up(size, kLanes), pairs = wide / 2;
    float *scores = memory.scores.get(), *context = memory.context.get(), *keys = memory.keys.get();
    float *key_scales = memory.key_scales.get(), *value_scales = memory.value_scales.get();
    int16_t* words = memory.words.get();
    int32_t* values = memory.values.get();
    // Two words at a time, as products read them, and where their sums are before they are scaled to floats in place.
    const auto* word_pairs = reinterpret_cast<const int32_t*>(words);
    const auto* key_pairs = reinterpret_cast<const int32_t*>(keys);
    auto *score_sums = reinterpret_cast<int32_t*>(scores), *context_sums = reinterpret_cast<int32_t*>(context);

    for (int token = 0; token < length; token += kLanes) {
        const int count = std::min(kLanes, length - token);
        for (int row = 0; row < count; ++row) {
            key_scales[token + row] = in_words(key + (token + row) * stride, size, most, words + row * wide) * scale;
        }
        for (int64_t pair = 0; pair < pairs; pair += kLanes) {  // the last may move more than there is, into spare rows
            transpose(reinterpret_cast<const float*>(words) + pair, pairs, count, keys + pair * padded + token, padded);
        }
    }
    for (int column = 0; column < size; column += kLanes) {
        f32x16 high = {};
        for (int token = 0; token < length; ++token) high = greatest(size_of(load(value + token * stride + column)), high);
        const f32x16 steps = high > FLT_MIN ? kMostValue / high : f32x16{};
        store(value_scales + column, high / kMostValue);
        for (int token = 0; token < length; token += 2) {
            const float* from = value + token * stride + column;
            const i32x16 low = nearest_integer(load(from) * steps);
            const i32x16 behind = token + 1 < length ? nearest_integer(load(from + stride) * steps) : i32x16{};
            const i32x16 both = (low & 0xffff) | behind << 16;
            std::memcpy(values + token / 2 * wide + column, &both, sizeof(both));
        }
    }
    for (int first = 0; first < length; first += kQueryBlock) {
        const int queries = std::min(kQueryBlock, length - first);
        float query_scales[kQueryBlock], totals[kQueryBlock];
        for (int row = 0; row < queries; ++row) {
            query_scales[row] = in_words(query + (first + row) * stride, size, most, words + row * wide);
        }
        multiply_dense<Words>(word_pairs, pairs, queries, key_pairs, padded, length, static_cast<int>(pairs), score_sums, padded);
        for (int row = 0; row < queries; ++row) {
            float* of_query = scores + row * padded;
            for (int column = 0; column < length; column += kLanes) {
                const f32x16 exact = __builtin_convertvector(load(score_sums + row * padded + column), f32x16);
                store(of_query + column, exact * load(key_scales + column));
            }
            const float total = exponentials(of_query, length, query_scales[row]);
            const float steps = std::min(kMostWeight, kMostSum / kMostValue / total - static_cast<float>(length) / total);
            for (int column = 0; column < length; column += kLanes) {
                const i32x16 weights = nearest_integer(load(of_query + column) * steps);
                store_some(words + row * padded + column, __builtin_convertvector(weights, i16x16), kLanes);
            }
            totals[row] = total * steps;
        }
        multiply_dense<Words>(word_pairs, padded / 2, queries, values, wide, size, (length + 1) / 2, context_sums, wide);
        for (int row = 0; row < queries; ++row) {
            const float share = 1.0f / totals[row];
            for (int column = 0; column < size; column += kLanes) {
                const i32x16 exact = load(context_sums + row * wide + column);
                const f32x16 result = __builtin_convertvector(exact, f32x16) * (load(value_scales + column) * share);
                put(first + row, column, result, std::min(kLanes, size - column));
            }
        }
    }
}

template <class Put>
void attend(bool in_words, const float* query, const float* key, const float* value, int64_t stride, int length, int size,
            float scale, const AttentionMemory& memory, Put put) {
    if (in_words) {
        attend_in_words(query, key, value, stride, length, size, scale, memory, put);
    } else {
        attend_in_floats(query, key, value, stride, length, size, scale, memory, put);
    }
}
