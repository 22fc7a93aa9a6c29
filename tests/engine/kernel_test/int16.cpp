// Winograd's matrix products in whole numbers of 16 bits.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "harness.hpp"

namespace rrm::test {

namespace {

int half_of(uint32_t pair, int half) {
    return static_cast<int16_t>(half == 0 ? pair & 0xffffu : pair >> 16);
}

uint32_t pair_of(int low, int high) {
    return (static_cast<uint32_t>(low) & 0xffffu) | (static_cast<uint32_t>(high) << 16);
}

// What stands between two whole numbers may be rounded to either, margins excluded.
void nearly_equal(Case& c, const char* what, uint32_t actual, uint32_t expected, size_t i) {
    for (int half = 0; half < 2; half++) {
        const int a = half_of(actual, half), b = half_of(expected, half);
        c.compare(what, 2 * i + static_cast<size_t>(half), a, b, std::abs(a - b) <= 1);
    }
}

void same_scale(Case& c, size_t i, float actual, float expected) {
    c.compare("scale", i, actual, expected,
              (std::isnan(actual) && std::isnan(expected)) ||
                  std::fabs(actual - expected) <= 1e-5f * expected);
}

}  // namespace

void check_int16_input(Case& c) {
    Random& random = c.random;
    const int pixel = (c.bf16() ? kBlock / 2 : kBlock) * random.between(1, 2);
    const int height = random.between(6, 9), width = random.between(6, 9);
    const int channels = random.between(1, kInt16Blocks * kBlock), count = random.between(1, 5);
    const int blocks = (channels + kBlock - 1) / kBlock, pairs = kBlock / 2;
    const ptrdiff_t x_row = static_cast<ptrdiff_t>(width) * pixel, x_block = x_row * height;
    Array<uint32_t> x = c.elements(static_cast<size_t>(x_block) * blocks, random.density());
    if (random.chance(0.2))
        x[static_cast<size_t>(random.between(0, static_cast<int>(x.size()) - 1))] =
            random.one_of({0x7fc07fc0u, 0x7f807f80u, 0xff80ff80u});
    std::vector<const uint32_t*> tiles;
    for (int tile = 0; tile < count; tile++)
        tiles.push_back(x.data() + random.between(0, height - 6) * x_row +
                        random.between(0, width - 6) * pixel);
    const ptrdiff_t position = (count + random.between(0, 3)) * pairs;
    const ptrdiff_t block = position * kWinogradPositions + kBlock;
    Array<uint32_t> expected(static_cast<size_t>(block) * blocks, 7), actual = expected;
    Array<float> expected_scales(static_cast<size_t>(count), 7), actual_scales = expected_scales;
    Int16InputArgs args = {tiles.data(), 0,       count,           channels, pixel,
                           x_row,        x_block, expected.data(), position, block,
                           expected_scales.data()};
    reference_kernels().int16_input(args, c.arithmetic);
    args.to = actual.data();
    args.scales = actual_scales.data();
    c.kernels.int16_input(args, c.arithmetic);
    for (int tile = 0; tile < count; tile++) {
        const auto number = static_cast<size_t>(tile);
        same_scale(c, number, actual_scales[number], expected_scales[number]);
        if (!std::isfinite(expected_scales[number]))  // then nobody uses the numbers
            for (int b = 0; b < blocks; b++)
                for (int p = 0; p < kWinogradPositions; p++)
                    for (int pair = 0; pair < pairs; pair++) {
                        const auto at = static_cast<size_t>(b * block + p * position +
                                                            tile * pairs + pair);
                        actual[at] = expected[at];
                    }
    }
    for (size_t i = 0; i < expected.all().size(); i++)
        nearly_equal(c, "to", actual.all()[i], expected.all()[i], i);
}

void check_int16_weights(Case& c) {
    Random& random = c.random;
    const int channels = random.between(1, kInt16Blocks * kBlock);
    const ptrdiff_t position = (channels + random.between(1, 3)) * kBlock;
    Array<float> expected = c.exacts(static_cast<size_t>(position) * kWinogradPositions);
    const int lane = random.between(0, kBlock - 1);
    const float odd = random.one_of({0.0f, 1e-36f, 1e30f, INFINITY, NAN});
    if (random.chance(0.5))  // an output whose weights are none of the usual
        for (int channel = 0; channel < channels; channel++) expected[channel * kBlock + lane] = odd;
    Array<float> actual = expected;
    const ptrdiff_t scales = position - kBlock;
    Int16WeightsArgs args = {expected.data(), position, channels, expected.data() + scales};
    reference_kernels().int16_weights(args);
    args.kernels = actual.data();
    args.scales = actual.data() + scales;
    c.kernels.int16_weights(args);
    for (int p = 0; p < kWinogradPositions; p++)
        for (int output = 0; output < kBlock; output++) {
            const auto scale = static_cast<size_t>(p * position + scales + output);
            same_scale(c, scale, actual[scale], expected[scale]);
            if (!std::isfinite(expected[scale])) continue;
            int64_t sum = 0;
            for (int pair = 0; pair < (channels + 1) / 2; pair++) {
                const auto at = static_cast<size_t>(p * position + pair * kBlock + output);
                nearly_equal(c, "kernels", as_bits(actual[at]), as_bits(expected[at]), at);
                for (int half = 0; half < 2; half++)
                    sum += std::abs(half_of(as_bits(actual[at]), half));
            }
            c.expect(sum * kInt16Input < int64_t{1} << 31, "sums may overflow");
        }
    // What is neither a pair nor a scale is left alone.
    for (size_t i = 0; i < expected.all().size(); i++)
        if (i < Array<float>::kMargin || i >= Array<float>::kMargin + expected.size())
            c.compare("margin", i, actual.all()[i], expected.all()[i],
                      actual.all()[i] == expected.all()[i]);
}

void check_int16_products(Case& c) {
    Random& random = c.random;
    const int blocks = random.between(1, 2), rows = random.between(1, 3), tiles = random.between(1, 14);
    const int pairs = random.between(1, kInt16Blocks * kBlock / 2), pair_block = kBlock / 2;
    const ptrdiff_t x_block = (rows * tiles + random.between(0, 2)) * pair_block;
    const ptrdiff_t x_row = static_cast<ptrdiff_t>(tiles) * pair_block;
    const int x_blocks = (pairs + pair_block - 1) / pair_block;
    // As large as they may be, or small.
    const int most_x = random.chance(0.5) ? kInt16Input : 9;
    const int most_w = random.chance(0.5) ? std::min(kInt16Weight, kInt16Sum / (2 * pairs)) : 9;
    const auto whole = [&](int most) {
        return random.chance(0.3) ? random.one_of({-most, most}) : random.between(-most, most);
    };
    Array<uint32_t> x(static_cast<size_t>(x_block) * x_blocks);
    for (size_t i = 0; i < x.size(); i++) x[i] = pair_of(whole(most_x), whole(most_x));
    Array<uint32_t> weights[2] = {Array<uint32_t>(static_cast<size_t>(pairs) * kBlock),
                                  Array<uint32_t>(static_cast<size_t>(pairs) * kBlock)};
    for (Array<uint32_t>& block : weights)
        for (size_t i = 0; i < block.size(); i++) block[i] = pair_of(whole(most_w), whole(most_w));
    // Powers of two, so that products are exact, fused or not.
    const auto scale = [&] { return random.one_of({0.0f, 0x1p-20f, 0x1p-9f, 0.5f, 4.0f, NAN}); };
    Array<float> weight_scales[2] = {Array<float>(kBlock), Array<float>(kBlock)};
    for (Array<float>& block : weight_scales)
        for (int i = 0; i < kBlock; i++) block[i] = scale();
    Array<float> input_scales(static_cast<size_t>(rows * tiles));
    for (size_t i = 0; i < input_scales.size(); i++) input_scales[i] = scale();
    const ptrdiff_t y_row = (tiles + random.between(0, 2)) * kBlock;
    Array<float> expected[2] = {c.exacts(static_cast<size_t>(rows * y_row)),
                                c.exacts(static_cast<size_t>(rows * y_row))};
    Array<float> actual[2] = {expected[0], expected[1]};
    Int16ProductArgs args = {x.data(), x_block, x_row, pairs, input_scales.data(), tiles,
                             {weights[0].data(), weights[1].data()},
                             {weight_scales[0].data(), weight_scales[1].data()},
                             random.chance(0.5), {expected[0].data(), expected[1].data()}, y_row,
                             blocks, rows, tiles};
    reference_kernels().int16_products(args);
    for (int block = 0; block < 2; block++) args.y[block] = actual[block].data();
    c.kernels.int16_products(args);
    for (int block = 0; block < 2; block++) c.equal("y", actual[block], expected[block]);
}

// The three of them between the transforms make a convolution, up to what 14 bits leave.
void check_int16(Case& c) {
    Random& random = c.random;
    const int unit_block = c.bf16() ? kBlock / 2 : kBlock;
    const int outputs = random.between(3, 4), taps = winograd_taps_of(outputs);
    const int channels = random.between(1, 3 * kBlock), blocks = (channels + kBlock - 1) / kBlock;
    const int units = c.bf16() ? (channels + 1) / 2 : channels;
    const ptrdiff_t unit_stride = static_cast<ptrdiff_t>(taps) * taps * kBlock;
    const ptrdiff_t x_block = static_cast<ptrdiff_t>(36) * unit_block;
    const Array<uint32_t> x = c.elements(static_cast<size_t>(x_block) * blocks, random.density());
    Array<uint32_t> weights = c.elements(static_cast<size_t>(units * unit_stride), 0.9);
    if (c.bf16() && channels % 2 == 1)  // a layer's weights end with the last channel
        for (ptrdiff_t i = (units - 1) * unit_stride; i < units * unit_stride; i++)
            weights[static_cast<size_t>(i)] &= 0xffffu;
    std::vector<int32_t> offsets, inputs;
    for (int r = 0; r < taps; r++)
        for (int s = 0; s < taps; s++) {
            offsets.push_back((r * taps + s) * kBlock);
            inputs.push_back((r * 6 + s) * unit_block);
        }
    const Array<float> bias = c.exacts(kBlock);
    const ptrdiff_t position = static_cast<ptrdiff_t>(kBlock) * kBlock * blocks + kBlock;
    std::vector<float> kernels(static_cast<size_t>(position) * kWinogradPositions);
    c.kernels.winograd_weights({weights.data(), unit_stride, offsets.data(), outputs, units,
                                kernels.data(), position},
                               c.arithmetic);
    c.kernels.int16_weights({kernels.data(), position, channels, kernels.data() + position - kBlock});
    const uint32_t* const tile = x.data();
    std::vector<uint32_t> numbers(static_cast<size_t>(kWinogradPositions * kBlock / 2 * blocks));
    float input_scale = 0;
    c.kernels.int16_input({&tile, 0, 1, channels, unit_block, 6 * unit_block, x_block, numbers.data(),
                           kBlock / 2, kWinogradPositions * kBlock / 2, &input_scale},
                          c.arithmetic);
    std::vector<float> sums(static_cast<size_t>(kWinogradPositions) * kBlock);
    for (int p = 0; p < kWinogradPositions; p++) {
        const float* const kernel = kernels.data() + p * position;
        c.kernels.int16_products({numbers.data() + p * kBlock / 2, kWinogradPositions * kBlock / 2, 0,
                                  (channels + 1) / 2, &input_scale, 0,
                                  {reinterpret_cast<const uint32_t*>(kernel), nullptr},
                                  {kernel + position - kBlock, nullptr}, true,
                                  {sums.data() + p * kBlock, nullptr}, 0, 1, 1, 1});
    }
    Array<float> actual(static_cast<size_t>(outputs) * outputs * kBlock), expected = actual;
    const WinogradTile whole = {0, 0, outputs, outputs};
    c.kernels.winograd_output({&whole, outputs, 1, 1, sums.data(), kBlock, 0, bias.data(), 0,
                               actual.data(), outputs * kBlock, 0, nullptr, outputs});
    DenseArgs args = {x.data(), x_block, 6 * unit_block, unit_block, units, unit_block, taps * taps,
                      inputs.data(), {weights.data(), nullptr}, unit_stride, kBlock,
                      {bias.data(), nullptr}, {expected.data(), nullptr}, 1, outputs * kBlock, kBlock,
                      outputs, outputs};
    reference_kernels().dense(args, c.arithmetic);
    // Of sums of some hundred.
    for (size_t i = 0; i < expected.size(); i++)
        c.compare("y", i, actual[i], expected[i], std::fabs(actual[i] - expected[i]) <= 1.0f);
}

}  // namespace rrm::test
