// Relative-position terms of DeBERTa's attention scores (He et al. 2021, arXiv 2006.03654, equation 4): of query i and key j,
// q_i · K[b(i - j)] + k_j · Q[b(i - j)] with tables K and Q of position keys and queries by bucket b of the distance.
//
// In a row without gaps, the distances of a block of queries and keys lie on diagonals: the products of a query with the
// position keys of consecutive distances, shifted by one column per query, are its terms for consecutive keys. Thus only
// distances within the row are multiplied, and nothing is gathered.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "attention.h"
#include "gemm_dense.h"
#include "relative_positions.h"
#include "vector.h"

// Position keys and queries of one layer.
struct DisentangledTerms {
    PositionTable keys, queries;

    DisentangledTerms(const sweet_layer& layer, const RelativePositions& positions, int heads, int64_t size)
        : keys(layer.relative_key, positions, heads, size, true, uses_int16(layer), kInt16MinLength),
          queries(layer.relative_query, positions, heads, size, false, uses_int16(layer), kInt16MinLength) {}

    static bool uses_int16(const sweet_layer& layer) { return layer.attention_output.weight_scale.values != nullptr; }
    int64_t bytes() const { return keys.bytes() + queries.bytes(); }
};

// Memory of one thread.
class DisentangledScratch {
   public:
    // Queries whose position-to-content terms are in memory at a time. The products of 16 keys cover 15 distances more.
    static constexpr int kQueries = 4 * kQueryBlock;
    static constexpr int kTileStride = kQueries + kLanes;

    void reserve(int64_t max_length, int64_t size) {
        const int64_t padded = round_up(max_length, kLanes);
        products.reserve(kContentRows * (padded + kLanes));
        added.reserve(kQueries * padded);
        key_words.reserve((padded + kLanes) * round_up(size, kLanes));
        expanded_keys.reserve(max_length, round_up(size, kLanes));
        expanded_queries.reserve(max_length, round_up(size, kLanes));
    }
    int64_t bytes() const {
        return products.bytes() + added.bytes() + key_words.bytes() + expanded_keys.bytes() + expanded_queries.bytes();
    }

    static constexpr int kContentRows = 12;  // queries multiplied with position keys at a time
    Buffer<float> products, added;
    Buffer<int16_t> key_words;
    ExpandedTable expanded_keys, expanded_queries;
};

// Adds the relative-position terms to the scores of one head of one sequence; see `attention_float` for the calls.
class DisentangledScores {
   public:
    // `row_positions`: of a row with gaps; null if positions are consecutive.
    DisentangledScores(const RelativePositions& positions, const DisentangledTerms& terms, int head, int length, int size,
                       const int64_t* row_positions, const DisentangledScratch& scratch)
        : positions_(positions),
          terms_(terms),
          head_(head),
          length_(length),
          size_(size),
          row_positions_(row_positions),
          scratch_(scratch) {}

    static constexpr bool kAddsScores = true, kReadsKeyWords = true;
    int16_t* key_words() const { return scratch_.key_words.get(); }

    void begin_float() {
        if (row_positions_ != nullptr) return;
        if (terms_.keys.is_present())
            float_keys_ = terms_.keys.float_columns(positions_, head_, length_, scratch_.expanded_keys);
        if (terms_.queries.is_present())
            float_queries_ = terms_.queries.float_columns(positions_, head_, length_, scratch_.expanded_queries);
    }
    void begin_int16() {
        if (terms_.keys.is_present())
            int16_keys_ = terms_.keys.int16_columns(positions_, head_, length_, scratch_.expanded_keys);
        if (terms_.queries.is_present())
            int16_queries_ = terms_.queries.int16_columns(positions_, head_, length_, scratch_.expanded_queries);
    }

    // Adds to the unscaled scores (count, length) of the queries from `first` on, rows `padded` apart. `query`, of the first
    // of them, and `key`, of the first token, have rows `stride` apart.
    void add_float(int first, int count, const float* query, const float* key, int64_t stride, float* scores,
                   int64_t padded) const {
        if (row_positions_ != nullptr) return add_with_gaps(first, count, query, key, stride, scores, padded);
        if (terms_.keys.is_present()) {
            add_content_to_position<Float32>(first, count, query, stride, size_, float_keys_, scores, padded,
                                             [](int, int, const float* products) { return load(products); });
        }
        if (!terms_.queries.is_present()) return;
        if (first % DisentangledScratch::kQueries == 0) {
            position_to_content<Float32>(first, key, stride, size_, float_queries_, padded,
                                         [](float*, int, int, const float*) {});
        }
        add_rows(first, count, scores, padded, [](f32x16 added, int) { return added; });
    }

