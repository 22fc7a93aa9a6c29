// Dense frames of layers of stride 1: the tiles of outputs where something has changed, by Winograd's
// minimal filtering. As many tiles as the second-level cache holds pass together, of several frames
// where maps are small. Transforming the kernels is cheap beside one pass, and the result four
// times as large as they are: so it is made anew each time.
//
// A kernel that is larger than the tiles' goes in pieces, each with tiles of inputs of its own; their
// products are summed like those of more channels.
#include "winograd.hpp"

#include <algorithm>

#include "convolution.hpp"

namespace rrm {

namespace {

constexpr int kFewestTiles = 36;  // to make use of each kernel

// Blocks of inputs whose transformed kernels, of two sets, stay in the second-level cache.
constexpr int kKernelBlocks = 8;

// Rows of outputs of one frame, and their tiles.
struct Span {
    int frame;
    int row_begin, row_end;
    int first_tile, last_tile;
};

// A part of the kernel: its first tap.
struct Piece {
    int row, column;
};

}  // namespace

void TileProducts::run(const Kernels& table) const {
    const float zeros[kBlock] = {};
    const int32_t no_offset = 0;
    DenseArgs args{};
    args.units = channels;
    args.x_block = in.block();
    args.x_row = in.group();
    args.x_step = kBlock;
    args.block_units = kBlock;
    args.taps = 1;
    args.tap_offsets = &no_offset;
    args.unit_stride = kBlock;
    args.bias[0] = args.bias[1] = begins ? zeros : nullptr;
    args.y_row = out.group();
    args.y_column = kBlock;
    args.blocks = outputs;
    const int whole = in.tiles / in.size, rest = in.tiles % in.size;
    for (int position = 0; position < kWinogradPositions; position++) {
        const auto part = [&](int group, int rows, int columns) {
            args.rows = rows;
            args.columns = columns;
            args.x = reinterpret_cast<const uint32_t*>(x + group * in.group() +
                                                       position * in.position());
            for (int b = 0; b < outputs; b++) {
                args.weights[b] =
                    reinterpret_cast<const uint32_t*>(kernels[b] + position * kernel_position);
                args.y[b] = y[b] + group * out.group() + position * out.position();
            }
            table.dense(args, Arithmetic::fp32);
        };
        if (whole > 0) part(0, whole, in.size);
        if (rest > 0) part(whole, 1, rest);
    }
}

struct Convolution::Tiles {
    std::vector<const uint32_t*> from;   // first input pixel
    std::vector<WinogradTile> to;
    std::vector<Span> spans;             // a row of tiles each
    int count() const { return static_cast<int>(to.size()); }
};

// The tiles of some dense frames in which a pixel has to be computed.
Convolution::Tiles Convolution::find_tiles(State& state, const Layout& l, int begin, int end,
                                           const std::vector<std::vector<uint8_t>>& masks,
                                           int first) const {
    Tiles tiles;
    const int unit_block = state.network->block_units();
    const ptrdiff_t x_row = state.whole_row(delta);
    for (int frame = begin; frame < end; frame++) {
        const uint32_t* x = state.whole(delta, frame) - geometry.row_padding * x_row -
                            geometry.column_padding * unit_block;
        const std::vector<uint8_t>& mask = masks[frame - first];
        for (int row = 0; row < l.rows; row += tile_outputs) {
            const int last = std::min(l.rows, row + tile_outputs);
            const int before = tiles.count();
            for (int column = 0; column < l.columns; column += tile_outputs) {
                const WinogradTile tile{row, column, last - row,
                                        std::min(tile_outputs, l.columns - column)};
                if (!mask.empty() &&
                    !tile.sees(mask.data() + static_cast<size_t>(row) * l.columns, l.columns))
                    continue;
                tiles.from.push_back(x + row * x_row + column * unit_block);
                tiles.to.push_back(tile);
            }
            tiles.spans.push_back({frame, row, last, before, tiles.count()});
        }
    }
    return tiles;
}

// What a block of outputs is computed with.
struct Convolution::TileKernels {
    int number;                // of the block
    const WeightSet* set;
    const uint32_t* weights;   // of the first unit and tap

