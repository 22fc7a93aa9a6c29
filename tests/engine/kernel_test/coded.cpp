// Fully-connected layers on codes, and the order in which their weights are packed.
#include "../../../rrm_extract/engine/csrc/pack.hpp"
#include "harness.hpp"

namespace rrm::test {

// Weights are packed and multiplied, and the sums held against those of the weights themselves.
void check_coded(Case& c) {
    Random& random = c.random;
    const int code_bits = random.between(1, 8), frames = random.one_of({1, kCodedFrames});
    const int rows = random.between(1, 3), columns = random.between(1, 3);
    const int channels = random.between(1, 70), taps = rows * columns;
    const int outputs = random.one_of({1, 7, 16, 255, 256, 257, 300, 1023, 1024, 1030, 2100});
    const double density = random.density();
    // Numbers that differ, but not all of them are used.
    Array<float> codebook(size_t{1} << code_bits);
    for (size_t i = 0; i < codebook.size(); i++)
        codebook[i] = (static_cast<float>(i) - static_cast<float>(codebook.size()) / 2) / 8;
    const auto zero = codebook.size() / 2;
    codebook[zero] = 100;
    const size_t inputs = static_cast<size_t>(channels) * taps;
    std::vector<float> weights(static_cast<size_t>(outputs) * inputs);
    for (float& weight : weights)
        if (random.chance(density))
            weight = codebook[static_cast<size_t>(random.between(0, static_cast<int>(codebook.size()) - 1))];
    const Weights w = {weights.data(), outputs, channels, 1, rows, columns};
    const PackedCodes packed = pack_codes(w, codebook.data(), code_bits);

    // The columns that are multiplied, in the order of the dense form.
    const int all = (channels + kBlock - 1) / kBlock * taps * kBlock;
    std::vector<uint32_t> chosen;
    for (int column = 0; column < all; column++)
        if (random.chance(0.7)) chosen.push_back(static_cast<uint32_t>(column));
    Array<float> x = c.exacts(chosen.size() * frames);
    Array<float> expected(static_cast<size_t>(outputs) * frames);
    for (size_t i = 0; i < expected.size(); i++) expected[i] = random.exact();
    Array<float> plain = expected, actual = expected;
    const auto multiply = [&](const Kernels& kernels, Array<float>& y) {
        for (int row = 0; row < outputs; row += coded_rows(code_bits))
            kernels.coded({reinterpret_cast<const uint16_t*>(packed.entries.data()),
                           packed.starts.data() + static_cast<size_t>(row / coded_rows(code_bits)) * (all + 1),
                           codebook.data(), code_bits, chosen.data(), x.data(),
                           static_cast<int>(chosen.size()), frames,
                           y.data() + static_cast<ptrdiff_t>(row) * frames});
    };
    multiply(reference_kernels(), expected);
    multiply(c.kernels, actual);
    c.equal("y", actual, expected);
    for (int output = 0; output < outputs; output++)
        for (size_t i = 0; i < chosen.size(); i++) {
            const auto column = static_cast<int>(chosen[i]);
            const int channel = column / kBlock / taps * kBlock + column % kBlock;
            const int tap = column / kBlock % taps;
            for (int frame = 0; frame < frames; frame++)
                plain[static_cast<size_t>(output) * frames + frame] +=
                    x[i * frames + frame] * w.at(output, channel, tap / columns, tap % columns);
        }
    c.equal("sums of the weights", expected, plain);
}

}  // namespace rrm::test
