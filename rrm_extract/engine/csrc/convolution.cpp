#include <algorithm>

#include "convolution.hpp"

namespace rrm {

Convolution::Layout Convolution::layout(const State& state) const {
    const Tensor& out = state.network->tensors[tensor];
    Layout l{out.height, out.width, 0, 0, 0, 0};
    // Room for what falls beside the image.
    if (form == Form::window) l.margin_columns = 2 - geometry.column_padding;
    l.row = static_cast<ptrdiff_t>(l.columns + 2 * l.margin_columns) * kBlock;
    l.block = l.row * l.rows;
    l.origin = static_cast<ptrdiff_t>(l.margin_columns) * kBlock;
    return l;
}

void Convolution::prepare(State& state) const {
    const Layout l = layout(state);
    const int blocks = state.network->tensors[tensor].blocks();
    state.operations[index].accumulators = Buffer<float>(static_cast<size_t>(l.block) * blocks, true);
}

Convolution::Sums Convolution::accumulators(State& state, const Layout& l, const Stage& stage,
                                            int row) const {
    return {state.operations[index].accumulators.data() + l.origin + stage.first_block * l.block +
                row * l.row,
            l.row, l.block};
}

// The response of one stage to the deltas of all frames that are lists; weights stay close while
// the frames pass. The rows are those of the output.
void Convolution::add_stage(State& state, const Layout& l, const Stage& stage, int row_begin,
                            int row_end, int begin, int end, float* const* y) const {
    const Kernels& kernels = state.network->kernels;
    const Arithmetic arithmetic = state.network->arithmetic;
    const DeltaState& source = state.deltas[delta];
    const Delta& plan = state.network->deltas[delta];
    const int group_units = plan.group_blocks * state.network->block_units();
    // Input row i of a window reaches the output rows i - margin to i - margin + 2.
    const int margin = form == Form::window ? 2 - geometry.row_padding : 0;
    for (size_t s = stage.first_set; s < stage.last_set; s++) {
        const WeightSet& set = sets[s];
        const int units = set.unit_end - set.unit_begin;
        const uint32_t* base = weights + set.offset;
        const ptrdiff_t at = (set.first_block - stage.first_block) * l.block;
        for (int unit = 0; unit < units; unit += group_units) {
            const int group = (set.unit_begin + unit) / group_units;
            if (form == Form::window) {
                const uint32_t* tile = base + static_cast<size_t>(unit) * 9 * kBlock;
                for (int frame = begin; frame < end; frame++)
                    if (y[frame - begin] != nullptr)
                        kernels.window({&source.list(frame), group, row_begin + margin,
                                        row_end + margin, tile,
                                        y[frame - begin] + at - margin * l.row -
                                            l.margin_columns * kBlock,
                                        l.row},
                                       arithmetic);
                continue;
            }
            for (int r = 0; r < geometry.kernel_rows; r++) {
                const int row_offset = r * geometry.row_dilation - geometry.row_padding;
                for (int c = 0; c < geometry.kernel_columns; c++) {
                    const int column_offset =
                        c * geometry.column_dilation - geometry.column_padding;
                    const int tap = r * geometry.kernel_columns + c;
                    TapArgs args{};
                    args.group = group;
                    args.blocks = set.blocks;
                    args.weights = base + (static_cast<size_t>(tap) * units + unit) *
                                              (static_cast<size_t>(set.blocks) * kBlock);
                    args.y_row = l.row;
                    args.y_block = l.block;
                    const auto range = [](int offset, int stride, int size, int count, int* first,
                                          int* last) {
                        *first = offset < 0 ? (-offset + stride - 1) / stride : 0;
                        *last = size <= offset ? 0 : std::min(count, (size - 1 - offset) / stride + 1);
                        *last = std::max(*first, *last);
                    };
                    range(row_offset, geometry.row_stride, plan.height, l.rows, &args.row_begin,
                          &args.row_end);
                    args.row_begin = std::max(args.row_begin, row_begin);
                    args.row_end = std::min(args.row_end, row_end);
                    range(column_offset, geometry.column_stride, plan.width, l.columns,
                          &args.column_begin, &args.column_end);
                    args.row_stride = geometry.row_stride;
                    args.row_offset = row_offset;
                    args.column_stride = geometry.column_stride;
                    args.column_offset = column_offset;
                    for (int frame = begin; frame < end; frame++)
                        if (y[frame - begin] != nullptr) {
                            args.list = &source.list(frame);
                            args.y = y[frame - begin] + at;
                            kernels.tap(args, arithmetic);
                        }
                }
            }
        }
    }
}

// Of the outputs from row `row_begin` of block `block` on, which lies in the stage.
LayerEnd Convolution::layer_end(State& state, const Stage& stage, int block, int row_begin, int frame,
                                Trace& trace, const RoundedRows* rounded) const {
    LayerEnd end{};
    end.low = epilogue.lowest();
    end.high = epilogue.highest();
    end.trace = trace.numbers();
    if (rounded != nullptr) {
        end.to = rounded->data + (block - stage.first_block) * rounded->block;
        end.to_row = rounded->row;
        end.to_block = rounded->block;
    }
    if (epilogue.residual < 0) return end;
    const ResidualMap map = state.residual(epilogue.residual, block, frame);
    const ptrdiff_t row = row_begin * map.row;
    end.residual_row = map.row;
    end.residual_block = map.block;
    if (map.floats != nullptr) end.residual = map.floats + row;
    if (map.rounded != nullptr) end.rounded = map.rounded + row;
    return end;
}

void Convolution::compute_dense(State& state, const Layout& l, const Stage& stage, int row_begin,
                                int row_end, int frame, const Sums& sums, Trace* trace,
                                const RoundedRows* rounded) const {
    const int unit_block = state.network->block_units();
    const ptrdiff_t x_row = state.whole_row(delta), x_block = state.whole_block(delta);
    const uint32_t* x = state.whole(delta, frame) +
                        (row_begin * geometry.row_stride - geometry.row_padding) * x_row -
                        geometry.column_padding * unit_block;
    std::vector<int32_t> offsets(geometry.taps());
    for (int r = 0; r < geometry.kernel_rows; r++)
        for (int c = 0; c < geometry.kernel_columns; c++) {
            // The window's weights are turned and go column by column.
            const int tap = form == Form::window ? (2 - c) * 3 + (2 - r)
                                                 : r * geometry.kernel_columns + c;
            offsets[tap] = static_cast<int32_t>(r * geometry.row_dilation * x_row +
                                                c * geometry.column_dilation * unit_block);
        }
    DenseArgs args{};
    args.x_block = x_block;
    args.x_row = x_row * geometry.row_stride;
    args.x_step = unit_block * geometry.column_stride;
    args.block_units = unit_block;
    args.taps = geometry.taps();
    args.tap_offsets = offsets.data();
    args.y_row = sums.row;
    args.y_column = kBlock;
    args.rows = row_end - row_begin;
    args.columns = l.columns;
    LayerEnd end{};
    if (trace != nullptr) args.end = &end;
    for (size_t s = stage.first_set; s < stage.last_set; s++) {
        const WeightSet& set = sets[s];
        const int units = set.unit_end - set.unit_begin;
        args.x = x + (set.unit_begin / unit_block) * x_block;
        args.units = set.units_of(state.network->deltas[delta], unit_block);
        if (form == Form::window) {
            args.unit_stride = 9 * kBlock;
            args.tap_stride = kBlock;
        } else {
            args.unit_stride = static_cast<ptrdiff_t>(set.blocks) * kBlock;
            args.tap_stride = args.unit_stride * units;
        }
        // Two blocks at a time; sets of a window have one block each.
        for (int block = 0; block < set.blocks;) {
            const auto take = [&](int slot, const WeightSet& from, int b) {
                args.weights[slot] = weights + from.offset + static_cast<size_t>(b) * kBlock;
                args.bias[slot] = bias + static_cast<size_t>(from.first_block + b) * kBlock;
                const int number = from.first_block + b;
                if (slot == 0 && trace != nullptr)
                    end = layer_end(state, stage, number, row_begin, frame, *trace, rounded);
                args.y[slot] = sums.data + (number - stage.first_block) * sums.block;
            };
            take(0, set, block);
            args.blocks = 1;
            if (block + 1 < set.blocks) {
                take(1, set, block + 1);
                args.blocks = 2;
            } else if (set.blocks == 1 && s + 1 < stage.last_set && sets[s + 1].blocks == 1 &&
                       sets[s + 1].first_block == set.first_block + 1 &&
                       sets[s + 1].unit_begin == set.unit_begin &&
                       sets[s + 1].unit_end == set.unit_end && form == Form::window) {
                take(1, sets[s + 1], 0);
                args.blocks = 2;
                s++;
            }
            const int last = set.first_block + block + args.blocks;
            args.padding = std::max(0, last * kBlock - state.network->tensors[tensor].channels);
            state.network->kernels.dense(args, state.network->arithmetic);
            block += args.blocks;
        }
    }
}

void Convolution::compute_finished(State& state, const Layout& l, const Stage& stage,
                                   int row_begin, int row_end, int frame,
                                   const Changes& changes) const {
    const FinishedRows rows = finished_rows(state, stage, row_begin, row_end, frame);
    {
        Trace trace(state.finite(delta, tensor, frame, &epilogue));
        compute_dense(state, l, stage, row_begin, row_end, frame, rows.to, &trace, rows.if_rounded());
    }
    send(state, stage, row_begin, row_end, frame, rows, changes);
}

// What may be written as bfloat16 is handed on by its place.
Convolution::FinishedRows Convolution::finished_rows(State& state, const Stage& stage, int row_begin,
                                                     int row_end, int frame) const {
    FinishedRows rows{};
    RoundedRows& rounded = rows.rounded;
    rounded.data = state.rounded_place(tensor, frame, stage.first_block, row_begin, &rounded.row,
                                       &rounded.block);
    rows.to = rounded.data != nullptr
                  ? RowsTarget{reinterpret_cast<float*>(rounded.data), rounded.row / 2, rounded.block / 2}
                  : rows_target(state, tensor, frame, stage.first_block, stage.blocks, row_begin,
                                row_end - row_begin);
    return rows;
}

void Convolution::send(State& state, const Stage& stage, int row_begin, int row_end, int frame,
                       const FinishedRows& rows, const Changes& changes) const {
    for (int row = row_begin; row < row_end; row++)
        state.emit(tensor, frame, stage.first_block, stage.blocks, row,
                   rows.to.data + (row - row_begin) * rows.to.row, rows.to.block, changes.sent(row));
}

void Convolution::compute_together(State& state, const Layout& l, const Stage& stage, int begin,
                                   int end, float* y, ptrdiff_t frame_stride) const {
    const int unit_block = state.network->block_units();
    const ptrdiff_t x_row = state.whole_row(delta), x_block = state.whole_block(delta);
    const uint32_t* const x = state.whole(delta, begin);
    const int32_t no_offset = 0;
    DenseArgs args{};
    args.x_block = x_block;
    args.x_step = end - begin > 1 ? static_cast<int>(state.whole(delta, begin + 1) - x) : 0;
    args.block_units = unit_block;
    args.taps = 1;
    args.tap_offsets = &no_offset;
    args.y_column = frame_stride;
    args.rows = 1;
    args.columns = end - begin;
    for (size_t s = stage.first_set; s < stage.last_set; s++) {
        const WeightSet& set = sets[s];
        const int units = set.unit_end - set.unit_begin;
        args.units = set.units_of(state.network->deltas[delta], unit_block);
        args.unit_stride = static_cast<ptrdiff_t>(set.blocks) * kBlock;
        // The next tap's weights come from memory meanwhile; of a single tap, those of later units.
        args.ahead = args.unit_stride * (geometry.taps() > 1 ? units : std::min(units, kUnitsAhead));
        bool first = true;
        for (int tap = 0; tap < geometry.taps(); tap++) {
            const int row = tap / geometry.kernel_columns * geometry.row_dilation -
                            geometry.row_padding;
            const int column = tap % geometry.kernel_columns * geometry.column_dilation -
                               geometry.column_padding;
            const Delta& plan = state.network->deltas[delta];
            if (row < 0 || row >= plan.height || column < 0 || column >= plan.width) continue;
            args.x = x + (set.unit_begin / unit_block) * x_block + row * x_row + column * unit_block;
            const uint32_t* const tap_weights =
                weights + set.offset + args.unit_stride * units * static_cast<ptrdiff_t>(tap);
            for (int block = 0; block < set.blocks; block += args.blocks) {
                args.blocks = std::min(2, set.blocks - block);
                for (int b = 0; b < args.blocks; b++) {
                    const int number = set.first_block + block + b;
                    args.weights[b] = tap_weights + static_cast<size_t>(block + b) * kBlock;
                    args.bias[b] = first ? bias + static_cast<size_t>(number) * kBlock : nullptr;
                    args.y[b] = y + (number - stage.first_block) * l.block;
                }
                state.network->kernels.dense(args, state.network->arithmetic);
            }
            first = false;
        }
        if (!first) continue;
        // No tap meets the input: the output sees nothing but padding.
        for (int frame = 0; frame < end - begin; frame++)
            for (int block = 0; block < set.blocks; block++) {
                const int number = set.first_block + block;
                std::copy_n(bias + static_cast<size_t>(number) * kBlock, kBlock,
                            y + (number - stage.first_block) * l.block + frame * frame_stride);
            }
    }
}

void Convolution::finish(State& state, const Layout& l, const Stage& stage, int frame,
                         int row_begin, int row_end, const Changes& changes, const Sums& sums,
                         float* change) const {
    const Timed timed(state, Share::finish);
    const Network& network = *state.network;
    FinishArgs args{};
    args.y_block = sums.block;
    args.delta_block = l.block;
    args.replace = state.deltas[delta].dense[frame] != 0;
    args.blocks = stage.blocks;
    args.activation = epilogue.activation;
    args.low = epilogue.low;
    args.high = epilogue.high;
    args.next_row = static_cast<ptrdiff_t>(l.columns) * kBlock;
    args.finite = state.finite(delta, tensor, frame, &epilogue);
    ResidualMap residual;
    if (epilogue.residual >= 0)
        residual = state.residual(epilogue.residual, stage.first_block, frame);
    args.residual_block = residual.block;
    for (int row = row_begin; row < row_end; row++) {
        const RowTarget to = row_target(state, tensor, frame, stage.first_block, stage.blocks, row);
        args.x_block = to.block;
        for (const Run& run : changes.made(row)) {
            const ptrdiff_t at = static_cast<ptrdiff_t>(run.begin) * kBlock;
            args.y = sums.data + (row - row_begin) * sums.row + at;
            args.delta = change == nullptr ? nullptr : change + row * l.row + at;
            const ptrdiff_t place = row * residual.row + at;
            if (residual.floats != nullptr) args.residual = residual.floats + place;
            if (residual.rounded != nullptr) args.rounded = residual.rounded + place;
            args.x = to.data + at;
            args.width = run.end - run.begin;
            network.kernels.finish(args);
        }
        state.emit(tensor, frame, stage.first_block, stage.blocks, row, to.data, to.block,
                   changes.sent(row));
        if (change == nullptr || !args.replace) continue;
        // Computed with the rest of the row, and wanted by nobody: the scratch is zero between layers.
        int begin = 0;
        const auto clear = [&](int end) {
            for (int block = 0; block < stage.blocks && begin < end; block++) {
                float* const left = change + block * l.block + row * l.row;
                std::fill(left + static_cast<ptrdiff_t>(begin) * kBlock,
                          left + static_cast<ptrdiff_t>(end) * kBlock, 0.0f);
            }
        };
        for (const Run& run : changes.made(row)) {
            clear(run.begin);
            begin = run.end;
        }
        clear(l.columns);
    }
    if (change == nullptr || l.margin_columns == 0) return;
    // What fell beside the image must not pile up.
    const size_t side = static_cast<size_t>(l.margin_columns) * kBlock;
    for (int block = 0; block < stage.blocks; block++)
        for (int row = row_begin; row < row_end; row++) {
            float* first = change + block * l.block + row * l.row;
            std::fill(first - side, first, 0.0f);
            std::fill(first + l.columns * kBlock, first + l.columns * kBlock + side, 0.0f);
        }
}

std::vector<Convolution::Stage> Convolution::stages(const State& state) const {
    const int blocks = state.network->tensors[tensor].blocks();
    std::vector<Stage> stages;
    for (int first = 0; first < blocks; first += kStageBlocks) {
        const size_t set = stages.empty() ? 0 : stages.back().last_set;
        Stage stage{first, std::min(kStageBlocks, blocks - first), set, set};
        while (stage.last_set < sets.size() &&
               sets[stage.last_set].first_block < first + stage.blocks)
            stage.last_set++;
        stages.push_back(stage);
    }
    return stages;
}

size_t Convolution::weight_bytes() const {
    size_t elements = 0;
    for (const WeightSet& set : sets)
        elements += static_cast<size_t>(set.unit_end - set.unit_begin) * set.blocks * kBlock;
    return sizeof(uint32_t) * elements * geometry.taps();
}

void Convolution::look(State& state, int frame, Changes& changes) const {
    std::vector<uint8_t> mask;
    look(state, frame, mask, changes);
}

void Convolution::look(State& state, int frame, std::vector<uint8_t>& mask, Changes& changes) const {
    note_changes(state, {delta, tensor, geometry, epilogue.residual}, frame, mask, changes);
}

void Convolution::run_rows(State& state, int frame, int begin, int end,
                           const Changes& changes) const {
    const Layout l = layout(state);
    for (const Stage& stage : stages(state))
        compute_finished(state, l, stage, begin, end, frame, changes);
}

void Convolution::run(State& state, int begin, int end) const {
    const Layout l = layout(state);
    const std::vector<uint8_t>& dense = state.deltas[delta].dense;
    std::vector<Changes> changes(end - begin);
    std::vector<std::vector<uint8_t>> masks(end - begin);
    for (int frame = begin; frame < end; frame++)
        look(state, frame, masks[frame - begin], changes[frame - begin]);
    const std::vector<Stage> stages = this->stages(state);
    for (int from = begin, to = begin; from < end; from = to) {
        const auto by_winograd = [&](int frame) { return tile_outputs > 0 && dense[frame] != 0; };
        for (to = from + 1; to < end && by_winograd(to) == by_winograd(from);) to++;
        if (by_winograd(from))
            run_winograd(state, l, stages, from, to, changes, masks, begin);
        else
            for (const Stage& stage : stages) run_stage(state, l, stage, from, to, changes, begin);
    }
}

void Convolution::run_stage(State& state, const Layout& l, const Stage& stage, int begin, int end,
                            const std::vector<Changes>& changes, int first) const {
    const std::vector<uint8_t>& dense = state.deltas[delta].dense;
    // The same way for any number of frames, so that results do not depend on it.
    const bool together = form == Form::taps && l.rows * l.columns == 1 && frames > 1;
    const bool kept = !state.deltas[delta].everywhere || together;
    if (!together && (!kept || cached || frames == 1)) {
        // Some rows at a time, through all frames: their accumulators and snapshots stay in
        // the second-level cache. Weights that would not stay there pass only once.
        const ptrdiff_t row_bytes = 4 * l.row * stage.blocks;
        const ptrdiff_t bytes = kept ? kStripBytes : kUnkeptBytes;
        const int fit = std::max(kStripRows, static_cast<int>(bytes / row_bytes));
        const int strips = cached ? (l.rows + fit - 1) / fit : 1;
        const int strip = (l.rows + strips - 1) / strips;
        for (int row = 0; row < l.rows; row += strip) {
            const int last = std::min(l.rows, row + strip);
            float* const target = accumulators(state, l, stage, 0).data;
            for (int frame = begin; frame < end; frame++) {
                if (!kept && epilogue.limits()) {
                    compute_finished(state, l, stage, row, last, frame, changes[frame - first]);
                    continue;
                }
                const Sums sums = kept ? accumulators(state, l, stage, row)
                                       : rows_target(state, tensor, frame, stage.first_block,
                                                     stage.blocks, row, last - row);
                if (dense[frame] != 0)
                    compute_dense(state, l, stage, row, last, frame, sums, nullptr);
                else
                    add_stage(state, l, stage, row, last, frame, frame + 1, &target);
                finish(state, l, stage, frame, row, last, changes[frame - first], sums, nullptr);
            }
        }
        return;
    }
    const ptrdiff_t frame_stride = l.block * kStageBlocks;
    float* const scratch = state.batch_scratch(static_cast<size_t>(frame_stride) * (end - begin));
    std::vector<float*> y(end - begin);
    for (int frame = begin; frame < end; frame++) {
        float* const target = scratch + (frame - begin) * frame_stride + l.origin;
        y[frame - begin] = dense[frame] != 0 ? nullptr : target;
        if (dense[frame] != 0 && !together)
            compute_dense(state, l, stage, 0, l.rows, frame, {target, l.row, l.block}, nullptr);
    }
    // A frame whose input is the one before's has its sums already.
    const auto anew = [&](int frame) {
        return dense[frame] != 0 && !changes[frame - first].made(0).empty();
    };
    for (int from = begin, to = begin; together && from < end; from = to) {
        to = from + 1;
        if (!anew(from)) continue;
        while (to < end && anew(to)) to++;
        compute_together(state, l, stage, from, to,
                         scratch + (from - begin) * frame_stride + l.origin, frame_stride);
    }
    add_stage(state, l, stage, 0, l.rows, begin, end, y.data());
    for (int frame = begin; frame < end; frame++)
        finish(state, l, stage, frame, 0, l.rows, changes[frame - first],
               accumulators(state, l, stage, 0), scratch + (frame - begin) * frame_stride + l.origin);
}

}  // namespace rrm
