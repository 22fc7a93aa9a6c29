// The dense convolution: key frames, and layers where too much has changed for a list to pay.
//
// A tile of neighbouring outputs times one or two blocks of channels stays in registers while all
// units and taps of the input pass; weights stream from the second-level cache, each vector serves
// the whole tile.
#pragma once

#include <type_traits>

#include "vector.hpp"

namespace rrm::RRM_ISA {

// Outputs of a tile: as many accumulators as registers allow beside the weights and the broadcast, for
// two vectors.
inline constexpr int kTile = kRegisters == 32 ? 14 : 6;

// The same for so many vectors; of one, as many sums as keep both multipliers busy.
constexpr int tile_of(int vectors) { return kRegisters == 16 && vectors == 1 ? 12 : kTile; }

// One or two vectors of outputs, for all of a frame.
template <int kVectors>
struct DensePanel {
    const uint32_t* weights[kVectors];
    const float* bias[kVectors];
    float* y[kVectors];
    const float* residual[kVectors];
    const uint16_t* rounded[kVectors];
    uint16_t* to[kVectors];
    float* trace[kVectors];
};

// kRows tiles lie below each other: for maps narrower than a tile. `row` and `column` are those of
// the first output. With kPacked there is one tap, and the panel's weights lie side by side.
template <class A, int kStep, int kVectors, int kRows, int kColumns, bool kPacked>
RRM_INLINE void dense_outputs(const DenseArgs& args, const DensePanel<kVectors>& panel, int row,
                              int column) {
    constexpr bool kRounds = std::is_same_v<A, Bf16>;
    const bool rounds = kRounds && panel.to[0] != nullptr;  // what is written
    const ptrdiff_t step = kStep > 0 ? kStep : args.x_step;
    const uint32_t* x = args.x + row * args.x_row + column * step;
    float* y[kVectors];
    for (int v = 0; v < kVectors; v++)
        y[v] = rounds ? nullptr : panel.y[v] + row * args.y_row + column * args.y_column;
    Vec acc[kRows][kColumns][kVectors];
#pragma GCC unroll 2
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 16
        for (int c = 0; c < kColumns; c++)
#pragma GCC unroll 2
            for (int v = 0; v < kVectors; v++)
                acc[r][c][v] = load(panel.bias[v] != nullptr
                                        ? panel.bias[v]
                                        : y[v] + r * args.y_row + c * args.y_column);
    const uint32_t* w[kVectors];
    for (int v = 0; v < kVectors; v++) w[v] = panel.weights[v];
    const auto multiply = [&](const uint32_t* p,
                              const uint32_t* const* at) __attribute__((always_inline)) {
#pragma GCC unroll 2
        for (int r = 0; r < kRows; r++) {
            const uint32_t* q = p + r * args.x_row;
#pragma GCC unroll 16
            for (int c = 0; c < kColumns; c++) {
                const typename A::Value value = A::broadcast(q + c * step);
#pragma GCC unroll 2
                for (int v = 0; v < kVectors; v++)
                    acc[r][c][v] = A::multiply_add(acc[r][c][v], value, at[v]);
            }
        }
    };
    // What the next tile of the row reads and writes.
#pragma GCC unroll 16
    for (int c = 0; c < kColumns; c++) {
        __builtin_prefetch(x + (kColumns + c) * step, 0, 3);
#pragma GCC unroll 2
        for (int v = 0; v < kVectors && !rounds; v += least(kSlices, kVectors))  // one to a line
            __builtin_prefetch(y[v] + (kColumns + c) * args.y_column, 1, 3);
    }
    for (int units = args.units; units > 0; x += args.x_block, units -= args.block_units) {
        const int count = units < args.block_units ? units : args.block_units;
        if constexpr (kPacked) {
            const uint32_t* p = x + args.tap_offsets[0];
            for (int unit = 0; unit < count; unit++, p++, w[0] += kVectors * kLanes) {
                const uint32_t* at[kVectors];
#pragma GCC unroll 2
                for (int v = 0; v < kVectors; v++) at[v] = w[0] + v * kLanes;
                multiply(p, at);
            }
            continue;
        }
        // So few instructions beside the products count where there are few units.
        if (args.taps == 1 && args.ahead == 0) {
            const uint32_t* p = x + args.tap_offsets[0];
            for (int unit = 0; unit < count; unit++, p++) {
                multiply(p, w);
#pragma GCC unroll 2
                for (int v = 0; v < kVectors; v++) w[v] += args.unit_stride;
            }
            continue;
        }
        for (int unit = 0; unit < count; unit++) {
            const uint32_t* at[kVectors];
#pragma GCC unroll 2
            for (int v = 0; v < kVectors; v++) {
                at[v] = w[v];
                if (args.ahead != 0) __builtin_prefetch(w[v] + args.ahead, 0, 2);
                w[v] += args.unit_stride;
            }
            for (int tap = 0; tap < args.taps; tap++) {
                multiply(x + unit + args.tap_offsets[tap], at);
#pragma GCC unroll 2
                for (int v = 0; v < kVectors; v++) at[v] += args.tap_stride;
            }
        }
    }
    if (args.end != nullptr) {
        const Vec low = splat(args.end->low), high = splat(args.end->high);
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; v++) {
            const auto add = [&](const auto* residual, auto get) __attribute__((always_inline)) {
                residual += row * args.end->residual_row + column * kBlock;
#pragma GCC unroll 2
                for (int r = 0; r < kRows; r++)
#pragma GCC unroll 16
                    for (int c = 0; c < kColumns; c++) {
                        acc[r][c][v] += get(residual + r * args.end->residual_row + c * kBlock);
                        __builtin_prefetch(residual + (kColumns + c) * kBlock, 0, 3);
                    }
            };
            if (panel.residual[v] != nullptr)
                add(panel.residual[v],
                    [](const float* p) __attribute__((always_inline)) { return load(p); });
            if (kRounds && panel.rounded[v] != nullptr)
                add(panel.rounded[v],
                    [](const uint16_t* p) __attribute__((always_inline)) { return load_bf16(p); });
            if (panel.trace[v] != nullptr) {
                // A plain sum first: additions find idle units beside the next tile's products.
                Vec sum[2] = {};
#pragma GCC unroll 2
                for (int r = 0; r < kRows; r++)
#pragma GCC unroll 16
                    for (int c = 0; c < kColumns; c++) sum[c % 2] += acc[r][c][v];
                store(panel.trace[v], load(panel.trace[v]) + (sum[0] + sum[1]) * splat(0.0f));
            }
#pragma GCC unroll 2
            for (int r = 0; r < kRows; r++)
#pragma GCC unroll 16
                for (int c = 0; c < kColumns; c++)
                    acc[r][c][v] = limited(acc[r][c][v], low, high);
        }
    }
    if (rounds) {
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; v++) {
            uint16_t* const to = panel.to[v] + row * args.end->to_row + column * kBlock;
#pragma GCC unroll 2
            for (int r = 0; r < kRows; r++)
#pragma GCC unroll 16
                for (int c = 0; c < kColumns; c++) {
                    store_bf16(to + r * args.end->to_row + c * kBlock, acc[r][c][v]);
                    __builtin_prefetch(to + (kColumns + c) * kBlock, 1, 3);
                }
        }
        return;
    }
