// The first layer.
#include <algorithm>
#include <cstring>

#include "convolution.hpp"
#include "winograd.hpp"

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
    void compute(const Strip&, const Frame&);

private:
    void gather(const Strip&, int frame);

    const ColumnConvolution& layer_;
    State& state_;
    const int stride_, channels_, blocks_;   // channels and blocks of the new pixels
    const int map_columns_, map_rows_;
    const int width_;                        // of the new pixels of a strip
    int strip_rows_;
    float *kernels_, *outputs_, *inputs_, *pixels_;
    std::vector<const uint32_t*> from_;
    std::vector<WinogradTile> to_;
};

ColumnConvolution::ColumnTiles::ColumnTiles(const ColumnConvolution& layer, State& state)
    : layer_(layer), state_(state), stride_(layer.geometry.row_stride),
      channels_(state.network->deltas[layer.delta].channels * stride_ * stride_),
      blocks_(divided(channels_, kBlock)), map_columns_(layer.columns(state)),
      map_rows_(layer.rows(state)),
      width_((divided(map_columns_, layer.tile_outputs) - 1) * layer.tile_outputs +
             kWinogradInputs) {
    const int tile = layer.tile_outputs, taps = winograd_taps_of(tile);
    const int out_blocks = state.network->tensors[layer.tensor].blocks();
    const int stage_blocks = std::min(kStageBlocks, out_blocks);
    const int per_row = divided(map_columns_, tile);
    const size_t tile_bytes = sizeof(float) * kWinogradPositions * kBlock * (blocks_ + stage_blocks);
    const int fit = static_cast<int>(kPassBytes / (tile_bytes * per_row));
    const int tile_rows = std::min(std::max(fit, divided(kStripRows, tile)), divided(map_rows_, tile));
    strip_rows_ = tile_rows * tile;
    const int most = tile_rows * per_row;
    const auto kernels_room = static_cast<size_t>(kernel_floats(blocks_)) * out_blocks;
    const size_t outputs_room = TileGroups::room(most, stage_blocks);
    const size_t inputs_room = TileGroups::room(most, blocks_);
    const size_t pixels_room =
        static_cast<size_t>(strip_rows_ - tile + kWinogradInputs) * width_ * blocks_ * kBlock;
    // A copy of a few numbers may write a whole block.
    kernels_ = state.winograd_scratch(kernels_room + outputs_room + inputs_room + pixels_room + kBlock);
    outputs_ = kernels_ + kernels_room;
    inputs_ = outputs_ + outputs_room;
    pixels_ = inputs_ + inputs_room;
    std::vector<int32_t> offsets(static_cast<size_t>(taps) * taps);
    for (size_t i = 0; i < offsets.size(); i++) offsets[i] = static_cast<int32_t>(i) * kBlock;
    const ptrdiff_t unit = static_cast<ptrdiff_t>(taps) * taps * kBlock;
    for (int block = 0; block < out_blocks; block++)
        state.network->kernels.winograd_weights(
            {layer.dense_weights + block * channels_ * unit, unit, offsets.data(), tile, channels_,
             kernels_ + block * kernel_floats(blocks_), kernel_position(blocks_)},
            Arithmetic::fp32);
}

