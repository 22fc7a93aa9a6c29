// The kernels of the engine: what each computes, on which layout. One table of them for each
// instruction set; the "reference" table is plain scalar code and the oracle for the others.
//
// Layouts
//   activation   float [blocks][rows][columns][16]: a block is 16 channels side by side.
//   units        what a sparse kernel multiplies with one broadcast: one fp32 channel, or a pair of
//                bf16 channels (2u in the low half, 2u + 1 in the high half). 32 bits either way.
//   weights      32-bit elements, 16 outputs side by side; element (unit, tap, output) of a
//                vector is at unit * unit_stride + tap * tap_stride + output.
//   list         the non-zero deltas of one frame, see List.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

namespace rrm {

inline constexpr int kBlock = 16;        // channels in a block
inline constexpr int kListSlack = 64;    // elements that may be written beyond a span's end
// Blocks of outputs that a ColumnArgs takes together, of those that are left.
inline constexpr int column_blocks_of(int left) { return left >= 2 ? 2 : 1; }

// Non-zero deltas of one frame, compressed once by the producer of the activation.
//
// A span holds one row of one group of channels, pixel after pixel, channels in order inside a
// pixel; starts[x] is where pixel x begins in it, starts[width] its length.
struct List {
    int height, width, groups;
    int group_units;       // units of a full group (at most 128 channels)
    size_t capacity;       // elements of one span, slack included
    uint32_t* values;      // bits of one fp32 delta, or of two bf16 deltas
    uint8_t* units;        // unit inside the group
    uint32_t* starts;      // [height][groups][width + 1]

    size_t span(int row, int group) const { return static_cast<size_t>(row) * groups + group; }
};

enum class Arithmetic { fp32, bf16 };

// Adds the response of a 3x3 convolution of stride 1 to one block of 16 outputs.
struct WindowArgs {
    const List* list;
    int group;
    int row_begin, row_end;   // rows of y that are computed; input row i reaches rows i to i + 2
    const uint32_t* weights;  // [unit of the group][column][row][16], kernel turned by 180 degrees
    float* y;                 // row 0, column 0: where input pixel (0, 0) meets the last tap
    ptrdiff_t y_row;
};

// Adds the response of one tap of any convolution to `blocks` blocks of outputs.
struct TapArgs {
    const List* list;
    int group;
    int blocks;                // 1 to 8
    const uint32_t* weights;   // [unit of the group][blocks * 16]
    float* y;                  // output pixel (0, 0)
    ptrdiff_t y_row, y_block;
    int row_begin, row_end;    // output rows whose input row exists
    int column_begin, column_end;
    int row_stride, row_offset;        // input row = output row * stride + offset
    int column_stride, column_offset;
};

// What is left to do to a finished sum, while it is in a register: y = limited(sum + residual).
struct LayerEnd {
    float low, high;          // a NaN stays one
    const float* residual;    // of the first output and block, 16 numbers between neighbours; null: none
    const uint16_t* rounded;  // the same as bfloat16, in its place; null: none
    ptrdiff_t residual_row, residual_block;
    float* trace;             // 16 numbers, made other than 0 by sums that are not finite; or null
    uint16_t* to;             // where they are written as bfloat16, and not to y; null: they are not
    ptrdiff_t to_row, to_block;  // 16 numbers between neighbouring outputs
};

// Sums that are written as they are, with a trace.
inline constexpr LayerEnd traced(float* trace) {
    LayerEnd end{};
    end.low = -std::numeric_limits<float>::infinity();
    end.high = std::numeric_limits<float>::infinity();
    end.trace = trace;
    return end;
}

// A dense convolution for one or two blocks of outputs: y = bias + W * x, or y += W * x.
struct DenseArgs {
    const uint32_t* x;        // units; input pixel of output (0, 0) and tap offset 0
    ptrdiff_t x_block, x_row; // strides in units; x_row is that of one *output* row
    int x_step;               // units between the inputs of neighbouring outputs
    int units, block_units;   // the last block may have fewer
    int taps;
    const int32_t* tap_offsets;   // [taps] in units
    const uint32_t* weights[2];
    ptrdiff_t unit_stride, tap_stride;
    const float* bias[2];     // 16 numbers; null: added to y
    float* y[2];
    int blocks;               // 1 or 2
    ptrdiff_t y_row, y_column; // y_column: floats between neighbouring outputs, 16 in a map
    int rows, columns;
    ptrdiff_t ahead = 0;      // elements between weights and those to fetch ahead; 0: none
    const LayerEnd* end = nullptr;  // null: the sums are written as they are
    int padding = 0;          // outputs at the end of the last block that no channel has: weights of 0
};

// A dense convolution of stride 1 by Winograd's minimal filtering (Lavin and Gray, arXiv 1509.09308):
// F(4x4, 3x3) or F(3x3, 4x4), 36 products for 16 or 9 outputs instead of 144. A tile of 6x6 inputs
// becomes 36 numbers ("positions"), the kernel too; their products, summed over the channels as 36
// matrix products, become the outputs. The points are 0, +-sqrt(1/2), +-sqrt(2) and infinity, of
// which rounding errors are twice those of the direct sum, a quarter of those of 0, +-1, +-2.
inline constexpr int kWinogradInputs = 6;                        // of a tile, in each direction
inline constexpr int kWinogradPositions = 36;
// Rows of the kernel, and its columns, for a tile of so many rows and columns of outputs.
inline constexpr int winograd_taps_of(int outputs) { return kWinogradInputs + 1 - outputs; }

// The 36 positions of the kernels of one block of outputs.
struct WinogradWeightsArgs {
    const uint32_t* weights;
    ptrdiff_t unit_stride;
    const int32_t* tap_offsets;  // [row][column] from a unit to its taps; below 0: the tap is 0
    int outputs;               // of a tile, in each direction: 3 or 4
    int units;
    float* to;                 // [position][channel][16]; a pair of bf16 becomes two channels
    ptrdiff_t position;
};

// The 36 positions of some tiles of inputs.
struct WinogradInputArgs {
    const uint32_t* const* tiles;  // [count] a pixel of block 0
    ptrdiff_t offset;          // from there to the tile's first
    int count, blocks;
    ptrdiff_t x_column, x_row, x_block;  // in units
    float* to;                 // [position][block][tile][16]
    ptrdiff_t position, block;
};

// Where a tile's outputs lie in its map.
struct WinogradTile {
    int row, column;           // of its first output
    int rows, columns;         // of its outputs that exist

