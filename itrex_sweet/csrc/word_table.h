// The table of word embeddings: float32, or int8 with a scale per row.
#pragma once

#include <algorithm>
#include <cstdint>

#include "api.h"
#include "buffer.h"
#include "gemm.h"
#include "vector.h"

class WordTable {
   public:
    explicit WordTable(const sweet_embeddings& from) : width_(from.width) {
        if (from.word_scale.size > 0) {
            std::copy_n(static_cast<const int8_t*>(from.words), from.words_size, integers_.reserve(from.words_size));
            std::copy_n(from.word_scale.values, from.word_scale.size, scales_.reserve(from.word_scale.size));
        } else {
            std::copy_n(static_cast<const float*>(from.words), from.words_size, floats_.reserve(from.words_size));
        }
    }

    int64_t bytes() const { return floats_.bytes() + integers_.bytes() + scales_.bytes(); }

    void prefetch(int64_t id) const {
        if (integers_.empty()) {
            prefetch_row(floats_.get() + id * width_);
        } else {
            prefetch_row(integers_.get() + id * width_);
            prefetch_line(scales_.get() + id);
        }
    }

    // Calls `use(word)`, where `word(column)` returns the row's values from a column on; lanes after its end are arbitrary.
    template <class Use>
    SWEET_INLINE void with_row(int64_t id, Use use) const {
        if (integers_.empty()) {
            const float* row = floats_.get() + id * width_;
            use([=](int64_t column) __attribute__((always_inline)) { return load(row + column); });
        } else {
            const int8_t* row = integers_.get() + id * width_;
            const float scale = scales_[id];
            use([=](int64_t column) __attribute__((always_inline)) {
                return to_floats(load_as<i8x16>(row + column)) * scale;
            });
        }
    }

   private:
    template <class Element>
    void prefetch_row(const Element* row) const {
        constexpr int64_t kLine = 64 / sizeof(Element);
        for (int64_t column = 0; column < width_; column += kLine) prefetch_line(row + column);
    }

    int64_t width_;
    Buffer<float> floats_, scales_;
    Buffer<int8_t> integers_;
};
