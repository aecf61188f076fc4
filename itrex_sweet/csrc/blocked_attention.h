// Self-attention within a window, or over long rows: keys and values are read in blocks, with a running softmax (Milakov and
// Gimelshein, arXiv 1805.02867). Time is linear in the length where a window limits the keys, and memory is always.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "attention.h"
#include "gemm_dense.h"
#include "vector.h"

constexpr int kKeyBlock = 512;  // keys whose scores are in memory at the same time

// Returns true if `blocked_attention` is to be used. `window` = 0: none; `positions`: null if they are consecutive.
inline bool needs_blocks(int length, int window, const int64_t* positions) {
    if (length > kKeyBlock) return true;
    return window > 0 && (positions == nullptr ? length - 1 : positions[length - 1] - positions[0]) > window;
}

// Attention of one head; arguments as for `attention`. A token attends only to tokens at most `window` positions away, if a
// window is given.
template <bool kIsInt16>
class BlockedAttention {
   public:
    BlockedAttention(const float* query, const float* key, const float* value, int64_t stride, int length, int size,
                     float scale, int window, const int64_t* positions, const AttentionScratch& scratch)
        : query_(query),
          value_(value),
          stride_(stride),
          length_(length),
          size_(size),
          scale_(scale),
          window_(window),
          positions_(positions),
          wide_(round_up(size, kLanes)),
          key_rows_(kIsInt16 ? round_up(wide_ / 2, kLanes) : wide_),
          limit_(std::floor(std::sqrt(kMaxSum / static_cast<float>(size)))),
          scratch_(scratch) {
        pack_keys(key);
        if constexpr (kIsInt16) pack_values();
    }

    template <class Write>
    void run(Write write) const {
        for (int first = 0; first < length_; first += kQueryBlock)
            run_queries(first, std::min(kQueryBlock, length_ - first), write);
    }

   private:
    static constexpr float kMaxSum = 2147483000.0f, kMaxValue = 8191.0f, kMaxWeight = 32767.0f;
    static constexpr int kKeyPanel = kFloatPanel;

    // Running softmax of the queries of a block.
    struct Running {
        float maximum[kQueryBlock], total[kQueryBlock];
    };

    // Packs keys in panels of [coordinates][kKeyPanel], for int16 pairs of coordinates.
    void pack_keys(const float* key) const {
        float* keys = scratch_.keys.get();
        for (int token = 0; token < length_; token += kLanes) {
            const int count = std::min(kLanes, length_ - token);
            float* to = keys + token / kKeyPanel * key_rows_ * kKeyPanel + token % kKeyPanel;
            if constexpr (kIsInt16) {
                int16_t* words = scratch_.words.get();
                for (int row = 0; row < count; ++row) {
                    const float* from = key + (token + row) * stride_;
                    scratch_.key_scales[token + row] = quantize_int16(from, size_, limit_, words + row * wide_) * scale_;
                }
                for (int64_t pair = 0; pair < wide_ / 2; pair += kLanes) {
                    transpose(reinterpret_cast<const float*>(words) + pair, wide_ / 2, count, to + pair * kKeyPanel,
                              kKeyPanel);
                }
            } else {
                for (int part = 0; part < size_; part += kLanes) {
                    transpose(key + token * stride_ + part, stride_, count, to + part * kKeyPanel, kKeyPanel);
                }
            }
        }
    }

    // Packs values as pairs of tokens, with one scale per coordinate.
    void pack_values() const {
        for (int column = 0; column < size_; column += kLanes) {
            f32x16 high = {};
            for (int token = 0; token < length_; ++token) high = max(abs(load(value_ + token * stride_ + column)), high);
            const f32x16 inverse_scale = high > FLT_MIN ? kMaxValue / high : f32x16{};
            store(scratch_.value_scales.get() + column, high / kMaxValue);
            for (int token = 0; token < length_; token += 2) {
                const float* from = value_ + token * stride_ + column;
                const i32x16 even = round_to_int(load(from) * inverse_scale);
                const i32x16 odd = token + 1 < length_ ? round_to_int(load(from + stride_) * inverse_scale) : i32x16{};
                const i32x16 pair = (even & 0xffff) | odd << 16;
                std::memcpy(scratch_.values.get() + token / 2 * wide_ + column, &pair, sizeof(pair));
            }
        }
    }