// The strip's inputs as [row][column][row in a pixel][column in a pixel][channel], zeros beside the
// image, whatever where a pixel's channels do not fill its last block.
void ColumnConvolution::ColumnTiles::gather(const Strip& strip, int frame) {
    const Delta& plan = state_.network->deltas[layer_.delta];
    const Geometry& geometry = layer_.geometry;
    const ptrdiff_t x_row = state_.whole_row(layer_.delta);
    const auto* const x = reinterpret_cast<const float*>(state_.whole(layer_.delta, frame));
    const int tile = layer_.tile_outputs;
    const int rows = (divided(strip.row_end - strip.row_begin, tile) - 1) * tile + kWinogradInputs;
    const int piece = stride_ * plan.channels;  // of a row of the image, in a pixel
    const int first = -geometry.column_padding * plan.channels;
    const int end = (plan.width + plan.halo) * plan.channels;
    // Pixels of which a whole block can be read, and of which all can.
    const int easy = std::max(0, std::min(width_, (end - first - kBlock) / piece + 1));
    const int full = std::max(easy, std::min(width_, (end - first) / piece));
    float* to = pixels_;
    for (int r = 0; r < rows; r++) {
        const int image_row = (strip.row_begin + r) * geometry.row_stride - geometry.row_padding;
        const auto line = [&](int part) { return x + (image_row + part) * x_row + first; };
        const auto exists = [&](int part) { return image_row + part < plan.height + plan.halo; };
        for (int column = 0; column < width_; column++, to += blocks_ * kBlock)
            for (int part = 0; part < stride_; part++) {
                float* const place = to + part * piece;
                const int at = column * piece;
                if (!exists(part)) {
                    std::fill(place, place + piece, 0.0f);
                } else if (column < easy) {
                    std::memcpy(place, line(part) + at, sizeof(float) * kBlock);
                } else {
                    const int count = column < full ? piece : std::max(0, end - first - at);
                    std::copy(line(part) + at, line(part) + at + std::min(count, piece), place);
                    std::fill(place + std::min(count, piece), place + piece, 0.0f);
                }
            }
    }
}

void ColumnConvolution::ColumnTiles::compute(const Strip& strip, const Frame& frame) {
    const Kernels& kernels = state_.network->kernels;
    const int tile = layer_.tile_outputs, pixel = blocks_ * kBlock;
    const uint8_t* const mask =
        frame.mask.empty() ? nullptr
                           : frame.mask.data() + static_cast<size_t>(strip.row_begin) * map_columns_;
    from_.clear();
    to_.clear();
    for (int row = strip.row_begin; row < strip.row_end; row += tile)
        for (int column = 0; column < map_columns_; column += tile) {
            const WinogradTile one{row, column, std::min(tile, strip.row_end - row),
                                   std::min(tile, map_columns_ - column)};
            const int at = row - strip.row_begin;
            if (mask != nullptr && !one.sees(mask + static_cast<ptrdiff_t>(at) * map_columns_, map_columns_))
                continue;
            from_.push_back(reinterpret_cast<const uint32_t*>(
                pixels_ + (static_cast<ptrdiff_t>(at) * width_ + column) * pixel));
            to_.push_back(one);
        }
    const int count = static_cast<int>(to_.size());
    if (count == 0) return;
    gather(strip, frame.number);
    const TileGroups in = TileGroups::of(count, blocks_), out = TileGroups::of(count, strip.blocks);
    for (int group = 0; group < in.count(); group++)
        kernels.winograd_input({from_.data() + group * in.size, 0, in.in_group(group), blocks_, pixel,
                                static_cast<ptrdiff_t>(width_) * pixel, kBlock,
                                inputs_ + group * in.group(), in.position(), in.block()},
                               Arithmetic::fp32);
    for (int block = 0; block < strip.blocks; block += 2) {
        TileProducts products{};
        products.channels = channels_;
        products.begins = true;
        products.in = in;
        products.x = inputs_;
        products.outputs = std::min(2, strip.blocks - block);
        products.kernel_position = kernel_position(blocks_);
        products.out = out;
        for (int b = 0; b < products.outputs; b++) {
            products.kernels[b] = kernels_ + (strip.first_block + block + b) * kernel_floats(blocks_);
            products.y[b] = outputs_ + (block + b) * out.block();
        }
        products.run(kernels);
    }
    for (int group = 0; group < out.count(); group++)
        kernels.winograd_output({to_.data() + group * out.size, tile, out.in_group(group), strip.blocks,
                                 outputs_ + group * out.group(), out.position(), out.block(),
                                 layer_.bias + static_cast<size_t>(strip.first_block) * kBlock,
                                 strip.row_begin, strip.y,
                                 static_cast<ptrdiff_t>(map_columns_) * kBlock, strip.y_block, mask,
                                 map_columns_});
}

