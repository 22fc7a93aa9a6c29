// A binary layer on what changed: a sign that flips adds its weights twice, or takes them away.
#pragma once

#include "vector.hpp"

namespace rrm::RRM_ISA {

inline constexpr int kBytes = 4 * kLanes;  // weights in a vector
typedef int8_t VecByte __attribute__((vector_size(kBytes), aligned(1), may_alias));
typedef int8_t VecHalfBytes __attribute__((vector_size(kBytes / 2), aligned(1), may_alias));
typedef int16_t VecSums __attribute__((vector_size(kBytes), aligned(2), may_alias));

// Rows that can be added in a byte: each number is 1 or -1.
inline constexpr int kMostRows = 127;

template <int kVectors>
RRM_INLINE void add_rows(const FlipArgs& args, int output) {
    const int8_t* const weights = args.weights + output;
    int16_t* const sums = args.sums + output;
    const uint32_t* up = args.ups;
    const uint32_t* down = args.downs;
    int ups = args.up_count, downs = args.down_count;
    while (ups + downs > 0) {
        VecByte acc[kVectors] = {};
        const int added = least(ups, kMostRows), taken = least(downs, kMostRows - added);
        for (int i = 0; i < added; i++)
#pragma GCC unroll 8
            for (int v = 0; v < kVectors; v++)
                acc[v] += *reinterpret_cast<const VecByte*>(weights + up[i] + v * kBytes);
        for (int i = 0; i < taken; i++)
#pragma GCC unroll 8
            for (int v = 0; v < kVectors; v++)
                acc[v] -= *reinterpret_cast<const VecByte*>(weights + down[i] + v * kBytes);
        up += added;
        down += taken;
        ups -= added;
        downs -= taken;
        int8_t bytes[kVectors * kBytes];
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; v++)
            *reinterpret_cast<VecByte*>(bytes + v * kBytes) = acc[v];
#pragma GCC unroll 16
        for (int i = 0; i < kVectors * kBytes; i += kBytes / 2) {
            const VecSums change = __builtin_convertvector(
                *reinterpret_cast<const VecHalfBytes*>(bytes + i), VecSums);
            *reinterpret_cast<VecSums*>(sums + i) += change + change;
        }
    }
}

void flips(const FlipArgs& args) {
    int output = 0;
    const auto fits = [&](int vectors) { return output + vectors * kBytes <= args.outputs; };
    for (; fits(8); output += 8 * kBytes) add_rows<8>(args, output);
    for (; fits(4); output += 4 * kBytes) add_rows<4>(args, output);
    for (; fits(2); output += 2 * kBytes) add_rows<2>(args, output);
    for (; fits(1); output += kBytes) add_rows<1>(args, output);
}

}  // namespace rrm::RRM_ISA
