// Dense frames of 3x3 layers: the tiles of outputs where something has changed, by Winograd's
// minimal filtering. As many tiles as the second-level cache holds pass together, of several frames
// where maps are small. Transforming the kernels is cheap beside one pass, and the result four
// times as large as they are: so it is made anew each time.
#include <algorithm>

#include "convolution.hpp"

namespace rrm {

namespace {

constexpr size_t kPassBytes = 768 * 1024;  // of one pass: what tiles become before and after
constexpr int kFewestTiles = 36;           // to make use of each kernel
constexpr int kGroup = 14;                 // tiles that a matrix product takes together
constexpr ptrdiff_t kApart = kBlock;       // so that positions do not fall on the same cache sets

// Blocks of inputs whose transformed kernels, of two sets, stay in the second-level cache.
constexpr int kKernelBlocks = 8;

int divided(int count, int by) { return (count + by - 1) / by; }

// Of the transformed kernels of `blocks` blocks of inputs and one of outputs.
ptrdiff_t kernel_position(int blocks) {
    return static_cast<ptrdiff_t>(blocks) * kBlock * kBlock + kApart;
}
ptrdiff_t kernel_floats(int blocks) { return kWinogradPositions * kernel_position(blocks); }

// Rows of outputs of one frame, and their tiles.
struct Span {
    int frame;
    int row_begin, row_end;
    int first_tile, last_tile;
};

}  // namespace

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
        const auto changed = [&](const WinogradTile& tile) {
            for (int r = tile.row; r < tile.row + tile.rows; r++)
                for (int c = tile.column; c < tile.column + tile.columns; c++)
                    if (mask[static_cast<size_t>(r) * l.columns + c] != 0) return true;
            return false;
        };
        for (int row = 0; row < l.rows; row += kWinogradOutputs) {
            const int last = std::min(l.rows, row + kWinogradOutputs);
            const int before = tiles.count();
            for (int column = 0; column < l.columns; column += kWinogradOutputs) {
                const WinogradTile tile{row, column, last - row,
                                        std::min(kWinogradOutputs, l.columns - column)};
                if (!mask.empty() && !changed(tile)) continue;
                tiles.from.push_back(x + row * x_row + column * unit_block);
                tiles.to.push_back(tile);
            }
            tiles.spans.push_back({frame, row, last, before, tiles.count()});
        }
    }
    return tiles;
}

// [group of tiles][block][position][tile][16]: what a matrix product or a transform of a group
// touches lies close together.
struct Convolution::Groups {
    int tiles, size;           // of all, of a group; the last one may have fewer
    int blocks;
    ptrdiff_t position() const { return static_cast<ptrdiff_t>(size) * kBlock; }
    ptrdiff_t block() const { return position() * kWinogradPositions + kApart; }
    ptrdiff_t group() const { return block() * blocks; }
    int count() const { return divided(tiles, size); }
};

// The 36 matrix products of some sets with the same inputs, one or two: those with the channels of
// `count` blocks of theirs from `block` on. `kernels` are those of these channels.
void Convolution::multiply(State& state, const Stage& stage, size_t first_set, int set_count,
                           int block, int count, const float* kernels, const Groups& in,
                           const float* x, const Groups& out, float* y) const {
    const float zeros[kBlock] = {};
    const int32_t no_offset = 0;
    DenseArgs args{};
    args.units = count * kBlock;
    args.x_block = in.block();
    args.x_row = in.group();
    args.x_step = kBlock;
    args.block_units = kBlock;
    args.taps = 1;
    args.tap_offsets = &no_offset;
    args.unit_stride = kBlock;
    args.bias[0] = args.bias[1] = block == 0 ? zeros : nullptr;
    args.y_row = out.group();
    args.y_column = kBlock;
    args.blocks = set_count;
    x += (sets[first_set].unit_begin / state.network->block_units() + block) * in.block();
    const int whole = in.tiles / in.size, rest = in.tiles % in.size;
    for (int position = 0; position < kWinogradPositions; position++) {
        const auto part = [&](int group, int rows, int columns) {
            args.rows = rows;
            args.columns = columns;
            args.x = reinterpret_cast<const uint32_t*>(x + group * in.group() +
                                                       position * in.position());
            for (int b = 0; b < set_count; b++) {
                args.weights[b] = reinterpret_cast<const uint32_t*>(
                    kernels + b * kernel_floats(count) + position * kernel_position(count));
                args.y[b] = y + group * out.group() + position * out.position() +
                            (sets[first_set + b].first_block - stage.first_block) * out.block();
            }
            state.network->kernels.dense(args, Arithmetic::fp32);
        };
        if (whole > 0) part(0, whole, in.size);
        if (rest > 0) part(whole, 1, rest);
    }
}