int ColumnConvolution::rows(const State& state) const {
    return geometry.output_rows(state.network->deltas[delta].height);
}

int ColumnConvolution::columns(const State& state) const {
    return geometry.output_columns(state.network->deltas[delta].width);
}

ptrdiff_t ColumnConvolution::plane(const State& state) const {
    return static_cast<ptrdiff_t>(rows(state)) * columns(state) * kBlock;
}

void ColumnConvolution::prepare(State& state) const {
    const int blocks = state.network->tensors[tensor].blocks();
    state.operations[index].accumulators =
        Buffer<float>(static_cast<size_t>(plane(state)) * blocks, true);
}

void ColumnConvolution::run(State& state, int begin, int end) const {
    const Tensor& out = state.network->tensors[tensor];
    const Delta& plan = state.network->deltas[delta];
    const int map_rows = rows(state), map_columns = columns(state);
    const DeltaState& source = state.deltas[delta];
    std::vector<Frame> frames(end - begin);
    for (int number = begin; number < end; number++) {
        Frame& frame = frames[number - begin];
        frame.number = number;
        frame.changed_rows.assign(map_rows, 1);
        const uint8_t* hits = state.some_hits(delta, number);
        const int64_t pixels = static_cast<int64_t>(out.height) * out.width;
        if (hits == nullptr || epilogue.residual >= 0) {
            state.reach(delta, pixels, nullptr);
            frame.changes.set(state, tensor, number, nullptr);
            continue;
        }
        std::vector<uint8_t> mask(static_cast<size_t>(map_rows) * map_columns);
        spread(hits, plan.height, plan.width, geometry, mask.data(), map_rows, map_columns);
        for (int row = 0; row < map_rows; row++) {
            const uint8_t* line = mask.data() + static_cast<size_t>(row) * map_columns;
            frame.changed_rows[row] =
                std::any_of(line, line + map_columns, [](uint8_t one) { return one != 0; });
        }
        const bool all = state.computes_all(delta, number);
        if (!all && source.dense[number] != 0) frame.mask = mask;
        if (pool) {
            const std::vector<uint8_t> map = std::move(mask);
            mask.assign(static_cast<size_t>(out.height) * out.width, 0);
            spread(map.data(), map_rows, map_columns, *pool, mask.data(), out.height, out.width);
        }
        state.reach(delta, pixels, &mask);
        frame.changes.set(state, tensor, number, &mask, all);
    }
    const ptrdiff_t y_row = static_cast<ptrdiff_t>(map_columns) * kBlock;
    const bool tiled = tile_outputs > 0 && std::any_of(frames.begin(), frames.end(), [&](const Frame& frame) {
        return source.dense[frame.number] != 0;
    });
    std::optional<ColumnTiles> tiles;
    if (tiled) tiles.emplace(*this, state);
    for (int first = 0; first < out.blocks(); first += kStageBlocks) {
        const int blocks = std::min(kStageBlocks, out.blocks() - first);
        const int step =
            tiled ? tiles->strip_rows()
                  : std::max<int>(kStripRows, static_cast<int>(kStripBytes / (4 * y_row * blocks)));
        for (int row = 0; row < map_rows; row += step) {
            Strip strip{first, blocks, row, std::min(map_rows, row + step), nullptr, plane(state)};
            if (source.everywhere) {
                strip.y_block = step * y_row;
                strip.y = state.strip_scratch(static_cast<size_t>(strip.y_block) * blocks);
            } else {
                strip.y = state.operations[index].accumulators.data() + first * strip.y_block +
                          row * y_row;
            }
            for (Frame& frame : frames) {
                if (source.dense[frame.number] == 0)
                    add_deltas(state, strip, frame);
                else if (tiled)
                    tiles->compute(strip, frame);
                else
                    compute_dense(state, strip, frame);
                if (pool)
                    finish_pooled(state, strip, frame);
                else
                    finish(state, strip, frame);
            }
        }
    }
}