#pragma GCC unroll 2
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 16
        for (int c = 0; c < kColumns; c++)
#pragma GCC unroll 2
            for (int v = 0; v < kVectors; v++)
                store(y[v] + r * args.y_row + c * args.y_column, acc[r][c][v]);
}

template <class A, int kStep, int kVectors, int kRows, int kColumns>
void dense_tile(const DenseArgs& args, const DensePanel<kVectors>& panel, int row, int column) {
    dense_outputs<A, kStep, kVectors, kRows, kColumns, false>(args, panel, row, column);
}

// Some tiles beside each other, in all rows, of one tap and packed weights. With few units a call for each
// tile, and what it reads of the arguments, would take as long as the products.
template <class A, int kStep, int kVectors, int kRows, int kColumns>
void dense_strip(const DenseArgs& given, const DensePanel<kVectors>& given_panel, int row, int row_end,
                 int column, int tiles) {
    const DenseArgs args = given;  // in registers, whatever is written
    const DensePanel<kVectors> panel = given_panel;
    for (; row + kRows <= row_end; row += kRows)
        for (int tile = 0; tile < tiles; tile++)
            dense_outputs<A, kStep, kVectors, kRows, kColumns, true>(args, panel, row,
                                                                     column + tile * kColumns);
}

template <int kVectors>
using DenseTile = void (*)(const DenseArgs&, const DensePanel<kVectors>&, int row, int column);
template <int kVectors>
using DenseStrip = void (*)(const DenseArgs&, const DensePanel<kVectors>&, int row, int row_end,
                            int column, int tiles);

