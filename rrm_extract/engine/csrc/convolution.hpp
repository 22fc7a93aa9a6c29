// How a convolution goes through its outputs; for convolution.cpp, depthwise.cpp and winograd.cpp.
#pragma once

#include "operations.hpp"

namespace rrm {

// Blocks of outputs that are computed and finished together: their accumulators stay in the
// second-level cache, and they fill whole groups of every list.
inline constexpr int kStageBlocks = 8;

// Accumulators of that many bytes stay in the second-level cache until they are finished.
inline constexpr ptrdiff_t kStripBytes = 256 * 1024;
inline constexpr ptrdiff_t kUnkeptBytes = 64 * 1024;  // the same where none are kept
inline constexpr int kStripRows = 4;  // fewer would not be worth fetching the weights again

inline constexpr int kUnitsAhead = 128;  // whose weights are fetched before they are used

struct Convolution::Layout {
    int rows, columns;         // of the output
    int margin_columns;
    ptrdiff_t row, block;      // strides of the accumulators
    ptrdiff_t origin;          // of pixel (0, 0)
};

struct Convolution::Stage {
    int first_block, blocks;
    size_t first_set, last_set;
};

}  // namespace rrm
