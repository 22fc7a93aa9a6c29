// Layers whose inputs and weights are signs. Their sums are whole numbers, so a frame may be computed
// in full or from what flips, whichever is less work, with the same result to the bit.
#include <algorithm>
#include <bit>

#include "operations.hpp"

namespace rrm {

// The signs of a frame that flip, pixel after pixel. A number is the sign's column times the bytes of
// a tap's weights, plus its channel times those of a row: the first tap of a window, less the window's
// own column, then says which row of weights it is, modulo 2^32. Its lowest bit, which is free since
// rows begin at even places, is set where the sign is -1 now.
struct BinaryConvolution::FlipLists {
    std::vector<uint32_t> flips;
    std::vector<uint32_t> starts;      // [pixels + 1]
    std::vector<uint32_t> ups, downs;  // room for those under one output's window

    void fill(const uint16_t* now, const uint16_t* before, const uint8_t* hits, const Delta&,
              uint32_t row_bytes);
};

// The taps that see the input: of each row and each column of outputs.
struct BinaryConvolution::Taps {
    std::vector<Run> rows, columns;
};

namespace {

constexpr int kStage = 8;  // blocks of outputs that are handed on together

// The taps of a kernel in one direction that see the input, for each output.
std::vector<Run> seen_taps(int outputs, int taps, int stride, int padding, int dilation, int size) {
    std::vector<Run> seen;
    for (int output = 0; output < outputs; output++) {
        const int from = output * stride - padding;
        Run run{0, taps};
        while (run.begin < taps && from + run.begin * dilation < 0) run.begin++;
        while (run.end > run.begin && from + (run.end - 1) * dilation >= size) run.end--;
        seen.push_back(run);
    }
    return seen;
}

}  // namespace

void BinaryConvolution::FlipLists::fill(const uint16_t* now, const uint16_t* before,
                                        const uint8_t* hits, const Delta& plan,
                                        uint32_t row_bytes) {
    const size_t pixels = static_cast<size_t>(plan.height) * plan.width;
    const int halves = 4 * plan.words();
    flips.resize(pixels * plan.channels);
    starts.resize(pixels + 1);
    uint32_t* to = flips.data();
    for (size_t pixel = 0; pixel < pixels; pixel++, now += halves, before += halves) {
        starts[pixel] = static_cast<uint32_t>(to - flips.data());
        if (hits[pixel] == 0) continue;
        const uint32_t base = static_cast<uint32_t>(pixel % plan.width) *
                              static_cast<uint32_t>(plan.channels) * row_bytes;
        for (int half = 0; half < halves; half++)
            for (unsigned bits = now[half] ^ before[half]; bits != 0; bits &= bits - 1) {
                const auto bit = static_cast<unsigned>(std::countr_zero(bits));
                *to++ = (base + (static_cast<unsigned>(half) * kBlock + bit) * row_bytes) |
                        (now[half] >> bit & 1u);
            }
    }
    starts[pixels] = static_cast<uint32_t>(to - flips.data());
}

void BinaryConvolution::prepare(State& state) const {
    const Tensor& out = state.network->tensors[tensor];
    state.operations[index].sums =
        Buffer<int16_t>(static_cast<size_t>(out.height) * out.width * sum_outputs(out), true);
}

int BinaryConvolution::sum_outputs(const Tensor& out) {
    return (out.channels + kSumOutputs - 1) / kSumOutputs * kSumOutputs;
}

// The sums of some outputs of a row in full. Zeros around the map have no sign: taps that see them
// are left out.
void BinaryConvolution::compute(State& state, const Taps& seen, int frame, int row,
                                const Run& run) const {
    const Delta& plan = state.network->deltas[delta];
    const Tensor& out = state.network->tensors[tensor];
    const int words = plan.words();
    const Run rows = seen.rows[row];
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
        const Run columns = seen.columns[column];
        const auto same = [&](const Run& other) {
            return other.begin == columns.begin && other.end == columns.end;
        };
        args.columns = 1;
        while (column + args.columns < run.end && same(seen.columns[column + args.columns]))
            args.columns++;
        const int first_row = row * geometry.row_stride - geometry.row_padding;
        const int first_column = column * geometry.column_stride - geometry.column_padding;
        // Nothing may be formed that points outside of the map: offsets are from its beginning.
        offsets.clear();
        numbers.clear();
        for (int r = rows.begin; r < rows.end; r++)
            for (int c = columns.begin; c < columns.end; c++) {
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
void BinaryConvolution::update(State& state, const Taps& seen, FlipLists& lists, int row,
                               int column) const {
    const Delta& plan = state.network->deltas[delta];
    const Tensor& out = state.network->tensors[tensor];
    const int outputs = sum_outputs(out);
    const uint32_t tap_bytes = static_cast<uint32_t>(plan.channels) * static_cast<uint32_t>(outputs);
    const Run rows = seen.rows[row], columns = seen.columns[column];
    const int first_row = row * geometry.row_stride - geometry.row_padding;
    const int first_column = column * geometry.column_stride - geometry.column_padding;
    uint32_t* up = lists.ups.data();
    uint32_t* down = lists.downs.data();
    const bool plain = geometry.column_dilation == 1;  // taps of a row see neighbours
    for (int r = rows.begin; r < rows.end; r++) {
        const int line = (first_row + r * geometry.row_dilation) * plan.width;
        for (int c = columns.begin; c < columns.end; c = plain ? columns.end : c + 1) {
            const int from = first_column + c * geometry.column_dilation;
            const int last = plain ? first_column + columns.end : from + 1;
            const uint32_t base =
                static_cast<uint32_t>(r * geometry.kernel_columns + c - from) * tap_bytes;
            for (uint32_t i = lists.starts[line + from]; i < lists.starts[line + last]; i++) {
                const uint32_t flip = lists.flips[i], negative = flip & 1u;
                *up = *down = base + flip - negative;
                up += 1 - negative;
                down += negative;
            }
        }
    }
    state.network->kernels.flips(
        {rows_of_weights, lists.ups.data(), lists.downs.data(), static_cast<int>(up - lists.ups.data()),
         static_cast<int>(down - lists.downs.data()),
         state.operations[index].sums.data() +
             (static_cast<ptrdiff_t>(row) * out.width + column) * outputs,
         outputs});
}

void BinaryConvolution::finish(State& state, int frame, int first, int blocks, int row,
                               const Changes& changes) const {
    const Timed timed(state, Share::finish);
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
    ResidualMap residual;
    if (epilogue.residual >= 0) residual = state.residual(epilogue.residual, first, frame);
    args.residual_block = residual.block;
    for (const Run& run : changes.made(row)) {
        const ptrdiff_t pixel = static_cast<ptrdiff_t>(row) * out.width + run.begin;
        float* const x = to.data + static_cast<ptrdiff_t>(run.begin) * kBlock;
        network.kernels.scale_sums({state.operations[index].sums.data() + pixel * outputs + first * kBlock,
                                    outputs, scale + first * kBlock, shift + first * kBlock, x, to.block,
                                    run.end - run.begin, blocks});
        if (residual.floats == nullptr && epilogue.activation == Activation::none && args.finite == nullptr)
            continue;
        args.x = args.y = x;
        args.residual = residual.floats == nullptr ? nullptr : residual.floats + pixel * kBlock;
        args.width = run.end - run.begin;
        network.kernels.finish(args);
    }
    state.emit(tensor, frame, first, blocks, row, to.data, to.block, changes.sent(row));
}

void BinaryConvolution::run(State& state, int begin, int end) const {
    const Delta& plan = state.network->deltas[delta];
    const Tensor& out = state.network->tensors[tensor];
    const double elements = static_cast<double>(plan.height) * plan.width * plan.channels;
    const Taps seen = {seen_taps(out.height, geometry.kernel_rows, geometry.row_stride,
                                 geometry.row_padding, geometry.row_dilation, plan.height),
                       seen_taps(out.width, geometry.kernel_columns, geometry.column_stride,
                                 geometry.column_padding, geometry.column_dilation, plan.width)};
    std::vector<uint8_t> reached, mask;
    FlipLists lists;
    lists.ups.resize(static_cast<size_t>(geometry.taps()) * plan.channels + 1);
    lists.downs.resize(lists.ups.size());
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
                       reinterpret_cast<const uint16_t*>(state.bits(delta, frame - 1)), hits, plan,
                       static_cast<uint32_t>(sum_outputs(out)));
        for (int row = 0; row < out.height; row++) {
            const uint8_t* const line = reached.data() + static_cast<size_t>(row) * out.width;
            for (int column = 0, last = 0; column < out.width; column = last) {
                last = column + 1;
                if (line[column] == 0) continue;
                if (source.dense[frame] == 0) {
                    update(state, seen, lists, row, column);
                    continue;
                }
                while (last < out.width && line[last] != 0) last++;
                compute(state, seen, frame, row, {column, last});
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