void ColumnConvolution::add_deltas(State& state, const Strip& strip, const Frame& frame) const {
    const Delta& plan = state.network->deltas[delta];
    ColumnArgs args{};
    args.list = &state.deltas[delta].column_list(frame.number);
    args.kernel_rows = geometry.kernel_rows;
    args.kernel_columns = geometry.kernel_columns;
    args.stride = geometry.column_stride;
    args.padding = geometry.column_padding;
    args.positions =
        (geometry.kernel_columns + geometry.column_stride - 1) / geometry.column_stride;
    args.y_block = strip.y_block;
    args.columns = columns(state);
    const size_t per_block = static_cast<size_t>(geometry.column_stride) * geometry.kernel_rows *
                             plan.channels * args.positions * kBlock;
    for (int b = 0; b < strip.blocks; b += args.blocks) {
        args.blocks = column_blocks_of(strip.blocks - b);
        args.weights = weights + (strip.first_block + b) * per_block;
        for (int row = strip.row_begin; row < strip.row_end; row++) {
            if (frame.changed_rows[row] == 0) continue;
            args.first_row = row * geometry.row_stride - geometry.row_padding;
            args.row_begin = std::max(0, args.first_row);
            args.row_end = std::min(plan.height, args.first_row + geometry.kernel_rows);
            args.y = strip.y + b * args.y_block +
                     static_cast<ptrdiff_t>(row - strip.row_begin) * args.columns * kBlock;
            if (args.row_begin < args.row_end) state.network->kernels.column(args);
        }
    }
}

void ColumnConvolution::compute_dense(State& state, const Strip& strip, const Frame& frame) const {
    const int channels = state.network->deltas[delta].channels;
    const ptrdiff_t x_row = state.whole_row(delta);
    const int taps = geometry.taps();
    std::vector<int32_t> offsets(taps);
    for (int tap = 0; tap < taps; tap++)
        offsets[tap] = static_cast<int32_t>((tap / geometry.kernel_columns) * x_row +
                                            (tap % geometry.kernel_columns) * channels);
    DenseArgs args{};
    args.x_row = x_row * geometry.row_stride;
    args.x = state.whole(delta, frame.number) - geometry.row_padding * x_row -
             geometry.column_padding * channels + strip.row_begin * args.x_row;
    args.x_step = channels * geometry.column_stride;
    args.units = args.block_units = channels;
    args.taps = taps;
    args.tap_offsets = offsets.data();
    args.unit_stride = static_cast<ptrdiff_t>(taps) * kBlock;
    args.tap_stride = kBlock;
    args.columns = columns(state);
    args.y_row = static_cast<ptrdiff_t>(args.columns) * kBlock;
    args.y_column = kBlock;
    args.rows = strip.row_end - strip.row_begin;
    for (int at = 0; at < strip.blocks; at += 2) {
        args.blocks = std::min(2, strip.blocks - at);
        for (int b = 0; b < args.blocks; b++) {
            const auto block = static_cast<size_t>(strip.first_block + at + b);
            args.weights[b] = dense_weights + block * channels * taps * kBlock;
            args.bias[b] = bias + block * kBlock;
            args.y[b] = strip.y + (at + b) * strip.y_block;
        }
        state.network->kernels.dense(args, Arithmetic::fp32);
    }
}

void ColumnConvolution::finish(State& state, const Strip& strip, const Frame& frame) const {
    const Timed timed(state, Share::finish);
    const int first = strip.first_block, blocks = strip.blocks;
    const ptrdiff_t row_floats = static_cast<ptrdiff_t>(columns(state)) * kBlock;
    FinishArgs args{};
    args.y_block = strip.y_block;
    args.blocks = blocks;
    args.activation = epilogue.activation;
    args.low = epilogue.low;
    args.high = epilogue.high;
    args.next_row = row_floats;
    const float* residual = nullptr;
    if (epilogue.residual >= 0) {
        residual = state.plane(epilogue.residual, first, frame.number);
        if (blocks > 1)
            args.residual_block =
                state.plane(epilogue.residual, first + 1, frame.number) - residual;
    }
    for (int row = strip.row_begin; row < strip.row_end; row++) {
        const RowTarget to = row_target(state, tensor, frame.number, first, blocks, row);
        args.x_block = to.block;
        for (const Run& run : frame.changes.made(row)) {
            const ptrdiff_t at = static_cast<ptrdiff_t>(run.begin) * kBlock;
            args.y = strip.y + (row - strip.row_begin) * row_floats + at;
            args.x = to.data + at;
            args.residual = residual == nullptr ? nullptr : residual + row * row_floats + at;
            args.width = run.end - run.begin;
            state.network->kernels.finish(args);
        }
        state.emit(tensor, frame.number, first, blocks, row, to.data, to.block,
                   frame.changes.sent(row));
    }
}

