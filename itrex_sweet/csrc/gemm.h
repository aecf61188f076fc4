// Products of input rows with packed linear layers.
#pragma once

#include <algorithm>
#include <cstdint>

#include "gemm_dense.h"
#include "linear_input.h"
#include "packed_linear.h"
#include "threads.h"
#include "tile.h"
#include "vector.h"

// Returns the number of rows per block, such that a block's inputs stay in the L2 cache while the panels are streamed.
inline int rows_per_block(int64_t stride) {
    return std::max<int>(8 * kTileRows, static_cast<int>((int64_t{384} << 10) / std::max<int64_t>(stride, 1)));
}

// Panels of a layer, [first, last).
struct Panels {
    int64_t first, last;
};

// The default for products whose destination needs no prefetching.
struct NoPrefetch {
    void operator()(int64_t, int64_t) const {}
};

// Prefetches a cache line of the destination while a tile is computed.
inline void prefetch_line(const void* address) { __builtin_prefetch(address); }

// Integer products, with the zero point corrected by the column sums: Σ (q - z) w = Σ q w - z Σ w (Jacob et al. 2018, arXiv
// 1712.05877, equation 7).
template <class Epilogue, class Prefetch>
void gemm_int8(const PackedLinear& layer, const InputRows& input, int rows, Panels panels, Epilogue epilogue,
               Prefetch prefetch) {
    if (panels.first == panels.last || rows == 0) return;
    [[maybe_unused]] const TileSession session;
    alignas(64) int32_t sums[kTileRows * kPanel];
    const int groups = static_cast<int>(layer.padded_in()) / kGroup, block = rows_per_block(input.byte_stride);
    const bool is_static = layer.is_static;
    for (int start = 0; start < rows; start += block) {
        for (int64_t panel = panels.first; panel < panels.last; ++panel) {
            const int8_t* weights = layer.weights.get() + panel * layer.padded_in() * kPanel;
            for_each_tile(std::min(block, rows - start), kTileRows, [&](int offset, int height) {
                const int first = start + offset;
                for (int row = 0; row < height; ++row) prefetch(first + row, panel * kPanel);
                integer_tile(input.bytes + first * input.byte_stride, input.byte_stride, height, weights, groups, sums);
                const Epilogue write = epilogue;  // a local copy cannot alias the stores, so it stays in registers
                for (int half = 0; half < kPanel; half += kLanes) {
                    const int64_t column = panel * kPanel + half;
                    const int count = static_cast<int>(std::min<int64_t>(kLanes, layer.out - column));
                    if (count <= 0) break;
                    const i32x16 column_sums = load(layer.column_sums.get() + column);
                    const f32x16 weight_scale = load(layer.weight_scale.get() + column);
                    const f32x16 bias = load(layer.bias.get() + column);
                    const auto apply_to_rows = [&](auto correction_of, auto scale_of, int lanes)
                        __attribute__((always_inline)) {
                        for (int row = 0; row < height; ++row) {
                            const i32x16 corrected = load(sums + row * kPanel + half) - correction_of(first + row);
                            const f32x16 scaled = __builtin_convertvector(corrected, f32x16) * scale_of(first + row);
                            write(first + row, column, scaled + bias, lanes);
                        }
                    };
                    const auto apply_to_lanes = [&](int lanes) __attribute__((always_inline)) {
                        if (is_static) {
                            const i32x16 correction = layer.zero_point * column_sums;
                            const f32x16 scale = layer.input_scale * weight_scale;
                            apply_to_rows([&](int) { return correction; }, [&](int) { return scale; }, lanes);
                        } else {
                            apply_to_rows([&](int row) { return input.zero_points[row] * column_sums; },
                                          [&](int row) { return input.scales[row] * weight_scale; }, lanes);
                        }
                    };
                    count == kLanes ? apply_to_lanes(kLanes) : apply_to_lanes(count);
                }
            });
        }
    }
}

