// Rows of tokens packed without padding.
#pragma once

#include <algorithm>
#include <cstdint>

// `count` sequences: sequence i has `lengths[i]` tokens, the first of which is token `starts[i]`.
struct Sequences {
    int64_t count;
    const int64_t* lengths;
    const int64_t* starts;
    const int64_t* const* positions = nullptr;  // of the tokens of each sequence, or null if they are consecutive

    int64_t tokens() const { return count ? starts[count - 1] + lengths[count - 1] - starts[0] : 0; }
    int64_t max_length() const { return count ? *std::max_element(lengths, lengths + count) : 0; }
    const int64_t* positions_of(int64_t index) const { return positions == nullptr ? nullptr : positions[index]; }
    Sequences slice(int64_t first, int64_t size) const {
        return {size, lengths + first, starts + first, positions == nullptr ? nullptr : positions + first};
    }
};
