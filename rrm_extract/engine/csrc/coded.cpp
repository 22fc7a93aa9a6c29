// Fully-connected layers whose weights are read as codes.
#include <algorithm>
#include <cstring>

#include "convolution.hpp"

namespace rrm {

namespace {

float of_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// Moves the columns that are not 0 in every slot together; returns how many there are.
template <int kSlots>
int pack(float* x, int columns, uint32_t* numbers) {
    int count = 0;
    for (int column = 0; column < columns; column++) {
        const float* const from = x + static_cast<ptrdiff_t>(column) * kSlots;
        float* const to = x + static_cast<ptrdiff_t>(count) * kSlots;
        bool any = false;
        for (int slot = 0; slot < kSlots; slot++) any |= from[slot] != 0;
        numbers[count] = static_cast<uint32_t>(column);
        std::memmove(to, from, sizeof(float) * kSlots);
        count += any ? 1 : 0;
    }
    return count;
}

}  // namespace

int CodedLayer::columns(const State& state) const {
    const Delta& plan = state.network->deltas[delta];
    return plan.blocks() * plan.height * plan.width * kBlock;
}

void CodedLayer::prepare(State& state) const {
    const int blocks = state.network->tensors[tensor].blocks();
    state.operations[index].accumulators = Buffer<float>(static_cast<size_t>(blocks) * kBlock, true);
}

// The deltas of a frame, or its values where it is dense, into slot `slot` of each column.
void CodedLayer::take(State& state, int frame, int slot, int slots) const {
    const Delta& plan = state.network->deltas[delta];
    const bool pairs = state.network->arithmetic == Arithmetic::bf16;
    const int block_units = state.network->block_units();
    const int pixels = plan.height * plan.width;
    float* const x = state.coded.x.data() + slot;
    const auto put = [&](int column, uint32_t unit) {
        if (!pairs) {
            x[static_cast<ptrdiff_t>(column) * slots] = of_bits(unit);
            return;
        }
        x[static_cast<ptrdiff_t>(column) * slots] = of_bits(unit << 16);
        x[static_cast<ptrdiff_t>(column + 1) * slots] = of_bits(unit & 0xffff0000u);
    };
    const int step = pairs ? 2 : 1;  // columns of a unit
    if (state.deltas[delta].dense[frame] != 0) {
        const uint32_t* const whole = state.whole(delta, frame);
        for (int block = 0; block < plan.blocks(); block++)
            for (int pixel = 0; pixel < pixels; pixel++) {
                const uint32_t* const units = whole + block * state.whole_block(delta) +
                                              pixel / plan.width * state.whole_row(delta) +
                                              pixel % plan.width * block_units;
                for (int unit = 0; unit < block_units; unit++)
                    put((block * pixels + pixel) * kBlock + unit * step, units[unit]);
            }
        // A weight of 0 has no entry, and would let an infinity pass that nobody else has seen.
        if (state.deltas[delta].measured[frame] == 0) {
            float trace = 0;
            for (int column = 0; column < columns(state); column++)
                trace += x[static_cast<ptrdiff_t>(column) * slots] * 0.0f;
            if (trace != 0) state.deltas[delta].counts[frame].finite = false;
        }
        return;
    }
    const List& list = state.deltas[delta].list(frame);
    for (int row = 0; row < list.height; row++)
        for (int group = 0; group < list.groups; group++) {
            const size_t span = list.span(row, group);
            const uint32_t* const begins = list.starts + span * (list.width + 1);
            const uint32_t* const values = list.values + span * list.capacity;
            const uint8_t* const units = list.units + span * list.capacity;
            for (int column = 0; column < list.width; column++)
                for (uint32_t i = begins[column]; i < begins[column + 1]; i++) {
                    const int block = group * plan.group_blocks + units[i] / block_units;
                    put((block * pixels + row * list.width + column) * kBlock +
                            units[i] % block_units * step,
                        values[i]);
                }
        }
}

// What `count` frames add to the sums, and for dense frames the sums themselves.
void CodedLayer::multiply(State& state, int first, int count, int slots) const {
    const int outputs = state.network->tensors[tensor].blocks() * kBlock, all = columns(state);
    const int rows = coded_rows(code_bits);
    float* const x = room(state.coded.x, static_cast<size_t>(all) * slots);
    float* const sums = room(state.coded.sums, static_cast<size_t>(outputs) * slots);
    uint32_t* const numbers = room(state.coded.columns, all);
    std::fill_n(x, static_cast<size_t>(all) * slots, 0.0f);
    std::fill_n(sums, static_cast<size_t>(outputs) * slots, 0.0f);
    for (int slot = 0; slot < count; slot++) {
        take(state, first + slot, slot, slots);
        if (state.deltas[delta].dense[first + slot] == 0) continue;
        for (int output = 0; output < outputs; output++) sums[output * slots + slot] = bias[output];
    }
    CodedArgs args{};
    args.entries = entries;
    args.codebook = codebook;
    args.code_bits = code_bits;
    args.count = slots == 1 ? pack<1>(x, all, numbers) : pack<kCodedFrames>(x, all, numbers);
    args.columns = numbers;
    args.x = x;
    args.frames = slots;
    for (int row = 0; row < state.network->tensors[tensor].channels; row += rows) {
        args.starts = starts + static_cast<size_t>(row / rows) * (all + 1);
        args.y = sums + static_cast<size_t>(row) * slots;
        state.network->kernels.coded(args);
    }
}

void CodedLayer::finish(State& state, int frame, int slot, int slots) const {
    const Network& network = *state.network;
    const Tensor& out = network.tensors[tensor];
    const int outputs = out.blocks() * kBlock;
    const uint8_t* const hits = state.hits(delta, frame);
    const uint8_t* const residual_changes =
        epilogue.residual < 0 ? nullptr : state.changed(epilogue.residual, frame);
    const bool some = hits != nullptr && (epilogue.residual < 0 || residual_changes != nullptr);
    std::vector<uint8_t> mask(1);
    if (some) {
        const Delta& plan = network.deltas[delta];
        mask[0] = std::any_of(hits, hits + plan.height * plan.width, [](uint8_t hit) { return hit != 0; });
        if (residual_changes != nullptr) mask[0] |= residual_changes[0];
    }
    Changes changes;
    changes.set(state, tensor, frame, some ? &mask : nullptr, state.computes_all(delta, frame));
    state.reach(delta, frame, 1, some ? &mask : nullptr);
    float* const response = room(state.coded.response, outputs);
    for (int output = 0; output < outputs; output++)
        response[output] = state.coded.sums.data()[output * slots + slot];
    const Timed timed(state, Share::finish);
    FinishArgs args{};
    args.y_block = args.delta_block = kBlock;
    args.replace = state.deltas[delta].dense[frame] != 0;
    args.width = 1;
    args.activation = epilogue.activation;
    args.low = epilogue.low;
    args.high = epilogue.high;
    args.next_row = kBlock;
    args.finite = state.finite(delta, tensor, frame, &epilogue);
    for (int first = 0; first < out.blocks(); first += kStageBlocks) {
        args.blocks = std::min(kStageBlocks, out.blocks() - first);
        const RowTarget to = row_target(state, tensor, frame, first, args.blocks, 0);
        if (!changes.made(0).empty()) {
            args.y = state.operations[index].accumulators.data() + first * kBlock;
            args.delta = response + first * kBlock;
            if (epilogue.residual >= 0) {
                const ResidualMap residual = state.residual(epilogue.residual, first, frame);
                args.residual = residual.floats;
                args.residual_block = residual.block;
            }
            args.x = to.data;
            args.x_block = to.block;
            network.kernels.finish(args);
        }
        state.emit(tensor, frame, first, args.blocks, 0, to.data, to.block, changes.sent(0));
    }
}

void CodedLayer::run(State& state, int begin, int end) const {
    for (int first = begin; first < end; first += kCodedFrames) {
        const int count = std::min(kCodedFrames, end - first);
        const int slots = count == 1 ? 1 : kCodedFrames;
        multiply(state, first, count, slots);
        for (int slot = 0; slot < count; slot++) finish(state, first + slot, slot, slots);
    }
}

}  // namespace rrm