// The same for 16-bit inputs, see `Int16Rows`.
template <class Epilogue>
void gemm_int16(const PackedLinear& layer, const Int16Rows& input, int rows, Panels panels, Epilogue epilogue) {
    static_assert(kTileRows % 2 == 0);
    [[maybe_unused]] const TileSession session;
    alignas(64) int32_t sums[kTileRows * kPanel];
    const int groups = static_cast<int>(layer.padded_in()) / kGroup;
    for (int64_t panel = panels.first; panel < panels.last; ++panel) {
        const int8_t* weights = layer.weights.get() + panel * layer.padded_in() * kPanel;
        for_each_tile(rows, kTileRows / 2, [&](int first, int height) {
            integer_tile(input.bytes + 2 * first * input.stride, input.stride, 2 * height, weights, groups, sums);
            for (int half = 0; half < kPanel; half += kLanes) {
                const int64_t column = panel * kPanel + half;
                const int count = static_cast<int>(std::min<int64_t>(kLanes, layer.out - column));
                if (count <= 0) break;
                const i32x16 correction = 128 * load(layer.column_sums.get() + column);
                const f32x16 weight_scale = load(layer.weight_scale.get() + column);
                const f32x16 bias = load(layer.bias.get() + column);
                for (int row = 0; row < height; ++row) {
                    const i32x16 high = load(sums + 2 * row * kPanel + half) - correction;
                    const i32x16 low = load(sums + (2 * row + 1) * kPanel + half);
                    const f32x16 corrected =
                        __builtin_convertvector(high, f32x16) * 256.0f + __builtin_convertvector(low, f32x16);
                    epilogue(first + row, column, corrected * (input.scales[first + row] * weight_scale) + bias, count);
                }
            }
        });
    }
}

// The same for float32 and bfloat16.
template <class Type, class Epilogue>
void gemm_panels(const PackedLinear& layer, const typename Type::Element* input, int64_t stride, int depth,
                 const typename Type::Element* weights, int rows, Panels panels, Epilogue epilogue) {
    alignas(64) float sums[kFloatTileRows * kFloatPanel];
    for (int64_t panel = panels.first; panel < panels.last; ++panel) {
        for_each_tile(rows, kFloatTileRows, [&](int first, int height) {
            const auto *from = input + first * stride, *of_panel = weights + panel * depth * kFloatPanel;
            if (layer.panel_stride(panel) == kLanes) {  // a head with few labels
                dense_tile<Type, 1>(height, from, stride, of_panel, kLanes, depth, sums, kFloatPanel);
            } else {
                dense_tile<Type, kFloatTileVectors>(height, from, stride, of_panel, kFloatPanel, depth, sums, kFloatPanel);
            }
            for (int part = 0; part < kFloatPanel; part += kLanes) {
                const int64_t column = panel * kFloatPanel + part;
                const int count = static_cast<int>(std::min<int64_t>(kLanes, layer.out - column));
                if (count <= 0) break;
                const f32x16 bias = load(layer.bias.get() + column);
                for (int row = 0; row < height; ++row) {
                    epilogue(first + row, column, load(sums + row * kFloatPanel + part) + bias, count);
                }
            }
        });
    }
}

template <class Epilogue>
void gemm_float(const PackedLinear& layer, const InputRows& input, int rows, Panels panels, Epilogue epilogue) {
    if (layer.is_bfloat16) {
        gemm_panels<Bfloat16Pairs>(layer, reinterpret_cast<const int32_t*>(input.bytes), layer.in / 2, layer.in / 2,
                                   layer.bfloat16_weights.get(), rows, panels, epilogue);
    } else {
        gemm_panels<Float32>(layer, input.floats, input.float_stride, layer.in, layer.float_weights.get(), rows, panels,
                             epilogue);
    }
}

// Multiplies rows with some panels of a layer. epilogue(row, column, 16 values, count) receives every result once, with the
// bias added; prefetch(row, first column of a panel) is called in advance.
template <class Epilogue, class Prefetch = NoPrefetch>
void gemm(const PackedLinear& layer, const InputRows& input, int rows, Panels panels, Epilogue epilogue,
          Prefetch prefetch = {}) {
    if (layer.is_integer) {
        gemm_int8(layer, input, rows, panels, epilogue, prefetch);
    } else {
        gemm_float(layer, input, rows, panels, epilogue);
    }
}

// The same for this thread's share of all panels.
template <class Epilogue, class Prefetch = NoPrefetch>
void gemm(const PackedLinear& layer, const InputRows& input, int rows, const Team& team, Epilogue epilogue,
          Prefetch prefetch = {}) {
    const auto [first, last] = team.range(layer.panels());
    gemm(layer, input, rows, Panels{first, last}, epilogue, prefetch);
}
