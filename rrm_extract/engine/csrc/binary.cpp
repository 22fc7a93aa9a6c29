// Layers whose inputs and weights are signs. Their sums are whole numbers, so a frame may be computed
// in full or from what flips, whichever is less work, with the same result to the bit.
#include <algorithm>
#include <bit>
#include <utility>

#include "operations.hpp"

namespace rrm {

// The signs of a frame that flip, pixel after pixel: where their rows of weights begin for tap 0.
struct BinaryConvolution::FlipLists {
    std::vector<uint32_t> ups, downs;
    std::vector<uint32_t> up_starts, down_starts;  // [pixels + 1]
    std::vector<uint32_t> seen_ups, seen_downs;    // under one output's window

    void fill(const uint16_t* now, const uint16_t* before, const uint8_t* hits, size_t pixels,
              int halves, uint32_t row_bytes);
};

namespace {

constexpr int kStage = 8;  // blocks of outputs that are handed on together

// The first and the end of a kernel's taps in one direction that see the input.
std::pair<int, int> seen_taps(int output, int taps, int stride, int padding, int dilation, int size) {
    const int from = output * stride - padding;
    int first = 0, last = taps;
    while (first < taps && from + first * dilation < 0) first++;
    while (last > first && from + (last - 1) * dilation >= size) last--;
    return {first, last};
}

}  // namespace

void BinaryConvolution::FlipLists::fill(const uint16_t* now, const uint16_t* before,
                                        const uint8_t* hits, size_t pixels, int halves,
                                        uint32_t row_bytes) {
    ups.clear();
    downs.clear();
    up_starts.assign(pixels + 1, 0);
    down_starts.assign(pixels + 1, 0);
    for (size_t pixel = 0; pixel < pixels; pixel++, now += halves, before += halves) {
        up_starts[pixel] = static_cast<uint32_t>(ups.size());
        down_starts[pixel] = static_cast<uint32_t>(downs.size());
        if (hits[pixel] == 0) continue;
        for (int half = 0; half < halves; half++) {
            const auto list = [&](unsigned bits, std::vector<uint32_t>& to) {
                for (; bits != 0; bits &= bits - 1)
                    to.push_back(static_cast<uint32_t>(half * kBlock + std::countr_zero(bits)) *
                                 row_bytes);
            };
            list(before[half] & ~now[half], ups);
            list(now[half] & ~before[half], downs);
        }
    }
    up_starts[pixels] = static_cast<uint32_t>(ups.size());
    down_starts[pixels] = static_cast<uint32_t>(downs.size());
}

void BinaryConvolution::prepare(State& state) const {
    const Tensor& out = state.network->tensors[tensor];
    state.operations[index].sums =
        Buffer<int16_t>(static_cast<size_t>(out.height) * out.width * sum_outputs(out), true);
}

int BinaryConvolution::sum_outputs(const Tensor& out) {
    return (out.channels + kSumOutputs - 1) / kSumOutputs * kSumOutputs;
}

std::pair<int, int> BinaryConvolution::row_taps(const State& state, int row) const {
    return seen_taps(row, geometry.kernel_rows, geometry.row_stride, geometry.row_padding,
                     geometry.row_dilation, state.network->deltas[delta].height);
}

std::pair<int, int> BinaryConvolution::column_taps(const State& state, int column) const {
    return seen_taps(column, geometry.kernel_columns, geometry.column_stride,
                     geometry.column_padding, geometry.column_dilation,
                     state.network->deltas[delta].width);
}

// The sums of some outputs of a row in full. Zeros around the map have no sign: taps that see them
// are left out.
void BinaryConvolution::compute(State& state, int frame, int row, const Run& run) const {
    const Delta& plan = state.network->deltas[delta];
    const Tensor& out = state.network->tensors[tensor];
    const int words = plan.words();
    const auto rows = row_taps(state, row);
    const uint64_t* const bits = state.bits(delta, frame);
    std::vector<int32_t> offsets, numbers;
    XnorArgs args{};
    args.x_step = geometry.column_stride * words;
    args.words = words;
    args.weights = weights;
    args.block = static_cast<ptrdiff_t>(geometry.taps()) * words * kBlock;
    args.blocks = out.blocks();
    args.pixel = sum_outputs(out);
    for (int column = run.begin; column < run.end; column += args.columns) {
        const auto columns = column_taps(state, column);
        args.columns = 1;
        while (column + args.columns < run.end && column_taps(state, column + args.columns) == columns)
            args.columns++;
        const int first_row = row * geometry.row_stride - geometry.row_padding;
        const int first_column = column * geometry.column_stride - geometry.column_padding;
        // Nothing may be formed that points outside of the map: offsets are from its beginning.
        offsets.clear();
        numbers.clear();
        for (int r = rows.first; r < rows.second; r++)
            for (int c = columns.first; c < columns.second; c++) {
                const int y = first_row + r * geometry.row_dilation;
                const int x = first_column + c * geometry.column_dilation;
                offsets.push_back((y * plan.width + x) * words);
                numbers.push_back(r * geometry.kernel_columns + c);
            }
        args.x = bits;
        args.taps = static_cast<int>(offsets.size());
        args.x_offsets = offsets.data();
        args.tap_numbers = numbers.data();
        args.products = plan.channels * args.taps;
        args.sums = state.operations[index].sums.data() +
                    (static_cast<ptrdiff_t>(row) * out.width + column) * args.pixel;
        state.network->kernels.xnor(args);
    }
}

// The sums of one output from the signs that flip under its window.
void BinaryConvolution::update(State& state, FlipLists& lists, int row, int column) const {
    const Delta& plan = state.network->deltas[delta];
    const Tensor& out = state.network->tensors[tensor];
    const int outputs = sum_outputs(out);
    const auto rows = row_taps(state, row), columns = column_taps(state, column);
    std::vector<uint32_t>&ups = lists.seen_ups, &downs = lists.seen_downs;
    ups.clear();
    downs.clear();
    for (int r = rows.first; r < rows.second; r++)
        for (int c = columns.first; c < columns.second; c++) {
            const int y = row * geometry.row_stride - geometry.row_padding + r * geometry.row_dilation;
            const int x = column * geometry.column_stride - geometry.column_padding +
                          c * geometry.column_dilation;
            const size_t pixel = static_cast<size_t>(y) * plan.width + x;
            const uint32_t tap = static_cast<uint32_t>(r * geometry.kernel_columns + c) *
                                 static_cast<uint32_t>(plan.channels) * static_cast<uint32_t>(outputs);
            for (uint32_t i = lists.up_starts[pixel]; i < lists.up_starts[pixel + 1]; i++)
                ups.push_back(tap + lists.ups[i]);
            for (uint32_t i = lists.down_starts[pixel]; i < lists.down_starts[pixel + 1]; i++)
                downs.push_back(tap + lists.downs[i]);
        }
    state.network->kernels.flips(
        {rows_of_weights, ups.data(), downs.data(), static_cast<int>(ups.size()),
         static_cast<int>(downs.size()),
         state.operations[index].sums.data() + (static_cast<ptrdiff_t>(row) * out.width + column) * outputs,
         outputs});
}

void BinaryConvolution::finish(State& state, int frame, int first, int blocks, int row,
                               const Changes& changes) const {
    const Network& network = *state.network;
    const Tensor& out = network.tensors[tensor];
    const int outputs = sum_outputs(out);
    const RowTarget to = row_target(state, tensor, frame, first, blocks, row);
    FinishArgs args{};
    args.y_block = args.x_block = to.block;
    args.blocks = blocks;
    args.activation = epilogue.activation;
    args.low = epilogue.low;
    args.high = epilogue.high;
    args.finite = state.finite(delta, tensor, frame);
    const float* residual = nullptr;
    if (epilogue.residual >= 0) {
        residual = state.plane(epilogue.residual, first, frame);
        if (blocks > 1)
            args.residual_block = state.plane(epilogue.residual, first + 1, frame) - residual;
    }
    for (const Run& run : changes.made(row)) {
        const ptrdiff_t pixel = static_cast<ptrdiff_t>(row) * out.width + run.begin;
        float* const x = to.data + static_cast<ptrdiff_t>(run.begin) * kBlock;
        network.kernels.scale_sums({state.operations[index].sums.data() + pixel * outputs + first * kBlock,
                                    outputs, scale + first * kBlock, shift + first * kBlock, x, to.block,
                                    run.end - run.begin, blocks});
        if (residual == nullptr && epilogue.activation == Activation::none && args.finite == nullptr)
            continue;
        args.x = args.y = x;
        args.residual = residual == nullptr ? nullptr : residual + pixel * kBlock;
        args.width = run.end - run.begin;
        network.kernels.finish(args);
    }
    state.emit(tensor, frame, first, blocks, row, to.data, to.block, changes.sent(row));
}

void BinaryConvolution::run(State& state, int begin, int end) const {
    const Delta& plan = state.network->deltas[delta];
    const Tensor& out = state.network->tensors[tensor];
    const size_t pixels = static_cast<size_t>(plan.height) * plan.width;
    const double elements = static_cast<double>(pixels) * plan.channels;
    std::vector<uint8_t> reached, mask;
    FlipLists lists;
    Changes changes;
    for (int frame = begin; frame < end; frame++) {
        DeltaState& source = state.deltas[delta];
        const uint8_t* const hits = state.hits(delta, frame);
        // All flips of this frame are known by now.
        const double density = static_cast<double>(source.counts[frame].deltas) / elements;
        if (hits == nullptr || density > plan.break_even) source.dense[frame] = 1;
        reached.assign(static_cast<size_t>(out.height) * out.width, hits == nullptr);
        if (hits != nullptr)
            spread(hits, plan.height, plan.width, geometry, reached.data(), out.height, out.width);
        if (source.dense[frame] == 0)
            lists.fill(reinterpret_cast<const uint16_t*>(state.bits(delta, frame)),
                       reinterpret_cast<const uint16_t*>(state.bits(delta, frame - 1)), hits, pixels,
                       4 * plan.words(), static_cast<uint32_t>(sum_outputs(out)));
        for (int row = 0; row < out.height; row++) {
            const uint8_t* const line = reached.data() + static_cast<size_t>(row) * out.width;
            for (int column = 0, last = 0; column < out.width; column = last) {
                last = column + 1;
                if (line[column] == 0) continue;
                if (source.dense[frame] == 0) {
                    update(state, lists, row, column);
                    continue;
                }
                while (last < out.width && line[last] != 0) last++;
                compute(state, frame, row, {column, last});
            }
        }
        const uint8_t* const residual =
            epilogue.residual < 0 ? nullptr : state.changed(epilogue.residual, frame);
        const bool some = hits != nullptr && (epilogue.residual < 0 || residual != nullptr);
        mask = reached;
        if (residual != nullptr)
            for (size_t i = 0; i < mask.size(); i++) mask[i] |= residual[i];
        changes.set(state, tensor, frame, some ? &mask : nullptr);
        for (int first = 0; first < out.blocks(); first += kStage)
            for (int row = 0; row < out.height; row++)
                finish(state, frame, first, std::min(kStage, out.blocks() - first), row, changes);
    }
}

}  // namespace rrm