// The maxima whose last row lies in the strip, before the activation: it never falls, so that the
// order is the same to it.
void ColumnConvolution::finish_pooled(State& state, const Strip& strip, Frame& frame) const {
    const Timed timed(state, Share::finish);
    const Kernels& kernels = state.network->kernels;
    const Tensor& out = state.network->tensors[tensor];
    const int map_rows = rows(state);
    const ptrdiff_t row_floats = static_cast<ptrdiff_t>(columns(state)) * kBlock;
    const int kept = pool->kernel_rows - 1;  // rows of the strip before that a window may reach
    std::vector<float> window;
    PoolArgs args{};
    args.x_row = row_floats;
    args.width = columns(state);
    args.kernel_columns = pool->kernel_columns;
    args.stride = pool->column_stride;
    args.padding = pool->column_padding;
    args.dilation = 1;
    args.maximum = true;
    for (int row = 0; row < out.height; row++) {
        const int top = std::max(0, row * pool->row_stride - pool->row_padding);
        const int end = std::min(
            map_rows, row * pool->row_stride - pool->row_padding + pool->kernel_rows);
        if (end <= strip.row_begin || end > strip.row_end) continue;
        const RowTarget to =
            row_target(state, tensor, frame.number, strip.first_block, strip.blocks, row);
        const std::vector<Run>& runs = frame.changes.made(row);
        args.rows = end - top;
        for (int block = 0; block < strip.blocks && !runs.empty(); block++) {
            const float* const y = strip.y + block * strip.y_block;
            if (top >= strip.row_begin) {
                args.x = y + (top - strip.row_begin) * row_floats;
            } else {
                // What the accumulators held above the strip is another frame's by now.
                window.resize(static_cast<size_t>(args.rows) * row_floats);
                const int above = strip.row_begin - top;
                std::memcpy(window.data(),
                            frame.above.data() + (block * kept + kept - above) * row_floats,
                            sizeof(float) * static_cast<size_t>(above * row_floats));
                std::memcpy(window.data() + above * row_floats, y,
                            sizeof(float) * static_cast<size_t>((args.rows - above) * row_floats));
                args.x = window.data();
            }
            args.y = to.data + block * to.block;
            for (const Run& run : runs) {
                args.column_begin = run.begin;
                args.column_end = run.end;
                kernels.pool(args);
                if (epilogue.activation != Activation::none)
                    kernels.map({args.y + static_cast<ptrdiff_t>(run.begin) * kBlock, nullptr,
                                 nullptr, static_cast<size_t>(run.end - run.begin),
                                 epilogue.activation, epilogue.low, epilogue.high});
            }
        }
        state.emit(tensor, frame.number, strip.first_block, strip.blocks, row, to.data, to.block,
                   frame.changes.sent(row));
    }
    if (kept == 0 || strip.row_end == map_rows) return;
    frame.above.resize(static_cast<size_t>(strip.blocks) * kept * row_floats);
    for (int block = 0; block < strip.blocks; block++)
        std::memcpy(frame.above.data() + block * kept * row_floats,
                    strip.y + block * strip.y_block +
                        (strip.row_end - strip.row_begin - kept) * row_floats,
                    sizeof(float) * static_cast<size_t>(kept * row_floats));
}

}  // namespace rrm