    // Whether any of its outputs is marked; `mask` begins with its first row.
    bool sees(const uint8_t* mask, int width) const {
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < columns; c++)
                if (mask[static_cast<ptrdiff_t>(r) * width + column + c] != 0) return true;
        return false;
    }
};

// y = bias + what the 36 sums of some tiles of a frame stand for.
struct WinogradOutputArgs {
    const WinogradTile* tiles;
    int outputs;               // of a whole tile, in each direction
    int count, blocks;
    const float* from;         // [position][block][tile][16]
    ptrdiff_t position, block;
    const float* bias;         // [blocks * 16]
    int first_row;             // of the map, that of `y` and `mask`
    float* y;
    ptrdiff_t y_row, y_block;
    const uint8_t* mask;       // [rows][width] pixels that are written; null: all
    int width;
    const LayerEnd* end = nullptr;  // from row `first_row` on; with a mask it has no `to`; null: none
};

// The matrix products between the transforms in networks of bfloat16: of whole numbers of 16 bits, two
// channels to a step like a unit, summed exactly in 32 bits. bfloat16 itself would be too coarse, for
// the transforms back magnify what is rounded. Numbers share a scale, so that the largest has
// kInt16Input or kInt16Weight, or the sum of a sum's weights kInt16Sum: no sum can overflow.
inline constexpr int kInt16Blocks = 8;     // of channels that go into one sum and share scales
inline constexpr int kInt16Input = 16383, kInt16Weight = 32767;
inline constexpr int kInt16Sum = 0x7fffffff / kInt16Input;
inline constexpr float kInt16Least = 1e-30f;  // what is not larger is 0: a scale would overflow

// As WinogradInputArgs, for at most kInt16Blocks blocks.
struct Int16InputArgs {
    const uint32_t* const* tiles;
    ptrdiff_t offset;
    int count, channels;
    ptrdiff_t x_column, x_row, x_block;
    uint32_t* to;              // [position][block][tile][8 pairs of channels]
    ptrdiff_t position, block;
    float* scales;             // [count] what 1 stands for; not a number if an input is not finite
};

// In place: the 36 positions of one block of outputs as winograd_weights leaves them.
struct Int16WeightsArgs {
    float* kernels;            // [position][channel][16]; becomes uint32_t [position][pair][16]
    ptrdiff_t position;
    int channels;              // at most those of kInt16Blocks blocks
    float* scales;             // [16] of each position, as far apart as `kernels` are
};

