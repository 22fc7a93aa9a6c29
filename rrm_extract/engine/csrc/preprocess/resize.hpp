// The two passes of a separable resize, fused with the normalisation, over the pixels of a crop.
//
// The horizontal pass takes 16 rows of the source at a time, turned so that a vector holds one
// byte of each row: then every output is a few multiply-adds of whole vectors with one weight,
// whatever the scale. Its rows wait in a ring until the vertical pass has used them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "resize_weights.hpp"

namespace rrm::preprocess {

inline constexpr int kRows = 16;         // source rows taken together; also the unit of outputs
inline constexpr int kTileColumns = 128; // pixels turned at once, so that they stay in the L1 cache

// Levels 0..255 to network input: (level / 255 or level, minus mean) / std, each step rounded to
// float32 as torch does it.
struct Normalisation {
    bool unit;        // levels are divided by 255 first
    bool reciprocal;  // multiplying by reciprocals with a correction gives the same bits
    float mean[3], deviation[3], inverse[3];  // by plane of the output; inverse = 1 / deviation
};

// (level / 255 or level, minus mean) / std in float32, step by step.
float normalised(int level, bool unit, float mean, float deviation);

// unit, mean (3,), deviation (3,): by plane of the output.
Normalisation normalisation(bool unit, const float* mean, const float* deviation);

// Outputs [first, last) of the horizontal pass, whose inputs are turned together.
struct Strip {
    int first, last;
    int column_begin, column_end;  // source pixels
};

// One resize: from a frame (source_height, source_width, 3) uint8 to three planes of outputs.
// Weight: float or int32_t, see resize_weights.hpp.
template <class Weight>
struct Resize {
    AxisWeights<Weight> x;  // packed to a multiple of kRows outputs
    AxisWeights<Weight> y;
    int width = 0, height = 0;  // outputs wanted
    bool clamp = false;         // sums may leave 0..255
    bool reversed = false;      // plane p is source channel 2 - p
    Normalisation normalisation{};

    std::vector<Strip> strips;
    int tile_columns = 0;  // the most source pixels in a strip
    int ring_rows = 0;     // a multiple of kRows
};

// The number of taps, for code of its own where there are few; 0 where a sum is split.
template <class Weight>
int known_taps(const AxisWeights<Weight>& axis) {
    for (const int from : axis.fused_from) {
        if (from > 1) return 0;
    }
    return axis.taps;
}

// Makes the strips and the sizes of the buffers from the other fields.
template <class Weight>
void plan(Resize<Weight>& resize);

// Bytes of scratch memory, aligned to 64, that one call needs.
template <class Weight>
size_t scratch_bytes(const Resize<Weight>& resize);

// The passes of one instruction set.
struct Passes {
    const char* name;
    bool fma;  // a product and a sum are rounded once
    // frame: (source_height, source_width, 3) uint8, C-contiguous, borrowed
    // out:   the first output; planes lie `plane` floats apart, rows `row`
    void (*real)(const Resize<float>&, const uint8_t* frame, float* out, ptrdiff_t plane,
                 ptrdiff_t row, void* scratch);
    void (*fixed)(const Resize<int32_t>&, const uint8_t* frame, float* out, ptrdiff_t plane,
                  ptrdiff_t row, void* scratch);
};

// The passes for a name of rrm::available_isas(), or for the best of them with "auto"; null for
// "reference". Throws std::invalid_argument for other names.
const Passes* passes_of(const std::string& isa);

}  // namespace rrm::preprocess
