// Vectors of 16 floats, as the compiler's vector extension: one source for every instruction set.
//
// Every operation is elementwise or reduces in a fixed order, so results do not depend on neighbouring values.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#define SWEET_INLINE inline __attribute__((always_inline))

typedef float f32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef uint8_t u8x16 __attribute__((vector_size(16)));
typedef int8_t i8x16 __attribute__((vector_size(16)));
typedef int16_t i16x16 __attribute__((vector_size(32)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));

constexpr int kLanes = 16;

template <class Vector, class Element>
SWEET_INLINE Vector load_as(const Element* from) {
    Vector vector;
    std::memcpy(&vector, from, sizeof(vector));
    return vector;
}

SWEET_INLINE f32x16 splat(float value) { return value - f32x16{}; }
SWEET_INLINE f32x16 load(const float* from) { return load_as<f32x16>(from); }
SWEET_INLINE i32x16 load(const int32_t* from) { return load_as<i32x16>(from); }
SWEET_INLINE f32x16 to_floats(i8x16 vector) {
    return __builtin_convertvector(__builtin_convertvector(__builtin_convertvector(vector, i16x16), i32x16), f32x16);
}
SWEET_INLINE void store(float* to, f32x16 vector) { std::memcpy(to, &vector, sizeof(vector)); }

// Loads the first `count` elements, at most 16; the other lanes are zero.
SWEET_INLINE f32x16 load_partial(const float* from, int count) {
    if (count >= kLanes) return load(from);
    f32x16 vector = {};
    std::memcpy(&vector, from, sizeof(float) * static_cast<size_t>(count));
    return vector;
}

// Stores the first `count` elements, at most 16.
template <class Element, class Vector>
SWEET_INLINE void store_partial(Element* to, Vector vector, int count) {
    if (count >= kLanes) {
        std::memcpy(to, &vector, sizeof(vector));
    } else {
        std::memcpy(to, &vector, sizeof(Element) * static_cast<size_t>(count));
    }
}

// If either operand is NaN, min and max return the second, like `vminps` and `vmaxps`.
#if defined(__AVX512F__)
SWEET_INLINE f32x16 min(f32x16 a, f32x16 b) { return (f32x16)_mm512_maskz_min_ps(0xffff, (__m512)a, (__m512)b); }
SWEET_INLINE f32x16 max(f32x16 a, f32x16 b) { return (f32x16)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b); }
#else
SWEET_INLINE f32x16 min(f32x16 a, f32x16 b) { return a < b ? a : b; }
SWEET_INLINE f32x16 max(f32x16 a, f32x16 b) { return a > b ? a : b; }
#endif
SWEET_INLINE f32x16 abs(f32x16 x) { return (f32x16)((i32x16)x & 0x7fffffff); }
// Clamps to [low, high]; NaN stays NaN.
SWEET_INLINE f32x16 clamp(f32x16 x, float low, float high) { return min(splat(high), max(splat(low), x)); }

// Replaces the lanes from `count` on by `other`.
SWEET_INLINE f32x16 mask(f32x16 vector, int count, float other) {
    const i32x16 lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return lanes < count ? vector : splat(other);
}

using Lanes = std::make_integer_sequence<int, kLanes>;

// Exchanges lane i with lane i ^ Distance.
template <int Distance, int... Lane>
SWEET_INLINE f32x16 butterfly(f32x16 v, std::integer_sequence<int, Lane...>) {
#if defined(__clang__)
    return __builtin_shufflevector(v, v, (Lane ^ Distance)...);
#else
    return __builtin_shuffle(v, i32x16{(Lane ^ Distance)...});
#endif
}

// Combines all lanes by `combine`, in a tree: halves first.
template <class Combine>
SWEET_INLINE f32x16 reduce(f32x16 v, Combine combine) {
    v = combine(v, butterfly<8>(v, Lanes{}));
    v = combine(v, butterfly<4>(v, Lanes{}));
    v = combine(v, butterfly<2>(v, Lanes{}));
    return combine(v, butterfly<1>(v, Lanes{}));
}

SWEET_INLINE float reduce_add(f32x16 v) {
    return reduce(v, [](f32x16 a, f32x16 b) { return a + b; })[0];
}
SWEET_INLINE float reduce_max(f32x16 v) {
    return reduce(v, [](f32x16 a, f32x16 b) { return max(a, b); })[0];
}
SWEET_INLINE float reduce_min(f32x16 v) { return -reduce_max(-v); }

// Rounds to the nearest integer, ties to even, for |x| < 2²²: adding 1.5 · 2²³ shifts the fraction out of the mantissa,
// whose low bits are then the integer. NaN and infinity become multiples of 2¹⁶.
constexpr float kRoundingConstant = 12582912.0f;
SWEET_INLINE f32x16 round(f32x16 x) { return (x + kRoundingConstant) - kRoundingConstant; }
SWEET_INLINE i32x16 round_to_int(f32x16 x) { return (i32x16)(x + kRoundingConstant) - 0x4b400000; }

