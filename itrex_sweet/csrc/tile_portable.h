// int8 kernel in standard C++: the reference, which all other instruction sets match bit by bit.
#pragma once

#include <cstdint>

#include "vector.h"

constexpr char kInstructionSet[] = "portable";
constexpr int kGroup = 4;          // consecutive inputs of a column in a packed panel
constexpr int kTileRows = 4;       // rows of an int8 tile
constexpr int kRegisterLanes = 4;  // float32 per vector register
constexpr int kFloatTileRows = 2;  // rows and vectors of a float tile, limited by the registers
constexpr int kFloatTileVectors = 2;

typedef int32_t i32x4 __attribute__((vector_size(16)));

// Multiplies pairs of int16 and adds both products to an int32 sum.
SWEET_INLINE i32x4 add_pairs(i32x4 sums, i32x4 a, i32x4 b) {
    const auto low = [](i32x4 pair) { return pair << 16 >> 16; };
    return sums + low(a) * low(b) + (a >> 16) * (b >> 16);
}

struct TileSession {};

// c (rows, kPanel) = a (rows, groups · kGroup) · packed panel.
SWEET_INLINE void integer_tile(const uint8_t* a, int64_t stride, int rows, const int8_t* panel, int groups, int32_t* c) {
    for (int row = 0; row < rows; ++row) {
        int32_t sums[32] = {};
        for (int group = 0; group < groups; ++group) {
            const uint8_t* inputs = a + row * stride + group * 4;
            const int8_t* weights = panel + int64_t{group} * 128;
            for (int column = 0; column < 32; ++column) {
                for (int part = 0; part < 4; ++part) sums[column] += inputs[part] * weights[column * 4 + part];
            }
        }
        for (int column = 0; column < 32; ++column) c[row * 32 + column] = sums[column];
    }
}

// Computes `turns` tiles on inputs and weights in the L1 cache; returns the number of multiply-accumulates.
inline int64_t run_peak_loop(int64_t turns) {
    alignas(64) static const uint8_t inputs[kTileRows * 128] = {};
    alignas(64) static const int8_t weights[32 * 128] = {};
    alignas(64) int32_t sums[kTileRows * 32];
    for (int64_t turn = 0; turn < turns; ++turn) {
        integer_tile(inputs, 128, kTileRows, weights, 128 / kGroup, sums);
        asm volatile("" ::"r"(sums) : "memory");
    }
    return turns * kTileRows * 32 * 128;
}
