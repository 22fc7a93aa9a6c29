// The operations of a network. Each names the tensors it reads and the one it makes; rows of
// blocks go out through State::emit as soon as they are finished.
#pragma once

#include <algorithm>
#include <optional>

#include "network.hpp"

namespace rrm {

struct TileGroups;

struct Geometry {
    int kernel_rows = 1, kernel_columns = 1;
    int row_stride = 1, column_stride = 1;
    int row_padding = 0, column_padding = 0;
    int row_dilation = 1, column_dilation = 1;
    int row_behind = 0, column_behind = 0;  // padding below and to the right

    int taps() const { return kernel_rows * kernel_columns; }
    int output_rows(int rows) const {
        return (rows + row_padding + row_behind - row_dilation * (kernel_rows - 1) - 1) / row_stride + 1;
    }
    int output_columns(int columns) const {
        return (columns + column_padding + column_behind - column_dilation * (kernel_columns - 1) - 1) /
                   column_stride + 1;
    }
};

// Weights of some neighbouring blocks of outputs. Only units that the blocks read are kept: those
// of their own groups in a grouped convolution.
struct WeightSet {
    int first_block, blocks;
    int unit_begin, unit_end;  // multiples of the list's group, except the very last
    size_t offset;             // into the packed weights, in elements

    // Units that an input has; those up to `unit_end` are zeros. A block holds `unit_block`.
    int units_of(const Delta& delta, int unit_block) const {
        const int pair = kBlock / unit_block;
        return std::min(unit_end, (delta.channels + pair - 1) / pair) - unit_begin;
    }
};

// Where some rows of finished values are written: their own store, the next layer's input, or
// scratch memory.
struct RowsTarget {
    float* data;
    ptrdiff_t row, block;
};
RowsTarget rows_target(State&, int tensor, int frame, int block, int blocks, int row, int rows);

// What changes in one frame of a tensor, row by row.
class Changes {
public:
    // `mask`: [rows][columns] where the value may be other than in the frame before; null for
    // everywhere. Notes it for the readers of the tensor. `all`: what has not changed is computed
    // too.
    void set(State&, int tensor, int frame, const std::vector<uint8_t>* mask, bool all = false);
    // The pixels that have to be computed: all, when the memory is not that of the frame before.
    const std::vector<Run>& made(int row) const { return make_all_ ? whole_ : runs_[row]; }
    SentRuns sent(int row) const {
        const std::vector<Run>& changed = all_changed_ ? whole_ : runs_[row];
        return {changed, look_at_all_ ? whole_ : changed};
    }

private:
    bool make_all_ = true, all_changed_ = true, look_at_all_ = true;
    std::vector<Run> whole_;
    std::vector<std::vector<Run>> runs_;
};

// An operation that can make some rows at a time, see chain.cpp.
class RowOperation : public Operation {
public:
    using Operation::Operation;
    virtual const Geometry& window() const = 0;
    virtual size_t weight_bytes() const = 0;
    // Notes what changes in a frame, for itself and for the readers of what it makes.
    virtual void look(State&, int frame, Changes&) const = 0;
    // Some rows of a frame all of whose outputs are computed and none kept.
    virtual void run_rows(State&, int frame, int begin, int end, const Changes&) const = 0;
};

// Adds to `out` where the window of an output pixel sees a pixel of `in`.
void spread(const uint8_t* in, int in_rows, int in_columns, const Geometry&, uint8_t* out, int rows,
            int columns);

// What a layer reads and makes.
struct LayerMaps {
    int delta, tensor;
    const Geometry& window;
    int residual = -1;                 // tensor that is added
};

// What changes in a frame of what a layer makes, for itself and for its readers; the mask, [rows]
// [columns], is left empty where all outputs are computed.
void note_changes(State&, const LayerMaps&, int frame, std::vector<uint8_t>& mask, Changes&);

// A convolution or fully-connected layer on lists of deltas, dense where lists do not pay.
class Convolution : public RowOperation {
public:
    enum class Form { window, taps };

    Convolution(std::string name, int delta, int tensor, Geometry geometry, Form form,
                const uint32_t* weights, std::vector<WeightSet> sets, const float* bias,
                Epilogue epilogue, bool cached, int tile_outputs)
        : RowOperation(std::move(name)), delta(delta), tensor(tensor), geometry(geometry), form(form),
          weights(weights), sets(std::move(sets)), bias(bias), epilogue(epilogue),
          cached(cached), tile_outputs(tile_outputs) {}

