// Kernels that multiply lists of deltas.
#include <algorithm>
#include <numeric>
#include <utility>

#include "harness.hpp"

namespace rrm::test {

namespace {

// Random deltas and what they are stored in.
struct Deltas {
    Deltas(Case& c, int height, int width, int groups, int group_units)
        : capacity(static_cast<size_t>(width) * group_units + kListSlack),
          values(capacity * height * groups), units(capacity * height * groups),
          starts(static_cast<size_t>(height) * groups * (width + 1)) {
        list = {height, width, groups, group_units, capacity,
                values.data(), units.data(), starts.data()};
        for (int row = 0; row < height; row++)
            for (int group = 0; group < groups; group++) {
                const size_t span = list.span(row, group);
                const double density = c.random.density();
                uint32_t count = 0;
                for (int x = 0; x < width; x++) {
                    starts[span * (width + 1) + x] = count;
                    for (int unit = 0; unit < group_units; unit++) {
                        if (!c.random.chance(density)) continue;
                        values[span * capacity + count] = c.element(0.8);
                        units[span * capacity + count++] = static_cast<uint8_t>(unit);
                    }
                }
                starts[span * (width + 1) + width] = count;
            }
    }

    size_t capacity;
    Array<uint32_t> values;
    Array<uint8_t> units;
    Array<uint32_t> starts;
    List list;
};

}  // namespace

void check_window(Case& c) {
    Random& random = c.random;
    const int height = random.between(1, 6), width = random.between(1, 20);
    const int groups = random.between(1, 2);
    const int units = random.one_of({1, 3, 16, 64, 256});
    const Deltas deltas(c, height, width, groups, units);
    const Array<uint32_t> weights = c.elements(static_cast<size_t>(units) * 9 * kBlock, 0.9);
    const ptrdiff_t y_row = static_cast<ptrdiff_t>(width + 2) * kBlock;
    Array<float> expected = c.exacts(static_cast<size_t>(height + 2) * y_row), actual = expected;
    const int begin = random.between(0, height + 1);
    WindowArgs args = {&deltas.list, random.between(0, groups - 1), begin,
                       random.between(begin + 1, height + 2), weights.data(), expected.data(), y_row};
    reference_kernels().window(args, c.arithmetic);
    args.y = actual.data();
    c.kernels.window(args, c.arithmetic);
    c.equal("y", actual, expected);
}

void check_tap(Case& c) {
    Random& random = c.random;
    const int height = random.between(1, 6), width = random.between(1, 20);
    const int groups = random.between(1, 2), blocks = random.between(1, 8);
    const int units = random.one_of({1, 5, 32, 256});
    const Deltas deltas(c, height, width, groups, units);
    const Array<uint32_t> weights = c.elements(static_cast<size_t>(units) * blocks * kBlock, 0.9);
    const int row_stride = random.between(1, 3), column_stride = random.between(1, 3);
    const int row_offset = random.between(-2, 2), column_offset = random.between(-2, 2);
    // Outputs whose input lies inside of the image.
    const auto first = [](int stride, int offset) {
        int output = 0;
        while (output * stride + offset < 0) output++;
        return output;
    };
    const auto last = [](int stride, int offset, int size, int least) {
        int output = least;
        while (output * stride + offset < size) output++;
        return output;
    };
    const int row_begin = first(row_stride, row_offset);
    const int column_begin = first(column_stride, column_offset);
    const int row_end = last(row_stride, row_offset, height, row_begin);
    const int column_end = last(column_stride, column_offset, width, column_begin);
    const ptrdiff_t y_row = static_cast<ptrdiff_t>(std::max(column_end, 1)) * kBlock;
    const ptrdiff_t y_block = std::max(row_end, 1) * y_row;
    Array<float> expected = c.exacts(static_cast<size_t>(blocks * y_block)), actual = expected;
    TapArgs args = {&deltas.list, random.between(0, groups - 1), blocks, weights.data(),
                    expected.data(), y_row, y_block, row_begin, row_end, column_begin, column_end,
                    row_stride, row_offset, column_stride, column_offset};
    reference_kernels().tap(args, c.arithmetic);
    args.y = actual.data();
    c.kernels.tap(args, c.arithmetic);
    c.equal("y", actual, expected);
}

void check_column(Case& c) {
    Random& random = c.random;
    const int stride = random.between(1, 4), positions = random.between(1, 4);
    const int kernel_columns = random.between((positions - 1) * stride + 1, positions * stride);
    const int kernel_rows = random.between(1, 5), blocks = random.between(1, 2);
    const int channels = random.between(1, 4);
    const int padding = random.between(0, kernel_columns - 1);
    const int height = random.between(1, 8);
    const int width = random.between(std::max(1, kernel_columns - 2 * padding), 24);
    const int columns = (width + 2 * padding - kernel_columns) / stride + 1;

    const size_t capacity = static_cast<size_t>(height) * channels + kListSlack;
    Array<uint32_t> values(capacity * width);
    Array<uint16_t> rows(capacity * width), starts(static_cast<size_t>(height + 1) * width);
    const double density = random.density();
    bool overflows = random.chance(0.2);  // one of them, with larger weights
    for (int x = 0; x < width; x++) {
        uint16_t count = 0;
        for (int row = 0; row < height; row++) {
            starts[static_cast<size_t>(row) * width + x] = count;
            for (int channel = 0; channel < channels; channel++) {
                if (!random.chance(density)) continue;
                values[x * capacity + count] =
                    as_bits(std::exchange(overflows, false) ? 0x1p127f : random.exact());
                rows[x * capacity + count++] = static_cast<uint16_t>(row * channels + channel);
            }
        }
        starts[static_cast<size_t>(height) * width + x] = count;
    }
    const ColumnList list = {height, width, channels, capacity,
                             values.data(), rows.data(), starts.data()};

    const size_t taps = static_cast<size_t>(kernel_rows) * channels;
    const size_t outputs = static_cast<size_t>(blocks) * kBlock;
    Array<uint32_t> weights(stride * taps * positions * outputs);
    for (size_t i = 0; i < weights.size(); i++) {
        // Of the last position some phases have no column of the kernel.
        const int position = static_cast<int>(i / outputs % positions);
        const int phase = static_cast<int>(i / (outputs * positions * taps));
        if (phase + position * stride < kernel_columns) weights[i] = as_bits(random.exact());
    }
    const int first_row = random.between(1 - kernel_rows, height - 1);
    const ptrdiff_t y_block = static_cast<ptrdiff_t>(columns) * kBlock;
    Array<float> expected = c.exacts(static_cast<size_t>(blocks * y_block)), actual = expected;
    Array<float> expected_trace(kBlock), actual_trace(kBlock);
    const bool traces = random.chance(0.7);
    ColumnArgs args = {&list, std::max(0, first_row), std::min(height, first_row + kernel_rows),
                       first_row, kernel_rows, kernel_columns, stride, padding, positions, blocks,
                       weights.data(), expected.data(), y_block, columns,
                       traces ? expected_trace.data() : nullptr};
    reference_kernels().column(args);
    args.y = actual.data();
    if (traces) args.trace = actual_trace.data();
    c.kernels.column(args);
    c.equal("y", actual, expected);
    const auto is_finite = [](const Array<float>& trace) {
        return std::accumulate(trace.data(), trace.data() + kBlock, 0.0f) == 0;
    };
    c.expect(is_finite(actual_trace) == is_finite(expected_trace), "trace differs");
}

}  // namespace rrm::test
