// Products of rows with packed layers, and of small float matrices.
#pragma once

#include <algorithm>
#include <cstdint>

#include "packed.h"
#include "threads.h"
#include "vector.h"

// Numbers as a register of the instruction set holds them; a compiler keeps only those in registers, not `kLanes` of them.
template <class Number>
using Register __attribute__((vector_size(kRegisterLanes * sizeof(Number)))) = Number;

// What a product is made of: elements as they stand in memory, sums, and one step from elements to sums.
struct Floats {
    typedef float Element, Sum;
    static SWEET_INLINE Register<float> add(Register<float> sums, Register<float> a, Register<float> b) { return sums + a * b; }
};

// Pairs of 16-bit integers in 32 bits.
struct Words {
    typedef int32_t Element, Sum;
    static SWEET_INLINE Register<int32_t> add(Register<int32_t> sums, Register<int32_t> a, Register<int32_t> b) {
        return add_pairs(sums, a, b);
    }
};

// Pairs of bfloat16 in 32 bits.
struct Bfloats {
    typedef int32_t Element;
    typedef float Sum;
    static SWEET_INLINE Register<float> add(Register<float> sums, Register<int32_t> a, Register<int32_t> b) {
#if defined(__AVX512BF16__)
        return (Register<float>)_mm512_dpbf16_ps((__m512)sums, (__m512bh)a, (__m512bh)b);
#else
        const auto low = [](Register<int32_t> pair) { return (Register<float>)(pair << 16); };
        const auto high = [](Register<int32_t> pair) { return (Register<float>)(pair >> 16 << 16); };
        return sums + low(a) * low(b) + high(a) * high(b);
#endif
    }
};

