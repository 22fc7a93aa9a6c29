#include "network.hpp"

#include <algorithm>
#include <cstring>
#include <ctime>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace rrm {

namespace {

// Numbers too small for a normal float cost a hundred times the time and change nothing.
class FlushDenormals {
public:
#if defined(__SSE2__)
    FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040u); }
    ~FlushDenormals() { _mm_setcsr(before_); }

private:
    unsigned before_;
#endif
};

// Seconds that this thread has computed; not those in which it waited for a processor.
double thread_seconds() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// A layer that runs dense goes back to lists only well below the break-even.
constexpr float kHysteresis = 0.93f;

}  // namespace

State::State(std::shared_ptr<const Network> plan)
    : network(std::move(plan)),
      deltas(network->deltas.size()),
      operations(network->operations.size()),
      values_(network->tensors.size()) {
    const int batch = network->batch;
    for (size_t i = 0; i < network->tensors.size(); i++) {
        const Tensor& tensor = network->tensors[i];
        if (tensor.stored && tensor.planes.empty())
            values_[i] = Buffer<float>(tensor.plane() * tensor.blocks() * batch, true);
    }
    for (size_t i = 0; i < network->deltas.size(); i++) {
        const Delta& plan = network->deltas[i];
        DeltaState& state = deltas[i];
        state.dense.resize(batch);
        state.counts.resize(batch);
        state.whole.resize(batch);
        const size_t pixels = static_cast<size_t>(plan.height) * plan.width;
        if (plan.kind == DeltaKind::select) {
            state.snapshot =
                Buffer<float>(static_cast<size_t>(whole_block(static_cast<int>(i))) *
                                  plan.blocks() * (batch + 1), true);
        } else if (plan.kind == DeltaKind::columns) {
            state.snapshot = Buffer<float>(pixels * plan.channels);
            for (int frame = 0; frame < batch; frame++) {
                ColumnList list{plan.height, plan.width, plan.channels, 0, nullptr, nullptr, nullptr};
                list.capacity = static_cast<size_t>(plan.height) * plan.channels + kListSlack;
                state.values.emplace_back(list.capacity * plan.width);
                state.rows.emplace_back(list.capacity * plan.width);
                state.column_starts.emplace_back(static_cast<size_t>(plan.height + 1) * plan.width);
                list.values = state.values.back().data();
                list.rows = state.rows.back().data();
                list.starts = state.column_starts.back().data();
                state.columns.push_back(list);
            }
        } else {
            state.snapshot = Buffer<float>(pixels * plan.blocks() * kBlock, true);
            for (int frame = 0; frame < batch; frame++) {
                const int units = plan.group_blocks * network->block_units();
                List list{plan.height, plan.width, plan.groups(), units, 0, nullptr, nullptr, nullptr};
                list.capacity = static_cast<size_t>(plan.width) * units + kListSlack;
                const size_t spans = static_cast<size_t>(plan.height) * list.groups;
                state.values.emplace_back(list.capacity * spans);
                state.units.emplace_back(list.capacity * spans);
                state.starts.emplace_back(spans * (plan.width + 1));
                list.values = state.values.back().data();
                list.units = state.units.back().data();
                list.starts = state.starts.back().data();
                state.lists.push_back(list);
            }
        }
    }
    for (const auto& operation : network->operations) operation->prepare(*this);
}

void State::reset() {
    for (DeltaState& delta : deltas) {
        delta.valid = false;
        delta.dense_mode = false;
    }
}

void State::begin(int frames) {
    for (size_t i = 0; i < deltas.size(); i++) {
        DeltaState& delta = deltas[i];
        for (int frame = 0; frame < frames; frame++) {
            delta.dense[frame] = delta.dense_mode || (frame == 0 && !delta.valid);
            delta.counts[frame] = Counts();
        }
    }
}

void State::end(int frames) {
    for (size_t i = 0; i < deltas.size(); i++) {
        const Delta& plan = network->deltas[i];
        DeltaState& delta = deltas[i];
        const int first = delta.valid ? 0 : 1;  // a key frame says nothing of what changes
        double changed = 0;
        for (int frame = first; frame < frames; frame++)
            changed += static_cast<double>(delta.counts[frame].deltas);
        if (frames > first) {
            const double elements = static_cast<double>(plan.channels) * plan.height * plan.width;
            const double density = changed / (elements * (frames - first));
            delta.dense_mode =
                density > plan.break_even * (delta.dense_mode ? kHysteresis : 1.0f);
        }
        delta.ring = (delta.ring + frames) % (network->batch + 1);
        delta.valid = true;
    }
}

