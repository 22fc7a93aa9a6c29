// Kernels of layers whose inputs and weights are signs.
#include <algorithm>
#include <limits>

#include "harness.hpp"

namespace rrm::test {

void check_sign_bits(Case& c) {
    Random& random = c.random;
    const int width = random.between(1, 24), channels = random.between(1, 128);
    const int blocks = (channels + kBlock - 1) / kBlock, pixel = blocks + random.between(0, 4);
    const ptrdiff_t x_block = static_cast<ptrdiff_t>(width) * kBlock;
    constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
    std::vector<Run> runs;
    for (int column = random.between(0, 2); column < width;) {
        const int end = std::min(width, column + random.between(1, 24));
        runs.push_back({column, end});
        column = end + random.between(1, 4);
    }
    // What lies outside of the runs must not be read.
    Array<float> x(static_cast<size_t>(blocks * x_block), kNan);
    const bool special = random.chance(0.1);
    for (const Run& run : runs)
        for (int column = run.begin; column < run.end; column++)
            for (int i = 0; i < blocks * kBlock; i++) {
                float& value = x[static_cast<size_t>(i / kBlock * x_block + column * kBlock + i % kBlock)];
                value = i < channels ? random.one_of({-1.0f, 1.0f, 0.0f, -0.0f, random.real()}) : 0.0f;
                if (special && i < channels && random.chance(0.01))
                    value = random.one_of({kNan, std::numeric_limits<float>::infinity()});
            }
    Array<uint16_t> expected(static_cast<size_t>(width) * pixel);
    const auto last_lanes = static_cast<uint16_t>((1u << (channels - (blocks - 1) * kBlock)) - 1u);
    for (int column = 0; column < width; column++)
        for (int block = 0; block < blocks; block++) {
            const auto bits = static_cast<uint16_t>(random.next());
            expected[static_cast<size_t>(column) * pixel + block] =
                block + 1 < blocks ? bits : static_cast<uint16_t>(bits & last_lanes);
        }
    Array<uint16_t> actual = expected;
    Array<uint8_t> expected_hits(width), actual_hits(width);
    for (int column = 0; column < width; column++)
        actual_hits[column] = expected_hits[column] = random.chance(0.3);
    Counts expected_counts{random.between(0, 99), random.between(0, 99), random.chance(0.9)};
    Counts actual_counts = expected_counts;
    const bool first = random.chance(0.3);
    const auto args = [&](Array<uint16_t>& bits, Array<uint8_t>& hits, Counts& counts) {
        return SignBitsArgs{x.data(), x_block, runs.data(), static_cast<int>(runs.size()), channels,
                            bits.data(), pixel, first, hits.data(), &counts};
    };
    reference_kernels().sign_bits(args(expected, expected_hits, expected_counts));
    c.kernels.sign_bits(args(actual, actual_hits, actual_counts));
    c.equal("bits", actual, expected);
    c.equal("hits", actual_hits, expected_hits);
    c.expect(actual_counts.nonzero == expected_counts.nonzero, "counts.nonzero differs");
    c.expect(actual_counts.deltas == expected_counts.deltas, "counts.deltas differs");
    c.expect(actual_counts.finite == expected_counts.finite, "counts.finite differs");
}

void check_xnor(Case& c) {
    Random& random = c.random;
    const int columns = random.between(1, 30), stride = random.between(1, 3);
    const int words = random.between(1, 9), all_taps = random.between(1, 12);
    const int taps = random.between(0, all_taps), blocks = random.between(1, 5);
    const int pixels = (columns - 1) * stride + all_taps;
    Array<uint64_t> x(static_cast<size_t>(pixels) * words);
    const ptrdiff_t block = static_cast<ptrdiff_t>(all_taps) * words * kBlock;
    Array<uint64_t> weights(static_cast<size_t>(block) * blocks);
    // Few, half or all bits.
    const int kind = random.between(0, 2);
    const auto word = [&] {
        return kind == 0 ? random.next() : kind == 1 ? random.next() & random.next() & random.next()
                                                     : ~uint64_t{0};
    };
    for (size_t i = 0; i < x.size(); i++) x[i] = word();
    for (size_t i = 0; i < weights.size(); i++) weights[i] = word();
    std::vector<int32_t> offsets, numbers;
    for (int tap = 0; tap < taps; tap++) {
        offsets.push_back(random.between(0, all_taps - 1) * words);
        numbers.push_back(random.between(0, all_taps - 1));
    }
    const ptrdiff_t pixel = blocks * kBlock + random.between(0, 20);
    Array<int16_t> expected(static_cast<size_t>(columns) * pixel, 77), actual = expected;
    XnorArgs args = {x.data(), stride * words, words, taps, offsets.data(), numbers.data(),
                     weights.data(), block, blocks, random.between(0, 64 * words) * taps,
                     expected.data(), pixel, columns};
    reference_kernels().xnor(args);
    args.sums = actual.data();
    c.kernels.xnor(args);
    c.equal("sums", actual, expected);
}

void check_flips(Case& c) {
    Random& random = c.random;
    const int outputs = kSumOutputs * random.between(1, 13), rows = random.between(1, 40);
    Array<int8_t> weights(static_cast<size_t>(outputs) * rows);
    const bool ones = random.chance(0.2);  // sums as large as they can be
    for (size_t i = 0; i < weights.size(); i++) weights[i] = ones || random.chance(0.5) ? 1 : -1;
    const auto some_rows = [&] {
        std::vector<uint32_t> list(random.one_of({0, 1, 5, 126, 127, 128, 254, 300}));
        for (uint32_t& row : list) row = static_cast<uint32_t>(random.between(0, rows - 1) * outputs);
        return list;
    };
    const std::vector<uint32_t> ups = some_rows(), downs = some_rows();
    Array<int16_t> expected(static_cast<size_t>(outputs));
    for (int i = 0; i < outputs; i++) expected[i] = static_cast<int16_t>(random.between(-9000, 9000));
    Array<int16_t> actual = expected;
    FlipArgs args = {weights.data(), ups.data(), downs.data(), static_cast<int>(ups.size()),
                     static_cast<int>(downs.size()), expected.data(), outputs};
    reference_kernels().flips(args);
    args.sums = actual.data();
    c.kernels.flips(args);
    c.equal("sums", actual, expected);
}

void check_scale_sums(Case& c) {
    Random& random = c.random;
    const int columns = random.between(1, 20), blocks = random.between(1, 8);
    const ptrdiff_t pixel = blocks * kBlock + random.between(0, 20);
    const ptrdiff_t x_block = columns * kBlock + random.between(0, 20);
    Array<int16_t> sums(static_cast<size_t>(columns) * pixel);
    for (size_t i = 0; i < sums.size(); i++) sums[i] = static_cast<int16_t>(random.between(-32767, 32767));
    const Array<float> scale = c.exacts(blocks * kBlock), shift = c.exacts(blocks * kBlock);
    Array<float> expected(static_cast<size_t>(blocks * x_block)), actual = expected;
    ScaleSumsArgs args = {sums.data(), pixel, scale.data(), shift.data(), expected.data(), x_block,
                          columns, blocks};
    reference_kernels().scale_sums(args);
    args.x = actual.data();
    c.kernels.scale_sums(args);
    c.equal("x", actual, expected);
}

}  // namespace rrm::test
