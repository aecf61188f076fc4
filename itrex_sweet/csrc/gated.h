// The gated feed-forward part: activation(up(x)) · gate(x), in the epilogue of one product.
#pragma once

#include <algorithm>
#include <cstdint>

#include "layers.h"
#include "packed_linear.h"
#include "tile.h"
#include "vector.h"

// Rows of a tile, at most.
constexpr int64_t kMaxTileRows = 32;
static_assert(kTileRows <= kMaxTileRows && kFloatTileRows <= kMaxTileRows);

// Epilogue of a product whose outputs alternate between `kLanes` of `up` and of `gate` (`PackedLinear`, interleaved). A tile
// gives the outputs of `up` for all its rows before those of `gate` beside them; until then they are held.
template <class Write>
struct GatedEpilogue {
    int32_t activation;
    int inner;    // outputs of `up`
    float* held;  // of this thread, `kMaxTileRows` · `kLanes` floats
    Write write;  // of the input of `down`

    SWEET_INLINE void operator()(int64_t row, int64_t column, f32x16 values, int) const {
        float* place = held + row % kMaxTileRows * kLanes;
        const int64_t block = column / (2 * kLanes) * kLanes;
        if (column % (2 * kLanes) == 0) {
            store(place, activate(activation, values));
        } else {
            write(row, block, load(place) * values, static_cast<int>(std::min<int64_t>(kLanes, inner - block)));
        }
    }
};