void Convolution::run_winograd(State& state, const Layout& l, const std::vector<Stage>& stages,
                               int begin, int end, const std::vector<Changes>& changes,
                               const std::vector<std::vector<uint8_t>>& masks, int first) const {
    const Kernels& kernels = state.network->kernels;
    const Arithmetic arithmetic = state.network->arithmetic;
    const int unit_block = state.network->block_units();
    const int x_blocks = state.network->deltas[delta].blocks();
    const Tiles tiles = find_tiles(state, l, begin, end, masks, first);

    // Passes of nearly the same number of tiles, whole rows of them.
    const int blocks = stages.front().blocks;
    const size_t tile_bytes = sizeof(float) * kWinogradPositions * kBlock * (x_blocks + blocks);
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
    const int widest = divided(l.columns, kWinogradOutputs);
    const auto groups_of = [](int count, int of_blocks) {
        return Groups{count, count == 0 ? 1 : divided(count, divided(count, kGroup)), of_blocks};
    };
    // Several stages share what the inputs become.
    const bool keep = stages.size() > 1;
    const auto room = [&](int of_blocks) {
        return static_cast<size_t>(share + widest + kGroup) * kWinogradPositions * kBlock * of_blocks +
               static_cast<size_t>(share + widest + 1) * of_blocks * kApart;
    };
    const size_t inputs_room = room(x_blocks), outputs_room = room(blocks);
    // Kernels are transformed once for all passes; for a single one bit by bit.
    const bool once = pass_ends.size() > 1;
    const auto blocks_of = [&](size_t set) {
        return divided(sets[set].unit_end - sets[set].unit_begin, unit_block);
    };
    size_t kernels_room = 2 * static_cast<size_t>(kernel_floats(kKernelBlocks));
    for (const Stage& stage : stages) {
        size_t sum = 0;
        for (size_t s = stage.first_set; s < stage.last_set && once; s++)
            sum += static_cast<size_t>(kernel_floats(blocks_of(s)));
        kernels_room = std::max(kernels_room, sum);
    }
    float* const outputs = state.winograd_scratch(outputs_room + kernels_room +
                                                  inputs_room * (keep ? pass_ends.size() : 1));
    float* const turned = outputs + outputs_room;
    float* const inputs = turned + kernels_room;

    const bool kept = !state.deltas[delta].everywhere;
    for (const Stage& stage : stages) {
        for (size_t pass = 0, span = 0; pass < pass_ends.size(); pass++) {
            const int from = tiles.spans[span].first_tile;
            const int count = tiles.spans[pass_ends[pass] - 1].last_tile - from;
            const Groups in = groups_of(count, x_blocks), out = groups_of(count, stage.blocks);
            float* const x = inputs + (keep ? pass * inputs_room : 0);
            if (!keep || &stage == &stages.front())
                for (int group = 0; group < in.count(); group++)
                    kernels.winograd_input(
                        {tiles.from.data() + from + group * in.size,
                         std::min(in.size, count - group * in.size), x_blocks, state.whole_row(delta),
                         state.whole_block(delta), x + group * in.group(), in.position(), in.block()},
                        arithmetic);
            float* set_kernels = turned;
            for (size_t s = stage.first_set; s < stage.last_set && count > 0;) {
                const bool two = s + 1 < stage.last_set && sets[s + 1].unit_begin == sets[s].unit_begin &&
                                 sets[s + 1].unit_end == sets[s].unit_end;
                const int together = two ? 2 : 1, all = blocks_of(s);
                const int step = once ? all : kKernelBlocks;
                for (int block = 0; block < all; block += step) {
                    const int some = std::min(step, all - block);
                    for (int b = 0; b < together && pass == 0; b++)
                        kernels.winograd_weights(
                            {weights + sets[s + b].offset +
                                 static_cast<size_t>(block) * unit_block * 9 * kBlock,
                             some * unit_block, set_kernels + b * kernel_floats(some),
                             kernel_position(some)},
                            arithmetic);
                    multiply(state, stage, s, together, block, some, set_kernels, in, x, out, outputs);
                }
                if (once) set_kernels += together * kernel_floats(all);
                s += static_cast<size_t>(together);
            }
            for (; span < pass_ends[pass]; span++) {
                const Span& rows = tiles.spans[span];
                const std::vector<uint8_t>& mask = masks[rows.frame - first];
                const Sums sums = kept ? accumulators(state, l, stage, rows.row_begin)
                                       : strip_sums(state, l, stage, rows.frame, rows.row_begin,
                                                    kWinogradOutputs);
                for (int tile = rows.first_tile - from; tile < rows.last_tile - from;) {
                    const int group = tile / out.size, slot = tile % out.size;
                    const int some = std::min(out.size - slot, rows.last_tile - from - tile);
                    kernels.winograd_output(
                        {tiles.to.data() + from + tile, some, stage.blocks,
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
