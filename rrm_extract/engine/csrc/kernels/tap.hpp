// One tap of any convolution on a list of deltas: a pixel's deltas meet the weights of that tap,
// the outputs of one pixel stay in registers meanwhile. A fully-connected layer is the convolution
// whose kernel is as large as its input: only the weights of non-zero deltas are read.
#pragma once

#include "vector.hpp"

namespace rrm::RRM_ISA {

template <class A, int kVectors>
void tap_pass(const TapArgs& args, int first) {
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
            Vec acc[kVectors];
#pragma GCC unroll 16
            for (int v = 0; v < kVectors; v++)
                acc[v] = load(out + (v / kSlices) * args.y_block + (v % kSlices) * kLanes);
            do {
                const uint32_t* w = weights + units[i] * unit_stride;
                const typename A::Value x = A::broadcast(values + i);
                pin(w);
#pragma GCC unroll 16
                for (int v = 0; v < kVectors; v++)
                    acc[v] = A::multiply_add(acc[v], x, w + v * kLanes);
            } while (++i < end);
#pragma GCC unroll 16
            for (int v = 0; v < kVectors; v++)
                store(out + (v / kSlices) * args.y_block + (v % kSlices) * kLanes, acc[v]);
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
