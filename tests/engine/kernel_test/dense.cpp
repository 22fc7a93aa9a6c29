// Kernels that multiply everything.
#include "harness.hpp"

namespace rrm::test {

void check_dense(Case& c) {
    Random& random = c.random;
    // A map of blocks, or a frame whose channels lie side by side.
    const bool frame = !c.bf16() && random.chance(0.4);
    const int block_units = frame ? random.between(1, 4) : (c.bf16() ? kBlock / 2 : kBlock);
    const int x_blocks = frame ? 1 : random.between(1, 3);
    const int kernel_rows = random.between(1, 3), kernel_columns = random.between(1, 3);
    const int dilation = random.between(1, 2);
    const int row_stride = random.between(1, 2), column_stride = random.one_of({1, 2, 3, 4});
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
    const int taps = kernel_rows * kernel_columns, units = x_blocks * block_units;
    const bool units_first = random.chance(0.5);
    const int blocks = random.between(1, 2);
    const size_t weight_count = static_cast<size_t>(units) * taps * kBlock;
    const Array<uint32_t> weights[2] = {c.elements(weight_count, 0.9), c.elements(weight_count, 0.9)};
    const Array<float> bias[2] = {c.exacts(kBlock), c.exacts(kBlock)};
    const ptrdiff_t y_column = kBlock * random.between(1, 2), y_row = columns * y_column;
    const size_t y_count = static_cast<size_t>(rows * y_row);
    Array<float> expected[2] = {c.exacts(y_count), c.exacts(y_count)};
    Array<float> actual[2] = {expected[0], expected[1]};
    DenseArgs args = {x.data(), height * row_units, row_stride * row_units,
                      column_stride * block_units, x_blocks, block_units, taps, offsets.data(),
                      {weights[0].data(), weights[1].data()},
                      units_first ? taps * kBlock : kBlock, units_first ? kBlock : units * kBlock,
                      {bias[0].data(), bias[1].data()}, {expected[0].data(), expected[1].data()},
                      blocks, y_row, y_column, rows, columns};
    reference_kernels().dense(args, c.arithmetic);
    for (int block = 0; block < 2; block++) args.y[block] = actual[block].data();
    c.kernels.dense(args, c.arithmetic);
    for (int block = 0; block < 2; block++) c.equal("y", actual[block], expected[block]);
}

void check_depthwise(Case& c) {
    Random& random = c.random;
    const int size = random.between(1, 7);
    const bool square = random.chance(0.8);
    const int kernel_rows = square ? size : random.between(1, 5), kernel_columns = size;
    const int dilation = random.chance(0.7) ? 1 : 2, stride = random.between(1, 3);
    const int columns = random.between(1, 20);
    const int width = (columns - 1) * stride + (kernel_columns - 1) * dilation + 1;
    const int height = (kernel_rows - 1) * dilation + 1;
    const Array<float> x = c.exacts(static_cast<size_t>(height) * width * kBlock);
    const Array<float> weights = c.exacts(static_cast<size_t>(kernel_rows) * kernel_columns * kBlock);
    const Array<float> bias = c.exacts(kBlock);
    Array<float> expected = c.exacts(static_cast<size_t>(columns) * kBlock), actual = expected;
    DepthwiseArgs args = {x.data(), static_cast<ptrdiff_t>(width) * kBlock, kernel_rows,
                          kernel_columns, stride, dilation, dilation, weights.data(), bias.data(),
                          expected.data(), columns};
    reference_kernels().depthwise(args);
    args.y = actual.data();
    c.kernels.depthwise(args);
    c.equal("y", actual, expected);
}

}  // namespace rrm::test
