// Dense frames of layers of stride 1: the tiles of outputs where something has changed, by Winograd's
// minimal filtering. As many tiles as the second-level cache holds pass together, of several frames
// where maps are small. Transforming the kernels is cheap beside one pass, and the result four
// times as large as they are: so it is made anew each time.
//
// A kernel that is larger than the tiles' goes in pieces, each with tiles of inputs of its own; their
// products are summed like those of more channels.
//
// Tiles that would hang over the map's end are one output smaller there, which spares them a row or a
// column of positions: 14 outputs are 4 + 4 + 3 + 3.
#include "winograd.hpp"

#include <algorithm>
#include <array>
#include <numeric>

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
    TileRange tiles;           // wide ones first
    TileRange wide, narrow;    // where they stand in their pass, see Convolution::arrange
};

// One tile after the other along one side of a map.
struct TileSide {
    int length, outputs, count, smaller;  // `smaller` of them, the last ones, have one output less

    static TileSide of(int length, int outputs) {
        const int count = divided(length, outputs);
        return {length, outputs, count, std::min(count, count * outputs - length)};
    }
    int begin(int tile) const {
        return tile * outputs - std::max(0, tile - (count - smaller));
    }
    int end(int tile) const { return std::min(length, begin(tile + 1)); }
};

// So that tiles with their last row are neighbours, and those with their last column as well.
int kind_of(const WinogradTile& tile, int outputs) {
    const bool tall = tile.rows == outputs, wide = tile.columns == outputs;
    return tall ? (wide ? 1 : 0) : (wide ? 2 : 3);
}
constexpr int kKinds = 4;

// A part of the kernel: its first tap.
struct Piece {
    int row, column;
};

}  // namespace

void TileProducts::part(const Kernels& table, int position, int tile, int rows, int tiles) const {
    const float zeros[kBlock] = {};
    const int32_t no_offset = 0;
    const int group = tile / in.size, slot = tile % in.size;
    DenseArgs args{};
    args.x = reinterpret_cast<const uint32_t*>(x + group * in.group() + position * in.position() +
                                               slot * kBlock);
    args.x_block = in.block();
    args.x_row = in.group();
    args.x_step = kBlock;
    args.units = channels;
    args.block_units = kBlock;
    args.taps = 1;
    args.tap_offsets = &no_offset;
    args.unit_stride = kBlock;
    args.bias[0] = args.bias[1] = begins ? zeros : nullptr;
    args.blocks = outputs;
    for (int b = 0; b < outputs; b++) {
        args.weights[b] =
            reinterpret_cast<const uint32_t*>(kernels[b] + position * kernel_position);
        args.y[b] = y[b] + group * out.group() + position * out.position() + slot * kBlock;
    }
    args.y_row = out.group();
    args.y_column = kBlock;
    args.rows = rows;
    args.columns = tiles;
    table.dense(args, Arithmetic::fp32);
}

void TileProducts::int16_part(const Kernels& table, int position, int tile, int rows,
                              int tiles) const {
    const int group = tile / in.size, slot = tile % in.size;
    Int16ProductArgs args{};
    args.x = reinterpret_cast<const uint32_t*>(x + group * in.group() + position * in.position() +
                                               slot * in.elements);
    args.x_block = in.block();
    args.x_row = in.group();
    args.pairs = divided(channels, 2);
    args.input_scales = scales + tile;
    args.scales_row = in.size;
    args.begins = begins;
    for (int b = 0; b < outputs; b++) {
        const float* const kernel = kernels[b] + position * kernel_position;
        args.weights[b] = reinterpret_cast<const uint32_t*>(kernel);
        args.weight_scales[b] = kernel + kernel_position - kApart;
        args.y[b] = y[b] + group * out.group() + position * out.position() + slot * kBlock;
    }
    args.y_row = out.group();
    args.blocks = outputs;
    args.rows = rows;
    args.tiles = tiles;
    table.int16_products(args);
}

void TileProducts::run(const Kernels& table) const {
    for (int position = 0; position < kWinogradPositions; position++) {
        const TileRange range = needing(position);
        for (int tile = range.begin; tile < range.end;) {
            const int begun = tile % in.size, left = range.end - tile;
            const int groups = begun == 0 ? left / in.size : 0;
            const int some = groups > 0 ? in.size : std::min(in.size - begun, left);
            if (scales == nullptr)
                part(table, position, tile, std::max(1, groups), some);
            else
                int16_part(table, position, tile, std::max(1, groups), some);
            tile += std::max(1, groups) * some;
        }
    }
}