#define RRM_CASES                                                                           \
    RRM_CASE(1) RRM_CASE(2) RRM_CASE(3) RRM_CASE(4) RRM_CASE(5) RRM_CASE(6) RRM_CASE(7)     \
    RRM_CASE(8) RRM_CASE(9) RRM_CASE(10) RRM_CASE(11) RRM_CASE(12) RRM_CASE(13) RRM_CASE(14)

template <class A, int kStep, int kVectors, int kRows>
DenseTile<kVectors> dense_tile_of(int columns) {
    switch (columns) {
#define RRM_CASE(n) \
    case n:         \
        if constexpr (n <= kTile) return dense_tile<A, kStep, kVectors, kRows, n>;
        RRM_CASES
#undef RRM_CASE
    }
    return nullptr;
}

template <class A, int kStep, int kVectors>
DenseStrip<kVectors> dense_strip_of(int columns) {
    switch (columns) {
#define RRM_CASE(n) \
    case n:         \
        if constexpr (n <= tile_of(kVectors)) return dense_strip<A, kStep, kVectors, 1, n>;
        RRM_CASES
#undef RRM_CASE
    }
    return nullptr;
}
#undef RRM_CASES

// Whether the weights of a panel lie side by side, one tap and unit after the other.
template <int kVectors>
bool is_packed(const DenseArgs& args, const DensePanel<kVectors>& panel) {
    return args.taps == 1 && args.ahead == 0 && args.unit_stride == kVectors * kLanes &&
           panel.weights[kVectors - 1] == panel.weights[0] + (kVectors - 1) * kLanes;
}

// Of one tap and packed weights: tiles of one width in all rows, then those of another.
template <class A, int kStep, int kVectors>
void dense_strips(const DenseArgs& args, const DensePanel<kVectors>& panel) {
    const Parts tiles = Parts::of(args.columns, tile_of(kVectors));
    const auto strip = [&](int columns, int column, int count) {
        int row = 0;
        if constexpr (kVectors == 2)
            if (columns == 3) {  // too few sums for both multipliers: two rows make one tile
                dense_strip<A, kStep, 2, 2, 3>(args, panel, 0, args.rows, column, count);
                row = args.rows / 2 * 2;
            }
        if (row < args.rows)
            dense_strip_of<A, kStep, kVectors>(columns)(args, panel, row, args.rows, column, count);
    };
    strip(tiles.size, 0, tiles.larger);
    if (tiles.larger < tiles.count)
        strip(tiles.size - 1, tiles.larger * tiles.size, tiles.count - tiles.larger);
}

