// From decoded frames to network input: resize, crop and normalise in one go, computing only the
// pixels of the crop.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>

#include "resize.hpp"

namespace rrm::preprocess {

// The longest side of a frame, or of a resized frame, in pixels: indices stay small integers.
inline constexpr int kLongestSide = 1 << 24;

struct Settings {
    int source_height, source_width;      // of every frame, pixels
    int resize_height, resize_width;      // of the whole resized frame
    int top, left;                        // of the crop in the resized frame; may lie outside it
    int height, width;                    // of the crop; pixels outside the resized frame are black
    Filter filter = Filter::bilinear;
    Arithmetic arithmetic = Arithmetic::real;
    bool unit = true;                     // levels are scaled to 0..1 before normalising
    bool bgr = false;                     // channel order of the output (frames are RGB)
    std::array<float, 3> mean, deviation; // in the output's channel order
    std::string isa = "auto";             // see passes_of
};

// Holds no state between calls: several threads may run one object.
class Preprocessor {
public:
    // Throws std::invalid_argument, with one line for the user, where settings are impossible.
    explicit Preprocessor(const Settings& settings);

    // frames: `count` pointers to (source_height, source_width, 3) uint8, C-contiguous, borrowed
    // out:    (count, 3, height, width) float32, C-contiguous, borrowed
    void run(const uint8_t* const* frames, size_t count, float* out) const;

    const Settings& settings() const { return settings_; }
    const char* isa() const;  // the passes in use

private:
    void one(const uint8_t* frame, float* out, void* scratch) const;
    void black(float* out) const;

    Settings settings_;
    const Passes* passes_ = nullptr;  // null: the reference
    // The part of the crop that lies inside the resized frame, in coordinates of the crop.
    int row_begin_, row_end_, column_begin_, column_end_;
    std::variant<Resize<float>, Resize<int32_t>> resize_;
};

}  // namespace rrm::preprocess
