// Rotary position embeddings (RoFormer, arXiv 2104.09864), for heads whose halves are the coordinates of the rotated pairs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "api.h"
#include "buffer.h"
#include "packed_linear.h"
#include "vector.h"

// Cosines and sines of all positions.
class RotaryTable {
   public:
    RotaryTable(const sweet_rotary& from, int64_t positions)
        : frequencies_(from.inverse_frequencies.values, from.inverse_frequencies.values + from.inverse_frequencies.size),
          scaling_(from.scaling),
          stride_(round_up(from.inverse_frequencies.size, kLanes)),
          cosines_(positions * stride_),
          sines_(positions * stride_) {
        for (int64_t position = 0; position < positions; ++position) {
            for (size_t pair = 0; pair < frequencies_.size(); ++pair) {
                const float angle = static_cast<float>(position) * frequencies_[pair];  // float32, as models are trained
                const int64_t place = position * stride_ + static_cast<int64_t>(pair);
                cosines_[place] = static_cast<float>(std::cos(static_cast<double>(angle))) * scaling_;
                sines_[place] = static_cast<float>(std::sin(static_cast<double>(angle))) * scaling_;
            }
        }
    }

    bool is_of(const sweet_rotary& other) const {
        const float* values = other.inverse_frequencies.values;
        return other.scaling == scaling_ &&
               std::equal(frequencies_.begin(), frequencies_.end(), values, values + other.inverse_frequencies.size);
    }

    int64_t bytes() const { return cosines_.bytes() + sines_.bytes(); }

    // Rotates a query or key of one head in place.
    void rotate(float* x, int64_t position) const {
        const int half = static_cast<int>(frequencies_.size());
        for (int pair = 0; pair < half; pair += kLanes) {
            const int count = std::min(kLanes, half - pair);
            const f32x16 cosine = load(cosines_.get() + position * stride_ + pair);
            const f32x16 sine = load(sines_.get() + position * stride_ + pair);
            const f32x16 first = load_partial(x + pair, count), second = load_partial(x + half + pair, count);
            store_partial(x + pair, first * cosine - second * sine, count);
            store_partial(x + half + pair, second * cosine + first * sine, count);
        }
    }

   private:
    std::vector<float> frequencies_;
    float scaling_;
    int64_t stride_;
    Buffer<float> cosines_, sines_;
};
