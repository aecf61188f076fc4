// Query that the first tokens of all rows share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "buffer.h"

// Before any layer, the state of a token depends on its id, type and position only, and most tokenizers begin every text with
// the same token. The query of the first exit, and its product with the key weights, are then the same for every row: they
// are computed when a state occurs in two calls in succession, and kept while rows begin with it.
class SharedQuery {
   public:
    int64_t bytes() const { return state_.bytes() + query.bytes() + projected.bytes(); }

    // Returns true if all rows begin with the same state as in the last call with one state. `compute` writes `query` and
    // `projected` at the second occurrence of a state.
    template <class Compute>
    bool find(const float* const* starts, int64_t rows, int64_t hidden, Compute compute) {
        const size_t bytes = static_cast<size_t>(hidden) * sizeof(float);
        for (int64_t row = 1; row < rows; ++row)
            if (std::memcmp(starts[row], starts[0], bytes) != 0) return false;
        if (state_.empty() || std::memcmp(starts[0], state_.get(), bytes) != 0) {
            is_computed_ = false;
            std::copy_n(starts[0], hidden, state_.reserve(hidden));
            return false;
        }
        if (!is_computed_) compute();
        is_computed_ = true;
        return true;
    }

    Buffer<float> query;      // as the projection writes it
    Buffer<float> projected;  // (heads, hidden), rows padded to a multiple of `kLanes`

   private:
    Buffer<float> state_;  // (hidden,)
    bool is_computed_ = false;
};
