// A vector of floats of the instruction set that this translation unit is compiled for.
//
// GCC's and Clang's vector extensions: the same code becomes AVX-512, AVX2, SSE or NEON. All of it
// lives in the instruction set's own namespace, for the linker would otherwise keep any one of the
// copies of an inline function.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "../kernels.hpp"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#define RRM_INLINE inline __attribute__((always_inline))

namespace rrm::RRM_ISA {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
inline constexpr int kRegisters = 32;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
inline constexpr int kRegisters = 16;
#elif defined(__aarch64__)
inline constexpr int kLanes = 4;
inline constexpr int kRegisters = 32;
#else
inline constexpr int kLanes = 4;
inline constexpr int kRegisters = 16;
#endif
inline constexpr int kSlices = kBlock / kLanes;  // vectors in a block

typedef float Vec __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef int32_t VecInt __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef uint32_t VecBits __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef uint16_t VecHalf __attribute__((vector_size(2 * kLanes), aligned(2), may_alias));

RRM_INLINE Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
RRM_INLINE void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
RRM_INLINE Vec splat(float s) { return s - Vec{}; }
RRM_INLINE Vec select(VecInt mask, Vec a, Vec b) { return mask ? a : b; }
RRM_INLINE Vec maximum(Vec a, Vec b) {
#if defined(__AVX512F__)
    return (Vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (Vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return a > b ? a : b;
#endif
}
RRM_INLINE Vec minimum(Vec a, Vec b) {
#if defined(__AVX512F__)
    return (Vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (Vec)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return a < b ? a : b;
#endif
}
// A NaN stays one: both instructions return their second operand then.
RRM_INLINE Vec limited(Vec x, Vec low, Vec high) { return minimum(high, maximum(low, x)); }
RRM_INLINE Vec magnitude(Vec a) { return (Vec)((VecBits)a & 0x7fffffffu); }

// Pairwise: one after the other, every addition would wait for the one before.
RRM_INLINE float sum_of(Vec v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#else
    for (int half = kLanes / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; lane++) v[lane] += v[lane + half];
    return v[0];
#endif
}

RRM_INLINE int least(int a, int b) { return a < b ? a : b; }
RRM_INLINE int most(int a, int b) { return a > b ? a : b; }

// As few parts as there can be of at most `most`, of nearly the same size.
struct Parts {
    int count, size, larger;  // so many of `size`, then the others, of one less

    static RRM_INLINE Parts of(int all, int most) {
        const int count = (all + most - 1) / most, size = (all + count - 1) / count;
        return {count, size, all - count * (size - 1)};
    }
    RRM_INLINE int size_of(int part) const { return part < larger ? size : size - 1; }
};

// The sum of a number below 2^22 and this one has the number, rounded to even, in its low bits.
inline constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23

// Keeps a pointer in one register: GCC otherwise spends one on every address of an unrolled loop.
template <class T>
RRM_INLINE void pin(T*& p) {
    __asm__ volatile("" : "+r"(p));
}

RRM_INLINE float as_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
RRM_INLINE uint32_t as_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

// Round to nearest even; a NaN stays a NaN.
RRM_INLINE uint32_t to_bf16(float value) {
    uint32_t bits = as_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (bits >> 16) | 0x40u;
    return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}
RRM_INLINE float from_bf16(uint32_t bits) { return as_float(bits << 16); }

RRM_INLINE Vec round_bf16(Vec value) {
    const VecBits bits = (VecBits)value;
    const VecBits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
    const VecInt number = value == value;
    return number ? (Vec)rounded : value;
}
RRM_INLINE Vec load_bf16(const uint16_t* p) {
#if defined(__AVX512F__)
    // GCC widens the two halves one by one and puts them together again.
    const auto half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return (Vec)((VecBits)_mm512_cvtepu16_epi32(half) << 16);
#else
    return (Vec)(__builtin_convertvector(*reinterpret_cast<const VecHalf*>(p), VecBits) << 16);
#endif
}
RRM_INLINE void store_bf16(uint16_t* p, Vec value) {
#if defined(__AVX512BF16__)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh((__m512)value));
#else
    *reinterpret_cast<VecHalf*>(p) =
        __builtin_convertvector((VecBits)round_bf16(value) >> 16, VecHalf);
#endif
}

// kLanes channels of a pixel, from channel `lane` on.
RRM_INLINE Vec channels_of(const uint32_t* pixel, int lane, Arithmetic arithmetic) {
    if (arithmetic == Arithmetic::fp32) return load(reinterpret_cast<const float*>(pixel) + lane);
    return load_bf16(reinterpret_cast<const uint16_t*>(pixel) + lane);
}

// One unit: what is broadcast, and how it multiplies a vector of weights.
struct Fp32 {
    using Value = Vec;
    static RRM_INLINE Value broadcast(const uint32_t* p) { return splat(as_float(*p)); }
    static RRM_INLINE Vec multiply_add(Vec acc, Value x, const uint32_t* w) {
        return acc + x * load(reinterpret_cast<const float*>(w));
    }
};

struct Bf16 {
#if defined(__AVX512BF16__)
    using Value = __m512bh;
    static RRM_INLINE Value broadcast(const uint32_t* p) {
        return (Value)_mm512_set1_epi32(static_cast<int>(*p));
    }
    static RRM_INLINE Vec multiply_add(Vec acc, Value x, const uint32_t* w) {
        return (Vec)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_loadu_si512(w), x);
    }
#else
    struct Value {
        Vec low, high;
    };
    static RRM_INLINE Value broadcast(const uint32_t* p) {
        return {splat(as_float(*p << 16)), splat(as_float(*p & 0xffff0000u))};
    }
    static RRM_INLINE Vec multiply_add(Vec acc, Value x, const uint32_t* w) {
        const VecBits bits = *reinterpret_cast<const VecBits*>(w);
        return acc + x.low * (Vec)(bits << 16) + x.high * (Vec)(bits & 0xffff0000u);
    }
#endif
};

}  // namespace rrm::RRM_ISA
