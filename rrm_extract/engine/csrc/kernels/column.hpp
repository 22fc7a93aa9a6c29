// The first layer on lists of its input's columns: with three channels a pixel has too few deltas
// to pay for a visit, a whole column under the kernel has enough. The outputs that a column
// reaches stay in registers while the window moves on.
#pragma once

#include "vector.hpp"

namespace rrm::RRM_ISA {

inline constexpr int kAhead = 8;  // columns whose entries are fetched ahead

template <int kPositions, int kVectors, int kBlocks, int kReached>
RRM_INLINE void column_entries(Vec (&acc)[kPositions][kVectors], const uint32_t* values,
                               const uint16_t* rows, int i, int end, const uint32_t* weights) {
    constexpr int position_stride = kBlocks * kBlock;  // known, so that addresses need no registers
    for (; i < end; i++) {
        const uint32_t* w = weights + rows[i] * (kPositions * position_stride);
        const Vec x = Fp32::broadcast(values + i);
        pin(w);
#pragma GCC unroll 4
        for (int p = 0; p < kReached; p++)
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; v++)
                acc[p][v] = Fp32::multiply_add(acc[p][v], x, w + p * position_stride + v * kLanes);
    }
}

template <int kPositions, int kVectors, int kBlocks>
void column_pass(const ColumnArgs& args, int first) {
    const ColumnList& list = *args.list;
    constexpr ptrdiff_t row_stride = kPositions * kBlocks * kBlock;
    const ptrdiff_t phase_stride = row_stride * args.kernel_rows * list.channels;
    const uint32_t* const weights = args.weights + static_cast<ptrdiff_t>(first) * kLanes -
                                    args.first_row * list.channels * row_stride;
    float* const y = args.y + (first / kSlices) * args.y_block + (first % kSlices) * kLanes;
    const uint16_t* const begin = list.starts + static_cast<size_t>(args.row_begin) * list.width;
    const uint16_t* const end = list.starts + static_cast<size_t>(args.row_end) * list.width;
    const auto inside = [&](int column) { return column >= 0 && column < args.columns; };
    const auto at = [&](int column, int v) {
        return y + static_cast<ptrdiff_t>(column) * kBlock + (v / kSlices) * args.y_block +
               (v % kSlices) * kLanes;
    };

    // acc[p] is what is added to output column - p: summed apart, what changed has smaller rounding
    // errors.
    Vec acc[kPositions][kVectors] = {};
    Vec trace = {};
    const int column_begin = args.padding / args.stride;
    const int column_last = (list.width - 1 + args.padding) / args.stride;
    // Every loop over accumulators is unrolled: one index that the compiler does not know would
    // put all of them into memory.
    const auto add = [&](int column, const Vec(&sums)[kVectors]) {
        if (inside(column))
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; v++) {
                const Vec sum = load(at(column, v)) + sums[v];
                store(at(column, v), sum);
                trace += sum * splat(0.0f);
            }
    };
    for (int column = column_begin; column <= column_last; column++) {
        for (int phase = 0; phase < args.stride; phase++) {
            const int x = column * args.stride + phase - args.padding;
            if (x < 0 || x >= list.width || begin[x] == end[x]) continue;
            const size_t offset = x * list.capacity;
            // Neighbouring columns lie far apart: the processor would not guess where.
            const int later = least(x + kAhead, list.width - 1);
            __builtin_prefetch(list.values + later * list.capacity + begin[later]);
            __builtin_prefetch(list.rows + later * list.capacity + begin[later]);
            const uint32_t* w = weights + phase * phase_stride;
            // The later phases reach one output less when the kernel is no multiple of the stride.
            if (phase + (kPositions - 1) * args.stride < args.kernel_columns)
                column_entries<kPositions, kVectors, kBlocks, kPositions>(
                    acc, list.values + offset, list.rows + offset, begin[x], end[x], w);
            else
                column_entries<kPositions, kVectors, kBlocks, kPositions - 1>(
                    acc, list.values + offset, list.rows + offset, begin[x], end[x], w);
        }
        add(column - kPositions + 1, acc[kPositions - 1]);
#pragma GCC unroll 4
        for (int p = kPositions - 1; p > 0; p--)
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; v++) acc[p][v] = acc[p - 1][v];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; v++) acc[0][v] = Vec{};
    }
#pragma GCC unroll 4
    for (int p = 1; p < kPositions; p++) add(column_last + 1 - p, acc[p]);
    if (args.trace != nullptr) store(args.trace, load(args.trace) + trace);
}

template <int kPositions, int kBlocks>
void column_blocks(const ColumnArgs& args) {
    constexpr int vectors = kBlocks * kSlices;
    constexpr int most_vectors = (kRegisters - 4) / kPositions;
    constexpr int each = most_vectors >= 4 && vectors >= 4 ? 4
                         : most_vectors >= 2 && vectors >= 2 ? 2
                                                             : 1;
    for (int first = 0; first < vectors; first += each)
        column_pass<kPositions, each, kBlocks>(args, first);
}

template <int kPositions>
void column_frame(const ColumnArgs& args) {
    args.blocks == 1 ? column_blocks<kPositions, 1>(args) : column_blocks<kPositions, 2>(args);
}

void column(const ColumnArgs& args) {
    switch (args.positions) {
        case 1: return column_frame<1>(args);
        case 2: return column_frame<2>(args);
        case 3: return column_frame<3>(args);
        default: return column_frame<4>(args);
    }
}

}  // namespace rrm::RRM_ISA
