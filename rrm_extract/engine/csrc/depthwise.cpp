// Depthwise layers: what has not changed is left out by pixels, never by channels.
#include <algorithm>

#include "convolution.hpp"

namespace rrm {

void DepthwiseConvolution::look(State& state, int frame, Changes& changes) const {
    std::vector<uint8_t> mask;
    note_changes(state, {delta, tensor, geometry}, frame, mask, changes);
}

void DepthwiseConvolution::compute(State& state, int frame, int first_block, int blocks, int row,
                                   int rows, const Run& run, const RowsTarget& to) const {
    const ptrdiff_t x_row = state.whole_row(delta), x_block = state.whole_block(delta);
    const float* const x = state.selected(delta, frame) +
                           (row * geometry.row_stride - geometry.row_padding) * x_row +
                           (run.begin * geometry.column_stride - geometry.column_padding) * kBlock;
    const ptrdiff_t at = static_cast<ptrdiff_t>(run.begin) * kBlock;
    const bool limits = epilogue.limits();
    bool* const finite = state.finite(delta, tensor, frame);
    Trace trace(limits ? finite : nullptr);
    DepthwiseArgs args{};
    args.x_row = x_row;
    args.kernel_rows = geometry.kernel_rows;
    args.kernel_columns = geometry.kernel_columns;
    args.row_stride = geometry.row_stride;
    args.column_stride = geometry.column_stride;
    args.row_dilation = geometry.row_dilation;
    args.column_dilation = geometry.column_dilation;
    args.y_row = to.row;
    args.rows = rows;
    args.columns = run.end - run.begin;
    args.low = epilogue.lowest();
    args.high = epilogue.highest();
    args.trace = trace.numbers();
    for (int b = 0; b < blocks; b++) {
        args.x = x + (first_block + b) * x_block;
        args.weights = weights + static_cast<size_t>(first_block + b) * geometry.taps() * kBlock;
        args.bias = bias + static_cast<size_t>(first_block + b) * kBlock;
        args.y = to.data + b * to.block + at;
        state.network->kernels.depthwise(args);
    }
    if (limits) return;
    const Timed timed(state, Share::finish);
    for (int r = 0; r < rows; r++) {
        FinishArgs finish{};
        finish.y = finish.x = to.data + r * to.row + at;
        finish.y_block = finish.x_block = to.block;
        finish.width = run.end - run.begin;
        finish.blocks = blocks;
        finish.activation = epilogue.activation;
        finish.low = epilogue.low;
        finish.high = epilogue.high;
        finish.finite = finite;
        state.network->kernels.finish(finish);
    }
}

void DepthwiseConvolution::run_rows(State& state, int frame, int begin, int end,
                                    const Changes& changes) const {
    const Tensor& out = state.network->tensors[tensor];
    for (int first = 0; first < out.blocks(); first += kStageBlocks) {
        const int blocks = std::min(kStageBlocks, out.blocks() - first);
        const RowsTarget to =
            rows_target(state, tensor, frame, first, blocks, begin, end - begin);
        compute(state, frame, first, blocks, begin, end - begin, {0, out.width}, to);
        for (int row = begin; row < end; row++)
            state.emit(tensor, frame, first, blocks, row, to.data + (row - begin) * to.row, to.block,
                       changes.sent(row));
    }
}

void DepthwiseConvolution::run(State& state, int begin, int end) const {
    const Tensor& out = state.network->tensors[tensor];
    const int strip =
        std::max(kStripRows, static_cast<int>(kUnkeptBytes / (4 * out.width * kBlock * kStageBlocks)));
    Changes changes;
    for (int frame = begin; frame < end; frame++) {
        look(state, frame, changes);
        if (state.deltas[delta].everywhere) {
            for (int row = 0; row < out.height; row += strip)
                run_rows(state, frame, row, std::min(out.height, row + strip), changes);
            continue;
        }
        for (int first = 0; first < out.blocks(); first += kStageBlocks) {
            const int blocks = std::min(kStageBlocks, out.blocks() - first);
            for (int row = 0; row < out.height; row++) {
                const RowTarget to = row_target(state, tensor, frame, first, blocks, row);
                for (const Run& run : changes.made(row))
                    compute(state, frame, first, blocks, row, 1, run, {to.data, 0, to.block});
                state.emit(tensor, frame, first, blocks, row, to.data, to.block,
                           changes.sent(row));
            }
        }
    }
}

}  // namespace rrm
