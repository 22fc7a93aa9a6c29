// Weights in the order in which the kernels read them.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.hpp"
#include "operations.hpp"

namespace rrm {

struct Weights {
    const float* data;  // [outputs][inputs / groups][rows][columns]
    int outputs, inputs, groups, rows, columns;

    float at(int output, int input, int row, int column) const;  // 0 outside of the group
};

struct Packed {
    std::vector<uint32_t> elements;
    std::vector<WeightSet> sets;
};

// For a list whose groups have `group_blocks` blocks.
Packed pack_window(const Weights&, Arithmetic, int group_blocks);
Packed pack_taps(const Weights&, Arithmetic, int group_blocks);
// For ColumnConvolution: on lists; and dense, over pixels of `pixel` x `pixel` of the image's (1 for
// direct sums, the stride for tiles): [block][row in a pixel][column in a pixel][channel][row]
// [column][16], zeros where the layer has no tap.
std::vector<uint32_t> pack_columns(const Weights&, int stride);
std::vector<uint32_t> pack_columns_dense(const Weights&, int pixel);
// For BinaryConvolution, whose weights are 1 or -1: bits, two elements a word, as XnorArgs has them,
// and rows of bytes as FlipArgs has them, [tap][channel][outputs].
std::vector<uint32_t> pack_signs(const Weights&);
std::vector<uint32_t> pack_sign_rows(const Weights&);
// For CodedLayer: entries, two a word, and where each column of each segment begins in them,
// [segment][columns + 1]. Columns are in the order of a dense form without halo,
// [block][row][column][16]. Every weight that is not 0 is one of `codebook`, which has 2^code_bits.
struct PackedCodes {
    std::vector<uint32_t> entries, starts;
};
PackedCodes pack_codes(const Weights&, const float* codebook, int code_bits);

}  // namespace rrm
