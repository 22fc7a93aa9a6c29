// The transforms of F(4x4, 3x3) and F(3x3, 4x4), see WinogradWeightsArgs; the matrix products between
// them are the dense kernel's. Both have the same points, so that an input becomes the same for each.
//
// Each transform is the same sums over rows and then over columns. The points come in pairs +-p, so
// that even and odd parts are shared.
#pragma once

#include <type_traits>

#include "vector.hpp"

namespace rrm::RRM_ISA {

inline constexpr float kHalfRoot = 0.70710678118654752f, kRoot = 1.41421356237309505f;

// What becomes of the numbers of a kernel, six of an input, and six sums, in one direction.
template <int kTaps>
struct KernelPositions {
    static constexpr int kIn = kTaps, kOut = 6;
    static RRM_INLINE void apply(const Vec* g, Vec* to) {
        // Squares of the points are 1/2 and 2.
        Vec ends = g[0] + 0.5f * g[2], far_ends = 0.5f * g[0] + g[2];
        Vec middle = g[1] * kHalfRoot, far_middle = g[1] * (0.5f * kRoot);
        if constexpr (kTaps > 3) {
            middle += g[3] * (0.5f * kHalfRoot);
            far_middle += g[3] * kRoot;
        }
        ends *= -2.0f / 3;
        middle *= -2.0f / 3;
        far_ends *= 1.0f / 3;
        far_middle *= 1.0f / 3;
        to[0] = g[0];
        to[1] = ends + middle;
        to[2] = ends - middle;
        to[3] = far_ends + far_middle;
        to[4] = far_ends - far_middle;
        to[5] = g[kTaps - 1];
    }
};

struct InputPositions {
    static constexpr int kIn = 6, kOut = 6;
    static RRM_INLINE void apply(const Vec* d, Vec* to) {
        const Vec even = d[4] - 2.0f * d[2], odd = kHalfRoot * d[3] - kRoot * d[1];
        const Vec far_even = d[4] - 0.5f * d[2], far_odd = kRoot * d[3] - kHalfRoot * d[1];
        to[0] = d[0] + (d[4] - 2.5f * d[2]);
        to[1] = even + odd;
        to[2] = even - odd;
        to[3] = far_even + far_odd;
        to[4] = far_even - far_odd;
        to[5] = d[1] + (d[5] - 2.5f * d[3]);
    }
};

template <int kOutputs>
struct OutputSums {
    static constexpr int kIn = 6, kOut = kOutputs;
    static RRM_INLINE void apply(const Vec* m, Vec* to) {
        const Vec sum = m[1] + m[2], difference = m[1] - m[2];
        const Vec far_sum = m[3] + m[4], far_difference = m[3] - m[4];
        to[0] = m[0] + sum + far_sum;
        to[1] = kHalfRoot * difference + kRoot * far_difference;
        to[2] = 0.5f * sum + 2.0f * far_sum;
        if constexpr (kOutputs > 3)
            to[3] = (0.5f * kHalfRoot) * difference + (2.0f * kRoot) * far_difference;
        to[kOutputs - 1] += m[5];
    }
};

// Columns, then rows: `get(row, column)` gives what goes in, `put(row, column, value)` takes what
// comes out.
template <class Sums, class Get, class Put>
RRM_INLINE void both_ways(Get get, Put put) {
    constexpr int in = Sums::kIn, out = Sums::kOut;
    Vec half[out * in];
#pragma GCC unroll 6
    for (int c = 0; c < in; c++) {
        Vec column[in], sums[out];
#pragma GCC unroll 6
        for (int r = 0; r < in; r++) column[r] = get(r, c);
        Sums::apply(column, sums);
#pragma GCC unroll 6
        for (int i = 0; i < out; i++) half[i * in + c] = sums[i];
    }
#pragma GCC unroll 6
    for (int i = 0; i < out; i++) {
        Vec sums[out];
        Sums::apply(half + i * in, sums);
#pragma GCC unroll 6
        for (int j = 0; j < out; j++) put(i, j, sums[j]);
    }
}

template <Arithmetic kArithmetic, int kTaps>
void winograd_kernels(const WinogradWeightsArgs& args) {
    constexpr int per_unit = kArithmetic == Arithmetic::fp32 ? 1 : 2;
    for (int channel = 0; channel < args.units * per_unit; channel++) {
        const uint32_t* unit = args.weights + channel / per_unit * args.unit_stride;
        // Large layers come from memory, once for a whole batch of frames.
        constexpr int kAhead = 6;
        for (int tap = 0; tap < kTaps * kTaps; tap++)
            __builtin_prefetch(unit + kAhead * args.unit_stride + args.tap_offsets[tap]);
        for (int lane = 0; lane < kBlock; lane += kLanes) {
            float* to = args.to + static_cast<size_t>(channel) * kBlock + lane;
            both_ways<KernelPositions<kTaps>>(
                [&](int r, int c) __attribute__((always_inline)) {
                    const int32_t offset = args.tap_offsets[r * kTaps + c];
                    if (offset < 0) return splat(0);
                    const VecBits bits = *reinterpret_cast<const VecBits*>(unit + offset + lane);
                    return per_unit == 1      ? (Vec)bits
                           : channel % 2 == 0 ? (Vec)(bits << 16)
                                              : (Vec)(bits & 0xffff0000u);
                },
                [&](int i, int j, Vec value) __attribute__((always_inline)) {
                    store(to + (i * 6 + j) * args.position, value);
                });
        }
    }
}

template <Arithmetic kArithmetic>
void winograd_kernels_of(const WinogradWeightsArgs& args) {
    if (args.outputs == 4)
        winograd_kernels<kArithmetic, 3>(args);
    else
        winograd_kernels<kArithmetic, 4>(args);
}

void winograd_weights(const WinogradWeightsArgs& args, Arithmetic arithmetic) {
    if (arithmetic == Arithmetic::fp32)
        winograd_kernels_of<Arithmetic::fp32>(args);
    else
        winograd_kernels_of<Arithmetic::bf16>(args);
}

template <Arithmetic kArithmetic>
void winograd_input_tiles(const WinogradInputArgs& args) {
    for (int block = 0; block < args.blocks; block++)
        for (int tile = 0; tile < args.count; tile++)
            for (int lane = 0; lane < kBlock; lane += kLanes) {
                const uint32_t* x = args.tiles[tile] + args.offset + block * args.x_block;
                float* to = args.to + block * args.block + tile * kBlock + lane;
                both_ways<InputPositions>(
                    [&](int r, int c) __attribute__((always_inline)) {
                        return channels_of(x + r * args.x_row + c * args.x_column, lane,
                                           kArithmetic);
                    },
                    [&](int i, int j, Vec value) __attribute__((always_inline)) {
                        store(to + (i * 6 + j) * args.position, value);
                    });
            }
}

void winograd_input(const WinogradInputArgs& args, Arithmetic arithmetic) {
    if (arithmetic == Arithmetic::fp32)
        winograd_input_tiles<Arithmetic::fp32>(args);
    else
        winograd_input_tiles<Arithmetic::bf16>(args);
}

// `put(row, column, number)` takes those of a tile's outputs that lie in the map. Each has its place
// in the code: the numbers stay in registers.
template <int kOutputs, class Put>
RRM_INLINE void each_output(const WinogradTile& tile, Vec* all, Put put) {
    if (tile.rows == kOutputs && tile.columns == kOutputs) {
#pragma GCC unroll 4
        for (int r = 0; r < kOutputs; r++)
#pragma GCC unroll 4
            for (int c = 0; c < kOutputs; c++) put(r, c, all[r * kOutputs + c]);
        return;
    }
#pragma GCC unroll 4
    for (int r = 0; r < kOutputs; r++)
#pragma GCC unroll 4
        for (int c = 0; c < kOutputs; c++)
            if (r < tile.rows && c < tile.columns) put(r, c, all[r * kOutputs + c]);
}

// Finishes the outputs of tiles, see LayerEnd, in one block and vector of it.
struct OutputEnd {
    const LayerEnd& end;
    const ptrdiff_t place;     // among the residual's numbers
    uint16_t* const to;
    const Vec low, high;
    Vec sum;                   // of all outputs