    void prepare(State&) const override;
    void run(State&, int begin, int end) const override;
    std::vector<int> sources() const override {
        return epilogue.residual < 0 ? std::vector<int>() : std::vector<int>{epilogue.residual};
    }
    int source_delta() const override { return delta; }
    int target() const override { return tensor; }
    bool skips_unchanged() const override { return tile_outputs > 0; }
    const RowOperation* by_rows() const override {
        return tile_outputs == 0 && cached && epilogue.limits() ? this : nullptr;
    }
    bool reads_rounded() const override { return true; }
    bool writes_rounded() const override { return tile_outputs == 0 && epilogue.limits(); }
    const Geometry& window() const override { return geometry; }
    size_t weight_bytes() const override;
    void look(State&, int frame, Changes&) const override;
    void run_rows(State&, int frame, int begin, int end, const Changes&) const override;

    const int delta, tensor;
    const Geometry geometry;
    const Form form;
    const uint32_t* const weights;
    const std::vector<WeightSet> sets;
    const float* const bias;           // [blocks * 16]
    const Epilogue epilogue;
    const bool cached;                 // its weights stay in the cache from frame to frame
    const int tile_outputs;            // rows and columns of a tile of dense frames; 0: direct sums

private:
    struct Layout;
    struct Stage;
    using Sums = RowsTarget;
    Layout layout(const State&) const;
    Sums accumulators(State&, const Layout&, const Stage&, int row) const;
    void add_stage(State&, const Layout&, const Stage&, int row_begin, int row_end, int begin,
                   int end, float* const* y) const;
    // Where finished sums are written in bfloat16.
    struct RoundedRows {
        uint16_t* data;
        ptrdiff_t row, block;          // in numbers
    };
    // Rows that a kernel finishes.
    struct FinishedRows {
        RoundedRows rounded;           // without data where they are floats
        RowsTarget to;
        const RoundedRows* if_rounded() const { return rounded.data != nullptr ? &rounded : nullptr; }
    };
    FinishedRows finished_rows(State&, const Stage&, int row_begin, int row_end, int frame) const;
    LayerEnd layer_end(State&, const Stage&, int block, int row_begin, int frame, Trace&,
                       const RoundedRows*) const;
    void send(State&, const Stage&, int row_begin, int row_end, int frame, const FinishedRows&,
              const Changes&) const;
    // `trace`: the sums are finished, too, and written to `rounded` if it is not null; null: they
    // are written as they are.
    void compute_dense(State&, const Layout&, const Stage&, int row_begin, int row_end, int frame,
                       const Sums&, Trace* trace, const RoundedRows* rounded = nullptr) const;
    // Some rows of a frame from the input to the readers, where nobody asks for their sums again.
    void compute_finished(State&, const Layout&, const Stage&, int row_begin, int row_end,
                          int frame, const Changes&) const;
    // Dense frames of a map of one pixel, side by side: the weights pass once for all of them.
    void compute_together(State&, const Layout&, const Stage&, int begin, int end, float* y,
                          ptrdiff_t frame_stride) const;
    void finish(State&, const Layout&, const Stage&, int frame, int row_begin, int row_end,
                const Changes&, const Sums&, float* change) const;
    // Some frames through one stage; `first` is the frame that the changes and masks begin with.
    void run_stage(State&, const Layout&, const Stage&, int begin, int end,
                   const std::vector<Changes>&, int first) const;
    struct Pass;
    struct Tiles;
    struct TileKernels;
    Tiles find_tiles(State&, const Layout&, int begin, int end,
                     const std::vector<std::vector<uint8_t>>& masks, int first) const;
    void turn_kernels(const State&, const TileKernels&, int piece_row, int piece_column, int block,
                      int channels, float* to) const;
    // A row of tiles from their sums to the readers; `first` is the tile that the sums begin with.
    void finish_tiles(State&, const Layout&, const Stage&, const Tiles&, size_t span, int first,
                      const TileGroups&, const float* sums, const Changes&,
                      const std::vector<uint8_t>& mask) const;
    void run_winograd(State&, const Layout&, const std::vector<Stage>&, int begin, int end,
                      const std::vector<Changes>&, const std::vector<std::vector<uint8_t>>& masks,
                      int first) const;
    std::vector<Stage> stages(const State&) const;
    void look(State&, int frame, std::vector<uint8_t>& mask, Changes&) const;
};

// The first layer, on lists of its input's columns, and the maximum of its windows if one follows:
// its own map is then the largest of the network, and only its accumulators exist.
class ColumnConvolution : public Operation {
public:
    ColumnConvolution(std::string name, int delta, int tensor, Geometry geometry,
                      const uint32_t* weights, const uint32_t* dense_weights, const float* bias,
                      Epilogue epilogue, std::optional<Geometry> pool, int tile_outputs)
        : Operation(std::move(name)), delta(delta), tensor(tensor), geometry(geometry),
          weights(weights), dense_weights(dense_weights), bias(bias), epilogue(epilogue),
          pool(pool), tile_outputs(tile_outputs) {}