// eˣ with a relative error below 2e-7: eˣ = 2ⁿ eʳ with |r| ≤ ln 2 / 2, and eʳ by a minimax polynomial (relative error).
SWEET_INLINE f32x16 exp(f32x16 x) {
    x = clamp(x, -87.0f, 88.0f);
    const f32x16 n = round(x * 1.44269504f);
    const f32x16 r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 split in two constants (Cody and Waite)
    f32x16 p = r * 0.0013751407f + 0.0083689159f;
    p = p * r + 0.0416695327f;
    p = p * r + 0.1666651815f;
    p = p * r + 0.4999998807f;
    p = p * (r * r) + r + 1.0f;
    return (f32x16)((i32x16)p + (__builtin_convertvector(n, i32x16) << 23));
}

// erf(x) with an absolute error below 1e-6: x times a minimax polynomial in x² on [-3.6, 3.6]; beyond, the result is
// exactly ±1. The polynomial's variable is scaled to [-1, 1] to avoid cancellation, and evaluated by Estrin's scheme,
// which has shorter dependency chains than Horner's.
SWEET_INLINE f32x16 erf(f32x16 x) {
    const float bound = 3.6f;
    x = clamp(x, -bound, bound);
    const f32x16 t = x * x * (2.0f / (bound * bound)) - 1.0f, t2 = t * t, t4 = t2 * t2;
    const f32x16 p0 = (t * -0.195488572f + 0.392712027f) + (t * -0.113853425f + 0.143818796f) * t2;
    const f32x16 p4 = (t * -0.0675117522f + 0.0897068754f) + (t * -0.0344702676f + 0.0487972386f) * t2;
    const f32x16 p8 = (t * -0.00818564557f + 0.0201654229f) + (t * -0.00578937121f + 0.00562973274f) * t2;
    return (p0 + p4 * t4 + (p8 + 0.00224673212f * t4) * (t4 * t4)) * x;
}

SWEET_INLINE f32x16 tanh(f32x16 x) { return 1.0f - 2.0f / (exp(x + x) + 1.0f); }

// Rounds to bfloat16, ties to even. The portable form rounds a NaN with few set bits to infinity.
SWEET_INLINE u16x16 to_bfloat16(f32x16 x) {
#if defined(__AVX512BF16__)
    return (u16x16)_mm512_cvtneps_pbh((__m512)x);
#else
    const u32x16 bits = (u32x16)x;
    return __builtin_convertvector((bits + 0x7fff + (bits >> 16 & 1)) >> 16, u16x16);
#endif
}

#if defined(__AVX512F__)
// Exchanges blocks of `Distance` lanes between rows that are `Distance` apart: one step of a transposition.
template <int Distance, int... Lane>
SWEET_INLINE void transpose_step(f32x16* rows, std::integer_sequence<int, Lane...>) {
#pragma GCC unroll 16
    for (int row = 0; row < kLanes; ++row) {
        if (row & Distance) continue;
        const f32x16 upper = rows[row], lower = rows[row + Distance];
#if defined(__clang__)
        rows[row] = __builtin_shufflevector(upper, lower, (Lane & Distance ? kLanes + Lane - Distance : Lane)...);
        rows[row + Distance] = __builtin_shufflevector(upper, lower, (Lane & Distance ? kLanes + Lane : Lane + Distance)...);
#else
        rows[row] = __builtin_shuffle(upper, lower, i32x16{(Lane & Distance ? kLanes + Lane - Distance : Lane)...});
        rows[row + Distance] =
            __builtin_shuffle(upper, lower, i32x16{(Lane & Distance ? kLanes + Lane : Lane + Distance)...});
#endif
    }
}
#endif

// Transposes a block of 16 × 16; if it has only `count` rows, the last one is repeated.
SWEET_INLINE void transpose(const float* from, int64_t from_stride, int count, float* to, int64_t to_stride) {
#if defined(__AVX512F__)
    f32x16 rows[kLanes];
#pragma GCC unroll 16
    for (int row = 0; row < kLanes; ++row) rows[row] = load(from + (row < count ? row : count - 1) * from_stride);
    transpose_step<8>(rows, Lanes{});
    transpose_step<4>(rows, Lanes{});
    transpose_step<2>(rows, Lanes{});
    transpose_step<1>(rows, Lanes{});
#pragma GCC unroll 16
    for (int row = 0; row < kLanes; ++row) store(to + row * to_stride, rows[row]);
#else
    for (int row = 0; row < kLanes; ++row) {
        const float* values = from + (row < count ? row : count - 1) * from_stride;
        for (int column = 0; column < kLanes; ++column) to[column * to_stride + row] = values[column];
    }
#endif
}
