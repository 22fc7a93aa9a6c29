// Binary layers: activations as bits, and from whole sums back to numbers.
#pragma once

#include "compress.hpp"

namespace rrm::RRM_ISA {

typedef int16_t VecShort __attribute__((vector_size(2 * kLanes), aligned(2), may_alias));

RRM_INLINE uint32_t negative_mask(Vec x) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_LT_OQ);
#elif defined(__AVX2__)
    return static_cast<uint32_t>(
        _mm256_movemask_ps(_mm256_cmp_ps((__m256)x, _mm256_setzero_ps(), _CMP_LT_OQ)));
#else
    const VecInt mask = x < splat(0.0f);
    uint32_t bits = 0;
    for (int lane = 0; lane < kLanes; lane++) bits |= (mask[lane] & 1u) << lane;
    return bits;
#endif
}

void sign_bits(const SignBitsArgs& args) {
    const int blocks = (args.channels + kBlock - 1) / kBlock;
    const uint32_t last_lanes = (1u << (args.channels - (blocks - 1) * kBlock)) - 1u;
    Tally tally;
    for (int run = 0; run < args.run_count; run++)
        for (int column = args.runs[run].begin; column < args.runs[run].end; column++) {
            const float* const x = args.x + static_cast<ptrdiff_t>(column) * kBlock;
            uint16_t* const bits = args.bits + static_cast<ptrdiff_t>(column) * args.pixel;
            int flips = 0;
            for (int block = 0; block < blocks; block++) {
                uint32_t now = 0;
#pragma GCC unroll 4
                for (int slice = 0; slice < kBlock; slice += kLanes) {
                    const Vec value = load(x + block * args.x_block + slice);
                    tally.watch(value);
                    now |= negative_mask(value) << slice;
                }
                now &= block + 1 < blocks ? 0xffffu : last_lanes;
                flips += ones(now ^ bits[block]);
                bits[block] = static_cast<uint16_t>(now);
            }
            if (args.first) flips = args.channels;
            tally.deltas += flips;
            args.hits[column] |= static_cast<uint8_t>(flips > 0);
        }
    tally.add_to(*args.counts);
}

void scale_sums(const ScaleSumsArgs& args) {
    for (int block = 0; block < args.blocks; block++)
        for (int slice = 0; slice < kBlock; slice += kLanes) {
            const int16_t* sums = args.sums + block * kBlock + slice;
            const Vec scale = load(args.scale + block * kBlock + slice);
            const Vec shift = load(args.shift + block * kBlock + slice);
            float* x = args.x + block * args.x_block + slice;
            for (int column = 0; column < args.columns; column++, sums += args.pixel, x += kBlock) {
                const VecInt whole = __builtin_convertvector(
                    *reinterpret_cast<const VecShort*>(sums), VecInt);
                store(x, __builtin_convertvector(whole, Vec) * scale + shift);
            }
        }
}

}  // namespace rrm::RRM_ISA
