// Relative-position bias of attention (Raffel et al. 2020, arXiv 1910.10683, section 2.1): a value of each head and distance,
// which all layers add to their scores.
#pragma once

#include <algorithm>
#include <cstdint>

#include "api.h"
#include "buffer.h"
#include "vector.h"

class PositionBias {
   public:
    PositionBias() = default;
    explicit PositionBias(const sweet_description& from)
        : distances_(from.position_bias.size / from.num_attention_heads), limit_(distances_ / 2) {
        if (from.position_bias.size == 0) return;
        float* to = values_.reserve(from.position_bias.size + kLanes);  // rows are read in whole vectors
        for (int64_t place = 0; place < from.position_bias.size; ++place)
            to[place] = from.position_bias.values[place] * from.score_scale;
    }

    bool is_present() const { return !values_.empty(); }
    int64_t bytes() const { return values_.bytes(); }

    // The bias of one head before the scores are divided by their scale; distances, a key's position minus a query's, beyond
    // the table count as the greatest in it.
    float at(int64_t head, int64_t distance) const { return of(head)[std::clamp(distance, -limit_, limit_)]; }

    // Replaces the scores of a query by factor · (score · own_factor + bias). `positions`: null if they are consecutive.
    void add(int64_t head, int64_t query, int64_t length, const int64_t* positions, float own_factor, float factor,
             float* scores) const {
        if (positions == nullptr && length <= limit_ + 1) {
            const float* from = of(head) - query;
            for (int64_t key = 0; key < length; key += kLanes)
                store(scores + key, (load(scores + key) * own_factor + load(from + key)) * factor);
            return;
        }
        for (int64_t key = 0; key < length; ++key) {
            const int64_t distance = positions == nullptr ? key - query : positions[key] - positions[query];
            scores[key] = (scores[key] * own_factor + at(head, distance)) * factor;
        }
    }

   private:
    const float* of(int64_t head) const { return values_.get() + head * distances_ + limit_; }

    int64_t distances_ = 0, limit_ = 0;
    Buffer<float> values_;  // [heads][distances_]
};

// Adds the bias to the scores of one head of one sequence; see `attention_float` for the calls.
class BiasedScores {
   public:
    // `positions`: of a row with gaps; null if they are consecutive.
    BiasedScores(const PositionBias& bias, int head, int length, const int64_t* positions)
        : bias_(bias), head_(head), length_(length), positions_(positions) {}

    static constexpr bool kAddsScores = true, kReadsKeyWords = false;
    void begin_float() {}
    void begin_int16() {}

    void add_float(int first, int queries, const float*, const float*, int64_t, float* scores, int64_t padded) const {
        for (int row = 0; row < queries; ++row)
            bias_.add(head_, first + row, length_, positions_, 1.0f, 1.0f, scores + row * padded);
    }
    // The scores are divided by their scale already.
    void add_int16(int first, int queries, const int32_t*, int64_t, const float* query_scales, const float*, float scale,
                   float* scores, int64_t padded) const {
        for (int row = 0; row < queries; ++row)
            bias_.add(head_, first + row, length_, positions_, query_scales[row] / scale, scale, scores + row * padded);
    }

   private:
    const PositionBias& bias_;
    int head_, length_;
    const int64_t* positions_;
};