template <class A, int kStep, int kVectors>
void dense_tiles(const DenseArgs& args, const DensePanel<kVectors>& panel) {
    int row = 0;
    if (args.columns <= kTile / 2) {
        // Narrow maps: two rows make one tile.
        const auto both = [&]() -> DenseTile<kVectors> {
            if constexpr (kTile / 2 == 7) {
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
            for (; row + 2 <= args.rows; row += 2) both(args, panel, row, 0);
    }
    const Parts tiles = Parts::of(args.columns, kTile);
    const auto first = dense_tile_of<A, kStep, kVectors, 1>(tiles.size);
    const auto then = dense_tile_of<A, kStep, kVectors, 1>(tiles.size - 1);
    for (; row < args.rows; row++)
        for (int t = 0, column = 0; t < tiles.count; column += tiles.size_of(t), t++)
            (t < tiles.larger ? first : then)(args, panel, row, column);
}

template <class A, int kStep, int kVectors>
void dense_panel(const DenseArgs& args, const DensePanel<kVectors>& panel) {
    if constexpr (kRegisters == 16 && kVectors == 1) {
        dense_strips<A, kStep, kVectors>(args, panel);  // see dense_half
    } else {
        // Where narrow tiles read the weights so often that they are packed.
        if constexpr (kRegisters == 16)
            if (is_packed(args, panel)) return dense_strips<A, kStep, kVectors>(args, panel);
        dense_tiles<A, kStep, kVectors>(args, panel);
    }
}

// A layer's weights for all blocks of outputs lie side by side. So those of one or two vectors are far
// apart, and fall on few sets of the first-level cache. Where tiles are narrow, many read them: they
// are copied, so many at a time as stay in that cache or near it.
inline constexpr int kPackedElements = 16 * 1024;
inline constexpr int kFewestTiles = 4;

// Blocks of inputs whose weights are copied together; 0: none are.
template <class A, int kVectors>
int packed_blocks(const DenseArgs& args) {
    constexpr int element = kVectors * kLanes;
    const int tiles = args.rows * Parts::of(args.columns, tile_of(kVectors)).count;
    if (tiles < kFewestTiles || (args.taps == 1 && args.unit_stride == element)) return 0;
    const int blocks = (args.units + args.block_units - 1) / args.block_units;
    const int fit = kPackedElements / (element * args.taps * least(args.block_units, args.units));
    // What is written as bfloat16 cannot be added to.
    const bool adds = !std::is_same_v<A, Bf16> || args.end == nullptr || args.end->to == nullptr;
    if (fit == 0 || (fit < blocks && !adds)) return 0;
    return Parts::of(blocks, fit).size;
}

template <class A, int kStep, int kVectors>
void dense_packed(const DenseArgs& args, const DensePanel<kVectors>& panel, int blocks) {
    constexpr int element = kVectors * kLanes;
    alignas(64) uint32_t packed[kPackedElements];
    DenseArgs part = args;
    DensePanel<kVectors> some = panel;
    part.unit_stride = static_cast<ptrdiff_t>(args.taps) * element;
    part.tap_stride = element;
    part.ahead = 0;
    for (int v = 0; v < kVectors; v++) some.weights[v] = packed + v * kLanes;
    for (int first = 0; first < args.units; first += part.units, part.x += blocks * args.x_block) {
        part.units = least(blocks * args.block_units, args.units - first);
        uint32_t* to = packed;
        for (int unit = first; unit < first + part.units; unit++)
            for (int tap = 0; tap < args.taps; tap++)
#pragma GCC unroll 2
                for (int v = 0; v < kVectors; v++, to += kLanes)
                    *reinterpret_cast<VecBits*>(to) = *reinterpret_cast<const VecBits*>(
                        panel.weights[v] + unit * args.unit_stride + tap * args.tap_stride);
        for (int v = 0; v < kVectors && first > 0; v++) some.bias[v] = nullptr;
        part.end = first + part.units < args.units ? nullptr : args.end;
        dense_panel<A, kStep, kVectors>(part, some);
    }
}

template <int kVectors>
DensePanel<kVectors> panel_of(const DenseArgs& args, int first) {
    DensePanel<kVectors> panel{};
    for (int v = 0; v < kVectors; v++) {
        const int block = (first + v) / kSlices;
        const ptrdiff_t lane = static_cast<ptrdiff_t>((first + v) % kSlices) * kLanes;
        const auto at = [&](auto* all) { return all == nullptr ? nullptr : all + lane; };
        panel.weights[v] = args.weights[block] + lane;
        panel.bias[v] = at(args.bias[block]);
        panel.y[v] = args.y[block] + lane;
        if (const LayerEnd* const end = args.end) {
            const auto of_block = [&](auto* all, ptrdiff_t next) {
                return all == nullptr ? nullptr : all + block * next + lane;
            };
            panel.residual[v] = of_block(end->residual, end->residual_block);
            panel.rounded[v] = of_block(end->rounded, end->residual_block);
            panel.to[v] = of_block(end->to, end->to_block);
            panel.trace[v] = at(end->trace);
        }
    }
    return panel;
}

template <class A, int kStep, int kVectors>
void dense_vectors(const DenseArgs& args, int first) {
    const auto panel = panel_of<kVectors>(args, first);
    if constexpr (kRegisters == 16)
        if (const int blocks = packed_blocks<A, kVectors>(args))
            return dense_packed<A, kStep, kVectors>(args, panel, blocks);
    dense_panel<A, kStep, kVectors>(args, panel);
}

// The last block of two vectors, of which the second has padding alone: products of the first. Returns
// whether it is one, of a kernel that is worth the code.
template <class A, int kStep>
bool dense_half(const DenseArgs& args) {
    if (args.padding < kLanes || args.taps != 1) return false;
    const int blocks = packed_blocks<A, 1>(args);
    if (blocks == 0) return false;
    const int first = (args.blocks - 1) * kSlices;
    dense_packed<A, kStep, 1>(args, panel_of<1>(args, first), blocks);
    DenseArgs none = args;
    none.units = 0;
    dense_strips<A, kStep, 1>(none, panel_of<1>(none, first + 1));
    return true;
}

template <class A, int kStep>
void dense_frame(const DenseArgs& args) {
    int vectors = args.blocks * kSlices;
    if constexpr (kRegisters == 16 && kSlices == 2 && kStep > 0)
        if (dense_half<A, kStep>(args)) vectors -= kSlices;
    int first = 0;
    for (; first + 2 <= vectors; first += 2) dense_vectors<A, kStep, 2>(args, first);
    if constexpr (kSlices % 2 != 0)
        if (first < vectors) dense_vectors<A, kStep, 1>(args, first);
}

// Whether nothing lies between the rows of what is read, and of what is written: to a 1x1 kernel they
// are one row, whose tiles are as wide as they can be.
inline bool is_one_row(const DenseArgs& args) {
    const LayerEnd* const end = args.end;
    const ptrdiff_t columns = args.columns, width = columns * kBlock;
    if (args.taps != 1 || args.x_row != columns * args.x_step) return false;
    const bool rounds = end != nullptr && end->to != nullptr;  // and y is not written
    if (rounds ? end->to_row != width : args.y_row != columns * args.y_column) return false;
    const bool adds = end != nullptr && (end->residual != nullptr || end->rounded != nullptr);
    return !adds || end->residual_row == width;
}

void dense(const DenseArgs& given, Arithmetic arithmetic) {
    DenseArgs args = given;
    if (is_one_row(args)) {
        args.columns *= args.rows;
        args.rows = 1;
    }
    // The compiler knows the step of stride 1 in a map. No other step is faster for being known, and
    // each takes a fifth of the time to compile a table.
    if (arithmetic == Arithmetic::fp32)
        return args.x_step == kBlock ? dense_frame<Fp32, kBlock>(args) : dense_frame<Fp32, 0>(args);
    return args.x_step == kBlock / 2 ? dense_frame<Bf16, kBlock / 2>(args)
                                     : dense_frame<Bf16, 0>(args);
}

}  // namespace rrm::RRM_ISA
