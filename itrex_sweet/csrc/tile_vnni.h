// int8 kernel for AVX-512 VNNI: `vpdpbusd` multiplies 64 pairs and adds them to 16 int32 sums, without saturation.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "vector.h"

#ifndef SWEET_ISA_AMX
#ifdef SWEET_ISA_AVX512_BF16
constexpr char kInstructionSet[] = "avx512_bf16";  // the same int8 kernel; `gemm_dense.h` uses `vdpbf16ps` for bfloat16
#else
constexpr char kInstructionSet[] = "avx512_vnni";
#endif
constexpr int kTileRows = 12;

struct TileSession {};
#endif
constexpr int kGroup = 4;
constexpr int kRegisterLanes = 16;  // float32 per vector register
constexpr int kFloatTileRows = 6;
constexpr int kFloatTileVectors = 4;

// Multiplies pairs of int16 and adds both products to an int32 sum.
SWEET_INLINE i32x16 add_pairs(i32x16 sums, i32x16 a, i32x16 b) {
    return (i32x16)_mm512_dpwssd_epi32((__m512i)sums, (__m512i)a, (__m512i)b);
}

// 12 rows by 2 vectors are 24 sums; with 2 vectors of weights and 1 of inputs they use 27 of 32 registers. Per step, 14 loads
// feed 24 multiplications, so the kernel is compute-bound.
template <int Rows>
SWEET_INLINE void vnni_tile(const uint8_t* a, int64_t stride, const int8_t* panel, int groups, int32_t* c) {
    __m512i sums[Rows][2];
#pragma GCC unroll 16
    for (int row = 0; row < Rows; ++row) sums[row][0] = sums[row][1] = _mm512_setzero_si512();
    for (int group = 0; group < groups; ++group) {
        const __m512i first = _mm512_loadu_si512(panel), second = _mm512_loadu_si512(panel + 64);
        // Weights are streamed from memory: prefetches them into L2 early, and into L1 shortly before use. For one or two
        // rows the product takes no longer than the loads, and the processor's own prefetching is faster alone.
        if constexpr (Rows > 2) {
            _mm_prefetch(reinterpret_cast<const char*>(panel + 8192), _MM_HINT_T1);
            _mm_prefetch(reinterpret_cast<const char*>(panel + 8256), _MM_HINT_T1);
            _mm_prefetch(reinterpret_cast<const char*>(panel + 2048), _MM_HINT_T0);
            _mm_prefetch(reinterpret_cast<const char*>(panel + 2112), _MM_HINT_T0);
        }
        panel += 128;
#pragma GCC unroll 16
        for (int row = 0; row < Rows; ++row) {
            int32_t quad;
            std::memcpy(&quad, a + row * stride + group * 4, sizeof(quad));
            const __m512i inputs = _mm512_set1_epi32(quad);
            sums[row][0] = _mm512_dpbusd_epi32(sums[row][0], inputs, first);
            sums[row][1] = _mm512_dpbusd_epi32(sums[row][1], inputs, second);
        }
    }
#pragma GCC unroll 16
    for (int row = 0; row < Rows; ++row) {
        _mm512_storeu_si512(c + row * 32, sums[row][0]);
        _mm512_storeu_si512(c + row * 32 + 16, sums[row][1]);
    }
}

SWEET_INLINE void vnni_tile(const uint8_t* a, int64_t stride, int rows, const int8_t* panel, int groups, int32_t* c) {
    switch (rows) {
        case 1: vnni_tile<1>(a, stride, panel, groups, c); break;
        case 2: vnni_tile<2>(a, stride, panel, groups, c); break;
        case 3: vnni_tile<3>(a, stride, panel, groups, c); break;
        case 4: vnni_tile<4>(a, stride, panel, groups, c); break;
        case 5: vnni_tile<5>(a, stride, panel, groups, c); break;
        case 6: vnni_tile<6>(a, stride, panel, groups, c); break;
        case 7: vnni_tile<7>(a, stride, panel, groups, c); break;
        case 8: vnni_tile<8>(a, stride, panel, groups, c); break;
        case 9: vnni_tile<9>(a, stride, panel, groups, c); break;
        case 10: vnni_tile<10>(a, stride, panel, groups, c); break;
        case 11: vnni_tile<11>(a, stride, panel, groups, c); break;
        default: vnni_tile<12>(a, stride, panel, groups, c); break;
    }
}

// Runs `turns` times 24 `vpdpbusd` on registers; returns the number of multiply-accumulates.
inline int64_t run_peak_loop(int64_t turns) {
    __m512i sums[24];
#pragma GCC unroll 24
    for (int place = 0; place < 24; ++place) {
        sums[place] = _mm512_setzero_si512();
        asm volatile("" : "+v"(sums[place]));  // prevents merging of equal values
    }
    __m512i inputs = _mm512_set1_epi8(1), weights = _mm512_set1_epi8(1);
    for (int64_t turn = 0; turn < turns; ++turn) {
        asm volatile("" : "+v"(inputs), "+v"(weights));
#pragma GCC unroll 24
        for (int place = 0; place < 24; ++place) sums[place] = _mm512_dpbusd_epi32(sums[place], inputs, weights);
    }
#pragma GCC unroll 24
    for (int place = 0; place < 24; ++place) asm volatile("" ::"v"(sums[place]));
    return turns * 24 * 64;
}

#ifndef SWEET_ISA_AMX
SWEET_INLINE void integer_tile(const uint8_t* a, int64_t stride, int rows, const int8_t* panel, int groups, int32_t* c) {
    vnni_tile(a, stride, rows, panel, groups, c);
}
#endif
