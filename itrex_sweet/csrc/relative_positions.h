// Relative positions: of DeBERTa buckets of distances, and the tables of position keys and queries by bucket; of others a bias.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "api.h"
#include "attention.h"
#include "buffer.h"
#include "packed_linear.h"
#include "position_bias.h"
#include "vector.h"

// The bucket of every distance between two positions, and the bias, which all layers share.
class RelativePositions {
   public:
    RelativePositions() = default;
    explicit RelativePositions(const sweet_description& from)
        : bias_(from), limit_(from.relative_index_size / 2), buckets_(from.num_relative_buckets) {
        if (from.relative_index_size == 0) return;
        std::copy_n(from.relative_index, from.relative_index_size, index_.reserve(from.relative_index_size));
        while (consecutive_ <= limit_ && bucket(consecutive_) == bucket(0) + consecutive_ &&
               bucket(-consecutive_) == bucket(0) - consecutive_) {
            ++consecutive_;
        }
    }

    bool is_present() const { return !index_.empty(); }
    int64_t buckets() const { return buckets_; }
    int64_t bytes() const { return index_.bytes() + bias_.bytes(); }
    const PositionBias& bias() const { return bias_; }
    // Bucket of a query's position minus a key's; distances beyond the table count as the greatest in it.
    int64_t bucket(int64_t distance) const { return index_[std::clamp(distance, -limit_, limit_) + limit_]; }
    // bucket(d) = bucket(0) + d for all |d| below this.
    int64_t consecutive() const { return consecutive_; }

    // Lowest and highest bucket of the distances from `first` to `last`.
    std::pair<int64_t, int64_t> range(int64_t first, int64_t last) const {
        std::pair<int64_t, int64_t> found{buckets_, -1};
        for (int64_t distance = std::max(first, -limit_); distance <= std::min(last, limit_); ++distance) {
            found = {std::min(found.first, bucket(distance)), std::max(found.second, bucket(distance))};
        }
        return found;
    }
    // Lowest and highest bucket of a first token's distances, none of which is positive.
    std::pair<int64_t, int64_t> first_token_range() const { return range(-limit_, 0); }

   private:
    PositionBias bias_;
    Buffer<int64_t> index_;  // of distances from -limit_ to limit_
    int64_t limit_ = 0, buckets_ = 0, consecutive_ = 1;
};

// Columns of a table by distance: column d is at zero + sign · d, rows are `stride` apart.
template <class Element>
struct DistanceColumns {
    const Element* zero;
    int64_t stride;
    const float* scale;  // of distance 0; int16 only
};

// Scratch memory for `PositionTable::columns`.
struct ExpandedTable {
    Buffer<int32_t> values;  // or float32
    Buffer<float> scales;

    void reserve(int64_t max_length, int64_t size) {
        const int64_t columns = 2 * max_length - 1;
        values.reserve(size * columns);
        scales.reserve(columns);
    }
    int64_t bytes() const { return values.bytes() + scales.bytes(); }
};

// Position keys or queries of one layer, transposed: one row per element of a head, one column per bucket. The columns of
// keys are in descending order of distance, since the keys that a query is compared with are at descending distances.
class PositionTable {
   public:
    PositionTable() = default;

    // `values` (heads, buckets, size). With `has_int16`, all columns are kept as int16, and in float32 those only that rows
    // shorter than `float_length` need.
    PositionTable(const sweet_floats& values, const RelativePositions& positions, int heads, int64_t size, bool is_descending,
                  bool has_int16, int64_t float_length)
        : buckets_(positions.buckets()), size_(size), pairs_(round_up(size, kLanes) / 2), is_descending_(is_descending) {
        if (values.size == 0) return;
        first_ = 0;
        float_columns_ = buckets_;
        if (has_int16) {
            const auto [lowest, highest] = positions.range(1 - float_length, float_length - 1);
            first_ = column(is_descending ? highest : lowest);
            float_columns_ = highest - lowest + 1;
        }
        floats_.reserve(heads * size * float_columns_);
        for (int64_t head = 0; head < heads; ++head) {
            const float* from = values.values + head * buckets_ * size;
            for (int64_t bucket = 0; bucket < buckets_; ++bucket) {
                const int64_t place = column(bucket) - first_;
                if (place < 0 || place >= float_columns_) continue;
                for (int64_t element = 0; element < size; ++element)
                    floats_[(head * size + element) * float_columns_ + place] = from[bucket * size + element];
            }
        }
        if (has_int16) pack_int16(values.values, heads);
    }

    bool is_present() const { return !floats_.empty(); }
    int64_t bytes() const { return floats_.bytes() + words_.bytes() + scales_.bytes(); }
    int64_t buckets() const { return buckets_; }
    int64_t column(int64_t bucket) const { return is_descending_ ? buckets_ - 1 - bucket : bucket; }
    bool has_int16() const { return !words_.empty(); }

