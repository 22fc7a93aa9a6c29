// Every kernel as plain scalar code: the specification of the fast ones, and their oracle.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels.hpp"

namespace rrm {

namespace {

float as_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

uint32_t as_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

float round_bf16(float value) {
    if (std::isnan(value)) return value;
    const uint32_t bits = as_bits(value);
    return as_float((bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u);
}

float from_bf16(uint16_t half) { return as_float(static_cast<uint32_t>(half) << 16); }

uint32_t pair_of(float low, float high) {
    return (as_bits(low) >> 16) | (as_bits(high) & 0xffff0000u);
}

// The number of a channel in a vector of units.
float channel_of(const uint32_t* units, int channel, Arithmetic arithmetic) {
    if (arithmetic == Arithmetic::fp32) return as_float(units[channel]);
    const uint32_t pair = units[channel / 2];
    return as_float(channel % 2 == 0 ? pair << 16 : pair & 0xffff0000u);
}

// The response to one unit: one product, or two of a bf16 pair.
float respond(uint32_t x, uint32_t w, Arithmetic arithmetic) {
    if (arithmetic == Arithmetic::fp32) return as_float(x) * as_float(w);
    return as_float(x << 16) * as_float(w << 16) +
           as_float(x & 0xffff0000u) * as_float(w & 0xffff0000u);
}

void window(const WindowArgs& args, Arithmetic arithmetic) {
    const List& list = *args.list;
    for (int row = 0; row < list.height; row++)
        for (int column = 0; column < list.width; column++) {
            const size_t span = list.span(row, args.group);
            const uint32_t* starts = list.starts + span * (list.width + 1);
            for (uint32_t i = starts[column]; i < starts[column + 1]; i++) {
                const size_t at = span * list.capacity + i;
                for (int c = 0; c < 3; c++)
                    for (int r = 0; r < 3; r++)
                        for (int lane = 0; lane < kBlock; lane++) {
                            if (row + r < args.row_begin || row + r >= args.row_end) continue;
                            args.y[(row + r) * args.y_row + (column + c) * kBlock + lane] += respond(
                                list.values[at],
                                args.weights[((list.units[at] * 3 + c) * 3 + r) * kBlock + lane],
                                arithmetic);
                        }
            }
        }
}

void tap(const TapArgs& args, Arithmetic arithmetic) {
    const List& list = *args.list;
    for (int row = args.row_begin; row < args.row_end; row++)
        for (int column = args.column_begin; column < args.column_end; column++) {
            const int x = column * args.column_stride + args.column_offset;
            const size_t span =
                list.span(row * args.row_stride + args.row_offset, args.group);
            const uint32_t* starts = list.starts + span * (list.width + 1);
            for (uint32_t i = starts[x]; i < starts[x + 1]; i++) {
                const size_t at = span * list.capacity + i;
                const uint32_t* w =
                    args.weights + static_cast<size_t>(list.units[at]) * args.blocks * kBlock;
                for (int output = 0; output < args.blocks * kBlock; output++)
                    args.y[row * args.y_row + output / kBlock * args.y_block + column * kBlock +
                           output % kBlock] += respond(list.values[at], w[output], arithmetic);
            }
        }
}

// A NaN stays one.
float limited(float value, float low, float high) {
    return value < low ? low : (value > high ? high : value);
}

// A finished sum of one output, or the sum itself where there is no end to it.
void write(const LayerEnd* end, float sum, int block, int row, int column, int lane, float* y) {
    const int at = column * kBlock + lane;
    if (end != nullptr) {
        const ptrdiff_t place = block * end->residual_block + row * end->residual_row + at;
        if (end->residual != nullptr) sum += end->residual[place];
        if (end->rounded != nullptr) sum += from_bf16(end->rounded[place]);
        if (end->trace != nullptr) end->trace[lane] += sum * 0;
        sum = limited(sum, end->low, end->high);
    }
    if (end == nullptr || end->to == nullptr)
        *y = sum;
    else
        end->to[block * end->to_block + row * end->to_row + at] =
            static_cast<uint16_t>(as_bits(round_bf16(sum)) >> 16);
}

void dense(const DenseArgs& args, Arithmetic arithmetic) {
    for (int block = 0; block < args.blocks; block++)
        for (int row = 0; row < args.rows; row++)
            for (int column = 0; column < args.columns; column++)
                for (int lane = 0; lane < kBlock; lane++) {
                    float* const y =
                        args.end != nullptr && args.end->to != nullptr
                            ? nullptr
                            : args.y[block] + row * args.y_row + column * args.y_column + lane;
                    float sum = args.bias[block] == nullptr ? *y : args.bias[block][lane];
                    for (int unit = 0; unit < args.units; unit++)
                        for (int tap = 0; tap < args.taps; tap++) {
                            const uint32_t x =
                                args.x[unit / args.block_units * args.x_block + row * args.x_row +
                                       static_cast<ptrdiff_t>(column) * args.x_step +
                                       unit % args.block_units + args.tap_offsets[tap]];
                            const uint32_t w =
                                args.weights[block][unit * args.unit_stride +
                                                    tap * args.tap_stride + lane];
                            sum += respond(x, w, arithmetic);
                        }
                    write(args.end, sum, block, row, column, lane, y);
                }
}

// Winograd's matrices for the points below and infinity: a row of the first for each position of a
// kernel, of the second for each position of an input, and a column of the third.
const double kPoints[5] = {0, std::sqrt(0.5), -std::sqrt(0.5), std::sqrt(2.0), -std::sqrt(2.0)};
// The products of a point's distances to the others, which every kernel is divided by.
const double kDistances[5] = {1, -1.5, -1.5, 6, 6};
const double kOfInput[6][6] = {
    {1, 0, -2.5, 0, 1, 0},
    {0, -2 * kPoints[1], -2, kPoints[1], 1, 0},
    {0, -2 * kPoints[2], -2, kPoints[2], 1, 0},
    {0, -0.5 * kPoints[3], -0.5, kPoints[3], 1, 0},
    {0, -0.5 * kPoints[4], -0.5, kPoints[4], 1, 0},
    {0, 1, 0, -2.5, 0, 1},
};

// std::pow would take half of the time of all tests of these kernels.
double power(double base, int exponent) { return exponent == 0 ? 1 : base * power(base, exponent - 1); }

double of_kernel(int position, int tap, int taps) {
    if (position == 5) return tap == taps - 1;
    return power(kPoints[position], tap) / kDistances[position];
}

double of_output(int output, int position, int outputs) {
    return position == 5 ? output == outputs - 1 : power(kPoints[position], output);
}

void winograd_weights(const WinogradWeightsArgs& args, Arithmetic arithmetic) {
    const int per_unit = arithmetic == Arithmetic::fp32 ? 1 : 2;
    const int taps = winograd_taps_of(args.outputs);
    for (int channel = 0; channel < args.units * per_unit; channel++)
        for (int lane = 0; lane < kBlock; lane++)
            for (int i = 0; i < 6; i++)
                for (int j = 0; j < 6; j++) {
                    double sum = 0;
                    for (int r = 0; r < taps; r++)
                        for (int c = 0; c < taps; c++) {
                            const int32_t offset = args.tap_offsets[r * taps + c];
                            if (offset < 0) continue;
                            const uint32_t bits =
                                args.weights[channel / per_unit * args.unit_stride + offset + lane];
                            const float weight =
                                per_unit == 1 ? as_float(bits)
                                              : as_float(channel % 2 == 0 ? bits << 16
                                                                          : bits & 0xffff0000u);
                            sum += of_kernel(i, r, taps) * of_kernel(j, c, taps) * weight;
                        }
                    args.to[(i * 6 + j) * args.position + channel * kBlock + lane] =
                        static_cast<float>(sum);
                }
}

// One position of a channel of a tile; `pixel` is the tile's first.
template <class Args>
double input_position(const Args& args, Arithmetic arithmetic, const uint32_t* pixel, int lane, int i,
                      int j) {
    double sum = 0;
    for (int r = 0; r < 6; r++)
        for (int c = 0; c < 6; c++)
            sum += kOfInput[i][r] * kOfInput[j][c] *
                   channel_of(pixel + r * args.x_row + c * args.x_column, lane, arithmetic);
    return sum;
}

void winograd_input(const WinogradInputArgs& args, Arithmetic arithmetic) {
    for (int tile = 0; tile < args.count; tile++)
        for (int block = 0; block < args.blocks; block++)
            for (int lane = 0; lane < kBlock; lane++)
                for (int i = 0; i < 6; i++)
                    for (int j = 0; j < 6; j++)
                        args.to[(i * 6 + j) * args.position + block * args.block + tile * kBlock +
                                lane] =
                            static_cast<float>(input_position(
                                args, arithmetic,
                                args.tiles[tile] + args.offset + block * args.x_block, lane, i, j));
}

void winograd_output(const WinogradOutputArgs& args) {
    for (int number = 0; number < args.count; number++)
        for (int block = 0; block < args.blocks; block++)
            for (int lane = 0; lane < kBlock; lane++) {
                const WinogradTile& tile = args.tiles[number];
                for (int i = 0; i < tile.rows; i++)
                    for (int j = 0; j < tile.columns; j++) {
                        const int row = tile.row - args.first_row + i, column = tile.column + j;
                        if (args.mask != nullptr && args.mask[row * args.width + column] == 0)
                            continue;
                        double sum = args.bias[block * kBlock + lane];
                        for (int r = 0; r < 6; r++)
                            for (int c = 0; c < 6; c++) {
                                const double factor = of_output(i, r, args.outputs) *
                                                      of_output(j, c, args.outputs);
                                // What is not needed may be anything, for it is not computed.
                                if (factor != 0)
                                    sum += factor *
                                           args.from[(r * 6 + c) * args.position +
                                                     block * args.block + number * kBlock + lane];
                            }
                        float* const y =
                            args.y == nullptr
                                ? nullptr
                                : args.y + block * args.y_block + row * args.y_row + column * kBlock + lane;
                        write(args.end, static_cast<float>(sum), block, row, column, lane, y);
                    }
            }
}

// Two whole numbers of 16 bits.
uint32_t int16_pair(float low, float high) {
    return (static_cast<uint32_t>(std::lrint(low)) & 0xffffu) |
           (static_cast<uint32_t>(std::lrint(high)) << 16);
}
int int16_of(uint32_t pair, int half) {
    return static_cast<int16_t>(half == 0 ? pair & 0xffffu : pair >> 16);
}

void int16_input(const Int16InputArgs& args, Arithmetic arithmetic) {
    for (int tile = 0; tile < args.count; tile++) {
        const auto number = [&](int channel, int position) {
            if (channel >= args.channels) return 0.0f;
            return static_cast<float>(input_position(
                args, arithmetic,
                args.tiles[tile] + args.offset + channel / kBlock * args.x_block, channel % kBlock,
                position / 6, position % 6));
        };
        float largest = 0;
        bool finite = true;
        for (int channel = 0; channel < args.channels; channel++)
            for (int position = 0; position < kWinogradPositions; position++) {
                largest = std::max(largest, std::fabs(number(channel, position)));
                finite = finite && std::isfinite(number(channel, position));
            }
        const bool usable = finite && largest > kInt16Least;
        const float scale = usable ? kInt16Input / largest : 0;
        args.scales[tile] = finite ? (usable ? largest / kInt16Input : 0) : std::nanf("");
        const int pairs = (args.channels + kBlock - 1) / kBlock * kBlock / 2;
        for (int pair = 0; pair < pairs; pair++)
            for (int position = 0; position < kWinogradPositions; position++) {
                const auto whole = [&](int channel) {
                    return finite ? number(channel, position) * scale : 0.0f;
                };
                args.to[position * args.position + pair / (kBlock / 2) * args.block +
                        tile * (kBlock / 2) + pair % (kBlock / 2)] =
                    int16_pair(whole(2 * pair), whole(2 * pair + 1));
            }
    }
}

void int16_weights(const Int16WeightsArgs& args) {
    for (int position = 0; position < kWinogradPositions; position++)
        for (int lane = 0; lane < kBlock; lane++) {
            float* const kernel = args.kernels + position * args.position + lane;
            float sum = 0, largest = 0;
            for (int channel = 0; channel < args.channels; channel++) {
                sum += std::fabs(kernel[channel * kBlock]);
                largest = std::max(largest, std::fabs(kernel[channel * kBlock]));
            }
            const bool finite = std::isfinite(sum), usable = finite && sum > kInt16Least;
            // Each rounding may add a half.
            const float scale = usable ? std::min(static_cast<float>(kInt16Sum - args.channels) / sum,
                                                  kInt16Weight / largest)
                                       : 0;
            args.scales[position * args.position + lane] =
                finite ? (usable ? 1 / scale : 0) : std::nanf("");
            for (int channel = 0; channel < args.channels; channel += 2) {
                const auto whole = [&](int c) {
                    return finite && c < args.channels ? kernel[c * kBlock] * scale : 0.0f;
                };
                const uint32_t pair = int16_pair(whole(channel), whole(channel + 1));
                std::memcpy(kernel + channel / 2 * kBlock, &pair, sizeof pair);
            }
        }
}

void int16_products(const Int16ProductArgs& args) {
    for (int block = 0; block < args.blocks; block++)
        for (int row = 0; row < args.rows; row++)
            for (int tile = 0; tile < args.tiles; tile++)
                for (int lane = 0; lane < kBlock; lane++) {
                    int64_t sum = 0;
                    for (int pair = 0; pair < args.pairs; pair++) {
                        const uint32_t x = args.x[pair / (kBlock / 2) * args.x_block +
                                                  row * args.x_row + tile * (kBlock / 2) +
                                                  pair % (kBlock / 2)];
                        const uint32_t w = args.weights[block][pair * kBlock + lane];
                        for (int half = 0; half < 2; half++)
                            sum += static_cast<int64_t>(int16_of(x, half)) * int16_of(w, half);
                    }
                    float& y = args.y[block][row * args.y_row + tile * kBlock + lane];
                    const float product =
                        static_cast<float>(sum) * (args.weight_scales[block][lane] *
                                                   args.input_scales[row * args.scales_row + tile]);
                    y = args.begins ? product : y + product;
                }
}

void column(const ColumnArgs& args) {
    const ColumnList& list = *args.list;
    const int outputs = args.blocks * kBlock;
    const int taps = args.kernel_rows * list.channels;
    for (int x = 0; x < list.width; x++) {
        const int phase = (x + args.padding) % args.stride;
        const int begin = list.starts[static_cast<size_t>(args.row_begin) * list.width + x];
        const int end = list.starts[static_cast<size_t>(args.row_end) * list.width + x];
        for (int i = begin; i < end; i++) {
            const size_t at = x * list.capacity + i;
            const int row = list.rows[at] - args.first_row * list.channels;
            for (int position = 0; position < args.positions; position++) {
                const int out = (x + args.padding) / args.stride - position;
                if (out < 0 || out >= args.columns) continue;
                const uint32_t* w =
                    args.weights +
                    ((static_cast<size_t>(phase) * taps + row) * args.positions + position) * outputs;
                for (int output = 0; output < outputs; output++)
                    args.y[output / kBlock * args.y_block + out * kBlock + output % kBlock] +=
                        as_float(list.values[at]) * as_float(w[output]);
            }
        }
    }
    for (int at = 0; args.trace != nullptr && at < args.columns * outputs; at++)
        args.trace[at % kBlock] +=
            args.y[at % outputs / kBlock * args.y_block + at / outputs * kBlock + at % kBlock] * 0;
}

void depthwise(const DepthwiseArgs& args) {
    for (int row = 0; row < args.rows; row++)
        for (int column = 0; column < args.columns; column++)
            for (int lane = 0; lane < kBlock; lane++) {
                float sum = args.bias[lane];
                for (int r = 0; r < args.kernel_rows; r++)
                    for (int c = 0; c < args.kernel_columns; c++)
                        sum += args.x[(row * args.row_stride + r * args.row_dilation) * args.x_row +
                                      (column * args.column_stride + c * args.column_dilation) *
                                          kBlock +
                                      lane] *
                               args.weights[(r * args.kernel_columns + c) * kBlock + lane];
                if (args.trace != nullptr) args.trace[lane] += sum * 0;
                args.y[row * args.y_row + column * kBlock + lane] =
                    limited(sum, args.low, args.high);
            }
}

void compress(const CompressArgs& args, Arithmetic arithmetic) {
    uint32_t count = 0;
    int run = 0;
    for (int column = 0; column < args.width; column++) {
        args.starts[column] = count;
        if (args.first) args.hits[column] = 0;
        while (run < args.run_count && args.runs[run].end <= column) run++;
        if (run == args.run_count || column < args.runs[run].begin) continue;
        float delta[256] = {};
        bool chosen[256] = {};
        int nonzero = 0, deltas = 0;
        for (int channel = 0; channel < args.channels; channel++) {
            const ptrdiff_t at = column * kBlock + channel % kBlock;
            const float x = args.x[channel / kBlock * args.x_block + at];
            float& kept = args.snapshot[channel / kBlock * args.snapshot_block + at];
            delta[channel] = x - kept;
            chosen[channel] = !(std::fabs(delta[channel]) <= args.threshold);
            nonzero += x != 0;
            deltas += chosen[channel];
            args.counts->finite = args.counts->finite && std::isfinite(delta[channel]);
            if (arithmetic == Arithmetic::fp32) {
                if (chosen[channel] || args.paper) kept = x;
            } else {
                delta[channel] = chosen[channel] ? round_bf16(delta[channel]) : 0.0f;
                kept = args.paper && !chosen[channel] ? x : kept + delta[channel];
            }
        }
        args.counts->nonzero += nonzero - args.occupied[column];
        args.occupied[column] = static_cast<uint8_t>(nonzero);
        args.counts->deltas += deltas;
        if (deltas > 0) args.hits[column] = 1;
        const int step = arithmetic == Arithmetic::fp32 ? 1 : 2;
        for (int channel = 0; channel < args.channels; channel += step) {
            if (!chosen[channel] && (step == 1 || !chosen[channel + 1])) continue;
            args.values[count] = step == 1 ? as_bits(delta[channel])
                                           : pair_of(delta[channel], delta[channel + 1]);
            args.units[count++] = static_cast<uint8_t>(channel / step);
        }
    }
    args.starts[args.width] = count;
}

void keep(const KeepArgs& args, Arithmetic arithmetic) {
    const int blocks = (args.channels + kBlock - 1) / kBlock;
    const bool whole = arithmetic == Arithmetic::fp32;
    for (int column = 0; column < args.width; column++) {
        int nonzero = 0, deltas = 0;
        bool differs = whole;
        for (int channel = 0; channel < blocks * kBlock; channel++) {
            const int block = channel / kBlock, lane = column * kBlock + channel % kBlock;
            const ptrdiff_t at = block * args.snapshot_block + lane;
            const float x = args.x[block * args.x_block + lane];
            if (args.counts != nullptr) {
                const uint32_t* units = args.last + block * args.dense_block;
                const float last = args.snapshot != nullptr ? args.snapshot[at]
                                                            : channel_of(units, lane, arithmetic);
                const bool counted = channel < args.channels;
                nonzero += counted && x != 0;
                deltas += counted && !(std::fabs(x - last) <= args.threshold);
                differs = differs || (counted && round_bf16(x) - round_bf16(last) != 0);
                args.counts->finite = args.counts->finite && std::isfinite(x);
            }
            const float kept = whole ? x : round_bf16(x);
            if (args.counts != nullptr && args.next_snapshot != nullptr)
                args.next_snapshot[at] = kept;
            uint32_t& unit = args.dense[block * args.dense_block + lane / (whole ? 1 : 2)];
            if (whole)
                unit = as_bits(kept);
            else if (lane % 2 == 0)
                unit = (unit & 0xffff0000u) | (as_bits(kept) >> 16);
            else
                unit = (unit & 0xffffu) | (as_bits(kept) & 0xffff0000u);
        }
        if (args.counts == nullptr) continue;
        args.counts->nonzero += nonzero - args.occupied[column];
        if (differs) args.counts->deltas += deltas;
        args.occupied[column] = static_cast<uint8_t>(nonzero);
    }
}

void select(const SelectArgs& args) {
    for (int column = 0; column < args.width; column++) {
        int nonzero = 0, deltas = 0;
        const int blocks = (args.channels + kBlock - 1) / kBlock;
        for (int channel = 0; channel < blocks * kBlock; channel++) {
            const int block = channel / kBlock;
            const ptrdiff_t at = column * kBlock + channel % kBlock;
            const float x = args.x[block * args.x_block + at];
            float& next = args.next[block * args.next_block + at];
            args.counts->finite = args.counts->finite && std::isfinite(x);
            const bool counted = channel < args.channels;
            nonzero += counted && x != 0;
            if (args.last == nullptr) {
                deltas += counted && x != 0;
                next = x;
                continue;
            }
            const float last = args.last[block * args.last_block + at];
            const float from =
                args.paper ? args.previous[block * args.previous_block + at] : last;
            const bool chosen = !(std::fabs(x - from) <= args.threshold);
            deltas += counted && chosen;
            next = !chosen ? last : (args.paper ? last + (x - from) : x);
        }
        if (args.previous != nullptr)
            for (int channel = 0; channel < blocks * kBlock; channel++) {
                const ptrdiff_t at = column * kBlock + channel % kBlock;
                args.previous[channel / kBlock * args.previous_block + at] =
                    args.x[channel / kBlock * args.x_block + at];
            }
        args.counts->nonzero += nonzero - args.occupied[column];
        args.counts->deltas += deltas;
        args.occupied[column] = static_cast<uint8_t>(nonzero);
        const bool hit = args.last == nullptr || deltas > 0;
        args.hits[column] = static_cast<uint8_t>(args.hits[column] | hit);
    }
}

void keep_columns(const KeepColumnsArgs& args) {
    for (int column = 0; column < args.width; column++) {
        bool hit = false;
        for (int channel = 0; channel < args.channels; channel++) {
            const int at = column * args.channels + channel;
            const float x = args.x[at], last = args.last[at];
            hit = hit || x - last != 0;
            args.counts->nonzero += x != 0;
            args.counts->deltas += !(std::fabs(x - last) <= args.threshold);
            args.counts->finite = args.counts->finite && std::isfinite(x);
            if (args.snapshot != nullptr) args.snapshot[at] = x;
            args.dense[at] = x;
        }
        args.hits[column] = hit;
    }
}

void compress_columns(const CompressColumnsArgs& args) {
    ColumnList& list = *args.list;
    for (int column = 0; column < list.width; column++) {
        const int before = list.starts[static_cast<size_t>(args.row) * list.width + column];
        int count = before;
        for (int channel = 0; channel < list.channels; channel++) {
            const int at = column * list.channels + channel;
            const float delta = args.x[at] - args.snapshot[at];
            args.counts->nonzero += args.x[at] != 0;
            args.counts->finite = args.counts->finite && std::isfinite(delta);
            const bool chosen = !(std::fabs(delta) <= args.threshold);
            if (chosen) {
                list.values[column * list.capacity + count] = as_bits(delta);
                list.rows[column * list.capacity + count] =
                    static_cast<uint16_t>(args.row * list.channels + channel);
                count++;
                args.counts->deltas++;
            }
            if (chosen || args.paper) args.snapshot[at] = args.x[at];
        }
        list.starts[static_cast<size_t>(args.row + 1) * list.width + column] =
            static_cast<uint16_t>(count);
        args.hits[column] = count > before;
    }
}

void truncated(const TruncatedArgs& args) {
    for (int run = 0; run < args.run_count; run++)
        for (int column = args.runs[run].begin; column < args.runs[run].end; column++) {
            float sum = 0;
            for (int channel = 0; channel < args.channels; channel++) {
                const ptrdiff_t at = column * kBlock + channel % kBlock;
                const float delta = args.x[channel / kBlock * args.x_block + at] -
                                    args.last[channel / kBlock * args.last_block + at];
                if (std::fabs(delta) <= args.threshold) sum += delta * delta;
            }
            *args.sum += sum;
            if (args.energy == nullptr) continue;
            *args.sum -= args.energy[column];
            args.energy[column] = sum;
        }
}

float activate(float x, Activation activation, float low, float high) {
    switch (activation) {
        case Activation::none: return x;
        case Activation::relu: return x < 0 ? 0 : x;
        case Activation::clamp: return limited(x, low, high);
        case Activation::leaky_relu: return x < 0 ? x * low : x;
        case Activation::sigmoid: return 1 / (1 + std::exp(-x));
        case Activation::silu: return x / (1 + std::exp(-x));
        case Activation::hardsigmoid: return limited(x + 3, 0, 6) / 6;
        case Activation::hardswish: return x * limited(x + 3, 0, 6) / 6;
        case Activation::tanh: return std::tanh(x);
        case Activation::sign: return std::isnan(x) ? x : x < 0 ? -1.0f : 1.0f;
    }
    return x;
}

void finish(const FinishArgs& args) {
    for (int block = 0; block < args.blocks; block++)
        for (int i = 0; i < args.width * kBlock; i++) {
            float& y = args.y[block * args.y_block + i];
            if (args.delta != nullptr) {
                float& delta = args.delta[block * args.delta_block + i];
                y = args.replace ? delta : y + delta;
                delta = 0;
            }
            const ptrdiff_t at = block * args.residual_block + i;
            const float residual = args.residual != nullptr  ? args.residual[at]
                                   : args.rounded != nullptr ? from_bf16(args.rounded[at])
                                                             : 0;
            const float sum = y + residual;
            if (args.finite != nullptr && !std::isfinite(sum)) *args.finite = false;
            args.x[block * args.x_block + i] = activate(sum, args.activation, args.low, args.high);
        }
}

void map(const MapArgs& args) {
    for (size_t i = 0; i < args.count * kBlock; i++) {
        float x = args.x[i];
        if (args.scale != nullptr) x = x * args.scale[i % kBlock] + args.shift[i % kBlock];
        args.x[i] = activate(x, args.activation, args.low, args.high);
    }
}

void pool(const PoolArgs& args) {
    for (int column = args.column_begin; column < args.column_end; column++)
        for (int lane = 0; lane < kBlock; lane++) {
            float acc = args.maximum ? -INFINITY : 0;
            for (int c = 0; c < args.kernel_columns; c++)
                for (int r = 0; r < args.rows; r++) {
                    const int from = column * args.stride - args.padding + c * args.dilation;
                    if (from < 0 || from >= args.width) continue;
                    const float x = args.lines[r][from * kBlock + lane];
                    if (!args.maximum)
                        acc += x;
                    else if (x > acc || std::isnan(x))
                        acc = x;
                }
            args.y[column * kBlock + lane] = args.maximum ? acc : acc * args.factors[column];
        }
}

void sign_bits(const SignBitsArgs& args) {
    for (int run = 0; run < args.run_count; run++)
        for (int column = args.runs[run].begin; column < args.runs[run].end; column++)
            for (int channel = 0; channel < args.channels; channel++) {
                const float x = args.x[channel / kBlock * args.x_block + column * kBlock +
                                       channel % kBlock];
                uint16_t& half = args.bits[column * args.pixel + channel / kBlock];
                const auto bit = static_cast<uint16_t>(1u << channel % kBlock);
                const bool negative = x < 0, flips = args.first || negative != ((half & bit) != 0);
                half = static_cast<uint16_t>(negative ? half | bit : half & ~bit);
                args.counts->finite = args.counts->finite && std::isfinite(x);
                if (!flips) continue;
                args.counts->deltas++;
                args.hits[column] = 1;
            }
}

void xnor(const XnorArgs& args) {
    for (int column = 0; column < args.columns; column++)
        for (int output = 0; output < args.blocks * kBlock; output++) {
            int sum = args.products;
            for (int tap = 0; tap < args.taps; tap++)
                for (int word = 0; word < args.words; word++) {
                    const uint64_t x =
                        args.x[static_cast<ptrdiff_t>(column) * args.x_step + args.x_offsets[tap] + word];
                    const uint64_t w =
                        args.weights[output / kBlock * args.block +
                                     (static_cast<ptrdiff_t>(args.tap_numbers[tap]) * args.words + word) *
                                         kBlock + output % kBlock];
                    for (int bit = 0; bit < 64; bit++) sum -= ((x ^ w) >> bit & 1) != 0 ? 2 : 0;
                }
            args.sums[column * args.pixel + output] = static_cast<int16_t>(sum);
        }
}

void flips(const FlipArgs& args) {
    for (int output = 0; output < args.outputs; output++) {
        int sum = args.sums[output];
        for (int i = 0; i < args.up_count; i++) sum += 2 * args.weights[args.ups[i] + output];
        for (int i = 0; i < args.down_count; i++) sum -= 2 * args.weights[args.downs[i] + output];
        args.sums[output] = static_cast<int16_t>(sum);
    }
}

void scale_sums(const ScaleSumsArgs& args) {
    for (int output = 0; output < args.blocks * kBlock; output++)
        for (int column = 0; column < args.columns; column++)
            args.x[output / kBlock * args.x_block + column * kBlock + output % kBlock] =
                args.scale[output] * static_cast<float>(args.sums[column * args.pixel + output]) +
                args.shift[output];
}

void coded(const CodedArgs& args) {
    for (int i = 0; i < args.count; i++) {
        const uint32_t column = args.columns[i];
        for (uint32_t e = args.starts[column]; e < args.starts[column + 1]; e++) {
            const int row = args.entries[e] >> args.code_bits;
            const int code = args.entries[e] & ((1 << args.code_bits) - 1);
            for (int frame = 0; frame < args.frames; frame++)
                args.y[row * args.frames + frame] +=
                    args.x[i * args.frames + frame] * args.codebook[code];
        }
    }
}

}  // namespace

const Kernels& reference_kernels() {
    static const Kernels table = {
        "reference", window, tap, dense, winograd_weights, winograd_input, winograd_output,
        int16_weights, int16_input, int16_products,
        column, depthwise, compress, keep, select, compress_columns, keep_columns,
        truncated, sign_bits, xnor, flips, scale_sums, coded, finish, map, pool,
    };
    return table;
}

}  // namespace rrm
