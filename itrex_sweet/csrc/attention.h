// Self-attention over packed rows without padding: one head of one sequence at a time.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "buffer.h"
#include "gemm_dense.h"
#include "packed_linear.h"
#include "vector.h"

constexpr int kQueryBlock = 24;  // queries whose scores are in memory at the same time
// Minimum length for int16 attention: no gain at 25 tokens, 4 % of BERT-base's time at 128.
constexpr int kInt16MinLength = 64;

// Memory of one thread for one head of one sequence.
class AttentionScratch {
   public:
    void reserve(int64_t max_length, int64_t size) {
        const int64_t padded = round_up(max_length, kFloatPanel), wide = round_up(size, kLanes);
        keys.reserve(wide * padded);
        scores.reserve(kQueryBlock * padded);
        context.reserve(kQueryBlock * wide);
        running_context.reserve(kQueryBlock * wide);
        words.reserve(std::max(kLanes * wide, kQueryBlock * std::max(wide, padded)));
        values.reserve(padded * wide);
        key_scales.reserve(padded);
        value_scales.reserve(wide);
    }
    int64_t bytes() const {
        return keys.bytes() + scores.bytes() + context.bytes() + running_context.bytes() + words.bytes() + values.bytes() +
               key_scales.bytes() + value_scales.bytes();
    }
    Buffer<float> keys, scores, context;
    Buffer<float> running_context;  // used by `blocked_attention` only
    // Used by int16 products only.
    Buffer<int16_t> words;
    Buffer<int32_t> values;
    Buffer<float> key_scales, value_scales;
};

// Replaces scores by exp(scale · (score - maximum)), zero-padded to a multiple of 16, and returns their sum: the numerators
// and the denominator of a numerically stable softmax. Writes scale · maximum to `scaled_maximum` if it is not null.
inline float softmax_numerators(float* scores, int length, float scale, float* scaled_maximum = nullptr) {
    const int whole = length / kLanes * kLanes;
    f32x16 high = splat(-INFINITY);
    for (int column = 0; column < whole; column += kLanes) high = max(high, load(scores + column));
    if (whole < length) high = max(high, mask(load(scores + whole), length - whole, -INFINITY));
    const float maximum = reduce_max(high) * scale;
    if (scaled_maximum != nullptr) *scaled_maximum = maximum;
    f32x16 total = {};
    const auto numerators = [&](int column) __attribute__((always_inline)) {
        return exp(load(scores + column) * scale - maximum);
    };
    for (int column = 0; column < whole; column += kLanes) {
        const f32x16 values = numerators(column);
        store(scores + column, values);
        total += values;
    }
    if (whole < length) {
        const f32x16 values = mask(numerators(whole), length - whole, 0.0f);
        store(scores + whole, values);
        total += values;
    }
    return reduce_add(total);
}

// Adds nothing to the scores of queries and keys. Another class, with `kAddsScores`, may add terms: it is called once before
// the first block of queries, and for each block before the softmax; see `DisentangledScores`. With `kReadsKeyWords` it also
// reads the keys in int16.
struct ContentScores {
    static constexpr bool kAddsScores = false, kReadsKeyWords = false;
};

