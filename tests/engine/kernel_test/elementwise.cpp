// Kernels between two linear layers.
#include <algorithm>
#include <limits>

#include "harness.hpp"

namespace rrm::test {

namespace {

// (-8..8), and where the exponential has to be cut off; sometimes what is not finite.
Array<float> inputs(Case& c, size_t count) {
    const bool special = c.random.chance(0.1);
    Array<float> array(count);
    for (size_t i = 0; i < count; i++) {
        array[i] = 2 * c.random.exact();
        if (c.random.chance(0.01)) array[i] = c.random.one_of({-200.0f, -90.0f, 90.0f, 200.0f});
        if (special && c.random.chance(0.05))
            array[i] = c.random.one_of({std::numeric_limits<float>::infinity(),
                                        -std::numeric_limits<float>::infinity(),
                                        std::numeric_limits<float>::quiet_NaN()});
    }
    return array;
}

Activation some_activation(Case& c) {
    return static_cast<Activation>(c.random.between(0, static_cast<int>(Activation::sign)));
}

// Piecewise linear activations are exact. The others may be off by a few units in the last place,
// and of what is infinite they need only say that it is not finite.
void equal_activations(Case& c, Activation activation, const Array<float>& actual,
                       const Array<float>& expected) {
    switch (activation) {
        case Activation::none:
        case Activation::relu:
        case Activation::clamp:
        case Activation::leaky_relu:
        case Activation::sign: return c.equal("x", actual, expected);
        default: break;
    }
    for (size_t i = 0; i < expected.all().size(); i++) {
        const float a = actual.all()[i], b = expected.all()[i];
        const bool ok = std::isfinite(a) && std::isfinite(b)
                            ? std::fabs(a - b) <= 2e-6f * std::max(1.0f, std::fabs(b))
                            : std::isfinite(a) == std::isfinite(b);
        c.compare("x", i, a, b, ok);
    }
}

}  // namespace

void check_finish(Case& c) {
    Random& random = c.random;
    const int width = random.between(1, 20), blocks = random.between(1, 3);
    const ptrdiff_t block = static_cast<ptrdiff_t>(width) * kBlock;
    const size_t count = static_cast<size_t>(blocks * block);
    const Array<float> residual = c.exacts(count);
    Array<float> expected_y = inputs(c, count), actual_y = expected_y;
    Array<float> expected_delta = c.exacts(count), actual_delta = expected_delta;
    Array<float> expected_x(count), actual_x(count);
    const Array<uint16_t> rounded = halves(residual);
    const int adds = random.between(0, 2);  // nothing, floats, or the same in bfloat16
    FinishArgs args = {expected_y.data(), block,
                       random.chance(0.7) ? expected_delta.data() : nullptr, block,
                       random.chance(0.3), adds == 1 ? residual.data() : nullptr,
                       adds == 2 ? rounded.data() : nullptr, block, expected_x.data(), block, width, blocks, some_activation(c), 0.125f, 6.0f,
                       block, nullptr};
    bool expected_finite = true, actual_finite = true;
    const bool asked = random.chance(0.5);
    if (asked) args.finite = &expected_finite;
    reference_kernels().finish(args);
    if (asked) args.finite = &actual_finite;
    args.y = actual_y.data();
    if (args.delta != nullptr) args.delta = actual_delta.data();
    args.x = actual_x.data();
    c.kernels.finish(args);
    c.equal("y", actual_y, expected_y);
    c.equal("delta", actual_delta, expected_delta);
    c.expect(actual_finite == expected_finite, "finite differs");
    equal_activations(c, args.activation, actual_x, expected_x);
}

void check_map(Case& c) {
    Random& random = c.random;
    const auto count = static_cast<size_t>(random.between(1, 50));
    const Array<float> scale = c.exacts(kBlock), shift = c.exacts(kBlock);
    const bool scaled = random.chance(0.5);
    Array<float> expected = inputs(c, count * kBlock), actual = expected;
    MapArgs args = {expected.data(), scaled ? scale.data() : nullptr,
                    scaled ? shift.data() : nullptr, count, some_activation(c), -1.0f, 1.5f};
    reference_kernels().map(args);
    args.x = actual.data();
    c.kernels.map(args);
    equal_activations(c, args.activation, actual, expected);
}

void check_pool(Case& c) {
    Random& random = c.random;
    const int kernel = random.between(1, 5), stride = random.between(1, 3);
    const int dilation = random.between(1, 2), padding = random.between(0, kernel / 2);
    const int reach = (kernel - 1) * dilation + 1;
    const int width = random.between(std::max(1, reach - 2 * padding), 24);
    const int rows = random.between(1, 5), columns = (width + 2 * padding - reach) / stride + 1;
    const ptrdiff_t x_row = static_cast<ptrdiff_t>(width) * kBlock;
    const Array<float> x = inputs(c, static_cast<size_t>(rows * x_row));
    Array<float> factors(columns);
    for (int column = 0; column < columns; column++)
        factors[column] = 1.0f / static_cast<float>(random.between(1, 25));
    Array<float> expected = c.exacts(static_cast<size_t>(columns) * kBlock), actual = expected;
    const int begin = random.between(0, columns - 1);
    std::vector<const float*> lines;
    for (int row = 0; row < rows; row++) lines.push_back(x.data() + row * x_row);
    std::swap(lines.front(), lines[random.between(0, rows - 1)]);
    PoolArgs args = {lines.data(), rows, width, kernel, stride, padding, dilation,
                     random.chance(0.5), factors.data(), expected.data(), begin,
                     random.between(begin + 1, columns)};
    reference_kernels().pool(args);
    args.y = actual.data();
    c.kernels.pool(args);
    c.equal("y", actual, expected);
}

}  // namespace rrm::test