    template <class Write>
    void run_queries(int first, int queries, Write write) const {
        const int last = first + queries;
        const int low = window_ == 0 ? 0 : std::max(0, first - window_) / kLanes * kLanes;
        const int high = window_ == 0 ? length_ : static_cast<int>(std::min<int64_t>(length_, int64_t{last} + window_));
        Running running;
        std::fill_n(running.total, queries, 0.0f);
        std::fill_n(running.maximum, queries, -INFINITY);
        for (int start = low; start < high; start += kKeyBlock) {
            add_block(first, queries, start, std::min(high, start + kKeyBlock), start == low, running);
        }
        const float* context = scratch_.running_context.get();
        for (int row = 0; row < queries; ++row) {
            const float inverse_total = 1.0f / running.total[row];
            for (int column = 0; column < size_; column += kLanes) {
                write(first + row, column, load(context + row * wide_ + column) * inverse_total,
                      std::min(kLanes, size_ - column));
            }
        }
    }

    // Adds the keys [start, end) to the running softmax; `start` is a multiple of `kLanes`.
    void add_block(int first, int queries, int start, int end, bool is_first, Running& running) const {
        const int64_t padded = round_up(end - start, kLanes);
        float *scores = scratch_.scores.get(), *context = scratch_.context.get(), *sums = scratch_.running_context.get();
        int16_t* words = scratch_.words.get();
        float query_scales[kQueryBlock];
        if constexpr (kIsInt16) {
            for (int row = 0; row < queries; ++row) {
                query_scales[row] = quantize_int16(query_ + (first + row) * stride_, size_, limit_, words + row * wide_);
            }
        }
        for (int key = start; key < end;) {
            const int place = key % kKeyPanel, columns = std::min(kKeyPanel - place, end - key);
            const float* panel = scratch_.keys.get() + key / kKeyPanel * key_rows_ * kKeyPanel + place;
            float* to = scores + (key - start);
            if constexpr (kIsInt16) {
                gemm_dense<Int16Pairs>(reinterpret_cast<const int32_t*>(words), wide_ / 2, queries,
                                       reinterpret_cast<const int32_t*>(panel), kKeyPanel, columns,
                                       static_cast<int>(wide_ / 2), reinterpret_cast<int32_t*>(to), padded);
            } else {
                gemm_dense<Float32>(query_ + first * stride_, stride_, queries, panel, kKeyPanel, columns, size_, to, padded);
            }
            key += columns;
        }
        float old_weights[kQueryBlock], new_weights[kQueryBlock];
        for (int row = 0; row < queries; ++row) {
            float* row_scores = scores + row * padded;
            const auto [from, to] = visible_keys(first + row, start, end);
            float maximum = -INFINITY, total = 0.0f, inverse_scale = 1.0f;
            if (from < to) {
                total = softmax_of(row_scores, from, to, start, kIsInt16 ? query_scales[row] : scale_, maximum);
                if constexpr (kIsInt16) {
                    inverse_scale =
                        std::min(kMaxWeight, kMaxSum / kMaxValue / total - static_cast<float>(end - start) / total);
                }
            }
            clear_outside(row_scores, from, to, padded);
            if constexpr (kIsInt16) {
                for (int64_t column = 0; column < padded; column += kLanes) {
                    const i32x16 weights = round_to_int(load(row_scores + column) * inverse_scale);
                    store_partial(words + row * padded + column, __builtin_convertvector(weights, i16x16), kLanes);
                }
            }
            // Both parts are relative to their own maximum; it is -infinity while a query has seen no key.
            const float new_maximum = std::max(running.maximum[row], maximum);
            const bool is_empty = new_maximum == -INFINITY;
            const float old_weight = is_empty ? 0.0f : exponential(running.maximum[row] - new_maximum);
            const float new_weight = is_empty ? 0.0f : exponential(maximum - new_maximum);
            running.total[row] = is_first ? total : running.total[row] * old_weight + total * new_weight;
            running.maximum[row] = new_maximum;
            old_weights[row] = old_weight;
            new_weights[row] = (is_first ? 1.0f : new_weight) / inverse_scale;
        }
        if constexpr (kIsInt16) {
            gemm_dense<Int16Pairs>(reinterpret_cast<const int32_t*>(words), padded / 2, queries,
                                   scratch_.values.get() + start / 2 * wide_, wide_, size_, (end - start + 1) / 2,
                                   reinterpret_cast<int32_t*>(context), wide_);
        } else {
            gemm_dense<Float32>(scores, padded, queries, value_ + start * stride_, stride_, size_, end - start, context,
                                wide_);
        }
        for (int row = 0; row < queries; ++row) {
            for (int64_t column = row * wide_; column < row * wide_ + size_; column += kLanes) {
                f32x16 added = load(context + column);
                if constexpr (kIsInt16) {
                    added = __builtin_convertvector((i32x16)added, f32x16) *
                            load(scratch_.value_scales.get() + column - row * wide_);
                }
                added *= new_weights[row];
                store(sums + column, is_first ? added : load(sums + column) * old_weights[row] + added);
            }
        }
    }