    void prepare(State&) const override;
    void run(State&, int begin, int end) const override;
    std::vector<int> sources() const override {
        return epilogue.residual < 0 ? std::vector<int>() : std::vector<int>{epilogue.residual};
    }
    int source_delta() const override { return delta; }
    int target() const override { return tensor; }
    bool skips_unchanged() const override { return tile_outputs > 0; }

    const int delta, tensor;
    const Geometry geometry;
    // As ColumnArgs has them, for sets of blocks; and those of pack_columns_dense.
    const uint32_t* const weights;
    const uint32_t* const dense_weights;
    const float* const bias;
    const Epilogue epilogue;
    const std::optional<Geometry> pool;
    const int tile_outputs;            // as those of a Convolution

private:
    struct Frame;
    struct Strip;
    class ColumnTiles;
    int rows(const State&) const;      // of the layer's own map
    int columns(const State&) const;
    ptrdiff_t plane(const State&) const;
    // The sums of a strip; dense ones in tiles, unless those are null. `trace` as LayerEnd has it.
    void compute(State&, const Strip&, const Frame&, ColumnTiles*) const;
    void add_deltas(State&, const Strip&, const Frame&, float* trace) const;
    void compute_dense(State&, const Strip&, const Frame&, float* trace) const;
    void finish(State&, const Strip&, const Frame&) const;
    void finish_pooled(State&, const Strip&, Frame&) const;
};

class DepthwiseConvolution : public RowOperation {
public:
    DepthwiseConvolution(std::string name, int delta, int tensor, Geometry geometry,
                         const float* weights, const float* bias, Epilogue epilogue)
        : RowOperation(std::move(name)), delta(delta), tensor(tensor), geometry(geometry),
          weights(weights), bias(bias), epilogue(epilogue) {}

    void run(State&, int begin, int end) const override;
    int source_delta() const override { return delta; }
    int target() const override { return tensor; }
    const RowOperation* by_rows() const override { return this; }
    const Geometry& window() const override { return geometry; }
    size_t weight_bytes() const override { return 0; }  // so few that they do not count
    void look(State&, int frame, Changes&) const override;
    void run_rows(State&, int frame, int begin, int end, const Changes&) const override;

    const int delta, tensor;
    const Geometry geometry;
    const float* const weights;        // [block][tap][16]
    const float* const bias;
    const Epilogue epilogue;

private:
    // Some pixels of some rows and blocks of the output.
    void compute(State&, int frame, int first_block, int blocks, int row, int rows, const Run&,
                 const RowsTarget&) const;
};

// A convolution or fully-connected layer whose inputs and weights are signs: y = scale * sum + shift.
class BinaryConvolution : public Operation {
public:
    BinaryConvolution(std::string name, int delta, int tensor, Geometry geometry,
                      const uint64_t* weights, const int8_t* rows_of_weights, const float* scale,
                      const float* shift, Epilogue epilogue)
        : Operation(std::move(name)), delta(delta), tensor(tensor), geometry(geometry),
          weights(weights), rows_of_weights(rows_of_weights), scale(scale), shift(shift),
          epilogue(epilogue) {}

    void prepare(State&) const override;
    void run(State&, int begin, int end) const override;
    std::vector<int> sources() const override {
        return epilogue.residual < 0 ? std::vector<int>() : std::vector<int>{epilogue.residual};
    }
    int source_delta() const override { return delta; }
    int target() const override { return tensor; }

    const int delta, tensor;
    const Geometry geometry;
    const uint64_t* const weights;         // as XnorArgs has them
    const int8_t* const rows_of_weights;   // [tap][channel][sum_outputs]
    const float* const scale;              // [blocks * 16]
    const float* const shift;
    const Epilogue epilogue;

private:
    struct Taps;
    struct FlipLists;
    static int sum_outputs(const Tensor& out);
    void compute(State&, const Taps&, int frame, int row, const Run&) const;
    void update(State&, const Taps&, FlipLists&, int row, int column) const;
    void finish(State&, int frame, int first, int blocks, int row, const Changes&) const;
};

// A fully-connected layer whose weights are read as codes, see CodedArgs. Dense frames and frames of
// deltas go the same way, side by side: inputs that are 0 in all of them cost nothing.
class CodedLayer : public Operation {
public:
    CodedLayer(std::string name, int delta, int tensor, const uint16_t* entries,
               const uint32_t* starts, const float* codebook, int code_bits, const float* bias,
               Epilogue epilogue)
        : Operation(std::move(name)), delta(delta), tensor(tensor), entries(entries),
          starts(starts), codebook(codebook), code_bits(code_bits), bias(bias),
          epilogue(epilogue) {}

