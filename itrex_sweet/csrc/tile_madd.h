// int8 kernel for AVX2, and for AVX-512 without VNNI. `vpmaddubsw` would saturate, since 255 · 127 · 2 exceeds int16.
// Therefore both operands are widened to 16 bits, and `vpmaddwd` accumulates pairs of products in int32.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "vector.h"

constexpr int kGroup = 2;

#if defined(SWEET_ISA_AVX512)
constexpr char kInstructionSet[] = "avx512";
constexpr int kRegisterLanes = 16;  // float32 per vector register
constexpr int kFloatTileRows = 6;
constexpr int kFloatTileVectors = 4;
constexpr int kTileRows = 12;  // with 2 vectors of columns: 24 sums, 2 weights, 1 input and 1 product, of 32 registers

SWEET_INLINE __m512i widen(const int8_t* from) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
SWEET_INLINE __m512i multiply_pairs(__m512i a, __m512i b) { return _mm512_madd_epi16(a, b); }
#else
constexpr char kInstructionSet[] = "avx2";
constexpr int kRegisterLanes = 8;
constexpr int kFloatTileRows = 3;
constexpr int kFloatTileVectors = 2;
constexpr int kTileRows = 6;  // 12 sums, 2 weights, 1 input and 1 product, of 16 registers

SWEET_INLINE __m256i widen(const int8_t* from) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
SWEET_INLINE __m256i multiply_pairs(__m256i a, __m256i b) { return _mm256_madd_epi16(a, b); }
#endif

typedef int32_t IntRegister __attribute__((vector_size(kRegisterLanes * sizeof(int32_t))));
using WideRegister = decltype(widen(nullptr));

// Multiplies pairs of int16 and adds both products to an int32 sum.
SWEET_INLINE IntRegister add_pairs(IntRegister sums, IntRegister a, IntRegister b) {
    return sums + (IntRegister)multiply_pairs((WideRegister)a, (WideRegister)b);
}

struct TileSession {};

// `Rows` rows by the 2 · kRegisterLanes columns of a panel that start at `panel`.
template <int Rows>
SWEET_INLINE void madd_tile(const int16_t* a, int64_t stride, const int8_t* panel, int groups, int32_t* c) {
    IntRegister sums[Rows][2] = {};
    for (int group = 0; group < groups; ++group) {
        const auto first = (IntRegister)widen(panel), second = (IntRegister)widen(panel + 2 * kRegisterLanes);
        panel += 32 * kGroup;
#pragma GCC unroll 16
        for (int row = 0; row < Rows; ++row) {
            const IntRegister inputs = load_as<int32_t>(a + row * stride + group * 2) - IntRegister{};
            sums[row][0] = add_pairs(sums[row][0], inputs, first);
            sums[row][1] = add_pairs(sums[row][1], inputs, second);
        }
    }
#pragma GCC unroll 16
    for (int row = 0; row < Rows; ++row) std::memcpy(c + row * 32, sums[row], sizeof(sums[row]));
}

SWEET_INLINE void madd_tile(const int16_t* a, int64_t stride, int rows, const int8_t* panel, int groups, int32_t* c) {
    switch (rows) {
        case 1: return madd_tile<1>(a, stride, panel, groups, c);
        case 2: return madd_tile<2>(a, stride, panel, groups, c);
        case 3: return madd_tile<3>(a, stride, panel, groups, c);
        case 4: return madd_tile<4>(a, stride, panel, groups, c);
        case 5: return madd_tile<5>(a, stride, panel, groups, c);
#if defined(SWEET_ISA_AVX512)
        case 6: return madd_tile<6>(a, stride, panel, groups, c);
        case 7: return madd_tile<7>(a, stride, panel, groups, c);
        case 8: return madd_tile<8>(a, stride, panel, groups, c);
        case 9: return madd_tile<9>(a, stride, panel, groups, c);
        case 10: return madd_tile<10>(a, stride, panel, groups, c);
        case 11: return madd_tile<11>(a, stride, panel, groups, c);
#endif
        default: return madd_tile<kTileRows>(a, stride, panel, groups, c);
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
        for (int column = 0; column < 32; column += 2 * kRegisterLanes) {
            const int8_t* weights = panel + int64_t{start} * 32 + column * kGroup;
            madd_tile(wide, kBlock, rows, weights, count / 2, to + column);
        }
        if (start > 0) {
            for (int place = 0; place < rows * 32; ++place) c[place] += sums[place];
        }
    }
}

// Runs `turns` times 12 `vpmaddwd` with additions on registers; returns the number of multiply-accumulates.
inline int64_t run_peak_loop(int64_t turns) {
    IntRegister sums[12];
#pragma GCC unroll 12
    for (int place = 0; place < 12; ++place) {
        sums[place] = IntRegister{};
        asm volatile("" : "+v"(sums[place]));  // prevents merging of equal values
    }
    IntRegister inputs = 0x00010001 - IntRegister{}, weights = inputs;
    for (int64_t turn = 0; turn < turns; ++turn) {
#pragma GCC unroll 12
        for (int place = 0; place < 12; ++place) {
            asm volatile("" : "+v"(inputs), "+v"(weights));
            sums[place] = add_pairs(sums[place], inputs, weights);
        }
    }
#pragma GCC unroll 12
    for (int place = 0; place < 12; ++place) asm volatile("" ::"v"(sums[place]));
    return turns * 12 * 2 * kRegisterLanes;
}
