// Dense frames of a first layer in Winograd's tiles.
#include <algorithm>
#include <cstring>

#include "columns.hpp"
#include "convolution.hpp"
#include "winograd.hpp"

namespace rrm {

ColumnConvolution::ColumnTiles::ColumnTiles(const ColumnConvolution& layer, State& state)
    : layer_(layer), state_(state), stride_(layer.geometry.row_stride),
      channels_(state.network->deltas[layer.delta].channels * stride_ * stride_),
      blocks_(divided(channels_, kBlock)),
      whole_(state.network->arithmetic == Arithmetic::bf16 && blocks_ <= kInt16Blocks),
      elements_(whole_ ? kBlock / 2 : kBlock), map_columns_(layer.columns(state)),
      width_((divided(map_columns_, layer.tile_outputs) - 1) * layer.tile_outputs +
             kWinogradInputs) {
    const int tile = layer.tile_outputs, taps = winograd_taps_of(tile);
    const int out_blocks = state.network->tensors[layer.tensor].blocks();
    const int stage_blocks = std::min(kStageBlocks, out_blocks);
    const int per_row = divided(map_columns_, tile);
    const size_t tile_bytes =
        sizeof(float) * kWinogradPositions * (elements_ * blocks_ + kBlock * stage_blocks);
    const int fit = static_cast<int>(kPassBytes / (tile_bytes * per_row));
    const int tile_rows = std::min(std::max(fit, divided(kStripRows, tile)), divided(layer.rows(state), tile));
    strip_rows_ = tile_rows * tile;
    const int most = tile_rows * per_row;
    const auto kernels_room = static_cast<size_t>(kernel_floats(blocks_)) * out_blocks;
    const size_t outputs_room = TileGroups::room(most, stage_blocks);
    const size_t inputs_room = TileGroups::room(most, blocks_, elements_);
    const size_t pixels_room =
        static_cast<size_t>(strip_rows_ - tile + kWinogradInputs) * width_ * blocks_ * kBlock;
    // A copy of a few numbers may write a whole block.
    kernels_ = state.winograd_scratch(kernels_room + outputs_room + inputs_room + most +
                                      pixels_room + kBlock);
    outputs_ = kernels_ + kernels_room;
    inputs_ = outputs_ + outputs_room;
    scales_ = inputs_ + inputs_room;
    pixels_ = scales_ + most;
    std::vector<int32_t> offsets(static_cast<size_t>(taps) * taps);
    for (size_t i = 0; i < offsets.size(); i++) offsets[i] = static_cast<int32_t>(i) * kBlock;
    const ptrdiff_t unit = static_cast<ptrdiff_t>(taps) * taps * kBlock;
    const Kernels& kernels = state.network->kernels;
    const ptrdiff_t position = kernel_position(blocks_);
    for (int block = 0; block < out_blocks; block++) {
        float* const to = kernels_ + block * kernel_floats(blocks_);
        kernels.winograd_weights({layer.dense_weights + block * channels_ * unit, unit, offsets.data(),
                                  tile, channels_, to, position},
                                 Arithmetic::fp32);
        if (whole_) kernels.int16_weights({to, position, channels_, to + position - kApart});
    }
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
    // Pixels of which a whole block can be read.
    const int easy = std::max(0, std::min(width_, (end - first - kBlock) / piece + 1));
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
                    const int count = std::clamp(end - first - at, 0, piece);
                    std::copy_n(line(part) + at, count, place);
                    std::fill(place + count, place + piece, 0.0f);
                }
            }
    }
}

void ColumnConvolution::ColumnTiles::compute(const Strip& strip, const Frame& frame, float* trace) {
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
            const ptrdiff_t at = row - strip.row_begin;
            if (mask != nullptr && !one.sees(mask + at * map_columns_, map_columns_)) continue;
            from_.push_back(
                reinterpret_cast<const uint32_t*>(pixels_ + (at * width_ + column) * pixel));
            to_.push_back(one);
        }
    const int count = static_cast<int>(to_.size());
    if (count == 0) return;
    gather(strip, frame.number);
    const TileGroups in = TileGroups::of(count, blocks_, elements_);
    const TileGroups out = TileGroups::of(count, strip.blocks);
    const ptrdiff_t pixels_row = static_cast<ptrdiff_t>(width_) * pixel;
    for (int group = 0; group < in.count(); group++) {
        const uint32_t* const* const tiles = from_.data() + group * in.size;
        float* const to = inputs_ + group * in.group();
        if (whole_)
            kernels.int16_input({tiles, 0, in.in_group(group), channels_, pixel, pixels_row, kBlock,
                                 reinterpret_cast<uint32_t*>(to), in.position(), in.block(),
                                 scales_ + group * in.size},
                                Arithmetic::fp32);
        else
            kernels.winograd_input({tiles, 0, in.in_group(group), blocks_, pixel, pixels_row, kBlock,
                                    to, in.position(), in.block()},
                                   Arithmetic::fp32);
    }
    for (int block = 0; block < strip.blocks; block += 2) {
        TileProducts products{};
        products.channels = channels_;
        products.begins = true;
        products.whole_rows = products.whole_columns = {0, count};
        products.in = in;
        products.x = inputs_;
        products.scales = whole_ ? scales_ : nullptr;
        products.outputs = std::min(2, strip.blocks - block);
        products.kernel_position = kernel_position(blocks_);
        products.out = out;
        for (int b = 0; b < products.outputs; b++) {
            products.kernels[b] = kernels_ + (strip.first_block + block + b) * kernel_floats(blocks_);
            products.y[b] = outputs_ + (block + b) * out.block();
        }
        products.run(kernels);
    }
    const LayerEnd end = traced(trace);
    for (int group = 0; group < out.count(); group++)
        kernels.winograd_output({to_.data() + group * out.size, tile, out.in_group(group), strip.blocks,
                                 outputs_ + group * out.group(), out.position(), out.block(),
                                 layer_.bias + static_cast<size_t>(strip.first_block) * kBlock,
                                 strip.row_begin, strip.y,
                                 static_cast<ptrdiff_t>(map_columns_) * kBlock, strip.y_block, mask,
                                 map_columns_, trace == nullptr ? nullptr : &end});
}

}  // namespace rrm
