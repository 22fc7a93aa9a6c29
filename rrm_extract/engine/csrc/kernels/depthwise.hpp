// A depthwise convolution: sixteen channels side by side leave nothing for a list of single
// deltas, and its few multiplications cost less than looking for zeros would.
#pragma once

#include "vector.hpp"

namespace rrm::RRM_ISA {

// kTile outputs share the loads of their inputs.
template <int kSize, int kStride, int kTile>
RRM_INLINE void depthwise_tile(const DepthwiseArgs& args, const float* x, const float* weights,
                               Vec bias, float* y, float* trace) {
    Vec acc[kTile];
#pragma GCC unroll 8
    for (int t = 0; t < kTile; t++) acc[t] = bias;
    constexpr int inputs = (kTile - 1) * kStride + kSize;
#pragma GCC unroll 5
    for (int r = 0; r < kSize; r++) {
        Vec in[inputs];
#pragma GCC unroll 16
        for (int i = 0; i < inputs; i++) in[i] = load(x + r * args.x_row + i * kBlock);
#pragma GCC unroll 5
        for (int s = 0; s < kSize; s++) {
            const Vec w = load(weights + (r * kSize + s) * kBlock);
#pragma GCC unroll 8
            for (int t = 0; t < kTile; t++) acc[t] += in[t * kStride + s] * w;
        }
    }
    // What the next row of outputs sees first.
    if (kTile > 1)
#pragma GCC unroll 2
        for (int r = 0; r < kStride; r++)
#pragma GCC unroll 8
            for (int i = 0; i < kTile * kStride; i++)
                __builtin_prefetch(x + (kSize + r) * args.x_row + i * kBlock, 0, 2);
    if (trace != nullptr) {
        Vec sum = load(trace);
#pragma GCC unroll 8
        for (int t = 0; t < kTile; t++) sum += acc[t] * splat(0.0f);
        store(trace, sum);
    }
    const Vec low = splat(args.low), high = splat(args.high);
#pragma GCC unroll 8
    for (int t = 0; t < kTile; t++) store(y + t * kBlock, limited(acc[t], low, high));
}

template <int kSize, int kStride>
void depthwise_row(const DepthwiseArgs& args) {
    // Rows of usual maps are multiples of 7 long.
    constexpr int tile = kRegisters != 32 ? 2 : kSize == 3 && kStride == 1 ? 7 : 4;
    constexpr int rest = tile > 3 ? 3 : 1;
    for (int slice = 0; slice < kBlock; slice += kLanes) {
        const float* x = args.x + slice;
        float* y = args.y + slice;
        float* const trace = args.trace == nullptr ? nullptr : args.trace + slice;
        const Vec bias = load(args.bias + slice);
        int column = 0;
        for (; column + tile <= args.columns; column += tile)
            depthwise_tile<kSize, kStride, tile>(args, x + column * kStride * kBlock,
                                                 args.weights + slice, bias, y + column * kBlock,
                                                 trace);
        for (; column + rest <= args.columns; column += rest)
            depthwise_tile<kSize, kStride, rest>(args, x + column * kStride * kBlock,
                                                 args.weights + slice, bias, y + column * kBlock,
                                                 trace);
        for (; column < args.columns; column++)
            depthwise_tile<kSize, kStride, 1>(args, x + column * kStride * kBlock,
                                              args.weights + slice, bias, y + column * kBlock,
                                              trace);
    }
}

inline void depthwise_any(const DepthwiseArgs& args) {
    for (int slice = 0; slice < kBlock; slice += kLanes)
        for (int column = 0; column < args.columns; column++) {
            Vec acc = load(args.bias + slice);
            const float* x = args.x + static_cast<ptrdiff_t>(column) * args.column_stride * kBlock;
            for (int r = 0; r < args.kernel_rows; r++)
                for (int s = 0; s < args.kernel_columns; s++)
                    acc += load(x + r * args.row_dilation * args.x_row +
                                s * args.column_dilation * kBlock + slice) *
                           load(args.weights + (r * args.kernel_columns + s) * kBlock + slice);
            if (args.trace != nullptr)
                store(args.trace + slice, load(args.trace + slice) + acc * splat(0.0f));
            store(args.y + column * kBlock + slice,
                  limited(acc, splat(args.low), splat(args.high)));
        }
}

void depthwise(const DepthwiseArgs& args) {
    if (args.kernel_rows == args.kernel_columns && args.row_dilation == 1 &&
        args.column_dilation == 1) {
        switch (args.kernel_rows * 10 + args.column_stride) {
            case 31: return depthwise_row<3, 1>(args);
            case 32: return depthwise_row<3, 2>(args);
            case 51: return depthwise_row<5, 1>(args);
            case 52: return depthwise_row<5, 2>(args);
        }
    }
    depthwise_any(args);
}

}  // namespace rrm::RRM_ISA