// Attention of one head with float32 products. Query, key and value are (length, size), rows `stride` apart, and are read in
// whole vectors. write(row, column, values, count) receives the context (length, size).
template <class Write, class Scores = ContentScores>
void attention_float(const float* query, const float* key, const float* value, int64_t stride, int length, int size,
                     float scale, const AttentionScratch& scratch, Write write, Scores terms = {}) {
    if constexpr (Scores::kAddsScores) terms.begin_float();
    const int64_t padded = round_up(length, kLanes), wide = round_up(size, kLanes);
    float *keys = scratch.keys.get(), *scores = scratch.scores.get(), *context = scratch.context.get();
    for (int token = 0; token < length; token += kLanes) {
        for (int part = 0; part < size; part += kLanes) {
            const int count = std::min(kLanes, length - token);
            transpose(key + token * stride + part, stride, count, keys + part * padded + token, padded);
        }
    }
    for (int first = 0; first < length; first += kQueryBlock) {
        const int queries = std::min(kQueryBlock, length - first);
        gemm_dense<Float32>(query + first * stride, stride, queries, keys, padded, length, size, scores, padded);
        if constexpr (Scores::kAddsScores)
            terms.add_float(first, queries, query + first * stride, key, stride, scores, padded);
        float totals[kQueryBlock];
        for (int row = 0; row < queries; ++row) totals[row] = softmax_numerators(scores + row * padded, length, scale);
        gemm_dense<Float32>(scores, padded, queries, value, stride, size, length, context, wide);
        for (int row = 0; row < queries; ++row) {
            const float inverse_total = 1.0f / totals[row];
            for (int column = 0; column < size; column += kLanes) {
                write(first + row, column, load(context + row * wide + column) * inverse_total,
                      std::min(kLanes, size - column));
            }
        }
    }
}

// Quantizes `size` values symmetrically to integers of at most `limit`, zero-padded to a multiple of 16; returns the scale.
inline float quantize_int16(const float* from, int size, float limit, int16_t* to) {
    const auto value = [&](int column) __attribute__((always_inline)) {
        const f32x16 loaded = load(from + column);
        return column + kLanes <= size ? loaded : mask(loaded, size - column, 0.0f);
    };
    f32x16 high = {};
    for (int column = 0; column < size; column += kLanes) high = max(abs(value(column)), high);
    const float max_abs = reduce_max(high), inverse_scale = max_abs > FLT_MIN ? limit / max_abs : 0.0f;
    for (int column = 0; column < size; column += kLanes) {
        store_partial(to + column, __builtin_convertvector(round_to_int(value(column) * inverse_scale), i16x16), kLanes);
    }
    return max_abs / limit;
}

constexpr float kMaxInt32 = 2147483000.0f;

// Returns the largest integer of which `size` products fit int32.
inline float int16_limit(int size) { return std::floor(std::sqrt(kMaxInt32 / static_cast<float>(size))); }