bool State::run(std::vector<const float*> given, int frames) {
    const FlushDenormals flush;
    inputs = std::move(given);
    begin(frames);
    for (const auto& operation : network->operations) {
        const double began = thread_seconds();
        operation->run(*this, frames);
        operations[operation->index].seconds += thread_seconds() - began;
    }
    bool finite = true;
    for (const DeltaState& delta : deltas)
        for (int frame = 0; frame < frames; frame++) finite = finite && delta.counts[frame].finite;
    if (!finite) {
        reset();
        return false;
    }
    end(frames);
    return true;
}

float* State::plane(int tensor, int block, int frame) const {
    const Tensor* plan = &network->tensors[tensor];
    while (!plan->planes.empty()) {
        const Tensor::Plane where = plan->planes[block];
        tensor = where.tensor;
        block = where.block;
        plan = &network->tensors[tensor];
    }
    return values_[tensor].data() +
           plan->plane() * (static_cast<size_t>(frame) * plan->blocks() + block);
}

float* State::row_scratch(size_t floats) {
    if (row_scratch_.size() < floats) row_scratch_ = Buffer<float>(floats);
    return row_scratch_.data();
}

float* State::batch_scratch(size_t floats) {
    if (batch_scratch_.size() < floats) batch_scratch_ = Buffer<float>(floats, true);
    return batch_scratch_.data();
}

ptrdiff_t State::whole_row(int delta) const {
    const Delta& plan = network->deltas[delta];
    const int pixel = plan.kind == DeltaKind::columns  ? plan.channels
                      : plan.kind == DeltaKind::select ? kBlock
                                                       : network->block_units();
    return static_cast<ptrdiff_t>(plan.width + 2 * plan.halo) * pixel;
}

ptrdiff_t State::whole_block(int delta) const {
    const Delta& plan = network->deltas[delta];
    return whole_row(delta) * (plan.height + 2 * plan.halo);
}

uint32_t* State::whole(int delta, int frame) {
    const Delta& plan = network->deltas[delta];
    Buffer<uint32_t>& buffer = deltas[delta].whole[frame];
    const int blocks = plan.kind == DeltaKind::columns ? 1 : plan.blocks();
    if (buffer.empty())
        buffer = Buffer<uint32_t>(static_cast<size_t>(whole_block(delta)) * blocks, true);
    const ptrdiff_t row = whole_row(delta), pixel = row / (plan.width + 2 * plan.halo);
    return buffer.data() + plan.halo * (row + pixel);
}

float* State::selected(int delta, int frame) {
    const Delta& plan = network->deltas[delta];
    const DeltaState& state = deltas[delta];
    const int version = (state.ring + frame + 1) % (network->batch + 1);
    const ptrdiff_t row = whole_row(delta), pixel = row / (plan.width + 2 * plan.halo);
    return state.snapshot.data() +
           static_cast<size_t>(whole_block(delta)) * plan.blocks() * version +
           plan.halo * (row + pixel);
}

