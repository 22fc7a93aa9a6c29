// Kernels that multiply everything.
#include <algorithm>
#include <cmath>
#include <utility>

#include "harness.hpp"

namespace rrm::test {

// Numbers of which some are not finite, in some cases.
Array<float> with_accidents(Case& c, size_t count) {
    Array<float> numbers = c.exacts(count);
    if (c.random.chance(0.2))
        numbers[static_cast<size_t>(c.random.between(0, static_cast<int>(count) - 1))] =
            c.random.one_of({NAN, INFINITY, -INFINITY});
    return numbers;
}

// Limits of what is written, as an activation has them.
struct Limits {
    float low, high;
};
Limits some_limits(Random& random) {
    return random.one_of({Limits{-INFINITY, INFINITY}, Limits{0, INFINITY}, Limits{-1, 2}});
}

// Some ending of some blocks of outputs, with what it reads and where it writes: once for the
// kernels and once for the reference.
struct SomeEnd {
    LayerEnd end{};
    Array<float> residual{0};
    Array<uint16_t> rounded{0};
    Array<float> expected_trace{kBlock}, actual_trace{kBlock};
    Array<uint16_t> expected_to{0}, actual_to{0};
    bool traces, writes_rounded;

    // Layers of bfloat16 also read and write such numbers.
    SomeEnd(Case& c, int blocks, int rows, int columns, bool may_write_rounded)
        : traces(c.random.chance(0.7)),
          writes_rounded(c.bf16() && may_write_rounded && c.random.chance(0.5)) {
        Random& random = c.random;
        const Limits limits = some_limits(random);
        end.low = limits.low;
        end.high = limits.high;
        end.residual_row = (columns + random.between(0, 2)) * kBlock;
        end.residual_block = rows * end.residual_row + random.between(0, 1) * kBlock;
        residual = with_accidents(c, static_cast<size_t>(blocks * end.residual_block));
        rounded = halves(residual);
        if (random.chance(0.5)) {
            if (c.bf16() && random.chance(0.5))
                end.rounded = rounded.data();
            else
                end.residual = residual.data();
        }
        end.to_row = (columns + random.between(0, 2)) * kBlock;
        end.to_block = rows * end.to_row + random.between(0, 1) * kBlock;
        expected_to = Array<uint16_t>(static_cast<size_t>(blocks * end.to_block), 7);
        actual_to = expected_to;
    }
    const LayerEnd* of(Array<float>& trace, Array<uint16_t>& to) {
        end.trace = traces ? trace.data() : nullptr;
        end.to = writes_rounded ? to.data() : nullptr;
        return &end;
    }
    const LayerEnd* expected() { return of(expected_trace, expected_to); }
    const LayerEnd* actual() { return of(actual_trace, actual_to); }
};

void check_dense(Case& c) {
    Random& random = c.random;
    // A map of blocks, or a frame whose channels lie side by side.
    const bool frame = !c.bf16() && random.chance(0.4);
    const int block_units = frame ? random.between(1, 4) : (c.bf16() ? kBlock / 2 : kBlock);
    // Weights of many channels are copied bit by bit where a kernel copies them.
    const int x_blocks = frame ? 1 : random.chance(0.2) ? random.between(8, 20) : random.between(1, 3);
    const bool plain = random.chance(0.3);  // 1x1 kernels may take rows as one
    const int kernel_rows = plain ? 1 : random.between(1, 3);
    const int kernel_columns = plain ? 1 : random.between(1, 3);
    const int dilation = random.between(1, 2);
    const int row_stride = plain ? 1 : random.between(1, 2);
    const int column_stride = plain ? 1 : random.one_of({1, 2, 3, 4});
    const int rows = random.between(1, 5), columns = random.between(1, 40);
    const int height = (rows - 1) * row_stride + (kernel_rows - 1) * dilation + 1;
    const int width = (columns - 1) * column_stride + (kernel_columns - 1) * dilation + 1;
    const ptrdiff_t row_units = static_cast<ptrdiff_t>(width) * block_units;
    const Array<uint32_t> x =
        c.elements(static_cast<size_t>(x_blocks * height * row_units), random.density());
    std::vector<int32_t> offsets;
    for (int r = 0; r < kernel_rows; r++)
        for (int s = 0; s < kernel_columns; s++)
            offsets.push_back((r * width + s) * dilation * block_units);
    const int taps = kernel_rows * kernel_columns;
    const int units = x_blocks * block_units - (frame ? 0 : random.between(0, block_units - 1));
    const bool units_first = random.chance(0.5);
    const int blocks = random.between(1, 2);
    const bool add = random.chance(0.3);
    const int apart = kBlock * random.between(1, 4);  // those of other outputs lie between
    const size_t weight_count = static_cast<size_t>(units) * taps * apart;
    Array<uint32_t> weights[2] = {c.elements(weight_count, 0.9), c.elements(weight_count, 0.9)};
    const int padding = random.chance(0.4) ? random.between(1, kBlock - 1) : 0;
    for (size_t at = 0; at < weight_count; at += apart)
        for (int lane = kBlock - padding; lane < kBlock; lane++)
            weights[blocks - 1].data()[at + lane] = 0;
    const Array<float> bias[2] = {with_accidents(c, kBlock), c.exacts(kBlock)};
    const ptrdiff_t y_column = kBlock * random.between(1, 2);
    const ptrdiff_t y_row = columns * y_column + kBlock * (random.chance(0.3) ? random.between(0, 2) : 0);
    const size_t y_count = static_cast<size_t>(rows * y_row);
    Array<float> expected[2] = {c.exacts(y_count), c.exacts(y_count)};
    Array<float> actual[2] = {expected[0], expected[1]};
    DenseArgs args = {x.data(), height * row_units, row_stride * row_units,
                      column_stride * block_units, units, block_units, taps, offsets.data(),
                      {weights[0].data(), weights[1].data()},
                      units_first ? taps * apart : apart, units_first ? apart : units * apart,
                      {add ? nullptr : bias[0].data(), add ? nullptr : bias[1].data()}, {expected[0].data(), expected[1].data()},
                      blocks, y_row, y_column, rows, columns};
    SomeEnd end(c, blocks, rows, columns, !add);
    args.padding = padding;
    const bool ends = random.chance(0.6);
    if (ends) args.end = end.expected();
    for (int block = 0; block < 2 && ends && end.writes_rounded; block++) args.y[block] = nullptr;
    reference_kernels().dense(args, c.arithmetic);
    for (int block = 0; block < 2; block++)
        if (args.y[block] != nullptr) args.y[block] = actual[block].data();
    if (ends) args.end = end.actual();
    c.kernels.dense(args, c.arithmetic);
    for (int block = 0; block < 2; block++) c.equal("y", actual[block], expected[block]);
    c.equal("to", end.actual_to, end.expected_to);
    c.equal("trace", end.actual_trace, end.expected_trace);
}

// The transforms have irrational factors: equal but for rounding, whose size is that of the
// largest terms.
void nearly_equal(Case& c, const Array<float>& actual, const Array<float>& expected) {
    for (size_t i = 0; i < expected.all().size(); i++) {
        const float a = actual.all()[i], b = expected.all()[i];
        const bool same = a == b || (std::isnan(a) && std::isnan(b));
        c.compare("to", i, a, b, same || std::fabs(a - b) <= 1e-4f);
    }
}

// The same after rounding to bfloat16, which may go the other way.
void nearly_equal(Case& c, const Array<uint16_t>& actual, const Array<uint16_t>& expected) {
    for (size_t i = 0; i < expected.all().size(); i++) {
        const float a = as_float(static_cast<uint32_t>(actual.all()[i]) << 16);
        const float b = as_float(static_cast<uint32_t>(expected.all()[i]) << 16);
        const bool same = a == b || (std::isnan(a) && std::isnan(b));
        c.compare("to", i, a, b, same || std::fabs(a - b) <= 1e-4f + std::fabs(b) / 128);
    }
}

// Where the taps of a unit lie, in any order and with some missing.
std::vector<int32_t> some_offsets(Random& random, int taps, bool all) {
    std::vector<int32_t> offsets(static_cast<size_t>(taps) * taps);
    for (size_t i = 0; i < offsets.size(); i++) offsets[i] = static_cast<int32_t>(i) * kBlock;
    for (size_t i = offsets.size(); i > 1; i--)
        std::swap(offsets[i - 1], offsets[random.between(0, static_cast<int>(i) - 1)]);
    if (!all)
        for (int32_t& offset : offsets)
            if (random.chance(0.2)) offset = -1;
    return offsets;
}

void check_winograd_weights(Case& c) {
    Random& random = c.random;
    const int units = random.between(1, 20), channels = units * (c.bf16() ? 2 : 1);
    const int outputs = random.between(3, 4), taps = winograd_taps_of(outputs);
    const ptrdiff_t unit_stride = (taps * taps + random.between(0, 2)) * kBlock;
    const Array<uint32_t> weights = c.elements(static_cast<size_t>(units * unit_stride), 0.9);
    const std::vector<int32_t> offsets = some_offsets(random, taps, random.chance(0.5));
    const ptrdiff_t position = (channels + random.between(0, 2)) * kBlock;
    Array<float> expected(static_cast<size_t>(position) * kWinogradPositions, 7), actual = expected;
    WinogradWeightsArgs args = {weights.data(), unit_stride, offsets.data(), outputs,
                                units, expected.data(), position};
    reference_kernels().winograd_weights(args, c.arithmetic);
    args.to = actual.data();
    c.kernels.winograd_weights(args, c.arithmetic);
    nearly_equal(c, actual, expected);
}

void check_winograd_input(Case& c) {
    Random& random = c.random;
    const int pixel = (c.bf16() ? kBlock / 2 : kBlock) * random.between(1, 2);
    const int height = random.between(6, 12), width = random.between(6, 14);
    const int blocks = random.between(1, 3), count = random.between(1, 9);
    const int right = random.between(0, width - 6), down = random.between(0, height - 6);
    const ptrdiff_t x_row = static_cast<ptrdiff_t>(width) * pixel, x_block = x_row * height;
    const Array<uint32_t> x = c.elements(static_cast<size_t>(x_block) * blocks, random.density());
    std::vector<const uint32_t*> tiles;
    for (int tile = 0; tile < count; tile++)
        tiles.push_back(x.data() + random.between(0, height - 6 - down) * x_row +
                        random.between(0, width - 6 - right) * pixel);
    const ptrdiff_t position = (count + random.between(0, 3)) * kBlock;
    const ptrdiff_t block = position * kWinogradPositions + kBlock;
    Array<float> expected(static_cast<size_t>(block) * blocks, 7), actual = expected;
    WinogradInputArgs args = {tiles.data(), down * x_row + right * pixel, count, blocks, pixel, x_row,
                              x_block, expected.data(), position, block};
    reference_kernels().winograd_input(args, c.arithmetic);
    args.to = actual.data();
    c.kernels.winograd_input(args, c.arithmetic);
    nearly_equal(c, actual, expected);
}

void check_winograd_output(Case& c) {
    Random& random = c.random;
    const int rows = random.between(1, 11), columns = random.between(1, 11);
    const int blocks = random.between(1, 3), outputs = random.between(3, 4);
    std::vector<WinogradTile> tiles;
    for (int row = 0; row < rows; row += outputs)
        for (int column = 0; column < columns; column += outputs)
            if (random.chance(0.8))
                tiles.push_back({row, column, std::min(outputs, rows - row),
                                 std::min(outputs, columns - column)});
    const int count = static_cast<int>(tiles.size());
    const ptrdiff_t position = (count + 1) * kBlock, block = position * kWinogradPositions;
    const Array<float> from = c.exacts(static_cast<size_t>(block) * blocks);
    const Array<float> bias = c.exacts(static_cast<size_t>(blocks) * kBlock);
    std::vector<uint8_t> mask(static_cast<size_t>(rows) * columns);
    for (uint8_t& one : mask) one = random.chance(0.5);
    const ptrdiff_t y_row = (columns + 1) * kBlock, y_block = y_row * rows;
    Array<float> expected = c.exacts(static_cast<size_t>(y_block) * blocks), actual = expected;
    // The first tiles' rows may lie beyond the memory that is given.
    const int first_row = tiles.empty() ? 0 : random.between(0, tiles.front().row);
    WinogradOutputArgs args = {tiles.data(), outputs, count, blocks, from.data(), position, block,
                               bias.data(), first_row, expected.data(), y_row, y_block,
                               random.chance(0.5) ? mask.data() : nullptr, columns};
    SomeEnd end(c, blocks, rows, columns, true);
    const bool ends = random.chance(0.7) && (args.mask == nullptr || !end.writes_rounded);
    if (ends) args.end = end.expected();
    if (ends && end.writes_rounded) args.y = nullptr;
    reference_kernels().winograd_output(args);
    if (args.y != nullptr) args.y = actual.data();
    if (ends) args.end = end.actual();
    c.kernels.winograd_output(args);
    nearly_equal(c, actual, expected);
    nearly_equal(c, end.actual_to, end.expected_to);
    c.equal("trace", end.actual_trace, end.expected_trace);
}

// The three transforms with a product between them are a convolution.
void check_winograd(Case& c) {
    Random& random = c.random;
    const int pixel = c.bf16() ? kBlock / 2 : kBlock;
    const int outputs = random.between(3, 4), taps = winograd_taps_of(outputs);
    const ptrdiff_t unit_stride = static_cast<ptrdiff_t>(taps) * taps * kBlock;
    const Array<uint32_t> weights = c.elements(static_cast<size_t>(pixel * unit_stride), 0.9);
    const std::vector<int32_t> places = some_offsets(random, taps, true);
    const Array<uint32_t> x = c.elements(static_cast<size_t>(36) * pixel, random.density());
    const Array<float> bias = c.exacts(kBlock);
    std::vector<float> kernels(static_cast<size_t>(kWinogradPositions) * kBlock * kBlock);
    std::vector<float> inputs(static_cast<size_t>(kWinogradPositions) * kBlock), sums = inputs;
    c.kernels.winograd_weights({weights.data(), unit_stride, places.data(), outputs, pixel,
                                kernels.data(), kBlock * kBlock},
                               c.arithmetic);
    const uint32_t* const tile = x.data();
    c.kernels.winograd_input({&tile, 0, 1, 1, pixel, 6 * pixel, 0, inputs.data(), kBlock, 0},
                             c.arithmetic);
    for (int position = 0; position < kWinogradPositions; position++)
        for (int lane = 0; lane < kBlock; lane++) {
            double sum = 0;
            for (int channel = 0; channel < kBlock; channel++)
                sum += static_cast<double>(inputs[position * kBlock + channel]) *
                       kernels[(position * kBlock + channel) * kBlock + lane];
            sums[position * kBlock + lane] = static_cast<float>(sum);
        }
    Array<float> actual(static_cast<size_t>(outputs) * outputs * kBlock), expected = actual;
    const WinogradTile whole = {0, 0, outputs, outputs};
    c.kernels.winograd_output({&whole, outputs, 1, 1, sums.data(), kBlock, 0, bias.data(), 0,
                               actual.data(), outputs * kBlock, 0, nullptr, outputs});
    std::vector<int32_t> offsets(places.size());
    for (int r = 0; r < taps; r++)
        for (int s = 0; s < taps; s++)
            offsets[places[r * taps + s] / kBlock] = (r * 6 + s) * pixel;
    DenseArgs args = {x.data(), 0, 6 * pixel, pixel, pixel, pixel, taps * taps, offsets.data(),
                      {weights.data(), nullptr}, unit_stride, kBlock, {bias.data(), nullptr},
                      {expected.data(), nullptr}, 1, outputs * kBlock, kBlock, outputs, outputs};
    reference_kernels().dense(args, c.arithmetic);
    for (size_t i = 0; i < expected.size(); i++)
        c.compare("y", i, actual[i], expected[i], std::fabs(actual[i] - expected[i]) <= 1e-2f);
}

void check_depthwise(Case& c) {
    Random& random = c.random;
    const int size = random.between(1, 7);
    const bool square = random.chance(0.8);
    const int kernel_rows = square ? size : random.between(1, 5), kernel_columns = size;
    const int dilation = random.chance(0.7) ? 1 : 2;
    // Strides beyond the kernel, too: none may be taken for a usual one.
    const int stride = random.chance(0.8) ? random.between(1, 3) : random.one_of({4, 11, 12, 21, 22});
    const int rows = random.between(1, 4), columns = random.between(1, 20);
    const int row_stride = random.between(1, 3);
    const int width = (columns - 1) * stride + (kernel_columns - 1) * dilation + 1;
    const int height = (rows - 1) * row_stride + (kernel_rows - 1) * dilation + 1;
    const int y_width = columns + random.between(0, 2);
    const Array<float> x = c.exacts(static_cast<size_t>(height) * width * kBlock);
    const Array<float> weights = c.exacts(static_cast<size_t>(kernel_rows) * kernel_columns * kBlock);
    const Array<float> bias = with_accidents(c, kBlock);
    Array<float> expected = c.exacts(static_cast<size_t>(rows) * y_width * kBlock);
    Array<float> actual = expected;
    const Limits limits = some_limits(random);
    const bool traces = random.chance(0.7);
    Array<float> expected_trace(kBlock), actual_trace(kBlock);
    DepthwiseArgs args = {x.data(), static_cast<ptrdiff_t>(width) * kBlock, kernel_rows,
                          kernel_columns, row_stride, stride, dilation, dilation, weights.data(),
                          bias.data(), expected.data(), static_cast<ptrdiff_t>(y_width) * kBlock,
                          rows, columns, limits.low, limits.high,
                          traces ? expected_trace.data() : nullptr};
    reference_kernels().depthwise(args);
    args.y = actual.data();
    if (traces) args.trace = actual_trace.data();
    c.kernels.depthwise(args);
    c.equal("y", actual, expected);
    c.equal("trace", actual_trace, expected_trace);
}

}  // namespace rrm::test