// y = the products of some pairs, or y += them; for one position and one or two blocks of outputs.
struct Int16ProductArgs {
    const uint32_t* x;         // of the first tile
    ptrdiff_t x_block, x_row;
    int pairs;
    const float* input_scales; // of the first tile; its neighbours' follow
    ptrdiff_t scales_row;
    const uint32_t* weights[2];
    const float* weight_scales[2];  // [16]
    bool begins;               // y is written, else added to
    float* y[2];
    ptrdiff_t y_row;
    int blocks, rows, tiles;   // rows of tiles
};

// The first layer: few input channels, so that a sliding window over whole columns pays.
// Entries of column x are sorted by row; starts[row][x] is how many lie above the row.
struct ColumnList {
    int height, width, channels;
    size_t capacity;     // of one column, slack included
    uint32_t* values;
    uint16_t* rows;      // row * channels + channel
    uint16_t* starts;    // [height + 1][width]
};

struct ColumnArgs {
    const ColumnList* list;
    int row_begin, row_end;    // input rows under the kernel
    int first_row;             // row of the kernel's first tap; may be negative
    int kernel_rows, kernel_columns, stride, padding;  // of columns
    int positions;             // ceil(kernel_columns / stride)
    int blocks;                // of outputs: 1 or 2
    // [stride phase][row * channels + channel][position][blocks * 16]; a phase is the input column
    // plus padding, modulo the stride; position p is the output column
    // (column + padding) / stride - p.
    const uint32_t* weights;
    float* y;                  // output row, column 0
    ptrdiff_t y_block;
    int columns;               // of the output
    float* trace = nullptr;    // of what y becomes, as LayerEnd has it
};

// A depthwise convolution of some rows of outputs in one block: y = bias + w * x.
struct DepthwiseArgs {
    const float* x;            // input pixel of the first output and the first tap
    ptrdiff_t x_row;
    int kernel_rows, kernel_columns, row_stride, column_stride, row_dilation, column_dilation;
    const float* weights;      // [row][column][16]
    const float* bias;
    float* y;
    ptrdiff_t y_row;
    int rows, columns;         // of the output
    float low, high;           // of what is written; a NaN stays one
    float* trace;              // as LayerEnd has it
};

// What the layers see, counted while compressing.
struct Counts {
    int64_t nonzero = 0;    // of the plain input; at first its change since the frame before
    int64_t deltas = 0;     // of the truncated differences
    bool finite = true;
    double truncated = 0;   // sum of squares of what is not propagated; at first its change
};

// Neighbouring pixels of a row that may have changed since the frame before.
struct Run {
    int begin, end;
};

// One row of a group of channels against its snapshot: difference, threshold, compress.
struct CompressArgs {
    const float* x;          // only read inside of the runs
    ptrdiff_t x_block;
    float* snapshot;
    ptrdiff_t snapshot_block;
    const Run* runs;
    int run_count;
    int width, channels;     // channels of this group
    uint8_t* occupied;       // [width] non-zero channels of each pixel, kept between frames
    uint8_t* hits;           // [width] set where a delta is; added to unless `first`
    bool first;
    float threshold;
    bool paper;              // the snapshot becomes the input everywhere
    uint32_t* values;
    uint8_t* units;
    uint32_t* starts;
    Counts* counts;
};

// The same row taken whole: nothing is truncated. While a layer stays dense its dense form is the
// snapshot: what is not written need not be fetched.
struct KeepArgs {
    const float* x;
    ptrdiff_t x_block;
    const float* snapshot;   // of the frame before; null: its dense form is in `last`
    ptrdiff_t snapshot_block;
    const uint32_t* last;    // as units; may be `dense` itself
    float* next_snapshot;    // null: none is needed
    uint32_t* dense;         // as units
    ptrdiff_t dense_block;   // of `last` too
    ptrdiff_t ahead;         // units to the next row of `dense`, which is fetched ahead
    int width, channels;
    uint8_t* occupied;       // [width] as above
    float threshold;         // only for the count
    // Null: nothing is compared or counted, only `dense` is written. Pixels whose rounded form is
    // that of the frame before have no deltas: what differs is the rounding.
    Counts* counts;
};

