// Sixteen floats at a time, in the compiler's own vector types: one source for every instruction set.
//
// Every operation is per lane or in a fixed order, so a value never depends on its neighbours.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#define SWEET_INLINE inline __attribute__((always_inline))

typedef float f32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef uint8_t u8x16 __attribute__((vector_size(16)));
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
SWEET_INLINE void store(float* to, f32x16 vector) { std::memcpy(to, &vector, sizeof(vector)); }

// The first `count` elements, 16 at most; the lanes beyond are zero.
SWEET_INLINE f32x16 load_some(const float* from, int count) {
    if (count >= kLanes) return load(from);
    f32x16 vector = {};
    std::memcpy(&vector, from, sizeof(float) * static_cast<size_t>(count));
    return vector;
}

template <class Element, class Vector>
SWEET_INLINE void store_some(Element* to, Vector vector, int count) {
    if (count >= kLanes) {
        std::memcpy(to, &vector, sizeof(vector));
    } else {
        std::memcpy(to, &vector, sizeof(Element) * static_cast<size_t>(count));
    }
}

// Where a value is not a number, these give the second argument.
#if defined(__AVX512F__)
SWEET_INLINE f32x16 least(f32x16 a, f32x16 b) { return (f32x16)_mm512_maskz_min_ps(0xffff, (__m512)a, (__m512)b); }
SWEET_INLINE f32x16 greatest(f32x16 a, f32x16 b) { return (f32x16)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b); }
#else
SWEET_INLINE f32x16 least(f32x16 a, f32x16 b) { return a < b ? a : b; }
SWEET_INLINE f32x16 greatest(f32x16 a, f32x16 b) { return a > b ? a : b; }
#endif
SWEET_INLINE f32x16 size_of(f32x16 x) { return (f32x16)((i32x16)x & 0x7fffffff); }
// Between two bounds; what is not a number stays so.
SWEET_INLINE f32x16 clamp(f32x16 x, float low, float high) { return least(splat(high), greatest(splat(low), x)); }

// Lanes at and beyond `count` replaced.
SWEET_INLINE f32x16 keep_some(f32x16 vector, int count, float other) {
    const i32x16 lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return lanes < count ? vector : splat(other);
}

// All lanes combined by `join`, halves first.
template <class Join>
SWEET_INLINE f32x16 fold(f32x16 v, Join join) {
    v = join(v, __builtin_shuffle(v, i32x16{8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7}));
    v = join(v, __builtin_shuffle(v, i32x16{4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11}));
    v = join(v, __builtin_shuffle(v, i32x16{2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13}));
    return join(v, __builtin_shuffle(v, i32x16{1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14}));
}

SWEET_INLINE float sum(f32x16 v) { return fold(v, [](f32x16 a, f32x16 b) { return a + b; })[0]; }
SWEET_INLINE float greatest_of(f32x16 v) { return fold(v, [](f32x16 a, f32x16 b) { return greatest(a, b); })[0]; }

SWEET_INLINE float least_of(f32x16 v) { return -greatest_of(-v); }

// Nearest whole number, ties to even, for |x| < 2²²: adding 1.5 · 2²³ pushes the fraction out of the mantissa, which then
// ends in the number itself. What is not a number or infinite becomes a multiple of 2¹⁶.
constexpr float kPush = 12582912.0f;
SWEET_INLINE f32x16 nearest(f32x16 x) { return (x + kPush) - kPush; }
SWEET_INLINE i32x16 nearest_integer(f32x16 x) { return (i32x16)(x + kPush) - 0x4b400000; }

// eˣ, relative error below 2e-7: eˣ = 2ⁿ eʳ with |r| ≤ ln 2 / 2, eʳ by a polynomial fitted in relative error.
SWEET_INLINE f32x16 exponential(f32x16 x) {
    x = clamp(x, -87.0f, 88.0f);
    const f32x16 n = nearest(x * 1.44269504f);
    const f32x16 r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts (Cody and Waite)
    f32x16 p = r * 0.0013751407f + 0.0083689159f;
    p = p * r + 0.0416695327f;
    p = p * r + 0.1666651815f;
    p = p * r + 0.4999998807f;
    p = p * (r * r) + r + 1.0f;
    return (f32x16)((i32x16)p + (__builtin_convertvector(n, i32x16) << 23));
}

