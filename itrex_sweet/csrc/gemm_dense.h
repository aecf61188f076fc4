// Products of small dense matrices, and the register tile that they share with packed float layers.
#pragma once

#include <algorithm>
#include <cstdint>

#include "packed_linear.h"
#include "tile.h"
#include "vector.h"

// A vector register of the instruction set. Compilers spill vectors of `kLanes` elements that exceed one register.
template <class Number>
using Register __attribute__((vector_size(kRegisterLanes * sizeof(Number)))) = Number;

// Type of a product: the elements in memory, the accumulators, and one multiply-accumulate.
struct Float32 {
    typedef float Element, Sum;
    static SWEET_INLINE Register<float> accumulate(Register<float> sums, Register<float> a, Register<float> b) {
        return sums + a * b;
    }
};

// Pairs of int16, accumulated in int32.
struct Int16Pairs {
    typedef int32_t Element, Sum;
    static SWEET_INLINE Register<int32_t> accumulate(Register<int32_t> sums, Register<int32_t> a, Register<int32_t> b) {
        return add_pairs(sums, a, b);
    }
};

// Pairs of bfloat16, accumulated in float32.
struct Bfloat16Pairs {
    typedef int32_t Element;
    typedef float Sum;
    static SWEET_INLINE Register<float> accumulate(Register<float> sums, Register<int32_t> a, Register<int32_t> b) {
#if defined(__AVX512BF16__)
        return (Register<float>)_mm512_dpbf16_ps((__m512)sums, (__m512bh)a, (__m512bh)b);
#else
        const auto low = [](Register<int32_t> pair) { return (Register<float>)(pair << 16); };
        const auto high = [](Register<int32_t> pair) { return (Register<float>)(pair >> 16 << 16); };
        return sums + low(a) * low(b) + high(a) * high(b);
#endif
    }
};

// Register tile: c (Height, Width · 16) = a (Height, depth) · b (depth, Width · 16), row-major, strides in elements.
template <class Type, int Height, int Width>
SWEET_INLINE void dense_tile(const typename Type::Element* a, int64_t a_stride, const typename Type::Element* b,
                             int64_t b_stride, int depth, typename Type::Sum* c, int64_t c_stride) {
    using Element = typename Type::Element;
    constexpr int kParts = Width * kLanes / kRegisterLanes;
    Register<typename Type::Sum> sums[Height][kParts] = {};
    for (int step = 0; step < depth; ++step) {
        Register<Element> inputs[Height];
#pragma GCC unroll 6
        for (int row = 0; row < Height; ++row)
            inputs[row] = load_as<Element>(a + row * a_stride + step) - Register<Element>{};
#pragma GCC unroll 8
        for (int part = 0; part < kParts; ++part) {
            const auto weights = load_as<Register<Element>>(b + step * b_stride + part * kRegisterLanes);
#pragma GCC unroll 6
            for (int row = 0; row < Height; ++row) sums[row][part] = Type::accumulate(sums[row][part], inputs[row], weights);
        }
    }
#pragma GCC unroll 6
    for (int row = 0; row < Height; ++row) {
#pragma GCC unroll 8
        for (int part = 0; part < kParts; ++part) {
            std::memcpy(c + row * c_stride + part * kRegisterLanes, &sums[row][part], sizeof(sums[row][part]));
        }
    }
}

template <class Type, int Width>
SWEET_INLINE void dense_tile(int height, const typename Type::Element* a, int64_t a_stride, const typename Type::Element* b,
                             int64_t b_stride, int depth, typename Type::Sum* c, int64_t c_stride) {
    static_assert(kFloatTileRows <= 6);
    switch (height) {
        case 1: return dense_tile<Type, 1, Width>(a, a_stride, b, b_stride, depth, c, c_stride);
        case 2: return dense_tile<Type, 2, Width>(a, a_stride, b, b_stride, depth, c, c_stride);
        case 3:
            if constexpr (kFloatTileRows >= 3)
                return dense_tile<Type, 3, Width>(a, a_stride, b, b_stride, depth, c, c_stride);
            break;
        case 4:
            if constexpr (kFloatTileRows >= 4)
                return dense_tile<Type, 4, Width>(a, a_stride, b, b_stride, depth, c, c_stride);
            break;
        case 5:
            if constexpr (kFloatTileRows >= 5)
                return dense_tile<Type, 5, Width>(a, a_stride, b, b_stride, depth, c, c_stride);
            break;
        default:
            if constexpr (kFloatTileRows >= 6)
                return dense_tile<Type, 6, Width>(a, a_stride, b, b_stride, depth, c, c_stride);
    }
}

