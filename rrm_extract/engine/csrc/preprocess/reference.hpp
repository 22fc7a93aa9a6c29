// The whole transform as plain scalar loops: the oracle of the passes in resize_passes.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "preprocess.hpp"

namespace rrm::preprocess::reference {

// What of the resized frame is wanted, pixels.
struct Part {
    int top, left, height, width;
};

// Rounds as the best passes of this machine do.
inline bool fused() { return passes_of("auto")->fma; }

// image: (source_height, source_width, 3) levels in 0..255; the result is (height, width, 3)
// levels of the whole resized frame.
inline std::vector<uint8_t> resized(const Settings& s, const uint8_t* image) {
    const int height = s.source_height, width = s.source_width;
    const int new_height = s.resize_height, new_width = s.resize_width;
    std::vector<uint8_t> result(static_cast<size_t>(new_height) * new_width * 3);
    if (s.arithmetic == Arithmetic::real) {
        const bool fma = fused();
        const auto x = real_weights(width, new_width, s.filter, fma);
        const auto y = real_weights(height, new_height, s.filter, fma);
        const auto add = [fma](const AxisWeights<float>& axis, int output, int k, float sum,
                               float value) {
            const float weight = axis.weights[static_cast<size_t>(output) * axis.taps + k];
            const bool fused = fma && k >= axis.fused_from[output];
            return fused ? std::fma(value, weight, sum) : sum + value * weight;
        };
        std::vector<float> wide(static_cast<size_t>(height) * new_width * 3);
        for (int row = 0; row < height; ++row) {
            for (int i = 0; i < new_width * 3; ++i) {
                float sum = 0;
                for (int k = 0; k < x.taps && x.begin[i / 3] + k < width; ++k) {
                    const size_t pixel = static_cast<size_t>(row) * width + x.begin[i / 3] + k;
                    sum = add(x, i / 3, k, sum, image[pixel * 3 + i % 3]);
                }
                wide[static_cast<size_t>(row) * new_width * 3 + i] = sum;
            }
        }
        for (int row = 0; row < new_height; ++row) {
            for (int i = 0; i < new_width * 3; ++i) {
                float sum = 0;
                for (int k = 0; k < y.taps && y.begin[row] + k < height; ++k) {
                    sum = add(y, row, k, sum,
                              wide[static_cast<size_t>(y.begin[row] + k) * new_width * 3 + i]);
                }
                result[static_cast<size_t>(row) * new_width * 3 + i] =
                    static_cast<uint8_t>(std::nearbyint(std::clamp(sum, 0.0f, 255.0f)));
            }
        }
        return result;
    }
    const auto x = fixed_weights(width, new_width, s.filter);
    const auto y = fixed_weights(height, new_height, s.filter);
    std::vector<uint8_t> wide(static_cast<size_t>(height) * new_width * 3);
    for (int row = 0; row < height; ++row) {
        for (int i = 0; i < new_width * 3; ++i) {
            int32_t sum = 1 << (x.precision - 1);
            for (int k = 0; k < x.taps && x.begin[i / 3] + k < width; ++k) {
                const size_t pixel = static_cast<size_t>(row) * width + x.begin[i / 3] + k;
                sum += image[pixel * 3 + i % 3] *
                       x.weights[static_cast<size_t>(i / 3) * x.taps + k];
            }
            wide[static_cast<size_t>(row) * new_width * 3 + i] =
                static_cast<uint8_t>(std::clamp(sum >> x.precision, 0, 255));
        }
    }
    for (int row = 0; row < new_height; ++row) {
        for (int i = 0; i < new_width * 3; ++i) {
            int32_t sum = 1 << (y.precision - 1);
            for (int k = 0; k < y.taps && y.begin[row] + k < height; ++k) {
                sum += wide[static_cast<size_t>(y.begin[row] + k) * new_width * 3 + i] *
                       y.weights[static_cast<size_t>(row) * y.taps + k];
            }
            result[static_cast<size_t>(row) * new_width * 3 + i] =
                static_cast<uint8_t>(std::clamp(sum >> y.precision, 0, 255));
        }
    }
    return result;
}

// As Passes::real and Passes::fixed.
inline void run(const Settings& s, const Part& part, const uint8_t* frame, float* out,
                ptrdiff_t plane, ptrdiff_t row) {
    const std::vector<uint8_t> image = resized(s, frame);
    for (int p = 0; p < 3; ++p) {
        for (int y = 0; y < part.height; ++y) {
            for (int x = 0; x < part.width; ++x) {
                const size_t pixel =
                    static_cast<size_t>(part.top + y) * s.resize_width + part.left + x;
                const int level = image[pixel * 3 + (s.bgr ? 2 - p : p)];
                out[p * plane + y * row + x] =
                    normalised(level, s.unit, s.mean[p], s.deviation[p]);
            }
        }
    }
}

}  // namespace rrm::preprocess::reference
