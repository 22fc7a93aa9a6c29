// How a first layer goes through its outputs; for columns.cpp and column_tiles.cpp.
#pragma once

#include <vector>

#include "operations.hpp"

namespace rrm {

// Rows of the layer's own map in some blocks, which are computed and finished together.
struct ColumnConvolution::Strip {
    int first_block, blocks;
    int row_begin, row_end;
    float* y;                          // its sums: row `row_begin`, first block
    ptrdiff_t y_block;
};

struct ColumnConvolution::Frame {
    int number;
    Changes changes;                   // of what is made: the map, or its maxima
    std::vector<uint8_t> changed_rows; // of the map itself
    std::vector<uint8_t> mask;         // of its pixels that dense tiles write; empty: all
    std::vector<float> above;          // [block][row][column][16] the last rows of the strip before
};

// Dense frames in Winograd's tiles: s x s pixels become one of s * s times as many channels, of
// which the layer is a convolution of stride 1 with a kernel that is s times smaller.
class ColumnConvolution::ColumnTiles {
public:
    ColumnTiles(const ColumnConvolution&, State&);
    int strip_rows() const { return strip_rows_; }
    void compute(const Strip&, const Frame&, float* trace);

private:
    void gather(const Strip&, int frame);

    const ColumnConvolution& layer_;
    State& state_;
    const int stride_, channels_, blocks_;   // channels and blocks of the new pixels
    const bool whole_;                       // numbers are multiplied, of 16 bits
    const int elements_;                     // of a block in a position of a tile
    const int map_columns_;
    const int width_;                        // of the new pixels of a strip
    int strip_rows_;
    float *kernels_, *outputs_, *inputs_, *scales_, *pixels_;
    std::vector<const uint32_t*> from_;
    std::vector<WinogradTile> to_;
};

}  // namespace rrm