    float value(int64_t head, int64_t element, int64_t bucket) const {
        const int64_t place = column(bucket) - first_;
        if (place >= 0 && place < float_columns_) return floats_[(head * size_ + element) * float_columns_ + place];
        const int32_t pair = words_[(head * pairs_ + element / 2) * buckets_ + column(bucket)];
        const int32_t word = element % 2 ? pair >> 16 : static_cast<int16_t>(pair & 0xffff);
        return static_cast<float>(word) * scales_[head * buckets_ + column(bucket)];
    }

    // Columns of all distances below `length`, for one head: those of the table if its buckets are consecutive there, else
    // copies.
    DistanceColumns<float> float_columns(const RelativePositions& positions, int64_t head, int64_t length,
                                         const ExpandedTable& scratch) const {
        const float* table = floats_.get() + head * size_ * float_columns_;
        if (length <= positions.consecutive()) return {table + column(positions.bucket(0)) - first_, float_columns_, nullptr};
        auto* copies = reinterpret_cast<float*>(scratch.values.get());
        return {expand(positions, length, table - first_, float_columns_, size_, copies), 2 * length - 1, nullptr};
    }
    DistanceColumns<int32_t> int16_columns(const RelativePositions& positions, int64_t head, int64_t length,
                                           const ExpandedTable& scratch) const {
        const int32_t* table = words_.get() + head * pairs_ * buckets_;
        const float* scales = scales_.get() + head * buckets_;
        if (length <= positions.consecutive()) {
            const int64_t zero = column(positions.bucket(0));
            return {table + zero, buckets_, scales + zero};
        }
        return {expand(positions, length, table, buckets_, pairs_, scratch.values.get()), 2 * length - 1,
                expand(positions, length, scales, buckets_, 1, scratch.scales.get())};
    }

    // Dot products of one query or key (size,) with the columns [first, last] of a head. Writes whole vectors.
    void multiply(int64_t head, const float* vector, int64_t first, int64_t last, float* products) const {
        const int columns = static_cast<int>(last - first + 1);
        if (!has_int16()) {
            return gemm_dense<Float32>(vector, size_, 1, floats_.get() + head * size_ * float_columns_ + first,
                                       float_columns_, columns, static_cast<int>(size_), products, round_up(columns, kLanes));
        }
        for (int column = 0; column < columns; column += kLanes) {
            const int32_t* from = words_.get() + head * pairs_ * buckets_ + first + column;
            f32x16 even = {}, odd = {};
            for (int64_t pair = 0; pair < (size_ + 1) / 2; ++pair) {
                const i32x16 both = load(from + pair * buckets_);
                even += vector[2 * pair] * __builtin_convertvector(both << 16 >> 16, f32x16);
                if (2 * pair + 1 < size_) odd += vector[2 * pair + 1] * __builtin_convertvector(both >> 16, f32x16);
            }
            store(products + column, (even + odd) * load(scales_.get() + head * buckets_ + first + column));
        }
    }

   private:
    // Copies the columns of the distances 1 - length to length - 1; returns the address of the column of distance 0.
    template <class Element>
    const Element* expand(const RelativePositions& positions, int64_t length, const Element* from, int64_t stride,
                          int64_t rows, Element* to) const {
        const int64_t columns = 2 * length - 1, sign = is_descending_ ? -1 : 1;
        for (int64_t row = 0; row < rows; ++row) {
            for (int64_t place = 0; place < columns; ++place) {
                to[row * columns + place] = from[row * stride + column(positions.bucket(sign * (place - length + 1)))];
            }
        }
        return to + length - 1;
    }

    void pack_int16(const float* values, int64_t heads) {
        const float limit = int16_limit(static_cast<int>(size_));
        Buffer<float> padded(round_up(size_, kLanes));
        Buffer<int16_t> quantized(round_up(size_, kLanes));
        words_.reserve(heads * pairs_ * buckets_);
        scales_.reserve(heads * buckets_);
        for (int64_t head = 0; head < heads; ++head) {
            for (int64_t bucket = 0; bucket < buckets_; ++bucket) {
                std::copy_n(values + (head * buckets_ + bucket) * size_, size_, padded.get());
                scales_[head * buckets_ + column(bucket)] =
                    quantize_int16(padded.get(), static_cast<int>(size_), limit, quantized.get());
                for (int64_t pair = 0; pair < pairs_; ++pair) {
                    std::memcpy(words_.get() + (head * pairs_ + pair) * buckets_ + column(bucket), quantized.get() + 2 * pair,
                                sizeof(int32_t));
                }
            }
        }
    }

    int64_t buckets_ = 0, size_ = 0, pairs_ = 0, first_ = 0, float_columns_ = 0;
    bool is_descending_ = false;
    Buffer<float> floats_;   // [heads][size][float_columns_], the columns from first_ on
    Buffer<int32_t> words_;  // [heads][pairs_][buckets_], pairs of int16
    Buffer<float> scales_;   // [heads][buckets_], of the int16 columns
};
