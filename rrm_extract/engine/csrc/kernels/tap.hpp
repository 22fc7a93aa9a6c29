// One tap of any convolution on a list of deltas: a pixel's deltas meet the weights of that tap,
// the outputs of one pixel stay in registers meanwhile. A fully-connected layer is the convolution
// whose kernel is as large as its input: only the weights of non-zero deltas are read.
#pragma once

#include "vector.hpp"

namespace rrm::RRM_ISA {

// A multiplication takes four cycles: with few vectors several deltas go side by side.
template <int kVectors>
inline constexpr int kTapWays = kVectors >= 8 ? 1 : (kVectors == 4 ? 2 : 4);

template <class A, int kVectors>
void tap_pass(const TapArgs& args, int first) {
    constexpr int kWays = kTapWays<kVectors>;
    const List& list = *args.list;
    const ptrdiff_t unit_stride = static_cast<ptrdiff_t>(args.blocks) * kBlock;
    const uint32_t* const weights = args.weights + static_cast<ptrdiff_t>(first) * kLanes;
    for (int row = args.row_begin; row < args.row_end; row++) {
        const size_t span = list.span(row * args.row_stride + args.row_offset, args.group);
        const uint32_t* starts = list.starts + span * (list.width + 1);
        if (starts[list.width] == 0) continue;
        const uint32_t* values = list.values + span * list.capacity;
        const uint8_t* units = list.units + span * list.capacity;
        float* y = args.y + row * args.y_row + (first / kSlices) * args.y_block +
                   (first % kSlices) * kLanes;
        const uint32_t* pixel =
            starts + args.column_begin * args.column_stride + args.column_offset;
        float* out = y + static_cast<ptrdiff_t>(args.column_begin) * kBlock;
        for (int column = args.column_begin; column < args.column_end;
             column++, pixel += args.column_stride, out += kBlock) {
            uint32_t i = pixel[0];
            const uint32_t end = pixel[1];
            if (i == end) continue;
            Vec acc[kWays][kVectors];
#pragma GCC unroll 16
            for (int v = 0; v < kVectors; v++) {
                const float* from = out + (v / kSlices) * args.y_block + (v % kSlices) * kLanes;
                __builtin_prefetch(from + args.y_row, 1, 3);
#pragma GCC unroll 16
                for (int way = 0; way < kWays; way++) acc[way][v] = Vec{};
            }
            for (; i + kWays <= end; i += kWays)
#pragma GCC unroll 16
                for (int way = 0; way < kWays; way++) {
                    const uint32_t* w = weights + units[i + way] * unit_stride;
                    const typename A::Value x = A::broadcast(values + i + way);
                    pin(w);
#pragma GCC unroll 16
                    for (int v = 0; v < kVectors; v++)
                        acc[way][v] = A::multiply_add(acc[way][v], x, w + v * kLanes);
                }
            for (; i < end; i++) {
                const uint32_t* w = weights + units[i] * unit_stride;
                const typename A::Value x = A::broadcast(values + i);
                pin(w);
#pragma GCC unroll 16
                for (int v = 0; v < kVectors; v++)
                    acc[0][v] = A::multiply_add(acc[0][v], x, w + v * kLanes);
            }
#pragma GCC unroll 16
            for (int v = 0; v < kVectors; v++) {
#pragma GCC unroll 16
                for (int way = 1; way < kWays; way++) acc[0][v] += acc[way][v];
                // Summed apart, what changed has smaller rounding errors.
                float* to = out + (v / kSlices) * args.y_block + (v % kSlices) * kLanes;
                store(to, load(to) + acc[0][v]);
            }
        }
    }
}

template <class A>
void tap_frame(const TapArgs& args) {
    const int vectors = args.blocks * kSlices;
    int first = 0;
    for (; vectors - first >= 8; first += 8) tap_pass<A, 8>(args, first);
    for (; vectors - first >= 4; first += 4) tap_pass<A, 4>(args, first);
    for (; vectors - first >= 2; first += 2) tap_pass<A, 2>(args, first);
    for (; vectors - first >= 1; first += 1) tap_pass<A, 1>(args, first);
}

void tap(const TapArgs& args, Arithmetic arithmetic) {
    arithmetic == Arithmetic::fp32 ? tap_frame<Fp32>(args) : tap_frame<Bf16>(args);
}

}  // namespace rrm::RRM_ISA