    // The same for quantized queries and keys as pairs of int16. Multiplies the scores by `query_scales` before.
    void add_int16(int first, int count, const int32_t* query, int64_t pairs, const float* query_scales,
                   const float* key_scales, float scale, float* scores, int64_t padded) const {
        for (int row = 0; row < count; ++row) {
            float* const row_scores = scores + row * padded;
            for (int column = 0; column < length_; column += kLanes)
                store(row_scores + column, load(row_scores + column) * query_scales[row]);
        }
        if (terms_.keys.is_present()) {
            add_content_to_position<Int16Pairs>(
                first, count, query, pairs, static_cast<int>(pairs), int16_keys_, scores,
                padded, [&](int row, int distance, const int32_t* products) __attribute__((always_inline)) {
                    const f32x16 sums = __builtin_convertvector(load(products), f32x16);
                    return sums * (load(int16_keys_.scale - distance) * (scale * query_scales[row]));
                });
        }
        if (!terms_.queries.is_present()) return;
        if (first % DisentangledScratch::kQueries == 0) {
            const auto* keys = reinterpret_cast<const int32_t*>(scratch_.key_words.get());
            position_to_content<Int16Pairs>(
                first, keys, pairs, static_cast<int>(pairs), int16_queries_,
                padded, [&](int32_t * tile, int rows, int columns, const float* scales) __attribute__((always_inline)) {
                    for (int column = 0; column < columns; column += kLanes) {
                        const f32x16 scale_of = load(scales + column);
                        for (int row = 0; row < rows; ++row) {
                            int32_t* const sums = tile + row * DisentangledScratch::kTileStride + column;
                            const f32x16 scaled = __builtin_convertvector(load(sums), f32x16) * scale_of;
                            std::memcpy(sums, &scaled, sizeof(scaled));
                        }
                    }
                });
        }
        add_rows(first, count, scores, padded, [=](f32x16 added, int column) { return added * load(key_scales + column); });
    }

   private:
    // result(row, distance, products): the 16 terms of a query and keys at distances descending from `distance`.
    template <class Type, class Result>
    void add_content_to_position(int first, int count, const typename Type::Element* query, int64_t stride, int depth,
                                 const DistanceColumns<typename Type::Element>& columns, float* scores, int64_t padded,
                                 Result result) const {
        const int64_t products_stride = padded + kLanes;
        auto* const products = reinterpret_cast<typename Type::Sum*>(scratch_.products.get());
        for_each_tile(count, DisentangledScratch::kContentRows, [&](int start, int rows) {
            const int farthest = first + start + rows - 1;  // distance of the last query and the first key
            gemm_dense<Type>(query + start * stride, stride, rows, columns.zero - farthest, columns.stride,
                             length_ + rows - 1, depth, products, products_stride);
            for (int row = 0; row < rows; ++row) {
                float* const to = scores + (start + row) * padded;
                const auto* const from = products + row * products_stride + rows - 1 - row;
                const int distance = first + start + row;
                for (int column = 0; column < length_; column += kLanes) {
                    store(to + column, load(to + column) + result(start + row, distance - column, from + column));
                }
            }
        });
    }

    // Computes the terms of up to `kQueries` queries from `first` on into `added`. convert(tile, rows, columns, scales) turns
    // the products of keys and distances into float32.
    template <class Type, class Convert>
    void position_to_content(int first, const typename Type::Element* key, int64_t stride, int depth,
                             const DistanceColumns<typename Type::Element>& columns, int64_t padded, Convert convert) const {
        constexpr int kStride = DisentangledScratch::kTileStride;
        alignas(64) typename Type::Sum tile[kLanes * kStride + kLanes];
        const int count = std::min(DisentangledScratch::kQueries, length_ - first);
        for (int token = 0; token < length_; token += kLanes) {
            const int keys = std::min(kLanes, length_ - token), nearest = first - (token + keys - 1);
            const int distances = count + keys - 1;
            gemm_dense<Type>(key + token * stride, stride, keys, columns.zero + nearest, columns.stride, distances, depth,
                             tile, kStride);
            convert(tile, keys, distances, columns.scale == nullptr ? nullptr : columns.scale + nearest);
            // A key's terms begin one column further left than those of the key before: a block on the diagonal is
            // transposed.
            const auto* const from = reinterpret_cast<const float*>(tile) + keys - 1;
            for (int query = 0; query < count; query += kLanes) {
                transpose(from + query, kStride - 1, keys, scratch_.added.get() + query * padded + token, padded);
            }
        }
    }

    template <class Result>
    void add_rows(int first, int count, float* scores, int64_t padded, Result result) const {
        const float* const added = scratch_.added.get() + first % DisentangledScratch::kQueries * padded;
        for (int row = 0; row < count; ++row) {
            for (int column = 0; column < length_; column += kLanes) {
                float* const to = scores + row * padded + column;
                store(to, load(to) + result(load(added + row * padded + column), column));
            }
        }
    }

    // Rows with masked tokens between others are rare, and slow.
    void add_with_gaps(int first, int count, const float* query, const float* key, int64_t stride, float* scores,
                       int64_t padded) const {
        for (int row = 0; row < count; ++row) {
            for (int token = 0; token < length_; ++token) {
                const int64_t bucket = positions_.bucket(row_positions_[first + row] - row_positions_[token]);
                float total = 0.0f;
                for (int64_t element = 0; element < size_; ++element) {
                    if (terms_.keys.is_present())
                        total += query[row * stride + element] * terms_.keys.value(head_, element, bucket);
                    if (terms_.queries.is_present())
                        total += key[token * stride + element] * terms_.queries.value(head_, element, bucket);
                }
                scores[row * padded + token] += total;
            }
        }
    }

    const RelativePositions& positions_;
    const DisentangledTerms& terms_;
    const int head_, length_, size_;
    const int64_t* const row_positions_;
    const DisentangledScratch& scratch_;
    DistanceColumns<float> float_keys_{}, float_queries_{};
    DistanceColumns<int32_t> int16_keys_{}, int16_queries_{};
};
