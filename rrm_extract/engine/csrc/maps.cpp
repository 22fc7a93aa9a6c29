// Everything that is not linear, a row of blocks at a time.
#include <algorithm>
#include <cstring>

#include "operations.hpp"

namespace rrm {

namespace {

constexpr int kRowBlocks = 8;

// Calls `compute(frame, first_block, blocks, row, target)` for every row, then sends it on.
template <class Compute>
void for_rows(State& state, int tensor, int frames, Compute compute) {
    const Tensor& out = state.network->tensors[tensor];
    for (int frame = 0; frame < frames; frame++)
        for (int first = 0; first < out.blocks(); first += kRowBlocks) {
            const int blocks = std::min(kRowBlocks, out.blocks() - first);
            for (int row = 0; row < out.height; row++) {
                const RowTarget to = row_target(state, tensor, frame, first, blocks, row);
                compute(frame, first, blocks, row, to);
                state.emit(tensor, frame, first, blocks, row, to.data, to.block);
            }
        }
}

}  // namespace

RowTarget row_target(State& state, int tensor, int frame, int block, int blocks, int row) {
    const Tensor& plan = state.network->tensors[tensor];
    const size_t floats = static_cast<size_t>(plan.width) * kBlock;
    if (plan.stored && plan.planes.empty())
        return {state.plane(tensor, block, frame) + row * floats,
                static_cast<ptrdiff_t>(plan.plane())};
    return {state.row_scratch(floats * blocks), static_cast<ptrdiff_t>(floats)};
}

void Input::run(State& state, int frames) const {
    const auto [channels, height, width] = state.network->inputs[number];
    const float* const input = state.inputs[number];
    const size_t plane = static_cast<size_t>(height) * width;
    std::vector<float> pixels(static_cast<size_t>(width) * channels);
    for (int frame = 0; frame < frames; frame++) {
        const float* from = input + frame * plane * channels;
        for (const int delta : column_deltas) {
            for (int row = 0; row < height; row++) {
                for (int channel = 0; channel < channels; channel++) {
                    const float* line = from + channel * plane + static_cast<size_t>(row) * width;
                    for (int column = 0; column < width; column++)
                        pixels[static_cast<size_t>(column) * channels + channel] = line[column];
                }
                state.emit_input(delta, frame, row, pixels.data());
            }
        }
    }
    if (tensor < 0) return;
    const int count = channels, columns = width;  // structured bindings cannot be captured
    for_rows(state, tensor, frames,
             [&](int frame, int first, int blocks, int row, const RowTarget& to) {
                 for (int block = 0; block < blocks; block++)
                     for (int lane = 0; lane < kBlock; lane++) {
                         const int channel = (first + block) * kBlock + lane;
                         float* out = to.data + block * to.block + lane;
                         const float* line = input +
                                             (static_cast<size_t>(frame) * count + channel) * plane +
                                             static_cast<size_t>(row) * columns;
                         for (int column = 0; column < columns; column++)
                             out[column * kBlock] = channel < count ? line[column] : 0.0f;
                     }
             });
}

void Pool::run(State& state, int frames) const {
    const Network& network = *state.network;
    const Tensor& in = network.tensors[source];
    const Tensor& out = network.tensors[tensor];
    std::vector<float> factors(out.width);
    for_rows(state, tensor, frames,
             [&](int frame, int first, int blocks, int row, const RowTarget& to) {
                 const int top = row * geometry.row_stride - geometry.row_padding;
                 const int step = geometry.row_dilation;
                 int begin = top, count = 0;
                 while (begin < 0) begin += step;
                 for (int r = begin; r < in.height && r <= top + (geometry.kernel_rows - 1) * step;
                      r += step)
                     count++;
                 if (!maximum)
                     for (int column = 0; column < out.width; column++) {
                         const int left = column * geometry.column_stride - geometry.column_padding;
                         const int right = left + geometry.kernel_columns;
                         const int bottom = top + geometry.kernel_rows;
                         // Padding counts, but not what a rounded-up size adds beyond it.
                         const int rows = count_padding
                                              ? std::min(bottom, in.height + geometry.row_padding) - top
                                              : std::min(bottom, in.height) - std::max(top, 0);
                         const int columns =
                             count_padding
                                 ? std::min(right, in.width + geometry.column_padding) - left
                                 : std::min(right, in.width) - std::max(left, 0);
                         factors[column] = 1.0f / static_cast<float>(rows * columns);
                     }
                 for (int block = 0; block < blocks; block++) {
                     PoolArgs args{};
                     args.x = state.plane(source, first + block, frame) +
                              static_cast<ptrdiff_t>(begin) * in.width * kBlock;
                     args.x_row = static_cast<ptrdiff_t>(step) * in.width * kBlock;
                     args.rows = count;
                     args.width = in.width;
                     args.kernel_columns = geometry.kernel_columns;
                     args.stride = geometry.column_stride;
                     args.padding = geometry.column_padding;
                     args.dilation = geometry.column_dilation;
                     args.maximum = maximum;
                     args.factors = factors.data();
                     args.y = to.data + block * to.block;
                     args.columns = out.width;
                     network.kernels.pool(args);
                 }
             });
}

void GlobalAverage::run(State& state, int frames) const {
    const Tensor& in = state.network->tensors[source];
    const size_t pixels = static_cast<size_t>(in.height) * in.width;
    for_rows(state, tensor, frames,
             [&](int frame, int first, int blocks, int, const RowTarget& to) {
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

void Pointwise::run(State& state, int frames) const {
    const Network& network = *state.network;
    const Tensor& out = network.tensors[tensor];
    const size_t floats = static_cast<size_t>(out.width) * kBlock;
    for_rows(state, tensor, frames,
             [&](int frame, int first, int blocks, int row, const RowTarget& to) {
                 for (int block = 0; block < blocks; block++) {
                     float* x = to.data + block * to.block;
                     const size_t at = row * floats;
                     std::memcpy(x, state.plane(sources[0], first + block, frame) + at, 4 * floats);
                     for (size_t s = 1; s < sources.size(); s++) {
                         const Tensor& other = network.tensors[sources[s]];
                         const float* y = state.plane(sources[s], first + block, frame);
                         if (other.height == 1 && other.width == 1 && out.height * out.width > 1) {
                             for (size_t i = 0; i < floats; i += kBlock)
                                 for (int lane = 0; lane < kBlock; lane++)
                                     x[i + lane] =
                                         multiply ? x[i + lane] * y[lane] : x[i + lane] + y[lane];
                         } else {
                             y += at;
                             for (size_t i = 0; i < floats; i++) x[i] = multiply ? x[i] * y[i] : x[i] + y[i];
                         }
                     }
                     const size_t channel = static_cast<size_t>(first + block) * kBlock;
                     network.kernels.map({x, scale.empty() ? nullptr : scale.data() + channel,
                                          shift.empty() ? nullptr : shift.data() + channel,
                                          static_cast<size_t>(out.width), activation, low, high});
                 }
             });
}

void Gather::run(State& state, int frames) const {
    const Tensor& out = state.network->tensors[tensor];
    const size_t floats = static_cast<size_t>(out.width) * kBlock;
    for_rows(state, tensor, frames,
             [&](int frame, int first, int blocks, int row, const RowTarget& to) {
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
