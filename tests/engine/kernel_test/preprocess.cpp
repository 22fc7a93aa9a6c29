// The transform of frames against its own scalar code.
#include "../../../rrm_extract/engine/csrc/preprocess/preprocess.hpp"

#include "harness.hpp"

namespace rrm::test {

void check_preprocess(Case& c) {
    using namespace rrm::preprocess;
    Random& random = c.random;
    Settings settings{};
    settings.source_height = random.between(1, 40);
    settings.source_width = random.between(1, 60);
    settings.resize_height = random.between(1, 50);
    settings.resize_width = random.between(1, 50);
    settings.height = random.between(1, 40);
    settings.width = random.between(1, 40);
    // Some of the crop lies inside of the resized frame.
    settings.top = random.between(1 - settings.height, settings.resize_height - 1);
    settings.left = random.between(1 - settings.width, settings.resize_width - 1);
    settings.filter = random.one_of({Filter::bilinear, Filter::bicubic});
    settings.arithmetic = random.one_of({preprocess::Arithmetic::real, preprocess::Arithmetic::fixed});
    settings.unit = random.chance(0.5);
    settings.bgr = random.chance(0.5);
    settings.mean = {0.485f, 0.5f, 0.25f};
    settings.deviation = {0.229f, 0.5f, 2.0f};
    const size_t frames = static_cast<size_t>(random.between(1, 2));
    std::vector<Array<uint8_t>> images;
    std::vector<const uint8_t*> pointers;
    for (size_t i = 0; i < frames; i++) {
        const bool harsh = random.chance(0.3);  // makes bicubic overshoot
        images.emplace_back(static_cast<size_t>(settings.source_height) * settings.source_width * 3);
        for (size_t k = 0; k < images[i].size(); k++)
            images[i][k] =
                static_cast<uint8_t>(harsh ? 255 * random.between(0, 1) : random.between(0, 255));
    }
    for (const Array<uint8_t>& image : images) pointers.push_back(image.data());
    const size_t pixels = static_cast<size_t>(settings.height) * settings.width;
    Array<float> expected(frames * 3 * pixels), actual = expected;
    settings.isa = "reference";
    Preprocessor(settings).run(pointers.data(), frames, expected.data());
    settings.isa = c.kernels.name;
    Preprocessor(settings).run(pointers.data(), frames, actual.data());
    // The reference rounds as the best passes of this processor do; others may round the other way.
    if (settings.arithmetic == preprocess::Arithmetic::fixed ||
        passes_of(settings.isa)->fma == passes_of("auto")->fma)
        return c.equal("out", actual, expected);
    for (size_t i = 0; i < expected.size(); i++) {
        const float level = (settings.unit ? 1.0f / 255 : 1.0f) / settings.deviation[i / pixels % 3];
        c.compare("out", i, actual[i], expected[i],
                  std::fabs(actual[i] - expected[i]) <= 1.001f * level);
    }
}

}  // namespace rrm::test
