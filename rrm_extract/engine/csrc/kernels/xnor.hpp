// A binary layer computed in full: of 64 products of signs at a time the ones that are -1 are
// counted, which are those whose bits differ (arXiv 1603.05279, Sec. 3.3).
#pragma once

#include "vector.hpp"

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace rrm::RRM_ISA {

inline constexpr int kWords = kLanes / 2;           // 64-bit words in a vector
inline constexpr int kWordVectors = kBlock / kWords;  // that hold one word of 16 outputs
// Neighbouring outputs that share the loads of their weights.
inline constexpr int kXnorTile = kWords == 8 ? 8 : kWords == 4 ? 2 : 1;

typedef uint64_t VecWord __attribute__((vector_size(8 * kWords), aligned(8), may_alias));
typedef int16_t VecSum __attribute__((vector_size(2 * kWords), aligned(2), may_alias));

RRM_INLINE VecWord ones_in(VecWord x) {
#if defined(__AVX512VPOPCNTDQ__)
    return (VecWord)_mm512_popcnt_epi64((__m512i)x);
#elif defined(__AVX512BW__)
    const __m512i count = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m512i low = _mm512_set1_epi8(15);
    const __m512i sums = _mm512_add_epi8(
        _mm512_shuffle_epi8(count, _mm512_and_si512((__m512i)x, low)),
        _mm512_shuffle_epi8(count, _mm512_and_si512(_mm512_srli_epi16((__m512i)x, 4), low)));
    return (VecWord)_mm512_sad_epu8(sums, _mm512_setzero_si512());
#elif defined(__AVX2__)
    const __m256i count = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,  //
                                           0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(15);
    const __m256i sums = _mm256_add_epi8(
        _mm256_shuffle_epi8(count, _mm256_and_si256((__m256i)x, low)),
        _mm256_shuffle_epi8(count, _mm256_and_si256(_mm256_srli_epi16((__m256i)x, 4), low)));
    return (VecWord)_mm256_sad_epu8(sums, _mm256_setzero_si256());
#elif defined(__aarch64__)
    return (VecWord)vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(vcntq_u8((uint8x16_t)x))));
#else
    VecWord counts;
    for (int word = 0; word < kWords; word++)
        counts[word] = static_cast<uint64_t>(__builtin_popcountll(x[word]));
    return counts;
#endif
}

template <int kTile>
RRM_INLINE void xnor_tile(const XnorArgs& args, const uint64_t* weights, const uint64_t* x,
                          int16_t* sums) {
    VecWord differ[kTile][kWordVectors] = {};
    for (int tap = 0; tap < args.taps; tap++) {
        const uint64_t* w = weights + static_cast<ptrdiff_t>(args.tap_numbers[tap]) * args.words * kBlock;
        const uint64_t* pixel = x + args.x_offsets[tap];
        for (int word = 0; word < args.words; word++, w += kBlock, pixel++)
#pragma GCC unroll 8
            for (int v = 0; v < kWordVectors; v++) {
                const VecWord of_weights = *reinterpret_cast<const VecWord*>(w + v * kWords);
#pragma GCC unroll 8
                for (int t = 0; t < kTile; t++)
                    differ[t][v] += ones_in(of_weights ^ (pixel[t * args.x_step] - VecWord{}));
            }
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTile; t++)
#pragma GCC unroll 8
        for (int v = 0; v < kWordVectors; v++)
            *reinterpret_cast<VecSum*>(sums + t * args.pixel + v * kWords) = __builtin_convertvector(
                static_cast<uint64_t>(args.products) - (differ[t][v] << 1), VecSum);
}

template <int kTile>
RRM_INLINE int xnor_columns(const XnorArgs& args, const uint64_t* weights, int16_t* sums, int column) {
    for (; column + kTile <= args.columns; column += kTile)
        xnor_tile<kTile>(args, weights, args.x + static_cast<ptrdiff_t>(column) * args.x_step,
                         sums + column * args.pixel);
    return column;
}

void xnor(const XnorArgs& args) {
    for (int block = 0; block < args.blocks; block++) {
        const uint64_t* const weights = args.weights + block * args.block;
        int16_t* const sums = args.sums + block * kBlock;
        int column = xnor_columns<kXnorTile>(args, weights, sums, 0);
        if constexpr (kXnorTile > 4) column = xnor_columns<4>(args, weights, sums, column);
        if constexpr (kXnorTile > 2) column = xnor_columns<2>(args, weights, sums, column);
        xnor_columns<1>(args, weights, sums, column);
    }
}

}  // namespace rrm::RRM_ISA