struct Convolution::Tiles {
    std::vector<const uint32_t*> from;   // first input pixel
    std::vector<WinogradTile> to;
    std::vector<Span> spans;             // a row of tiles each
    int count() const { return static_cast<int>(to.size()); }
    Pass arrange(size_t first_span, size_t last_span, int outputs);
};

// Tiles that pass together, by their kind.
struct Convolution::Pass {
    size_t last_span;
    int first, count;                    // of their tiles
    TileRange tall, wide;                // among them, those with their last row or column
};

Convolution::Pass Convolution::Tiles::arrange(size_t first_span, size_t last_span, int outputs) {
    const int first = spans[first_span].tiles.begin, last = spans[last_span - 1].tiles.end;
    std::vector<int> order(static_cast<size_t>(last - first));
    std::iota(order.begin(), order.end(), first);
    const auto kind = [&](int tile) { return kind_of(to[tile], outputs); };
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return kind(a) < kind(b); });
    std::array<int, kKinds + 1> begins{};
    for (const int tile : order) begins[kind(tile) + 1]++;
    std::partial_sum(begins.begin(), begins.end(), begins.begin());
    const Pass pass{last_span, first, last - first, {0, begins[2]}, {begins[1], begins[3]}};

    std::array<int, kKinds + 1> next = begins;
    for (size_t s = first_span; s < last_span; s++) {
        Span& span = spans[s];
        span.wide = span.narrow = {0, 0};
        for (int tile = span.tiles.begin; tile < span.tiles.end; tile++) {
            TileRange& run = to[tile].columns == outputs ? span.wide : span.narrow;
            const int place = next[kind(tile)]++;
            if (run.begin == run.end) run.begin = place;
            run.end = place + 1;
        }
    }
    const std::vector<const uint32_t*> old_from(from.begin() + first, from.begin() + last);
    const std::vector<WinogradTile> old_to(to.begin() + first, to.begin() + last);
    for (size_t i = 0; i < order.size(); i++) {
        from[first + i] = old_from[order[i] - first];
        to[first + i] = old_to[order[i] - first];
    }
    return pass;
}