    bool shares_inputs(const TileKernels& other) const {
        return set->unit_begin == other.set->unit_begin && set->unit_end == other.set->unit_end;
    }
};

// Transforms the taps of a piece for `count` blocks of inputs from `block` of the set's on.
void Convolution::turn_kernels(const State& state, const TileKernels& of, int piece_row,
                               int piece_column, int block, int count, float* to) const {
    const int unit_block = state.network->block_units();
    const int taps = winograd_taps_of(tile_outputs);
    const ptrdiff_t unit_stride =
        form == Form::window ? 9 * kBlock : static_cast<ptrdiff_t>(of.set->blocks) * kBlock;
    const ptrdiff_t tap_stride = unit_stride * (of.set->unit_end - of.set->unit_begin);
    std::vector<int32_t> offsets(static_cast<size_t>(taps) * taps, -1);
    for (int r = 0; r < taps && piece_row + r < geometry.kernel_rows; r++)
        for (int c = 0; c < taps && piece_column + c < geometry.kernel_columns; c++) {
            const int row = piece_row + r, column = piece_column + c;
            // The window's weights are turned and go column by column.
            offsets[r * taps + c] = static_cast<int32_t>(
                form == Form::window ? ((2 - column) * 3 + 2 - row) * kBlock
                                     : (row * geometry.kernel_columns + column) * tap_stride);
        }
    state.network->kernels.winograd_weights(
        {of.weights + static_cast<ptrdiff_t>(block) * unit_block * unit_stride, unit_stride,
         offsets.data(), tile_outputs, count * unit_block, to, kernel_position(count)},
        state.network->arithmetic);
}

void Convolution::run_winograd(State& state, const Layout& l, const std::vector<Stage>& stages,
                               int begin, int end, const std::vector<Changes>& changes,
                               const std::vector<std::vector<uint8_t>>& masks, int first) const {
    const Kernels& kernels = state.network->kernels;
    const Arithmetic arithmetic = state.network->arithmetic;
    const int unit_block = state.network->block_units();
    const Delta& plan = state.network->deltas[delta];
    const ptrdiff_t x_row = state.whole_row(delta), x_block = state.whole_block(delta);
    const Tiles tiles = find_tiles(state, l, begin, end, masks, first);
    std::vector<Piece> pieces;
    const int taps = winograd_taps_of(tile_outputs);
    for (int row = 0; row < geometry.kernel_rows; row += taps)
        for (int column = 0; column < geometry.kernel_columns; column += taps)
            pieces.push_back({row, column});
    const int x_blocks = plan.blocks(), piece_count = static_cast<int>(pieces.size());

    // Passes of nearly the same number of tiles, whole rows of them.
    const int blocks = stages.front().blocks, in_blocks = x_blocks * piece_count;
    const size_t tile_bytes = sizeof(float) * kWinogradPositions * kBlock * (in_blocks + blocks);
    const int most = std::max(kFewestTiles, static_cast<int>(kPassBytes / tile_bytes));
    const int passes = std::max(1, divided(tiles.count(), most));
    const int share = divided(tiles.count(), passes);
    std::vector<size_t> pass_ends;
    for (size_t span = 0, before = 0; span < tiles.spans.size(); span++) {
        const int count = tiles.spans[span].last_tile - tiles.spans[before].first_tile;
        if (span + 1 < tiles.spans.size() && count < share) continue;
        pass_ends.push_back(span + 1);
        before = span + 1;
    }
    const int widest = divided(l.columns, tile_outputs);
    // Several stages share what the inputs become.
    const bool keep = stages.size() > 1;
    const size_t inputs_room = TileGroups::room(share + widest, in_blocks);
    const size_t outputs_room = TileGroups::room(share + widest, blocks);
    // Kernels are transformed once for all passes; for a single one bit by bit.
    const bool once = pass_ends.size() > 1;
    const auto blocks_of = [&](const WeightSet& set) {
        return divided(set.unit_end - set.unit_begin, unit_block);
    };
    size_t kernels_room = 2 * static_cast<size_t>(kernel_floats(kKernelBlocks));
    for (const Stage& stage : stages) {
        size_t sum = 0;
        for (size_t s = stage.first_set; s < stage.last_set && once; s++)
            sum += static_cast<size_t>(kernel_floats(blocks_of(sets[s]))) * sets[s].blocks;
        kernels_room = std::max(kernels_room, sum * piece_count);
    }
    float* const outputs = state.winograd_scratch(outputs_room + kernels_room +
                                                  inputs_room * (keep ? pass_ends.size() : 1));
    float* const turned = outputs + outputs_room;
    float* const inputs = turned + kernels_room;

    const bool kept = !state.deltas[delta].everywhere;
    for (const Stage& stage : stages) {
        std::vector<TileKernels> wanted;
        for (size_t s = stage.first_set; s < stage.last_set; s++)
            for (int block = 0; block < sets[s].blocks; block++)
                wanted.push_back({sets[s].first_block + block, &sets[s],
                                  weights + sets[s].offset + static_cast<size_t>(block) * kBlock});
        for (size_t pass = 0, span = 0; pass < pass_ends.size(); pass++) {
            const int from = tiles.spans[span].first_tile;
            const int count = tiles.spans[pass_ends[pass] - 1].last_tile - from;
            const TileGroups in = TileGroups::of(count, in_blocks);
            const TileGroups out = TileGroups::of(count, stage.blocks);
            float* const x = inputs + (keep ? pass * inputs_room : 0);
            if (!keep || &stage == &stages.front())
                for (int group = 0; group < in.count(); group++)
                    for (int piece = 0; piece < piece_count; piece++)
                        kernels.winograd_input(
                            {tiles.from.data() + from + group * in.size,
                             pieces[piece].row * x_row + pieces[piece].column * unit_block,
                             in.in_group(group), x_blocks, unit_block, x_row, x_block,
                             x + group * in.group() + piece * x_blocks * in.block(), in.position(),
                             in.block()},
                            arithmetic);
            float* set_kernels = turned;
            for (size_t w = 0; w < wanted.size() && count > 0;) {
                const TileKernels& one = wanted[w];
                const bool two = w + 1 < wanted.size() && one.shares_inputs(wanted[w + 1]);
                const int together = two ? 2 : 1, all = blocks_of(*one.set);
                const int first_block = one.set->unit_begin / unit_block;
                const int step = once ? all : kKernelBlocks;
                for (int piece = 0; piece < piece_count; piece++)
                    for (int block = 0; block < all; block += step) {
                        const int some = std::min(step, all - block);
                        TileProducts products{};
                        products.channels = std::min(
                            some * kBlock, plan.channels - (first_block + block) * kBlock);
                        products.begins = piece == 0 && block == 0;
                        products.in = in;
                        products.x = x + (piece * x_blocks + first_block + block) * in.block();
                        products.outputs = together;
                        products.kernel_position = kernel_position(some);
                        products.out = out;
                        for (int b = 0; b < together; b++) {
                            float* const to = set_kernels + b * kernel_floats(some);
                            if (pass == 0)
                                turn_kernels(state, wanted[w + b], pieces[piece].row,
                                             pieces[piece].column, block, some, to);
                            products.kernels[b] = to;
                            products.y[b] = outputs + (wanted[w + b].number - stage.first_block) *
                                                          out.block();
                        }
                        products.run(kernels);
                        if (once) set_kernels += together * kernel_floats(some);
                    }
                w += static_cast<size_t>(together);
            }
            for (; span < pass_ends[pass]; span++) {
                const Span& rows = tiles.spans[span];
                const std::vector<uint8_t>& mask = masks[rows.frame - first];
                const Sums sums = kept ? accumulators(state, l, stage, rows.row_begin)
                                       : strip_sums(state, l, stage, rows.frame, rows.row_begin,
                                                    tile_outputs);
                for (int tile = rows.first_tile - from; tile < rows.last_tile - from;) {
                    const int group = tile / out.size, slot = tile % out.size;
                    const int some = std::min(out.size - slot, rows.last_tile - from - tile);
                    kernels.winograd_output(
                        {tiles.to.data() + from + tile, tile_outputs, some, stage.blocks,
                         outputs + group * out.group() + slot * kBlock, out.position(), out.block(),
                         bias + static_cast<size_t>(stage.first_block) * kBlock, rows.row_begin,
                         sums.y, sums.row, sums.block,
                         mask.empty() ? nullptr
                                      : mask.data() + static_cast<size_t>(rows.row_begin) * l.columns,
                         l.columns});
                    tile += some;
                }
                finish(state, l, stage, rows.frame, rows.row_begin, rows.row_end,
                       changes[rows.frame - first], sums, nullptr);
            }
        }
    }
}

}  // namespace rrm