// Covers `rows` with tiles of at most `max_height` rows and as equal heights as possible: each(first, height).
template <class Each>
SWEET_INLINE void for_each_tile(int rows, int max_height, Each each) {
    const int tiles = (rows + max_height - 1) / max_height;
    for (int tile = 0; tile < tiles; ++tile) {
        const int first = static_cast<int>(int64_t{rows} * tile / tiles);
        each(first, static_cast<int>(int64_t{rows} * (tile + 1) / tiles) - first);
    }
}

// c (rows, columns) = a (rows, depth) · b (depth, columns). Reads and writes whole vectors: rows of b and c must be padded to
// a multiple of 16 columns. Strides and depth count elements.
template <class Type>
void gemm_dense(const typename Type::Element* a, int64_t a_stride, int rows, const typename Type::Element* b,
                int64_t b_stride, int columns, int depth, typename Type::Sum* c, int64_t c_stride) {
    static_assert(kFloatTileVectors == 2 || kFloatTileVectors == 4);
    for (int column = 0; column < columns; column += kFloatPanel) {
        const int vectors = std::min(kFloatPanel, columns - column + kLanes - 1) / kLanes;
        for_each_tile(rows, kFloatTileRows, [&](int row, int height) {
            const auto* from = a + row * a_stride;
            auto* to = c + row * c_stride + column;
            switch (vectors) {
                case 1: return dense_tile<Type, 1>(height, from, a_stride, b + column, b_stride, depth, to, c_stride);
                case 2: return dense_tile<Type, 2>(height, from, a_stride, b + column, b_stride, depth, to, c_stride);
                case 3:
                    if constexpr (kFloatTileVectors == 4)
                        return dense_tile<Type, 3>(height, from, a_stride, b + column, b_stride, depth, to, c_stride);
                    break;
                default:
                    if constexpr (kFloatTileVectors == 4)
                        return dense_tile<Type, 4>(height, from, a_stride, b + column, b_stride, depth, to, c_stride);
            }
        });
    }
}

// c (rows, columns) = a (rows, depth) · bᵀ, b (columns, depth): dot products along the vectors.
inline void gemm_transposed(const float* a, int64_t a_stride, int rows, const float* b, int64_t b_stride, int columns,
                            int depth, float* c, int64_t c_stride) {
    constexpr int kRows = kFloatTileRows >= 4 ? 4 : 2, kColumns = kFloatTileRows >= 4 ? 4 : 2;
    for (int row = 0; row < rows; row += kRows) {
        for (int column = 0; column < columns; column += kColumns) {
            f32x16 sums[kRows][kColumns] = {};
            const float *from_a[kRows], *from_b[kColumns];
            for (int i = 0; i < kRows; ++i) from_a[i] = a + std::min(row + i, rows - 1) * a_stride;
            for (int j = 0; j < kColumns; ++j) from_b[j] = b + std::min(column + j, columns - 1) * b_stride;
            const auto step = [&](int offset, auto load_at) __attribute__((always_inline)) {
                f32x16 a_values[kRows];
#pragma GCC unroll 4
                for (int i = 0; i < kRows; ++i) a_values[i] = load_at(from_a[i] + offset);
#pragma GCC unroll 4
                for (int j = 0; j < kColumns; ++j) {
                    const f32x16 b_values = load_at(from_b[j] + offset);
#pragma GCC unroll 4
                    for (int i = 0; i < kRows; ++i) sums[i][j] += a_values[i] * b_values;
                }
            };
            int offset = 0;
            for (; offset + kLanes <= depth; offset += kLanes) step(offset, [](const float* from) { return load(from); });
            if (offset < depth) step(offset, [&](const float* from) { return load_partial(from, depth - offset); });
            for (int i = 0; i < std::min(kRows, rows - row); ++i) {
                for (int j = 0; j < std::min(kColumns, columns - column); ++j) {
                    c[(row + i) * c_stride + column + j] = reduce_add(sums[i][j]);
                }
            }
        }
    }
}
