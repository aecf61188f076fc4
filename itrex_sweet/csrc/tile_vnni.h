// int8 kernel for VNNI, in AVX-512 or in AVX2's registers (AVX-VNNI): `vpdpbusd` multiplies groups of 4 inputs and 4 weights
// and adds the products to an int32 sum, without saturation.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "vector.h"

constexpr int kGroup = 4;

#if defined(SWEET_ISA_AVX_VNNI)
constexpr char kInstructionSet[] = "avx_vnni";
constexpr int kRegisterLanes = 8;  // float32 per vector register
constexpr int kFloatTileRows = 3;
constexpr int kFloatTileVectors = 2;
constexpr int kVnniRows = 6;  // with 2 vectors of columns: 12 sums, 2 weights and 1 input, of 16 registers

typedef int32_t IntRegister __attribute__((vector_size(32)));

SWEET_INLINE IntRegister add_quads(IntRegister sums, IntRegister a, IntRegister b) {
    return (IntRegister)_mm256_dpbusd_avx_epi32((__m256i)sums, (__m256i)a, (__m256i)b);
}
// Multiplies pairs of int16 and adds both products to an int32 sum.
SWEET_INLINE IntRegister add_pairs(IntRegister sums, IntRegister a, IntRegister b) {
    return (IntRegister)_mm256_dpwssd_avx_epi32((__m256i)sums, (__m256i)a, (__m256i)b);
}
#else
#if defined(SWEET_ISA_AVX512_BF16)
constexpr char kInstructionSet[] = "avx512_bf16";  // the same int8 kernel; `gemm_dense.h` uses `vdpbf16ps` for bfloat16
#elif defined(SWEET_ISA_AVX512_VNNI)
constexpr char kInstructionSet[] = "avx512_vnni";
#endif
constexpr int kRegisterLanes = 16;
constexpr int kFloatTileRows = 6;
constexpr int kFloatTileVectors = 4;
// 12 rows by 2 vectors are 24 sums; with 2 vectors of weights and 1 of inputs they use 27 of 32 registers. Per step, 14 loads
// feed 24 multiplications, so the kernel is compute-bound.
constexpr int kVnniRows = 12;

typedef int32_t IntRegister __attribute__((vector_size(64)));

SWEET_INLINE IntRegister add_quads(IntRegister sums, IntRegister a, IntRegister b) {
    return (IntRegister)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)a, (__m512i)b);
}
SWEET_INLINE IntRegister add_pairs(IntRegister sums, IntRegister a, IntRegister b) {
    return (IntRegister)_mm512_dpwssd_epi32((__m512i)sums, (__m512i)a, (__m512i)b);
}
#endif

#ifndef SWEET_ISA_AMX
constexpr int kTileRows = kVnniRows;

struct TileSession {};
#endif

// `Rows` rows by the 2 · kRegisterLanes columns of a panel that start at `panel`.
template <int Rows>
SWEET_INLINE void vnni_tile(const uint8_t* a, int64_t stride, const int8_t* panel, int groups, int32_t* c) {
    IntRegister sums[Rows][2] = {};
    for (int group = 0; group < groups; ++group) {
        const auto first = load_as<IntRegister>(panel), second = load_as<IntRegister>(panel + sizeof(IntRegister));
        // Weights are streamed from memory: prefetches them into L2 early, and into L1 shortly before use. For one or two
        // rows the product takes no longer than the loads, and the processor's own prefetching is faster alone.
        if constexpr (Rows > 2) {
            for (size_t line = 0; line < 2 * sizeof(IntRegister); line += 64) {
                _mm_prefetch(reinterpret_cast<const char*>(panel + 8192 + line), _MM_HINT_T1);
                _mm_prefetch(reinterpret_cast<const char*>(panel + 2048 + line), _MM_HINT_T0);
            }
        }
        panel += 32 * kGroup;
#pragma GCC unroll 16
        for (int row = 0; row < Rows; ++row) {
            const IntRegister inputs = load_as<int32_t>(a + row * stride + group * 4) - IntRegister{};
            sums[row][0] = add_quads(sums[row][0], inputs, first);
            sums[row][1] = add_quads(sums[row][1], inputs, second);
        }
    }
#pragma GCC unroll 16
    for (int row = 0; row < Rows; ++row) std::memcpy(c + row * 32, sums[row], sizeof(sums[row]));
}

// Rows by a whole panel of 32 columns.
SWEET_INLINE void vnni_tile(const uint8_t* a, int64_t stride, int rows, const int8_t* panel, int groups, int32_t* c) {
    for (int column = 0; column < 32; column += 2 * kRegisterLanes) {
        switch (rows) {
            case 1: vnni_tile<1>(a, stride, panel, groups, c); break;
            case 2: vnni_tile<2>(a, stride, panel, groups, c); break;
            case 3: vnni_tile<3>(a, stride, panel, groups, c); break;
            case 4: vnni_tile<4>(a, stride, panel, groups, c); break;
            case 5: vnni_tile<5>(a, stride, panel, groups, c); break;
#if !defined(SWEET_ISA_AVX_VNNI)
            case 6: vnni_tile<6>(a, stride, panel, groups, c); break;
            case 7: vnni_tile<7>(a, stride, panel, groups, c); break;
            case 8: vnni_tile<8>(a, stride, panel, groups, c); break;
            case 9: vnni_tile<9>(a, stride, panel, groups, c); break;
            case 10: vnni_tile<10>(a, stride, panel, groups, c); break;
            case 11: vnni_tile<11>(a, stride, panel, groups, c); break;
#endif
            default: vnni_tile<kVnniRows>(a, stride, panel, groups, c); break;
        }
        panel += 2 * kRegisterLanes * kGroup;
        c += 2 * kRegisterLanes;
    }
}

// Runs `turns` times 2 · kVnniRows `vpdpbusd` on registers; returns the number of multiply-accumulates.
inline int64_t run_peak_loop(int64_t turns) {
    constexpr int kSums = 2 * kVnniRows;
    IntRegister sums[kSums];
#pragma GCC unroll 24
    for (int place = 0; place < kSums; ++place) {
        sums[place] = IntRegister{};
        asm volatile("" : "+v"(sums[place]));  // prevents merging of equal values
    }
    IntRegister inputs = 0x01010101 - IntRegister{}, weights = inputs;
    for (int64_t turn = 0; turn < turns; ++turn) {
        asm volatile("" : "+v"(inputs), "+v"(weights));
#pragma GCC unroll 24
        for (int place = 0; place < kSums; ++place) sums[place] = add_quads(sums[place], inputs, weights);
    }
#pragma GCC unroll 24
    for (int place = 0; place < kSums; ++place) asm volatile("" ::"v"(sums[place]));
    return turns * kSums * 4 * kRegisterLanes;
}

#ifndef SWEET_ISA_AMX
SWEET_INLINE void integer_tile(const uint8_t* a, int64_t stride, int rows, const int8_t* panel, int groups, int32_t* c) {
    vnni_tile(a, stride, rows, panel, groups, c);
}
#endif