// One row of the first layer's input, [width][channels], taken whole.
struct KeepColumnsArgs {
    const float* x;
    const float* last;       // may be `snapshot` or `dense`
    float* snapshot;         // null: none is needed
    float* dense;
    int width, channels;
    uint8_t* hits;           // [width] set where it is other than `last`
    float threshold;         // only for the count
    Counts* counts;
};

// The input of a layer that has no sparse form: next = |x - last| > threshold ? x : last.
// The two may be the same memory. Under the paper's policy what is below the threshold is lost:
// next = last + trunc(x - previous), and x becomes the previous.
struct SelectArgs {
    const float* x;
    ptrdiff_t x_block;
    const float* last;       // null: there is none, everything is taken
    ptrdiff_t last_block;
    float* next;
    ptrdiff_t next_block;
    ptrdiff_t ahead;         // floats to the next row of `last`, which is fetched ahead
    int width, channels;     // at most 128 channels
    uint8_t* occupied;       // [width] non-zero channels of each pixel, kept between frames
    uint8_t* hits;           // [width] set where something changed, else left alone
    float threshold;
    bool paper;
    Counts* counts;
    float* previous = nullptr;   // only under the paper's policy
    ptrdiff_t previous_block = 0;
};

// One row of the first layer's input, [width][channels], into the lists of its columns.
struct CompressColumnsArgs {
    const float* x;
    float* snapshot;
    int row;
    float threshold;
    bool paper;
    ColumnList* list;
    uint8_t* hits;           // [width]
    Counts* counts;
};

// What a row is about to truncate: the sum of squares of the differences that are not above the
// threshold. To be called before the snapshot is changed.
struct TruncatedArgs {
    const float* x;          // only read inside of the runs
    ptrdiff_t x_block;
    const float* last;       // what the difference is taken to
    ptrdiff_t last_block;
    const Run* runs;
    int run_count;
    int channels;
    float threshold;
    float* energy;           // [width] the sum of each pixel, kept between frames; null: only this one's
    double* sum;             // the change is added
};

// Layers whose inputs and weights are signs (XNOR-Net).
//
// The bits of a pixel are `words` words of 64 bits, or four times as many halves, one for each
// block of 16 channels: set where a number is negative, 0 where there is no channel. A layer's sums
// are whole numbers, [pixel][outputs], the outputs filled up to a multiple of kSumOutputs; they are
// the same whether they are computed in full or from what flips.
inline constexpr int kSumOutputs = 64;

// One row of some blocks of channels into bits; what is there belongs to the frame before.
struct SignBitsArgs {
    const float* x;          // only read inside of the runs
    ptrdiff_t x_block;
    const Run* runs;
    int run_count;
    int channels;            // of these blocks
    uint16_t* bits;          // of the first pixel and these blocks
    ptrdiff_t pixel;         // halves between pixels
    bool first;              // no frame before: all signs count as changed
    uint8_t* hits;           // [width] set where a sign flips, else left alone
    Counts* counts;          // `deltas` are flips; `nonzero` is left alone
};

// sums = the sum over some taps, of neighbouring outputs in a row.
struct XnorArgs {
    const uint64_t* x;           // of the pixel at offset 0 of the first output
    int x_step;                  // words between the pixels of neighbouring outputs
    int words;
    int taps;
    const int32_t* x_offsets;    // [taps] in words
    const int32_t* tap_numbers;  // [taps]
    const uint64_t* weights;     // [block][tap][word][16]
    ptrdiff_t block;             // words between blocks of weights
    int blocks;
    int products;                // channels * taps: the sum where no bit differs
    int16_t* sums;
    ptrdiff_t pixel;             // sums between pixels
    int columns;
};

// sums += twice the rows of weights that are added, less twice those that are taken away.
struct FlipArgs {
    const int8_t* weights;       // rows of `outputs`, each 1 or -1; 0 where there is no output
    const uint32_t* ups;         // where the rows of inputs begin that are 1 now and were -1
    const uint32_t* downs;
    int up_count, down_count;
    int16_t* sums;               // of one pixel
    int outputs;                 // a multiple of kSumOutputs
};

// x = scale * sums + shift, neighbouring pixels of a row.
struct ScaleSumsArgs {
    const int16_t* sums;
    ptrdiff_t pixel;
    const float* scale;          // [blocks * 16]
    const float* shift;
    float* x;
    ptrdiff_t x_block;
    int columns, blocks;
};

