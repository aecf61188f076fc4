// int8 kernel for AVX2. `vpmaddubsw` would saturate, since 255 · 127 · 2 exceeds int16. Therefore both operands are widened
// to 16 bits, and `vpmaddwd` accumulates pairs of products in int32.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "vector.h"

constexpr char kInstructionSet[] = "avx2";
constexpr int kGroup = 2;
constexpr int kTileRows = 4;
constexpr int kRegisterLanes = 8;  // float32 per vector register
constexpr int kFloatTileRows = 3;
constexpr int kFloatTileVectors = 2;

typedef int32_t i32x8 __attribute__((vector_size(32)));

// Multiplies pairs of int16 and adds both products to an int32 sum.
SWEET_INLINE i32x8 add_pairs(i32x8 sums, i32x8 a, i32x8 b) { return sums + (i32x8)_mm256_madd_epi16((__m256i)a, (__m256i)b); }

struct TileSession {};

// `Rows` rows by 16 of a panel's 32 columns: 8 sums, 2 weights and 1 input fit in 16 registers.
template <int Rows>
SWEET_INLINE void half_tile(const int16_t* a, int64_t stride, const int8_t* panel, int groups, int32_t* c) {
    __m256i sums[Rows][2];
    for (int row = 0; row < Rows; ++row) sums[row][0] = sums[row][1] = _mm256_setzero_si256();
    for (int group = 0; group < groups; ++group) {
        const __m128i* weights = reinterpret_cast<const __m128i*>(panel + int64_t{group} * 64);
        const __m256i first = _mm256_cvtepi8_epi16(_mm_loadu_si128(weights));
        const __m256i second = _mm256_cvtepi8_epi16(_mm_loadu_si128(weights + 1));
        for (int row = 0; row < Rows; ++row) {
            int32_t pair;
            std::memcpy(&pair, a + row * stride + group * 2, sizeof(pair));
            const __m256i inputs = _mm256_set1_epi32(pair);
            sums[row][0] = _mm256_add_epi32(sums[row][0], _mm256_madd_epi16(inputs, first));
            sums[row][1] = _mm256_add_epi32(sums[row][1], _mm256_madd_epi16(inputs, second));
        }
    }
    for (int row = 0; row < Rows; ++row) {
        for (int part = 0; part < 2; ++part) {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(c + row * 32 + part * 8), sums[row][part]);
        }
    }
}

SWEET_INLINE void integer_tile(const uint8_t* a, int64_t stride, int rows, const int8_t* panel, int groups, int32_t* c) {
    constexpr int kBlock = 512;  // inputs widened at a time; the sums of blocks are added
    alignas(64) int16_t wide[kTileRows * kBlock];
    alignas(64) int32_t sums[kTileRows * 32];
    const int inputs = groups * 2;
    for (int start = 0; start < inputs || start == 0; start += kBlock) {
        const int count = inputs - start < kBlock ? inputs - start : kBlock;
        for (int row = 0; row < rows; ++row) {
            for (int place = 0; place < count; ++place) wide[row * kBlock + place] = a[row * stride + start + place];
        }
        int32_t* to = start == 0 ? c : sums;
        for (int half = 0; half < 2; ++half) {
            const int8_t* weights = panel + int64_t{start} * 32 + half * 32;
            switch (rows) {
                case 1: half_tile<1>(wide, kBlock, weights, count / 2, to + half * 16); break;
                case 2: half_tile<2>(wide, kBlock, weights, count / 2, to + half * 16); break;
                case 3: half_tile<3>(wide, kBlock, weights, count / 2, to + half * 16); break;
                default: half_tile<4>(wide, kBlock, weights, count / 2, to + half * 16); break;
            }
        }
        if (start > 0) {
            for (int place = 0; place < rows * 32; ++place) c[place] += sums[place];
        }
    }
}

// Runs `turns` times 12 `vpmaddwd` with additions on registers; returns the number of multiply-accumulates.
inline int64_t run_peak_loop(int64_t turns) {
    __m256i sums[12];
#pragma GCC unroll 12
    for (int place = 0; place < 12; ++place) {
        sums[place] = _mm256_setzero_si256();
        asm volatile("" : "+x"(sums[place]));  // prevents merging of equal values
    }
    __m256i inputs = _mm256_set1_epi16(1), weights = _mm256_set1_epi16(1);
    for (int64_t turn = 0; turn < turns; ++turn) {
#pragma GCC unroll 12
        for (int place = 0; place < 12; ++place) {
            asm volatile("" : "+x"(inputs), "+x"(weights));
            sums[place] = _mm256_add_epi32(sums[place], _mm256_madd_epi16(inputs, weights));
        }
    }
#pragma GCC unroll 12
    for (int place = 0; place < 12; ++place) asm volatile("" ::"x"(sums[place]));
    return turns * 12 * 16;
}