    void prepare(State&) const override;
    void run(State&, int begin, int end) const override;
    std::vector<int> sources() const override {
        return epilogue.residual < 0 ? std::vector<int>() : std::vector<int>{epilogue.residual};
    }
    int source_delta() const override { return delta; }
    int target() const override { return tensor; }

    const int delta, tensor;
    const uint16_t* const entries;     // as CodedArgs has them
    const uint32_t* const starts;      // [segment][columns + 1]
    const float* const codebook;
    const int code_bits;
    const float* const bias;           // [blocks * 16]
    const Epilogue epilogue;

private:
    int columns(const State&) const;   // of the dense form: channels filled up to whole blocks
    // `slots` frames lie side by side.
    void take(State&, int frame, int slot, int slots) const;
    void multiply(State&, int first, int count, int slots) const;
    void finish(State&, int frame, int slot, int slots) const;
};

// An input of the network as a tensor, and straight into the lists of a first layer.
class Input : public Operation {
public:
    Input(std::string name, int number, int tensor, std::vector<int> column_deltas)
        : Operation(std::move(name)), number(number), tensor(tensor),
          column_deltas(std::move(column_deltas)) {}
    void run(State&, int begin, int end) const override;
    int target() const override { return tensor; }

    const int number;
    const int tensor;                  // -1: nothing reads it as a tensor
    const std::vector<int> column_deltas;
};

class Pool : public Operation {
public:
    Pool(std::string name, int source, int tensor, Geometry geometry, bool maximum,
         bool count_padding)
        : Operation(std::move(name)), source(source), tensor(tensor), geometry(geometry),
          maximum(maximum), count_padding(count_padding) {}
    void run(State&, int begin, int end) const override;
    std::vector<int> sources() const override { return {source}; }
    int target() const override { return tensor; }

    const int source, tensor;
    const Geometry geometry;
    const bool maximum, count_padding;
};

// The mean over all pixels.
class GlobalAverage : public Operation {
public:
    GlobalAverage(std::string name, int source, int tensor)
        : Operation(std::move(name)), source(source), tensor(tensor) {}
    void run(State&, int begin, int end) const override;
    std::vector<int> sources() const override { return {source}; }
    int target() const override { return tensor; }

    const int source, tensor;
};

// Pixel by pixel: sum of tensors or product with one, scale and shift, activation.
class Pointwise : public Operation {
public:
    Pointwise(std::string name, std::vector<int> inputs, int tensor, bool multiply,
              std::vector<float> scale, std::vector<float> shift, Activation activation, float low,
              float high)
        : Operation(std::move(name)), inputs(std::move(inputs)), tensor(tensor),
          multiply(multiply), scale(std::move(scale)), shift(std::move(shift)),
          activation(activation), low(low), high(high) {}
    void run(State&, int begin, int end) const override;
    std::vector<int> sources() const override { return inputs; }
    int target() const override { return tensor; }

    const std::vector<int> inputs;     // a factor of 1 x 1 pixels is for the whole map
    const int tensor;
    const bool multiply;
    const std::vector<float> scale, shift;  // [blocks * 16], or empty
    const Activation activation;
    const float low, high;
};

// Channels from one or several tensors in any order: shuffles, slices, unaligned concatenations.
class Gather : public Operation {
public:
    struct Channel {
        int tensor, channel;
    };
    Gather(std::string name, int tensor, std::vector<Channel> channels)
        : Operation(std::move(name)), tensor(tensor), channels(std::move(channels)) {}
    void run(State&, int begin, int end) const override;
    std::vector<int> sources() const override {
        std::vector<int> tensors;
        for (const Channel& channel : channels) tensors.push_back(channel.tensor);
        return tensors;
    }
    int target() const override { return tensor; }

    const int tensor;
    const std::vector<Channel> channels;
};

// Where the rows of a finished value are written: its own store, or a scratch row.
struct RowTarget {
    float* data;
    ptrdiff_t block;
};
RowTarget row_target(State&, int tensor, int frame, int block, int blocks, int row);

}  // namespace rrm