// Attention of one head with int16 products, which have twice the throughput of float32: for layers whose linear inputs are
// quantized to 8 bits anyway.
//
// Queries and keys are quantized to the largest integers whose dot product fits int32: 12 bits and a sign for heads of size
// 64. Values get 13 bits and a sign. Attention weights get as many bits as their sum, which is known by then, and the values
// leave, at most 15. On random inputs the error of the context, relative to its maximum, is 5e-5 on average and below 1e-3;
// one step of 8-bit quantization is 4e-3.
template <class Write, class Scores = ContentScores>
void attention_int16(const float* query, const float* key, const float* value, int64_t stride, int length, int size,
                     float scale, const AttentionScratch& scratch, Write write, Scores terms = {}) {
    constexpr float kMaxValue = 8191.0f, kMaxWeight = 32767.0f;
    const float limit = int16_limit(size);
    const int64_t padded = round_up(length, kLanes), wide = round_up(size, kLanes), pairs = wide / 2;
    float *scores = scratch.scores.get(), *context = scratch.context.get(), *keys = scratch.keys.get();
    float *key_scales = scratch.key_scales.get(), *value_scales = scratch.value_scales.get();
    int16_t* words = scratch.words.get();
    int32_t* values = scratch.values.get();
    // The same memory as pairs of int16, which products read, and as int32 sums, which are converted to float32 in place.
    const auto* word_pairs = reinterpret_cast<const int32_t*>(words);
    const auto* key_pairs = reinterpret_cast<const int32_t*>(keys);
    auto *score_sums = reinterpret_cast<int32_t*>(scores), *context_sums = reinterpret_cast<int32_t*>(context);

    for (int token = 0; token < length; token += kLanes) {
        const int count = std::min(kLanes, length - token);
        int16_t* key_words = words;
        if constexpr (Scores::kReadsKeyWords) key_words = terms.key_words() + token * wide;  // which reads them again
        for (int row = 0; row < count; ++row) {
            key_scales[token + row] =
                quantize_int16(key + (token + row) * stride, size, limit, key_words + row * wide) * scale;
        }
        for (int64_t pair = 0; pair < pairs; pair += kLanes) {  // the last block may exceed `pairs`, into padding rows
            transpose(reinterpret_cast<const float*>(key_words) + pair, pairs, count, keys + pair * padded + token, padded);
        }
    }
    for (int column = 0; column < size; column += kLanes) {
        f32x16 high = {};
        for (int token = 0; token < length; ++token) high = max(abs(load(value + token * stride + column)), high);
        const f32x16 inverse_scale = high > FLT_MIN ? kMaxValue / high : f32x16{};
        store(value_scales + column, high / kMaxValue);
        for (int token = 0; token < length; token += 2) {
            const float* from = value + token * stride + column;
            const i32x16 even = round_to_int(load(from) * inverse_scale);
            const i32x16 odd = token + 1 < length ? round_to_int(load(from + stride) * inverse_scale) : i32x16{};
            const i32x16 pair = (even & 0xffff) | odd << 16;
            std::memcpy(values + token / 2 * wide + column, &pair, sizeof(pair));
        }
    }
    if constexpr (Scores::kAddsScores) terms.begin_int16();
    for (int first = 0; first < length; first += kQueryBlock) {
        const int queries = std::min(kQueryBlock, length - first);
        float query_scales[kQueryBlock], totals[kQueryBlock];
        for (int row = 0; row < queries; ++row) {
            query_scales[row] = quantize_int16(query + (first + row) * stride, size, limit, words + row * wide);
        }
        gemm_dense<Int16Pairs>(word_pairs, pairs, queries, key_pairs, padded, length, static_cast<int>(pairs), score_sums,
                               padded);
        const auto convert_row = [&](int row) __attribute__((always_inline)) {
            for (int column = 0; column < length; column += kLanes) {
                const f32x16 sums = __builtin_convertvector(load(score_sums + row * padded + column), f32x16);
                store(scores + row * padded + column, sums * load(key_scales + column));
            }
        };
        if constexpr (Scores::kAddsScores) {
            for (int row = 0; row < queries; ++row) convert_row(row);
            terms.add_int16(first, queries, word_pairs, pairs, query_scales, key_scales, scale, scores, padded);
        }
        for (int row = 0; row < queries; ++row) {
            float* row_scores = scores + row * padded;
            if constexpr (!Scores::kAddsScores) convert_row(row);
            const float total = softmax_numerators(row_scores, length, Scores::kAddsScores ? 1.0f : query_scales[row]);
            const float inverse_scale =
                std::min(kMaxWeight, kMaxInt32 / kMaxValue / total - static_cast<float>(length) / total);
            for (int column = 0; column < length; column += kLanes) {
                const i32x16 weights = round_to_int(load(row_scores + column) * inverse_scale);
                store_partial(words + row * padded + column, __builtin_convertvector(weights, i16x16), kLanes);
            }
            totals[row] = total * inverse_scale;
        }
        gemm_dense<Int16Pairs>(word_pairs, padded / 2, queries, values, wide, size, (length + 1) / 2, context_sums, wide);
        for (int row = 0; row < queries; ++row) {
            const float inverse_total = 1.0f / totals[row];
            for (int column = 0; column < size; column += kLanes) {
                const i32x16 sums = load(context_sums + row * wide + column);
                const f32x16 result = __builtin_convertvector(sums, f32x16) * (load(value_scales + column) * inverse_total);
                write(first + row, column, result, std::min(kLanes, size - column));
            }
        }
    }
}

template <class Write, class Scores = ContentScores>
void attention(bool use_int16, const float* query, const float* key, const float* value, int64_t stride, int length, int size,
               float scale, const AttentionScratch& scratch, Write write, const Scores& terms = {}) {
    if (use_int16) {
        attention_int16(query, key, value, stride, length, size, scale, scratch, write, terms);
    } else {
        attention_float(query, key, value, stride, length, size, scale, scratch, write, terms);
    }
}
