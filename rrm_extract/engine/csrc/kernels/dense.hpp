// The dense convolution: key frames, and layers where too much has changed for a list to pay.
//
// A tile of neighbouring outputs times one or two blocks of channels stays in registers while all
// units and taps of the input pass; weights stream from the second-level cache, each vector serves
// the whole tile.
#pragma once

#include "vector.hpp"

namespace rrm::RRM_ISA {

// Outputs of a tile: as many accumulators as registers allow beside the weights and the broadcast.
template <int kVectors>
inline constexpr int kTile = kRegisters == 32 ? (kVectors == 1 ? 14 : 14) : (kVectors == 1 ? 12 : 6);

// kRows tiles lie below each other: for maps narrower than a tile.
template <class A, int kStep, int kVectors, int kRows, int kColumns>
void dense_tile(const DenseArgs& args, const uint32_t* x, const uint32_t* const* weights,
                const float* const* bias, float* const* y) {
    Vec acc[kRows][kColumns][kVectors];
#pragma GCC unroll 2
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 16
        for (int c = 0; c < kColumns; c++)
#pragma GCC unroll 2
            for (int v = 0; v < kVectors; v++)
                acc[r][c][v] = load(bias[v] != nullptr ? bias[v]
                                                       : y[v] + r * args.y_row + c * args.y_column);
    const ptrdiff_t step = kStep > 0 ? kStep : args.x_step;
    const uint32_t* unit_weights[kVectors];
    for (int v = 0; v < kVectors; v++) unit_weights[v] = weights[v];
    for (int block = 0; block < args.x_blocks; block++, x += args.x_block) {
        for (int unit = 0; unit < args.block_units; unit++) {
            // What the next tile of the row reads and writes.
            if (block == 0 && unit < kColumns) {
                __builtin_prefetch(x + (kColumns + unit) * step, 0, 3);
#pragma GCC unroll 2
                for (int v = 0; v < kVectors; v++)
                    __builtin_prefetch(y[v] + (kColumns + unit) * args.y_column, 1, 3);
            }
            const uint32_t* w[kVectors];
#pragma GCC unroll 2
            for (int v = 0; v < kVectors; v++) {
                w[v] = unit_weights[v];
                if (args.ahead != 0) __builtin_prefetch(w[v] + args.ahead, 0, 2);
                unit_weights[v] += args.unit_stride;
            }
            for (int tap = 0; tap < args.taps; tap++) {
                const uint32_t* p = x + unit + args.tap_offsets[tap];
#pragma GCC unroll 2
                for (int r = 0; r < kRows; r++) {
                    const uint32_t* q = p + r * args.x_row;
#pragma GCC unroll 16
                    for (int c = 0; c < kColumns; c++) {
                        const typename A::Value value = A::broadcast(q + c * step);
#pragma GCC unroll 2
                        for (int v = 0; v < kVectors; v++)
                            acc[r][c][v] = A::multiply_add(acc[r][c][v], value, w[v]);
                    }
                }
#pragma GCC unroll 2
                for (int v = 0; v < kVectors; v++) w[v] += args.tap_stride;
            }
        }
    }
#pragma GCC unroll 2
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 16
        for (int c = 0; c < kColumns; c++)
#pragma GCC unroll 2
            for (int v = 0; v < kVectors; v++)
                store(y[v] + r * args.y_row + c * args.y_column, acc[r][c][v]);
}

template <class A, int kStep, int kVectors>
using DenseTile = void (*)(const DenseArgs&, const uint32_t*, const uint32_t* const*,
                           const float* const*, float* const*);

template <class A, int kStep, int kVectors, int kRows>
DenseTile<A, kStep, kVectors> dense_tile_of(int columns) {
    switch (columns) {
#define RRM_CASE(n) \
    case n:         \
        if constexpr (n <= kTile<kVectors>) return dense_tile<A, kStep, kVectors, kRows, n>;
        RRM_CASE(1) RRM_CASE(2) RRM_CASE(3) RRM_CASE(4) RRM_CASE(5) RRM_CASE(6) RRM_CASE(7)
        RRM_CASE(8) RRM_CASE(9) RRM_CASE(10) RRM_CASE(11) RRM_CASE(12) RRM_CASE(13) RRM_CASE(14)
#undef RRM_CASE
    }
    return nullptr;
}

template <class A, int kStep, int kVectors>
void dense_panel(const DenseArgs& args, const uint32_t* const* weights, const float* const* bias,
                 float* const* y) {
    constexpr int tile = kTile<kVectors>;
    int row = 0;
    float* at[kVectors];
    if (args.columns <= tile / 2) {
        // Narrow maps: two rows make one tile.
        const auto both = [&]() -> DenseTile<A, kStep, kVectors> {
            if constexpr (tile / 2 == 7) {
                switch (args.columns) {
                    case 7: return dense_tile<A, kStep, kVectors, 2, 7>;
                    case 6: return dense_tile<A, kStep, kVectors, 2, 6>;
                    case 5: return dense_tile<A, kStep, kVectors, 2, 5>;
                    case 4: return dense_tile<A, kStep, kVectors, 2, 4>;
                    default: return nullptr;
                }
            }
            return nullptr;
        }();
        if (both != nullptr)
            for (; row + 2 <= args.rows; row += 2) {
                for (int v = 0; v < kVectors; v++) at[v] = y[v] + row * args.y_row;
                both(args, args.x + row * args.x_row, weights, bias, at);
            }
    }
    const int tiles = (args.columns + tile - 1) / tile;
    const int wide = (args.columns + tiles - 1) / tiles;  // tiles of nearly the same width
    const int wides = args.columns - tiles * (wide - 1);  // so many of `wide`, then one less
    const auto first = dense_tile_of<A, kStep, kVectors, 1>(wide);
    const auto then = dense_tile_of<A, kStep, kVectors, 1>(wide - 1);
    for (; row < args.rows; row++) {
        int column = 0;
        for (int t = 0; t < tiles; t++) {
            for (int v = 0; v < kVectors; v++)
                at[v] = y[v] + row * args.y_row + column * args.y_column;
            const ptrdiff_t step = kStep > 0 ? kStep : args.x_step;
            const uint32_t* x = args.x + row * args.x_row + column * step;
            (t < wides ? first : then)(args, x, weights, bias, at);
            column += t < wides ? wide : wide - 1;
        }
    }
}

template <class A, int kStep>
void dense_frame(const DenseArgs& args) {
    const int vectors = args.blocks * kSlices;
    for (int first = 0; first < vectors;) {
        const int count = vectors - first >= 2 ? 2 : 1;
        const uint32_t* weights[2];
        const float* bias[2];
        float* y[2];
        for (int v = 0; v < count; v++) {
            const int block = (first + v) / kSlices;
            const ptrdiff_t lane = static_cast<ptrdiff_t>((first + v) % kSlices) * kLanes;
            weights[v] = args.weights[block] + lane;
            bias[v] = args.bias[block] == nullptr ? nullptr : args.bias[block] + lane;
            y[v] = args.y[block] + lane;
        }
        if (count == 2)
            dense_panel<A, kStep, 2>(args, weights, bias, y);
        else
            dense_panel<A, kStep, 1>(args, weights, bias, y);
        first += count;
    }
}

void dense(const DenseArgs& args, Arithmetic arithmetic) {
    // The usual steps are known to the compiler: stride 1 and 2 in a map, and three channels side
    // by side with stride 1, 2 and 4 in the network's input.
    if (arithmetic == Arithmetic::fp32) {
        switch (args.x_step) {
            case 16: return dense_frame<Fp32, 16>(args);
            case 32: return dense_frame<Fp32, 32>(args);
            case 3: return dense_frame<Fp32, 3>(args);
            case 6: return dense_frame<Fp32, 6>(args);
            case 12: return dense_frame<Fp32, 12>(args);
            default: return dense_frame<Fp32, 0>(args);
        }
    }
    switch (args.x_step) {
        case 8: return dense_frame<Bf16, 8>(args);
        case 16: return dense_frame<Bf16, 16>(args);
        default: return dense_frame<Bf16, 0>(args);
    }
}

}  // namespace rrm::RRM_ISA