void State::emit(int tensor, int frame, int block, int blocks, int row, const float* x,
                 ptrdiff_t x_block) {
    const Kernels& kernels = network->kernels;
    for (const int index : network->tensors[tensor].deltas) {
        const Delta& plan = network->deltas[index];
        DeltaState& state = deltas[index];
        if (plan.kind == DeltaKind::columns) {
            pixels_.resize(static_cast<size_t>(plan.width) * plan.channels);
            for (int column = 0; column < plan.width; column++)
                for (int channel = 0; channel < plan.channels; channel++)
                    pixels_[static_cast<size_t>(column) * plan.channels + channel] =
                        x[column * kBlock + channel];
            emit_input(index, frame, row, pixels_.data());
            continue;
        }
        const size_t plane = static_cast<size_t>(plan.height) * plan.width * kBlock;
        const size_t offset = static_cast<size_t>(row) * plan.width * kBlock;
        Counts* counts = &state.counts[frame];
        if (plan.kind == DeltaKind::select) {
            const bool first = frame == 0 && !state.valid;
            const ptrdiff_t to = block * whole_block(index) + row * whole_row(index);
            kernels.select({x, x_block, first ? nullptr : selected(index, frame - 1) + to,
                            whole_block(index), selected(index, frame) + to, whole_block(index),
                            plan.width, std::min(blocks * kBlock, plan.channels - block * kBlock),
                            plan.threshold, plan.paper, counts});
            continue;
        }
        const List& list = state.lists[frame];
        for (int at = 0; at < blocks; at += plan.group_blocks) {
            const int group = (block + at) / plan.group_blocks;
            const int channels =
                std::min(plan.group_blocks * kBlock, plan.channels - (block + at) * kBlock);
            float* snapshot = state.snapshot.data() + (block + at) * plane + offset;
            const float* from = x + at * x_block;
            if (state.dense[frame] != 0) {
                const ptrdiff_t dense_block = whole_block(index);
                uint32_t* dense =
                    whole(index, frame) + (block + at) * dense_block + row * whole_row(index);
                kernels.keep({from, x_block, snapshot, static_cast<ptrdiff_t>(plane), dense,
                              dense_block, plan.width, channels, plan.threshold, counts},
                             network->arithmetic);
            } else {
                const size_t span = list.span(row, group);
                kernels.compress(
                    {from, x_block, snapshot, static_cast<ptrdiff_t>(plane), plan.width, channels,
                     plan.threshold, plan.paper, list.values + span * list.capacity,
                     list.units + span * list.capacity, list.starts + span * (plan.width + 1),
                     counts},
                    network->arithmetic);
            }
        }
    }
}

void State::emit_input(int index, int frame, int row, const float* x) {
    const Delta& plan = network->deltas[index];
    DeltaState& state = deltas[index];
    const size_t count = static_cast<size_t>(plan.width) * plan.channels;
    float* snapshot = state.snapshot.data() + row * count;
    Counts* counts = &state.counts[frame];
    if (state.dense[frame] == 0) {
        ColumnList& list = state.columns[frame];
        if (row == 0) std::memset(list.starts, 0, sizeof(uint16_t) * list.width);
        network->kernels.compress_columns(
            {x, snapshot, row, plan.threshold, plan.paper, &list, counts});
        return;
    }
    float* dense = reinterpret_cast<float*>(whole(index, frame) + row * whole_row(index));
    uint64_t nonzero = 0, changed = 0;
    float trace = 0;
    for (size_t i = 0; i < count; i++) {
        const float value = x[i];
        const float delta = value - snapshot[i];
        nonzero += value != 0.0f;
        changed += !((delta < 0 ? -delta : delta) <= plan.threshold);
        trace += value * 0.0f;
        snapshot[i] = value;
        dense[i] = value;
    }
    counts->nonzero += nonzero;
    counts->deltas += changed;
    counts->finite = counts->finite && trace == 0.0f;
}

void State::output(int number, int frame, float* to) const {
    const int tensor = network->outputs[number];
    const Tensor& plan = network->tensors[tensor];
    const size_t pixels = static_cast<size_t>(plan.height) * plan.width;
    for (int channel = 0; channel < plan.channels; channel++) {
        const float* from = plane(tensor, channel / kBlock, frame) + channel % kBlock;
        for (size_t pixel = 0; pixel < pixels; pixel++) *to++ = from[pixel * kBlock];
    }
}

size_t State::bytes() const {
    size_t sum = 4 * (row_scratch_.size() + batch_scratch_.size());
    for (const auto& value : values_) sum += 4 * value.size();
    for (const auto& operation : operations) sum += 4 * operation.accumulators.size();
    for (const auto& delta : deltas) {
        sum += 4 * delta.snapshot.size();
        for (const auto& buffer : delta.values) sum += 4 * buffer.size();
        for (const auto& buffer : delta.units) sum += buffer.size();
        for (const auto& buffer : delta.rows) sum += 2 * buffer.size();
        for (const auto& buffer : delta.starts) sum += 4 * buffer.size();
        for (const auto& buffer : delta.column_starts) sum += 2 * buffer.size();
        for (const auto& buffer : delta.whole) sum += 4 * buffer.size();
    }
    return sum;
}

}  // namespace rrm