// c (Height, Width · 16) = a (Height, depth) times b (depth, Width · 16), both row by row, strides in elements.
template <class Kind, int Height, int Width>
SWEET_INLINE void dense_tile(const typename Kind::Element* a, int64_t a_stride, const typename Kind::Element* b,
                             int64_t b_stride, int depth, typename Kind::Sum* c, int64_t c_stride) {
    using Element = typename Kind::Element;
    constexpr int kParts = Width * kLanes / kRegisterLanes;
    Register<typename Kind::Sum> sums[Height][kParts] = {};
    for (int step = 0; step < depth; ++step) {
        Register<Element> inputs[Height];
#pragma GCC unroll 6
        for (int row = 0; row < Height; ++row) inputs[row] = load_as<Element>(a + row * a_stride + step) - Register<Element>{};
#pragma GCC unroll 8
        for (int part = 0; part < kParts; ++part) {
            const auto weights = load_as<Register<Element>>(b + step * b_stride + part * kRegisterLanes);
#pragma GCC unroll 6
            for (int row = 0; row < Height; ++row) sums[row][part] = Kind::add(sums[row][part], inputs[row], weights);
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

template <class Kind, int Width>
SWEET_INLINE void dense_tile(int height, const typename Kind::Element* a, int64_t a_stride, const typename Kind::Element* b,
                             int64_t b_stride, int depth, typename Kind::Sum* c, int64_t c_stride) {
    static_assert(kFloatTileRows <= 6);
    switch (height) {
        case 1: return dense_tile<Kind, 1, Width>(a, a_stride, b, b_stride, depth, c, c_stride);
        case 2: return dense_tile<Kind, 2, Width>(a, a_stride, b, b_stride, depth, c, c_stride);
        case 3:
            if constexpr (kFloatTileRows >= 3) return dense_tile<Kind, 3, Width>(a, a_stride, b, b_stride, depth, c, c_stride);
            break;
        case 4:
            if constexpr (kFloatTileRows >= 4) return dense_tile<Kind, 4, Width>(a, a_stride, b, b_stride, depth, c, c_stride);
            break;
        case 5:
            if constexpr (kFloatTileRows >= 5) return dense_tile<Kind, 5, Width>(a, a_stride, b, b_stride, depth, c, c_stride);
            break;
        default:
            if constexpr (kFloatTileRows >= 6) return dense_tile<Kind, 6, Width>(a, a_stride, b, b_stride, depth, c, c_stride);
    }
}

// Heights of tiles that cover `rows` with as little difference among them as can be: [first, first + height).
template <class Each>
SWEET_INLINE void even_tiles(int rows, int most, Each each) {
    const int tiles = (rows + most - 1) / most;
    for (int tile = 0; tile < tiles; ++tile) {
        const int first = static_cast<int>(int64_t{rows} * tile / tiles);
        each(first, static_cast<int>(int64_t{rows} * (tile + 1) / tiles) - first);
    }
}

// c (rows, columns) = a (rows, depth) times b (depth, columns). Reads and writes whole vectors: b and c have room for
// columns up to a multiple of 16. Strides and
// depth count elements.
template <class Kind>
void multiply_dense(const typename Kind::Element* a, int64_t a_stride, int rows, const typename Kind::Element* b,
                    int64_t b_stride, int columns, int depth, typename Kind::Sum* c, int64_t c_stride) {
    static_assert(kFloatTileVectors == 2 || kFloatTileVectors == 4);
    for (int column = 0; column < columns; column += kFloatPanel) {
        const int vectors = std::min(kFloatPanel, columns - column + kLanes - 1) / kLanes;
        even_tiles(rows, kFloatTileRows, [&](int row, int height) {
            const auto* from = a + row * a_stride;
            auto* to = c + row * c_stride + column;
            switch (vectors) {
                case 1: return dense_tile<Kind, 1>(height, from, a_stride, b + column, b_stride, depth, to, c_stride);
                case 2: return dense_tile<Kind, 2>(height, from, a_stride, b + column, b_stride, depth, to, c_stride);
                case 3:
                    if constexpr (kFloatTileVectors == 4)
                        return dense_tile<Kind, 3>(height, from, a_stride, b + column, b_stride, depth, to, c_stride);
                    break;
                default:
                    if constexpr (kFloatTileVectors == 4)
                        return dense_tile<Kind, 4>(height, from, a_stride, b + column, b_stride, depth, to, c_stride);
            }
        });
    }
}

// c (rows, columns) = a (rows, depth) times b (columns, depth) transposed: sums along the vectors.
inline void multiply_transposed(const float* a, int64_t a_stride, int rows, const float* b, int64_t b_stride, int columns,
                                int depth, float* c, int64_t c_stride) {
    constexpr int kRows = kFloatTileRows >= 4 ? 4 : 2, kColumns = kFloatTileRows >= 4 ? 4 : 2;
    for (int row = 0; row < rows; row += kRows) {
        for (int column = 0; column < columns; column += kColumns) {
            f32x16 sums[kRows][kColumns] = {};
            const float *from_a[kRows], *from_b[kColumns];
            for (int i = 0; i < kRows; ++i) from_a[i] = a + std::min(row + i, rows - 1) * a_stride;
            for (int j = 0; j < kColumns; ++j) from_b[j] = b + std::min(column + j, columns - 1) * b_stride;
            const auto step = [&](int place, auto loaded) __attribute__((always_inline)) {
                f32x16 left[kRows];
#pragma GCC unroll 4
                for (int i = 0; i < kRows; ++i) left[i] = loaded(from_a[i] + place);
#pragma GCC unroll 4
                for (int j = 0; j < kColumns; ++j) {
                    const f32x16 right = loaded(from_b[j] + place);
#pragma GCC unroll 4
                    for (int i = 0; i < kRows; ++i) sums[i][j] += left[i] * right;
                }
            };
            int place = 0;
            for (; place + kLanes <= depth; place += kLanes) step(place, [](const float* from) { return load(from); });
            if (place < depth) step(place, [&](const float* from) { return load_some(from, depth - place); });
            for (int i = 0; i < std::min(kRows, rows - row); ++i) {
                for (int j = 0; j < std::min(kColumns, columns - column); ++j) {
                    c[(row + i) * c_stride + column + j] = sum(sums[i][j]);
                }
            }
        }
    }
}

// Rows at a time, so that their inputs stay in the second cache while the panels pass by.
inline int block_of_rows(int64_t stride) {
    return std::max<int>(8 * kTileRows, static_cast<int>((int64_t{384} << 10) / std::max<int64_t>(stride, 1)));
}

// Panels of a layer, [first, last).
struct Panels {
    int64_t first, last;
};

// What a product's results are written to or added to: nothing that has to be fetched beforehand.
struct NothingAhead {
    void operator()(int64_t, int64_t) const {}
};

// The line at `place` brought into the first cache while a tile is computed.
inline void fetch_ahead(const void* place) { __builtin_prefetch(place); }

template <class Finish, class Ahead>
void multiply_integers(const Packed& layer, const Rows& input, int rows, Panels panels, Finish finish, Ahead ahead) {
    if (panels.first == panels.last || rows == 0) return;
    [[maybe_unused]] const TileSession session;
    alignas(64) int32_t sums[kTileRows * kPanel];
    const int groups = static_cast<int>(layer.padded_in()) / kGroup, block = block_of_rows(input.byte_stride);
    const bool fixed = layer.is_fixed;
    for (int start = 0; start < rows; start += block) {
        for (int64_t panel = panels.first; panel < panels.last; ++panel) {
            const int8_t* weights = layer.weights.get() + panel * layer.padded_in() * kPanel;
            even_tiles(std::min(block, rows - start), kTileRows, [&](int offset, int height) {
                const int first = start + offset;
                for (int row = 0; row < height; ++row) ahead(first + row, panel * kPanel);
                integer_tile(input.bytes + first * input.byte_stride, input.byte_stride, height, weights, groups, sums);
                const Finish write = finish;  // a copy of its own, which no store into memory can change: stays in registers
                for (int half = 0; half < kPanel; half += kLanes) {
                    const int64_t column = panel * kPanel + half;
                    const int count = static_cast<int>(std::min<int64_t>(kLanes, layer.out - column));
                    if (count <= 0) break;
                    const i32x16 column_sums = load(layer.column_sums.get() + column);
                    const f32x16 weight_scale = load(layer.weight_scale.get() + column);
                    const f32x16 bias = load(layer.bias.get() + column);
                    const auto finish_rows = [&](auto surplus_of, auto scale_of, int lanes) __attribute__((always_inline)) {
                        for (int row = 0; row < height; ++row) {
                            const i32x16 exact = load(sums + row * kPanel + half) - surplus_of(first + row);
                            const f32x16 scaled = __builtin_convertvector(exact, f32x16) * scale_of(first + row);
                            write(first + row, column, scaled + bias, lanes);
                        }
                    };
                    const auto finish_lanes = [&](int lanes) __attribute__((always_inline)) {
                        if (fixed) {
                            const i32x16 surplus = layer.zero_point * column_sums;
                            const f32x16 scale = layer.input_scale * weight_scale;
                            finish_rows([&](int) { return surplus; }, [&](int) { return scale; }, lanes);
                        } else {
                            finish_rows([&](int row) { return input.zero_points[row] * column_sums; },
                                        [&](int row) { return input.scales[row] * weight_scale; }, lanes);
                        }
                    };
                    count == kLanes ? finish_lanes(kLanes) : finish_lanes(count);
                }
            });
        }
    }
}

// The same for inputs of 16 bits, see `WideRows`.
template <class Finish>
void multiply_wide_integers(const Packed& layer, const WideRows& input, int rows, Panels panels, Finish finish) {
    static_assert(kTileRows % 2 == 0);
    [[maybe_unused]] const TileSession session;
    alignas(64) int32_t sums[kTileRows * kPanel];
    const int groups = static_cast<int>(layer.padded_in()) / kGroup;
    for (int64_t panel = panels.first; panel < panels.last; ++panel) {
        const int8_t* weights = layer.weights.get() + panel * layer.padded_in() * kPanel;
        even_tiles(rows, kTileRows / 2, [&](int first, int height) {
            integer_tile(input.bytes + 2 * first * input.stride, input.stride, 2 * height, weights, groups, sums);
            for (int half = 0; half < kPanel; half += kLanes) {
                const int64_t column = panel * kPanel + half;
                const int count = static_cast<int>(std::min<int64_t>(kLanes, layer.out - column));
                if (count <= 0) break;
                const i32x16 surplus = 128 * load(layer.column_sums.get() + column);
                const f32x16 weight_scale = load(layer.weight_scale.get() + column);
                const f32x16 bias = load(layer.bias.get() + column);
                for (int row = 0; row < height; ++row) {
                    const i32x16 high = load(sums + 2 * row * kPanel + half) - surplus;
                    const i32x16 low = load(sums + (2 * row + 1) * kPanel + half);
                    const f32x16 exact = __builtin_convertvector(high, f32x16) * 256.0f + __builtin_convertvector(low, f32x16);
                    finish(first + row, column, exact * (input.scales[first + row] * weight_scale) + bias, count);
                }
            }
        });
    }
}

// The same for elements that are floats or bfloat16: rows of `input`, `stride` elements apart, and panels of `weights`.
template <class Kind, class Finish>
void multiply_panels(const Packed& layer, const typename Kind::Element* input, int64_t stride, int steps,
                     const typename Kind::Element* weights, int rows, Panels panels, Finish finish) {
    alignas(64) float sums[kFloatTileRows * kFloatPanel];
    for (int64_t panel = panels.first; panel < panels.last; ++panel) {
        even_tiles(rows, kFloatTileRows, [&](int first, int height) {
            dense_tile<Kind, kFloatTileVectors>(height, input + first * stride, stride,
                                                weights + panel * steps * kFloatPanel, kFloatPanel, steps, sums, kFloatPanel);
            for (int part = 0; part < kFloatPanel; part += kLanes) {
                const int64_t column = panel * kFloatPanel + part;
                const int count = static_cast<int>(std::min<int64_t>(kLanes, layer.out - column));
                if (count <= 0) break;
                const f32x16 bias = load(layer.bias.get() + column);
                for (int row = 0; row < height; ++row) {
                    finish(first + row, column, load(sums + row * kFloatPanel + part) + bias, count);
                }
            }
        });
    }
}

template <class Finish>
void multiply_floats(const Packed& layer, const Rows& input, int rows, Panels panels, Finish finish) {
    if (layer.in_bfloat16) {
        multiply_panels<Bfloats>(layer, reinterpret_cast<const int32_t*>(input.bytes), layer.in / 2, layer.in / 2,
                                 layer.pair_weights.get(), rows, panels, finish);
    } else {
        multiply_panels<Floats>(layer, input.floats, input.float_stride, layer.in, layer.float_weights.get(), rows, panels,
                                finish);
    }
}

// Some panels of rows times a layer; finish(row, column, sixteen values, how many count) gets every value once, and
// ahead(row, first column of a panel) is told some time before.
template <class Finish, class Ahead = NothingAhead>
void multiply(const Packed& layer, const Rows& input, int rows, Panels panels, Finish finish, Ahead ahead = {}) {
    if (layer.is_integer) {
        multiply_integers(layer, input, rows, panels, finish, ahead);
    } else {
        multiply_floats(layer, input, rows, panels, finish);
    }
}

// This thread's part of all columns.
template <class Finish, class Ahead = NothingAhead>
void multiply(const Packed& layer, const Rows& input, int rows, const Team& team, Finish finish, Ahead ahead = {}) {
    const auto [first, last] = team.part(layer.panels());
    multiply(layer, input, rows, Panels{first, last}, finish, ahead);
}
