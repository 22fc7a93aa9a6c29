// Matrix products of what tiles of inputs and kernels become, for winograd.cpp and column_tiles.cpp.
#pragma once

#include <algorithm>
#include <cstddef>

#include "kernels.hpp"

namespace rrm {

inline constexpr ptrdiff_t kPassBytes = 768 * 1024;  // of one pass: what tiles become before and after
inline constexpr int kTilesTogether = 14;            // that a matrix product takes
inline constexpr ptrdiff_t kApart = kBlock;  // so that positions do not fall on the same cache sets

inline constexpr int divided(int count, int by) { return (count + by - 1) / by; }

// Of the transformed kernels of `blocks` blocks of inputs and one of outputs. What keeps positions
// apart has the scales of a position where they are whole numbers.
inline ptrdiff_t kernel_position(int blocks) {
    return static_cast<ptrdiff_t>(blocks) * kBlock * kBlock + kApart;
}
inline ptrdiff_t kernel_floats(int blocks) { return kWinogradPositions * kernel_position(blocks); }

// [group of tiles][block][position][tile][elements]: what a matrix product or a transform of a group
// touches lies close together.
struct TileGroups {
    int tiles, size;           // of all, of a group; the last one may have fewer
    int blocks;
    int elements = kBlock;     // of 32 bits: floats, or pairs of whole numbers

    static TileGroups of(int tiles, int blocks, int elements = kBlock) {
        return {tiles, tiles == 0 ? 1 : divided(tiles, divided(tiles, kTilesTogether)), blocks,
                elements};
    }
    // Elements that are enough for so many tiles, or fewer.
    static size_t room(int tiles, int blocks, int elements = kBlock) {
        return (static_cast<size_t>(tiles + kTilesTogether) * kWinogradPositions * elements +
                static_cast<size_t>(tiles + 1) * kApart) *
               static_cast<size_t>(blocks);
    }
    ptrdiff_t position() const { return static_cast<ptrdiff_t>(size) * elements; }
    ptrdiff_t block() const { return position() * kWinogradPositions + kApart; }
    ptrdiff_t group() const { return block() * blocks; }
    int count() const { return divided(tiles, size); }
    int in_group(int number) const { return number + 1 < count() ? size : tiles - number * size; }
};

// Tiles that come one after the other.
struct TileRange {
    int begin, end;
};

// The 36 matrix products of some channels with the kernels of one or two blocks of outputs.
//
// Only the last row of a tile's outputs needs the last row of positions, and so do columns: where
// a tile has one row or column less, what stands there is not computed.
struct TileProducts {
    int channels;
    bool begins;               // the sums; else it adds to them
    TileRange whole_rows, whole_columns;  // the tiles that have their last row or column
    TileGroups in;
    const float* x;            // of the first channel's block
    const float* scales;       // of each tile, where x and the kernels are whole numbers; else null
    int outputs;               // blocks of them: 1 or 2
    const float* kernels[2];
    ptrdiff_t kernel_position;
    TileGroups out;
    float* y[2];

    void run(const Kernels&) const;

private:
    // So many tiles from `tile` on, in each of `rows` groups.
    void part(const Kernels&, int position, int tile, int rows, int tiles) const;
    void int16_part(const Kernels&, int position, int tile, int rows, int tiles) const;
    TileRange needing(int position) const {
        TileRange range{0, in.tiles};
        const auto only = [&](const TileRange& some) {
            range = {std::max(range.begin, some.begin), std::min(range.end, some.end)};
        };
        if (position / kWinogradInputs == kWinogradInputs - 1) only(whole_rows);
        if (position % kWinogradInputs == kWinogradInputs - 1) only(whole_columns);
        return range;
    }
};

}  // namespace rrm
