// The first layer.
#include "columns.hpp"

#include <algorithm>
#include <cstring>

#include "convolution.hpp"

namespace rrm {

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
            state.reach(delta, number, pixels, nullptr);
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
        if (tile_outputs > 0 && !all && source.dense[number] != 0) frame.mask = mask;
        if (pool) {
            const std::vector<uint8_t> map = std::move(mask);
            mask.assign(static_cast<size_t>(out.height) * out.width, 0);
            spread(map.data(), map_rows, map_columns, *pool, mask.data(), out.height, out.width);
        }
        state.reach(delta, number, pixels, &mask);
        frame.changes.set(state, tensor, number, &mask, all);
    }
    const ptrdiff_t y_row = static_cast<ptrdiff_t>(map_columns) * kBlock;
    std::optional<ColumnTiles> tiles;
    const auto dense = [&](const Frame& frame) { return source.dense[frame.number] != 0; };
    if (tile_outputs > 0 && std::any_of(frames.begin(), frames.end(), dense))
        tiles.emplace(*this, state);
    for (int first = 0; first < out.blocks(); first += kStageBlocks) {
        const int blocks = std::min(kStageBlocks, out.blocks() - first);
        const int step =
            tiles ? tiles->strip_rows()
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
                compute(state, strip, frame, tiles ? &*tiles : nullptr);
                if (pool)
                    finish_pooled(state, strip, frame);
                else
                    finish(state, strip, frame);
            }
        }
    }
}

void ColumnConvolution::compute(State& state, const Strip& strip, const Frame& frame,
                                ColumnTiles* tiles) const {
    DeltaState& source = state.deltas[delta];
    // A maximum hides sums of minus infinity; without one, whoever finishes them looks.
    Trace trace(pool ? &source.counts[frame.number].finite : nullptr);
    if (source.dense[frame.number] == 0)
        add_deltas(state, strip, frame, trace.numbers());
    else if (tiles != nullptr)
        tiles->compute(strip, frame, trace.numbers());
    else
        compute_dense(state, strip, frame, trace.numbers());
}

void ColumnConvolution::add_deltas(State& state, const Strip& strip, const Frame& frame,
                                   float* trace) const {
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
    args.trace = trace;
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

void ColumnConvolution::compute_dense(State& state, const Strip& strip, const Frame& frame,
                                      float* trace) const {
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
    const LayerEnd end = traced(trace);
    if (trace != nullptr) args.end = &end;
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
    args.finite = state.finite(delta, tensor, frame.number, &epilogue);
    ResidualMap residual;
    if (epilogue.residual >= 0) residual = state.residual(epilogue.residual, first, frame.number);
    args.residual_block = residual.block;
    for (int row = strip.row_begin; row < strip.row_end; row++) {
        const RowTarget to = row_target(state, tensor, frame.number, first, blocks, row);
        args.x_block = to.block;
        for (const Run& run : frame.changes.made(row)) {
            const ptrdiff_t at = static_cast<ptrdiff_t>(run.begin) * kBlock;
            args.y = strip.y + (row - strip.row_begin) * row_floats + at;
            args.x = to.data + at;
            if (residual.floats != nullptr) args.residual = residual.floats + row * row_floats + at;
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
    std::vector<const float*> lines(pool->kernel_rows);
    PoolArgs args{};
    args.lines = lines.data();
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
            for (int line = 0; line < args.rows; line++) {
                const int of_strip = top + line - strip.row_begin;
                // What the accumulators held above the strip is another frame's by now.
                lines[line] = of_strip < 0 ? frame.above.data() +
                                                 ((block + 1) * kept + of_strip) * row_floats
                                           : y + of_strip * row_floats;
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
