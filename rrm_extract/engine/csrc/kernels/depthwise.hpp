// A depthwise convolution: sixteen channels side by side leave nothing for a list of single
// deltas, and its few multiplications cost less than looking for zeros would.
#pragma once

#include "vector.hpp"

namespace rrm::RRM_ISA {

// kRows x kColumns outputs share the loads of their inputs.
template <int kSize, int kStride, int kRows, int kColumns>
RRM_INLINE void depthwise_tile(const DepthwiseArgs& args, const float* x, const float* weights,
                               Vec bias, float* y, float* trace) {
    Vec acc[kRows][kColumns];
#pragma GCC unroll 2
    for (int row = 0; row < kRows; row++)
#pragma GCC unroll 8
        for (int t = 0; t < kColumns; t++) acc[row][t] = bias;
    constexpr int inputs = (kColumns - 1) * kStride + kSize;
#pragma GCC unroll 8
    for (int r = 0; r < kSize + (kRows - 1) * kStride; r++) {
        const float* const line = x + r * args.x_row;
        if constexpr (kRegisters == 16) {
            // Few registers: the weights of a row of taps stay in them, the inputs pass by.
            static_assert(kRows == 1);
            Vec w[kSize];
#pragma GCC unroll 5
            for (int s = 0; s < kSize; s++) w[s] = load(weights + (r * kSize + s) * kBlock);
#pragma GCC unroll 32
            for (int i = 0; i < inputs; i++) {
                const Vec in = load(line + i * kBlock);
#pragma GCC unroll 8
                for (int t = 0; t < kColumns; t++)
                    if (i >= t * kStride && i < t * kStride + kSize)
                        acc[0][t] += in * w[i - t * kStride];
            }
        } else {
            Vec in[inputs];
#pragma GCC unroll 32
            for (int i = 0; i < inputs; i++) in[i] = load(line + i * kBlock);
#pragma GCC unroll 2
            for (int row = 0; row < kRows; row++) {
                const int tap = r - row * kStride;
                if (tap < 0 || tap >= kSize) continue;
#pragma GCC unroll 5
                for (int s = 0; s < kSize; s++) {
                    const Vec w = load(weights + (tap * kSize + s) * kBlock);
#pragma GCC unroll 8
                    for (int t = 0; t < kColumns; t++) acc[row][t] += in[t * kStride + s] * w;
                }
            }
        }
    }
    // What the next rows of outputs see first, and write.
    if (kColumns > 1) {
#pragma GCC unroll 2
        for (int r = 0; r < kStride * kRows; r++)
#pragma GCC unroll 16
            for (int i = 0; i < kColumns * kStride; i++)
                __builtin_prefetch(
                    x + (kSize + (kRows - 1) * kStride + r) * args.x_row + i * kBlock, 0, 2);
    }
    if (trace != nullptr) {
        // A plain sum first: additions find idle units beside the next tile's products.
        Vec sum[2] = {};
#pragma GCC unroll 2
        for (int row = 0; row < kRows; row++)
#pragma GCC unroll 8
            for (int t = 0; t < kColumns; t++) sum[t % 2] += acc[row][t];
        store(trace, load(trace) + (sum[0] + sum[1]) * splat(0.0f));
    }
    const Vec low = splat(args.low), high = splat(args.high);
#pragma GCC unroll 2
    for (int row = 0; row < kRows; row++)
#pragma GCC unroll 8
        for (int t = 0; t < kColumns; t++)
            store(y + row * args.y_row + t * kBlock, limited(acc[row][t], low, high));
}

template <int kSize, int kStride, int kRows>
RRM_INLINE void depthwise_row(const DepthwiseArgs& args, int row, int slice, Vec bias) {
    // Rows of usual maps are multiples of 7 long.
    constexpr int tile = 7, rest = 3;
    const float* const x = args.x + row * args.row_stride * args.x_row + slice;
    const float* const weights = args.weights + slice;
    float* const y = args.y + row * args.y_row + slice;
    float* const trace = args.trace == nullptr ? nullptr : args.trace + slice;
    constexpr int step = kStride * kBlock;
    int column = 0;
    for (; column + tile <= args.columns; column += tile)
        depthwise_tile<kSize, kStride, kRows, tile>(args, x + column * step, weights, bias,
                                                    y + column * kBlock, trace);
    for (; column + rest <= args.columns; column += rest)
        depthwise_tile<kSize, kStride, kRows, rest>(args, x + column * step, weights, bias,
                                                    y + column * kBlock, trace);
    for (; column < args.columns; column++)
        depthwise_tile<kSize, kStride, kRows, 1>(args, x + column * step, weights, bias,
                                                 y + column * kBlock, trace);
}

template <int kSize, int kStride>
void depthwise_rows(const DepthwiseArgs& args) {
    // Two rows see the same inputs, but for one or two rows of these.
    constexpr int rows = kRegisters == 32 && kStride == 1 ? 2 : 1;
    for (int slice = 0; slice < kBlock; slice += kLanes) {
        const Vec bias = load(args.bias + slice);
        int row = 0;
        if (args.row_stride == kStride)
            for (; row + rows <= args.rows; row += rows)
                depthwise_row<kSize, kStride, rows>(args, row, slice, bias);
        for (; row < args.rows; row++) depthwise_row<kSize, kStride, 1>(args, row, slice, bias);
    }
}

inline void depthwise_any(const DepthwiseArgs& args) {
    for (int slice = 0; slice < kBlock; slice += kLanes)
        for (int at = 0; at < args.rows * args.columns; at++) {
            const int row = at / args.columns, column = at % args.columns;
            Vec acc = load(args.bias + slice);
            const float* x = args.x + row * args.row_stride * args.x_row +
                             static_cast<ptrdiff_t>(column) * args.column_stride * kBlock;
            for (int r = 0; r < args.kernel_rows; r++)
                for (int s = 0; s < args.kernel_columns; s++)
                    acc += load(x + r * args.row_dilation * args.x_row +
                                s * args.column_dilation * kBlock + slice) *
                           load(args.weights + (r * args.kernel_columns + s) * kBlock + slice);
            if (args.trace != nullptr)
                store(args.trace + slice, load(args.trace + slice) + acc * splat(0.0f));
            store(args.y + row * args.y_row + column * kBlock + slice,
                  limited(acc, splat(args.low), splat(args.high)));
        }
}

void depthwise(const DepthwiseArgs& args) {
    const int size = args.kernel_rows, stride = args.column_stride;
    const bool plain =
        args.kernel_columns == size && args.row_dilation == 1 && args.column_dilation == 1;
    if (plain && size == 3 && stride == 1) return depthwise_rows<3, 1>(args);
    if (plain && size == 3 && stride == 2) return depthwise_rows<3, 2>(args);
    if (plain && size == 5 && stride == 1) return depthwise_rows<5, 1>(args);
    if (plain && size == 5 && stride == 2) return depthwise_rows<5, 2>(args);
    depthwise_any(args);
}

}  // namespace rrm::RRM_ISA