// A fully-connected layer whose weights are few different numbers and mostly 0, as Deep Compression
// leaves them (arXiv 1510.00149): only what is not 0 is kept, column by column as in EIE (arXiv
// 1602.01528), two bytes each. Outputs go in segments of coded_rows(code_bits), so that an entry has
// room for its row in the segment, and the segment's sums stay in the first-level cache.
inline constexpr int kCodedFrames = 8;   // that share the decoding
inline constexpr int kMostCodedRows = 1024;
inline constexpr int coded_rows(int code_bits) {
    return 1 << (16 - code_bits) < kMostCodedRows ? 1 << (16 - code_bits) : kMostCodedRows;
}

// y += W * x for one segment of outputs and 1 or kCodedFrames frames side by side.
struct CodedArgs {
    const uint16_t* entries;     // row << code_bits | code
    const uint32_t* starts;      // [columns + 1] where the columns of the segment begin in `entries`
    const float* codebook;       // [1 << code_bits]
    int code_bits;               // 1 to 8
    const uint32_t* columns;     // [count] inputs that are not 0 in every frame
    const float* x;              // [count][frames]
    int count;
    int frames;
    float* y;                    // [row of the segment][frames]
};

// The sign is 1 from 0 on and -1 below, as XNOR-Net's packed layers have it.
enum class Activation {
    none, relu, clamp, leaky_relu, sigmoid, silu, hardsigmoid, hardswish, tanh, sign
};

// One row of a finished convolution: y += delta (which is cleared), x = activation(y + residual).
struct FinishArgs {
    float* y;
    ptrdiff_t y_block;
    float* delta;            // null: y is complete
    ptrdiff_t delta_block;
    bool replace;            // y = delta instead
    const float* residual;   // null: none
    const uint16_t* rounded; // the same as bfloat16, in its place; null: none
    ptrdiff_t residual_block;
    float* x;
    ptrdiff_t x_block;
    int width, blocks;
    Activation activation;
    float low, high;         // clamp's limits; leaky_relu's slope is `low`
    ptrdiff_t next_row;      // floats to the next row of x and residual, which is fetched ahead
    bool* finite;            // cleared where a result is not; null: nobody asks
};

// x = activation(scale * x + shift), in place, on `count` pixels of one block.
struct MapArgs {
    float* x;
    const float* scale;      // 16 numbers, or null
    const float* shift;
    size_t count;
    Activation activation;
    float low, high;
};

// One row of pooling in one block.
struct PoolArgs {
    const float* const* lines;  // [rows] column 0 of each
    int rows;                // input rows under the window, inside the image
    int width;
    int kernel_columns, stride, padding, dilation;
    bool maximum;
    const float* factors;    // [columns] 1 / divisor for an average
    float* y;
    int column_begin, column_end;
};

struct Kernels {
    const char* name;
    void (*window)(const WindowArgs&, Arithmetic);
    void (*tap)(const TapArgs&, Arithmetic);
    void (*dense)(const DenseArgs&, Arithmetic);
    void (*winograd_weights)(const WinogradWeightsArgs&, Arithmetic);
    void (*winograd_input)(const WinogradInputArgs&, Arithmetic);
    void (*winograd_output)(const WinogradOutputArgs&);
    void (*int16_weights)(const Int16WeightsArgs&);
    void (*int16_input)(const Int16InputArgs&, Arithmetic);
    void (*int16_products)(const Int16ProductArgs&);
    void (*column)(const ColumnArgs&);
    void (*depthwise)(const DepthwiseArgs&);
    void (*compress)(const CompressArgs&, Arithmetic);
    void (*keep)(const KeepArgs&, Arithmetic);
    void (*select)(const SelectArgs&);
    void (*compress_columns)(const CompressColumnsArgs&);
    void (*keep_columns)(const KeepColumnsArgs&);
    void (*truncated)(const TruncatedArgs&);
    void (*sign_bits)(const SignBitsArgs&);
    void (*xnor)(const XnorArgs&);
    void (*flips)(const FlipArgs&);
    void (*scale_sums)(const ScaleSumsArgs&);
    void (*coded)(const CodedArgs&);
    void (*finish)(const FinishArgs&);
    void (*map)(const MapArgs&);
    void (*pool)(const PoolArgs&);
};

const Kernels& reference_kernels();
const Kernels& portable_kernels();
#if defined(RRM_X86)
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& avx512bf16_kernels();
#endif

}  // namespace rrm