    OutputEnd(const LayerEnd* of, int block, int lane)
        : end(*of), place(block * end.residual_block + lane),
          to(end.to == nullptr ? nullptr : end.to + block * end.to_block + lane), low(splat(end.low)),
          high(splat(end.high)), sum(splat(0)) {}

    // `mask`: of the outputs of this tile that are written, [rows][width]; null: all.
    template <int kOutputs>
    RRM_INLINE void finish(const WinogradTile& tile, int row, const uint8_t* mask, int width,
                           Vec* all) {
        const auto add = [&](const auto* numbers, auto get) __attribute__((always_inline)) {
            numbers += place + row * end.residual_row + tile.column * kBlock;
            each_output<kOutputs>(tile, all, [&](int r, int c, Vec& one) __attribute__((always_inline)) {
                one += get(numbers + r * end.residual_row + c * kBlock);
                // The next tile's, as a rule.
                __builtin_prefetch(numbers + r * end.residual_row + (kOutputs + c) * kBlock);
            });
        };
        if (end.residual != nullptr)
            add(end.residual, [](const float* p) __attribute__((always_inline)) { return load(p); });
        if (end.rounded != nullptr)
            add(end.rounded,
                [](const uint16_t* p) __attribute__((always_inline)) { return load_bf16(p); });
        if (end.trace != nullptr && mask == nullptr)
            each_output<kOutputs>(
                tile, all, [&](int, int, Vec& one) __attribute__((always_inline)) { sum += one; });
        if (end.trace != nullptr && mask != nullptr)
            each_output<kOutputs>(tile, all,
                                  [&](int r, int c, Vec& one) __attribute__((always_inline)) {
                                      if (mask[r * width + c] != 0) sum += one;
                                  });
        for (int i = 0; i < kOutputs * kOutputs; i++) all[i] = limited(all[i], low, high);
    }
    void keep_trace(int lane) const {
        if (end.trace != nullptr) store(end.trace + lane, load(end.trace + lane) + sum * splat(0));
    }
};

struct NoEnd {
    NoEnd(const LayerEnd*, int, int) {}
};

// kEnds: there is an `end`.
template <int kOutputs, bool kEnds>
void winograd_output_tiles(const WinogradOutputArgs& args) {
    for (int block = 0; block < args.blocks; block++)
        for (int lane = 0; lane < kBlock; lane += kLanes) {
            const Vec bias = load(args.bias + block * kBlock + lane);
            std::conditional_t<kEnds, OutputEnd, NoEnd> end(args.end, block, lane);
            for (int number = 0; number < args.count; number++) {
                const WinogradTile& tile = args.tiles[number];
                const float* from = args.from + block * args.block + number * kBlock + lane;
                Vec all[kOutputs * kOutputs];
                both_ways<OutputSums<kOutputs>>(
                    [&](int r, int c) __attribute__((always_inline)) {
                        return load(from + (r * 6 + c) * args.position);
                    },
                    [&](int i, int j, Vec value)
                        __attribute__((always_inline)) { all[i * kOutputs + j] = bias + value; });
                const int row = tile.row - args.first_row;
                const uint8_t* const mask =
                    args.mask == nullptr ? nullptr : args.mask + row * args.width + tile.column;
                if constexpr (kEnds) {
                    end.template finish<kOutputs>(tile, row, mask, args.width, all);
                    if (end.to != nullptr) {
                        uint16_t* const to = end.to + row * args.end->to_row + tile.column * kBlock;
                        each_output<kOutputs>(
                            tile, all, [&](int r, int c, Vec& one) __attribute__((always_inline)) {
                                store_bf16(to + r * args.end->to_row + c * kBlock, one);
                            });
                        continue;
                    }
                }
                float* const y = args.y + block * args.y_block + row * args.y_row +
                                 tile.column * kBlock + lane;
                const auto put = [&](int r, int c, Vec& one) __attribute__((always_inline)) {
                    store(y + r * args.y_row + c * kBlock, one);
                };
                if (mask == nullptr) {
                    each_output<kOutputs>(tile, all, put);
                } else {
                    each_output<kOutputs>(
                        tile, all, [&](int r, int c, Vec& one) __attribute__((always_inline)) {
                            if (mask[r * args.width + c] != 0) put(r, c, one);
                        });
                }
            }
            if constexpr (kEnds) end.keep_trace(lane);
        }
}

template <int kOutputs>
void winograd_output_of(const WinogradOutputArgs& args) {
    if (args.end != nullptr)
        winograd_output_tiles<kOutputs, true>(args);
    else
        winograd_output_tiles<kOutputs, false>(args);
}

void winograd_output(const WinogradOutputArgs& args) {
    if (args.outputs == 4)
        winograd_output_of<4>(args);
    else
        winograd_output_of<3>(args);
}

}  // namespace rrm::RRM_ISA
