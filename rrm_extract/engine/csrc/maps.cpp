// Everything that is not linear, a row of blocks at a time.
#include <algorithm>
#include <cstring>

#include "operations.hpp"

namespace rrm {

namespace {

constexpr int kRowBlocks = 8;

// Calls `compute(frame, first_block, blocks, row, runs, target)` for every row, then sends it on.
// `find(frame, mask)` fills in where the result may have changed, or returns false for
// everywhere.
template <class Find, class Compute>
void for_rows(State& state, int tensor, int begin, int end, Find find, Compute compute) {
    const Tensor& out = state.network->tensors[tensor];
    const size_t pixels = static_cast<size_t>(out.height) * out.width;
    std::vector<uint8_t> mask;
    Changes told;
    for (int frame = begin; frame < end; frame++) {
        mask.assign(pixels, 0);
        const bool some = find(frame, mask);
        told.set(state, tensor, frame, some ? &mask : nullptr);
        for (int first = 0; first < out.blocks(); first += kRowBlocks) {
            const int blocks = std::min(kRowBlocks, out.blocks() - first);
            for (int row = 0; row < out.height; row++) {
                const RowTarget to = row_target(state, tensor, frame, first, blocks, row);
                compute(frame, first, blocks, row, told.made(row), to);
                state.emit(tensor, frame, first, blocks, row, to.data, to.block,
                           told.sent(row));
            }
        }
    }
}

const auto kEverywhere = [](int, std::vector<uint8_t>&) { return false; };

// Where any of some tensors of the same size may have changed.
bool changes_of_any(const State& state, const std::vector<int>& tensors, int frame,
                    std::vector<uint8_t>& mask) {
    for (const int tensor : tensors) {
        const uint8_t* changed = state.changed(tensor, frame);
        if (changed == nullptr) return false;
        for (size_t i = 0; i < mask.size(); i++) mask[i] |= changed[i];
    }
    return true;
}

}  // namespace

void Changes::set(State& state, int tensor, int frame, const std::vector<uint8_t>* mask,
                  bool all) {
    const Tensor& plan = state.network->tensors[tensor];
    const int rows = plan.height, columns = plan.width;
    whole_ = {{0, columns}};
    all_changed_ = mask == nullptr;
    look_at_all_ = all_changed_ || state.looks_at_all(frame);
    make_all_ = all || look_at_all_ || state.needs_all(tensor, frame);
    if (uint8_t* told = state.changes_of(tensor, frame)) {
        const size_t pixels = static_cast<size_t>(rows) * columns;
        if (mask == nullptr)
            std::fill(told, told + pixels, 1);
        else
            std::copy(mask->begin(), mask->end(), told);
    }
    if (all_changed_) return;
    constexpr int kGap = 4;  // pixels that cost less than another run
    runs_.resize(rows);
    const uint8_t* line = mask->data();
    for (int row = 0; row < rows; row++, line += columns) {
        std::vector<Run>& list = runs_[row];
        list.clear();
        for (int column = 0; column < columns; column++) {
            if (line[column] == 0) continue;
            if (!list.empty() && column - list.back().end <= kGap)
                list.back().end = column + 1;
            else
                list.push_back({column, column + 1});
        }
    }
}

void spread(const uint8_t* in, int in_rows, int in_columns, const Geometry& g, uint8_t* out,
            int rows, int columns) {
    std::vector<uint8_t> line(in_columns);
    for (int row = 0; row < rows; row++, out += columns) {
        std::fill(line.begin(), line.end(), 0);
        bool any = false;
        for (int r = 0; r < g.kernel_rows; r++) {
            const int from = row * g.row_stride - g.row_padding + r * g.row_dilation;
            if (from < 0 || from >= in_rows) continue;
            const uint8_t* seen = in + static_cast<size_t>(from) * in_columns;
            for (int column = 0; column < in_columns; column++) line[column] |= seen[column];
            any = true;
        }
        if (!any) continue;
        for (int c = 0; c < g.kernel_columns; c++) {
            const int offset = c * g.column_dilation - g.column_padding;
            const int stride = g.column_stride;
            const int begin = offset < 0 ? (-offset + stride - 1) / stride : 0;
            const int end =
                in_columns <= offset ? 0 : std::min(columns, (in_columns - 1 - offset) / stride + 1);
            const uint8_t* from = line.data() + offset;
            for (int column = begin; column < end; column++) out[column] |= from[column * stride];
        }
    }
}

namespace {

// Where the tensor is kept, or a reader takes it as it is; data is null where neither is so.
RowsTarget lasting_rows(State& state, int tensor, int frame, int block, int row) {
    const Tensor& plan = state.network->tensors[tensor];
    const ptrdiff_t floats = static_cast<ptrdiff_t>(plan.width) * kBlock;
    if (plan.stored && plan.planes.empty() && !state.is_rounded(tensor, frame))
        return {state.plane(tensor, block, frame) + row * floats, floats,
                static_cast<ptrdiff_t>(plan.plane())};
    RowsTarget to{};
    to.data = state.place(tensor, frame, block, row, &to.row, &to.block);
    return to;
}

}  // namespace

RowTarget row_target(State& state, int tensor, int frame, int block, int blocks, int row) {
    const RowsTarget to = lasting_rows(state, tensor, frame, block, row);
    if (to.data != nullptr) return {to.data, to.block};
    const ptrdiff_t floats = static_cast<ptrdiff_t>(state.network->tensors[tensor].width) * kBlock;
    return {state.row_scratch(static_cast<size_t>(floats * blocks)), floats};
}

RowsTarget rows_target(State& state, int tensor, int frame, int block, int blocks, int row,
                       int rows) {
    const RowsTarget to = lasting_rows(state, tensor, frame, block, row);
    if (to.data != nullptr) return to;
    const ptrdiff_t floats = static_cast<ptrdiff_t>(state.network->tensors[tensor].width) * kBlock;
    return {state.strip_scratch(static_cast<size_t>(rows * floats * blocks)), floats, rows * floats};
}

void note_changes(State& state, const LayerMaps& layer, int frame, std::vector<uint8_t>& mask,
                  Changes& changes) {
    const Tensor& out = state.network->tensors[layer.tensor];
    const Delta& plan = state.network->deltas[layer.delta];
    const int64_t pixels = static_cast<int64_t>(out.height) * out.width;
    const uint8_t* const hits = state.some_hits(layer.delta, frame);
    const uint8_t* const residual =
        layer.residual < 0 ? nullptr : state.changed(layer.residual, frame);
    const bool some = hits != nullptr && (layer.residual < 0 || residual != nullptr);
    if (some) {
        const Timed timed(state, Share::lists);
        mask.assign(static_cast<size_t>(pixels), 0);
        spread(hits, plan.height, plan.width, layer.window, mask.data(), out.height, out.width);
        if (residual != nullptr)
            for (size_t i = 0; i < mask.size(); i++) mask[i] |= residual[i];
    }
    const bool all = state.computes_all(layer.delta, frame);
    changes.set(state, layer.tensor, frame, some ? &mask : nullptr, all);
    state.reach(layer.delta, frame, pixels, some ? &mask : nullptr);
    if (!some || all) mask.clear();
}

void Input::run(State& state, int begin, int end) const {
    const Network::Input size = state.network->inputs[number];
    const Array& input = state.inputs[number];
    const size_t row_numbers = static_cast<size_t>(size.width) * size.channels;
    std::vector<float> pixels(row_numbers);
    for (const int delta : column_deltas)
        for (int frame = begin; frame < end; frame++)
            for (int row = 0; row < size.height; row++) {
                const float* from = input.data + frame * input.frame + row * input.row;
                float* const place = state.input_place(delta, frame, row);
                float* const to = place == nullptr ? pixels.data() : place;
                if (input.channel == 1 && input.column == size.channels) {
                    state.emit_input(delta, frame, row, from);  // in this order already
                    continue;
                }
                if (size.channels == 3 && input.column == 1) {
                    const float *r = from, *g = r + input.channel, *b = g + input.channel;
                    for (int column = 0; column < size.width; column++) {
                        to[3 * column] = r[column];
                        to[3 * column + 1] = g[column];
                        to[3 * column + 2] = b[column];
                    }
                } else {
                    for (int column = 0; column < size.width; column++)
                        for (int channel = 0; channel < size.channels; channel++)
                            to[static_cast<size_t>(column) * size.channels + channel] =
                                from[column * input.column + channel * input.channel];
                }
                state.emit_input(delta, frame, row, to);
            }
    if (tensor < 0) return;
    for_rows(state, tensor, begin, end, kEverywhere,
             [&](int frame, int first, int blocks, int row, const std::vector<Run>&,
                 const RowTarget& to) {
                 const float* line = input.data + frame * input.frame + row * input.row;
                 for (int block = 0; block < blocks; block++)
                     for (int lane = 0; lane < kBlock; lane++) {
                         const int channel = (first + block) * kBlock + lane;
                         float* out = to.data + block * to.block + lane;
                         for (int column = 0; column < size.width; column++)
                             out[column * kBlock] =
                                 channel < size.channels
                                     ? line[channel * input.channel + column * input.column]
                                     : 0.0f;
                     }
             });
}

void Pool::run(State& state, int begin, int end) const {
    const Network& network = *state.network;
    const Tensor& in = network.tensors[source];
    const Tensor& out = network.tensors[tensor];
    std::vector<float> factors(out.width);
    std::vector<const float*> lines(geometry.kernel_rows);
    const auto changes = [&](int frame, std::vector<uint8_t>& mask) {
        const uint8_t* changed = state.changed(source, frame);
        if (changed == nullptr) return false;
        spread(changed, in.height, in.width, geometry, mask.data(), out.height, out.width);
        return true;
    };
    for_rows(state, tensor, begin, end, changes,
             [&](int frame, int first, int blocks, int row, const std::vector<Run>& runs,
                 const RowTarget& to) {
                 if (runs.empty()) return;
                 const int top = row * geometry.row_stride - geometry.row_padding;
                 const int step = geometry.row_dilation;
                 int from = top, count = 0;
                 while (from < 0) from += step;
                 for (int r = from; r < in.height && r <= top + (geometry.kernel_rows - 1) * step;
                      r += step)
                     count++;
                 if (!maximum)
                     for (int column = 0; column < out.width; column++) {
                         const int left = column * geometry.column_stride - geometry.column_padding;
                         const int right = left + geometry.kernel_columns;
                         const int bottom = top + geometry.kernel_rows;
                         // Padding counts, but not what a rounded-up size adds beyond it.
                         const int rows = count_padding
                                              ? std::min(bottom, in.height + geometry.row_behind) - top
                                              : std::min(bottom, in.height) - std::max(top, 0);
                         const int columns =
                             count_padding
                                 ? std::min(right, in.width + geometry.column_behind) - left
                                 : std::min(right, in.width) - std::max(left, 0);
                         factors[column] = 1.0f / static_cast<float>(rows * columns);
                     }
                 for (int block = 0; block < blocks; block++) {
                     PoolArgs args{};
                     const float* const x = state.plane(source, first + block, frame);
                     for (int r = 0; r < count; r++)
                         lines[r] = x + static_cast<ptrdiff_t>(from + r * step) * in.width * kBlock;
                     args.lines = lines.data();
                     args.rows = count;
                     args.width = in.width;
                     args.kernel_columns = geometry.kernel_columns;
                     args.stride = geometry.column_stride;
                     args.padding = geometry.column_padding;
                     args.dilation = geometry.column_dilation;
                     args.maximum = maximum;
                     args.factors = factors.data();
                     args.y = to.data + block * to.block;
                     for (const Run& run : runs) {
                         args.column_begin = run.begin;
                         args.column_end = run.end;
                         network.kernels.pool(args);
                     }
                 }
             });
}

void GlobalAverage::run(State& state, int begin, int end) const {
    const Tensor& in = state.network->tensors[source];
    const size_t pixels = static_cast<size_t>(in.height) * in.width;
    for_rows(state, tensor, begin, end, kEverywhere,
             [&](int frame, int first, int blocks, int, const std::vector<Run>&,
                 const RowTarget& to) {
                 for (int block = 0; block < blocks; block++) {
                     const float* x = state.plane(source, first + block, frame);
                     // In parts: a long sum in one float loses digits.
                     float sum[kBlock] = {};
                     for (size_t at = 0; at < pixels; at += 64) {
                         float part[kBlock] = {};
                         const size_t end = std::min(pixels, at + 64);
                         for (size_t pixel = at; pixel < end; pixel++)
                             for (int lane = 0; lane < kBlock; lane++)
                                 part[lane] += x[pixel * kBlock + lane];
                         for (int lane = 0; lane < kBlock; lane++) sum[lane] += part[lane];
                     }
                     for (int lane = 0; lane < kBlock; lane++)
                         to.data[block * to.block + lane] = sum[lane] / static_cast<float>(pixels);
                 }
             });
}

void Pointwise::run(State& state, int begin, int end) const {
    const Network& network = *state.network;
    const Tensor& out = network.tensors[tensor];
    const size_t row_floats = static_cast<size_t>(out.width) * kBlock;
    const auto is_factor = [&](int source) {
        const Tensor& other = network.tensors[source];
        return other.height == 1 && other.width == 1 && out.height * out.width > 1;
    };
    const auto changes = [&](int frame, std::vector<uint8_t>& mask) {
        // A factor for the whole map changes all of it.
        for (const int source : inputs)
            if (is_factor(source)) return false;
        return changes_of_any(state, inputs, frame, mask);
    };
    for_rows(
        state, tensor, begin, end, changes,
        [&](int frame, int first, int blocks, int row, const std::vector<Run>& runs,
            const RowTarget& to) {
            for (int block = 0; block < blocks; block++)
                for (const Run& run : runs) {
                    const size_t from = static_cast<size_t>(run.begin) * kBlock;
                    const size_t floats = static_cast<size_t>(run.end - run.begin) * kBlock;
                    const size_t at = row * row_floats + from;
                    float* x = to.data + block * to.block + from;
                    std::memcpy(x, state.plane(inputs[0], first + block, frame) + at, 4 * floats);
                    for (size_t s = 1; s < inputs.size(); s++) {
                        const float* y = state.plane(inputs[s], first + block, frame);
                        if (is_factor(inputs[s])) {
                            for (size_t i = 0; i < floats; i += kBlock)
                                for (int lane = 0; lane < kBlock; lane++)
                                    x[i + lane] =
                                        multiply ? x[i + lane] * y[lane] : x[i + lane] + y[lane];
                        } else {
                            y += at;
                            for (size_t i = 0; i < floats; i++)
                                x[i] = multiply ? x[i] * y[i] : x[i] + y[i];
                        }
                    }
                    const size_t channel = static_cast<size_t>(first + block) * kBlock;
                    network.kernels.map({x, scale.empty() ? nullptr : scale.data() + channel,
                                         shift.empty() ? nullptr : shift.data() + channel,
                                         floats / kBlock, activation, low, high});
                }
        });
}

void Gather::run(State& state, int begin, int end) const {
    const Tensor& out = state.network->tensors[tensor];
    const size_t floats = static_cast<size_t>(out.width) * kBlock;
    for_rows(state, tensor, begin, end, kEverywhere,
             [&](int frame, int first, int blocks, int row, const std::vector<Run>&,
                 const RowTarget& to) {
                 for (int block = 0; block < blocks; block++)
                     for (int lane = 0; lane < kBlock; lane++) {
                         const size_t channel = static_cast<size_t>(first + block) * kBlock + lane;
                         float* x = to.data + block * to.block + lane;
                         if (channel >= channels.size()) {
                             for (int column = 0; column < out.width; column++)
                                 x[column * kBlock] = 0.0f;
                             continue;
                         }
                         const Channel from = channels[channel];
                         const float* y = state.plane(from.tensor, from.channel / kBlock, frame) +
                                          row * floats + from.channel % kBlock;
                         for (int column = 0; column < out.width; column++)
                             x[column * kBlock] = y[column * kBlock];
                     }
             });
}

}  // namespace rrm