// The tiles of some dense frames in which a pixel has to be computed.
Convolution::Tiles Convolution::find_tiles(State& state, const Layout& l, int begin, int end,
                                           const std::vector<std::vector<uint8_t>>& masks,
                                           int first) const {
    Tiles tiles;
    const int unit_block = state.network->block_units();
    const ptrdiff_t x_row = state.whole_row(delta);
    const TileSide down = TileSide::of(l.rows, tile_outputs);
    const TileSide across = TileSide::of(l.columns, tile_outputs);
    for (int frame = begin; frame < end; frame++) {
        const uint32_t* x = state.whole(delta, frame) - geometry.row_padding * x_row -
                            geometry.column_padding * unit_block;
        const std::vector<uint8_t>& mask = masks[frame - first];
        for (int r = 0; r < down.count; r++) {
            const int row = down.begin(r), last = down.end(r), before = tiles.count();
            for (int c = 0; c < across.count; c++) {
                const int column = across.begin(c);
                const WinogradTile tile{row, column, last - row, across.end(c) - column};
                if (!mask.empty() &&
                    !tile.sees(mask.data() + static_cast<size_t>(row) * l.columns, l.columns))
                    continue;
                tiles.from.push_back(x + row * x_row + column * unit_block);
                tiles.to.push_back(tile);
            }
            tiles.spans.push_back({frame, row, last, {before, tiles.count()}, {}, {}});
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

// Transforms the taps of a piece for some channels, from block `block` of the set's on.
void Convolution::turn_kernels(const State& state, const TileKernels& of, int piece_row,
                               int piece_column, int block, int channels, float* to) const {
    const Kernels& kernels = state.network->kernels;
    const int count = divided(channels, kBlock);
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
    kernels.winograd_weights(
        {of.weights + static_cast<ptrdiff_t>(block) * unit_block * unit_stride, unit_stride,
         offsets.data(), tile_outputs, count * unit_block, to, kernel_position(count)},
        state.network->arithmetic);
    if (state.network->arithmetic == Arithmetic::bf16)
        kernels.int16_weights(
            {to, kernel_position(count), channels, to + kernel_position(count) - kApart});
}

void Convolution::finish_tiles(State& state, const Layout& l, const Stage& stage, const Tiles& tiles,
                               size_t span, int first, const TileGroups& groups, const float* sums,
                               const Changes& changes, const std::vector<uint8_t>& mask) const {
    const Span& rows = tiles.spans[span];
    const bool kept = !state.deltas[delta].everywhere;
    const bool finishes = !kept && mask.empty() && epilogue.limits();
    FinishedRows finished{};
    Trace trace(finishes ? state.finite(delta, tensor, rows.frame, &epilogue) : nullptr);
    LayerEnd end{};
    if (finishes) {
        finished = finished_rows(state, stage, rows.row_begin, rows.row_end, rows.frame);
        end = layer_end(state, stage, stage.first_block, rows.row_begin, rows.frame, trace,
                        finished.if_rounded());
    }
    const Sums to = finishes ? finished.to
                    : kept   ? accumulators(state, l, stage, rows.row_begin)
                             : rows_target(state, tensor, rows.frame, stage.first_block, stage.blocks,
                                           rows.row_begin, tile_outputs);
    const uint8_t* const row_mask =
        mask.empty() ? nullptr : mask.data() + static_cast<size_t>(rows.row_begin) * l.columns;
    for (const TileRange& run : {rows.wide, rows.narrow})
        for (int tile = run.begin; tile < run.end;) {
            const int group = tile / groups.size, slot = tile % groups.size;
            const int some = std::min(groups.size - slot, run.end - tile);
            state.network->kernels.winograd_output(
                {tiles.to.data() + first + tile, tile_outputs, some, stage.blocks,
                 sums + group * groups.group() + slot * kBlock, groups.position(), groups.block(),
                 bias + static_cast<size_t>(stage.first_block) * kBlock, rows.row_begin, to.data,
                 to.row, to.block, row_mask, l.columns, finishes ? &end : nullptr});
            tile += some;
        }
    if (finishes)
        send(state, stage, rows.row_begin, rows.row_end, rows.frame, finished, changes);
    else
        finish(state, l, stage, rows.frame, rows.row_begin, rows.row_end, changes, to, nullptr);
}

void Convolution::run_winograd(State& state, const Layout& l, const std::vector<Stage>& stages,
                               int begin, int end, const std::vector<Changes>& changes,
                               const std::vector<std::vector<uint8_t>>& masks, int first) const {
    const Kernels& kernels = state.network->kernels;
    const Arithmetic arithmetic = state.network->arithmetic;
    const int unit_block = state.network->block_units();
    const Delta& plan = state.network->deltas[delta];
    const ptrdiff_t x_row = state.whole_row(delta), x_block = state.whole_block(delta);
    const bool whole = arithmetic == Arithmetic::bf16;  // numbers are multiplied, of 16 bits
    const int elements = whole ? kBlock / 2 : kBlock;
    Tiles tiles = find_tiles(state, l, begin, end, masks, first);
    std::vector<Piece> pieces;
    const int taps = winograd_taps_of(tile_outputs);
    for (int row = 0; row < geometry.kernel_rows; row += taps)
        for (int column = 0; column < geometry.kernel_columns; column += taps)
            pieces.push_back({row, column});
    const int x_blocks = plan.blocks(), piece_count = static_cast<int>(pieces.size());

    // Passes of nearly the same number of tiles, whole rows of them.
    const int blocks = stages.front().blocks, in_blocks = x_blocks * piece_count;
    const size_t tile_bytes =
        sizeof(float) * kWinogradPositions * (elements * in_blocks + kBlock * blocks);
    const int most = std::max(kFewestTiles, static_cast<int>(kPassBytes / tile_bytes));
    const int share = divided(tiles.count(), std::max(1, divided(tiles.count(), most)));
    std::vector<Pass> passes;
    for (size_t span = 0, before = 0; span < tiles.spans.size(); span++) {
        const int count = tiles.spans[span].tiles.end - tiles.spans[before].tiles.begin;
        if (span + 1 < tiles.spans.size() && count < share) continue;
        passes.push_back(tiles.arrange(before, span + 1, tile_outputs));
        before = span + 1;
    }
    const int widest = divided(l.columns, tile_outputs);
    // Several stages share what the inputs become.
    const bool keep = stages.size() > 1;
    const size_t numbers_room = TileGroups::room(share + widest, in_blocks, elements);
    // Whole numbers share scales with those of some neighbouring blocks, by tile.
    const int scaled = divided(x_blocks, kInt16Blocks);
    const size_t scales_stride = static_cast<size_t>(share + widest);
    const size_t inputs_room = numbers_room + (whole ? scales_stride * scaled * piece_count : 0);
    const size_t outputs_room = TileGroups::room(share + widest, blocks);
    // Kernels are transformed once for all passes; for a single one bit by bit.
    const bool once = passes.size() > 1;
    const auto blocks_of = [&](const WeightSet& set) {
        return divided(set.unit_end - set.unit_begin, unit_block);
    };
    size_t kernels_room = 2 * static_cast<size_t>(kernel_floats(kKernelBlocks));
    for (const Stage& stage : stages) {
        size_t sum = 0;
        for (size_t s = stage.first_set; s < stage.last_set && once; s++)
            sum += static_cast<size_t>(kernel_floats(blocks_of(sets[s])) +
                                       scaled * kWinogradPositions * kApart) *
                   sets[s].blocks;
        kernels_room = std::max(kernels_room, sum * piece_count);
    }
    float* const outputs = state.winograd_scratch(outputs_room + kernels_room +
                                                  inputs_room * (keep ? passes.size() : 1));
    float* const turned = outputs + outputs_room;
    float* const inputs = turned + kernels_room;

    for (const Stage& stage : stages) {
        std::vector<TileKernels> wanted;
        for (size_t s = stage.first_set; s < stage.last_set; s++)
            for (int block = 0; block < sets[s].blocks; block++)
                wanted.push_back({sets[s].first_block + block, &sets[s],
                                  weights + sets[s].offset + static_cast<size_t>(block) * kBlock});
        for (size_t pass = 0, span = 0; pass < passes.size(); pass++) {
            const int from = passes[pass].first, count = passes[pass].count;
            const TileGroups in = TileGroups::of(count, in_blocks, elements);
            const TileGroups out = TileGroups::of(count, stage.blocks);
            float* const x = inputs + (keep ? pass * inputs_room : 0);
            const auto scales = [&](int piece, int block) {
                return whole ? x + numbers_room +
                                   (piece * scaled + block / kInt16Blocks) * scales_stride
                             : nullptr;
            };
            const auto turn_inputs = [&](int group, int piece) {
                const uint32_t* const* const tile = tiles.from.data() + from + group * in.size;
                const ptrdiff_t at = pieces[piece].row * x_row + pieces[piece].column * unit_block;
                float* const to = x + group * in.group() + piece * x_blocks * in.block();
                if (!whole)
                    kernels.winograd_input({tile, at, in.in_group(group), x_blocks, unit_block, x_row,
                                            x_block, to, in.position(), in.block()},
                                           arithmetic);
                for (int block = 0; whole && block < x_blocks; block += kInt16Blocks)
                    kernels.int16_input(
                        {tile, at + block * x_block, in.in_group(group),
                         std::min(kInt16Blocks * kBlock, plan.channels - block * kBlock), unit_block,
                         x_row, x_block, reinterpret_cast<uint32_t*>(to + block * in.block()),
                         in.position(), in.block(), scales(piece, block) + group * in.size},
                        arithmetic);
            };
            if (!keep || &stage == &stages.front())
                for (int group = 0; group < in.count(); group++)
                    for (int piece = 0; piece < piece_count; piece++) turn_inputs(group, piece);
            float* set_kernels = turned;
            for (size_t w = 0; w < wanted.size() && count > 0;) {
                const TileKernels& one = wanted[w];
                const bool two = w + 1 < wanted.size() && one.shares_inputs(wanted[w + 1]);
                const int together = two ? 2 : 1, all = blocks_of(*one.set);
                const int first_block = one.set->unit_begin / unit_block;
                // Inputs share scales whether their kernels are there for all passes or not.
                const auto some_from = [&](int block) {
                    const int begun = (first_block + block) % kInt16Blocks;
                    return std::min(all - block, whole  ? kInt16Blocks - begun
                                                 : once ? all
                                                        : kKernelBlocks);
                };
                for (int piece = 0; piece < piece_count; piece++)
                    for (int block = 0, some = 0; block < all; block += some) {
                        some = some_from(block);
                        TileProducts products{};
                        products.channels = std::min(
                            some * kBlock, plan.channels - (first_block + block) * kBlock);
                        products.scales = scales(piece, first_block + block);
                        products.begins = piece == 0 && block == 0;
                        products.whole_rows = passes[pass].tall;
                        products.whole_columns = passes[pass].wide;
                        products.in = in;
                        products.x = x + (piece * x_blocks + first_block + block) * in.block();
                        products.outputs = together;
                        products.kernel_position = kernel_position(some);
                        products.out = out;
                        for (int b = 0; b < together; b++) {
                            float* const to = set_kernels + b * kernel_floats(some);
                            if (pass == 0)
                                turn_kernels(state, wanted[w + b], pieces[piece].row,
                                             pieces[piece].column, block, products.channels, to);
                            products.kernels[b] = to;
                            products.y[b] = outputs + (wanted[w + b].number - stage.first_block) *
                                                          out.block();
                        }
                        products.run(kernels);
                        if (once) set_kernels += together * kernel_floats(some);
                    }
                w += static_cast<size_t>(together);
            }
            for (; span < passes[pass].last_span; span++) {
                const int at = tiles.spans[span].frame - first;
                finish_tiles(state, l, stage, tiles, span, from, out, outputs, changes[at], masks[at]);
            }
        }
    }
}

}  // namespace rrm