// erf x, absolute error below 1e-6: x times a polynomial in x², fitted for the least greatest error up to 3.6, behind which
// it is exactly 1. The polynomial's variable goes from -1 to 1, where its sum loses nothing. Summed in halves of halves
// (Estrin), since one step after the other has the processor wait for each of them.
SWEET_INLINE f32x16 error_function(f32x16 x) {
    const float bound = 3.6f;
    x = clamp(x, -bound, bound);
    const f32x16 t = x * x * (2.0f / (bound * bound)) - 1.0f, t2 = t * t, t4 = t2 * t2;
    const f32x16 p0 = (t * -0.195488572f + 0.392712027f) + (t * -0.113853425f + 0.143818796f) * t2;
    const f32x16 p4 = (t * -0.0675117522f + 0.0897068754f) + (t * -0.0344702676f + 0.0487972386f) * t2;
    const f32x16 p8 = (t * -0.00818564557f + 0.0201654229f) + (t * -0.00578937121f + 0.00562973274f) * t2;
    return (p0 + p4 * t4 + (p8 + 0.00224673212f * t4) * (t4 * t4)) * x;
}

// Rounded to bfloat16, ties to even. The portable form rounds a NaN of few set bits to infinity.
SWEET_INLINE u16x16 to_bfloats(f32x16 x) {
#if defined(__AVX512BF16__)
    return (u16x16)_mm512_cvtneps_pbh((__m512)x);
#else
    const u32x16 bits = (u32x16)x;
    return __builtin_convertvector((bits + 0x7fff + (bits >> 16 & 1)) >> 16, u16x16);
#endif
}

SWEET_INLINE f32x16 hyperbolic_tangent(f32x16 x) { return 1.0f - 2.0f / (exponential(x + x) + 1.0f); }

#if defined(__AVX512F__)
// One of four steps of a transposition: rows `Distance` apart exchange the lanes that are `Distance` apart.
template <int Distance>
SWEET_INLINE void exchange_lanes(f32x16* rows) {
    i32x16 low, high;
#pragma GCC unroll 16
    for (int lane = 0; lane < kLanes; ++lane) {
        low[lane] = lane & Distance ? kLanes + lane - Distance : lane;
        high[lane] = lane & Distance ? kLanes + lane : lane + Distance;
    }
#pragma GCC unroll 16
    for (int row = 0; row < kLanes; ++row) {
        if (row & Distance) continue;
        const f32x16 upper = rows[row], lower = rows[row + Distance];
        rows[row] = __builtin_shuffle(upper, lower, low);
        rows[row + Distance] = __builtin_shuffle(upper, lower, high);
    }
}
#endif

// to (16, 16) = from (16, 16) transposed, the last of `count` rows again where there are fewer than 16.
SWEET_INLINE void transpose(const float* from, int64_t from_stride, int count, float* to, int64_t to_stride) {
#if defined(__AVX512F__)
    f32x16 rows[kLanes];
#pragma GCC unroll 16
    for (int row = 0; row < kLanes; ++row) rows[row] = load(from + (row < count ? row : count - 1) * from_stride);
    exchange_lanes<8>(rows);
    exchange_lanes<4>(rows);
    exchange_lanes<2>(rows);
    exchange_lanes<1>(rows);
#pragma GCC unroll 16
    for (int row = 0; row < kLanes; ++row) store(to + row * to_stride, rows[row]);
#else
    for (int row = 0; row < kLanes; ++row) {
        const float* values = from + (row < count ? row : count - 1) * from_stride;
        for (int column = 0; column < kLanes; ++column) to[column * to_stride + row] = values[column];
    }
#endif
}