    // Returns the keys of the block that a query attends to, relative to `start`; empty if the first is not below the second.
    std::pair<int, int> visible_keys(int query, int start, int end) const {
        if (window_ == 0) return {0, end - start};
        int first = std::max(start, query - window_);
        int last = static_cast<int>(std::min<int64_t>(end, int64_t{query} + window_ + 1));
        // Positions increase at least as fast as tokens, so the tokens within the window are among these.
        if (positions_ != nullptr && first < last) {
            const int64_t *from = positions_ + first, *to = positions_ + last;
            first = static_cast<int>(std::lower_bound(from, to, positions_[query] - window_) - positions_);
            last = static_cast<int>(std::upper_bound(from, to, positions_[query] + window_) - positions_);
        }
        return {first - start, last - start};
    }

    // `softmax_numerators` of the scores [from, to), multiplied by the scales of the keys.
    float softmax_of(float* scores, int from, int to, int start, float scale, float& maximum) const {
        const int aligned = from / kLanes * kLanes;
        if constexpr (kIsInt16) {
            for (int column = aligned; column < to; column += kLanes) {
                const f32x16 sums = __builtin_convertvector(load(reinterpret_cast<int32_t*>(scores) + column), f32x16);
                store(scores + column, sums * load(scratch_.key_scales.get() + start + column));
            }
        }
        std::fill(scores + aligned, scores + from, -INFINITY);
        return softmax_numerators(scores + aligned, to - aligned, scale, &maximum);
    }

    // Zeros the weights outside [from, to).
    static void clear_outside(float* weights, int from, int to, int64_t padded) {
        if (from >= to) from = to = 0;
        std::fill(weights, weights + from, 0.0f);
        std::fill(weights + to, weights + padded, 0.0f);
    }

    static float exponential(float x) { return exp(splat(x))[0]; }

    const float *query_, *value_;
    int64_t stride_;
    int length_, size_;
    float scale_;
    int window_;
    const int64_t* positions_;
    int64_t wide_, key_rows_;
    float limit_;
    const AttentionScratch& scratch_;
};

// The same arguments as `attention`, a window, 0 for none, and positions, null if they are consecutive.
template <class Write>
void blocked_attention(bool use_int16, const float* query, const float* key, const float* value, int64_t stride, int length,
                       int size, float scale, int window, const int64_t* positions, const AttentionScratch& scratch,
                       Write write) {
    if (use_int16) {
        BlockedAttention<true>(query, key, value, stride, length, size, scale, window, positions, scratch).run(write);
    } else {
        BlockedAttention<false>(query, key, value, stride, length, size, scale, window, positions, scratch).run(write);
    }
}
