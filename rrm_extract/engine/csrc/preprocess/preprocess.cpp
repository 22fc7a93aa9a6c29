#include "preprocess.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <stdexcept>

#include "reference.hpp"

namespace rrm::preprocess {
namespace {

constexpr std::align_val_t kAlignment{64};  // of a vector and of a cache line

struct Free {
    void operator()(void* memory) const { ::operator delete(memory, kAlignment); }
};

std::string size_of(int height, int width) {
    return std::to_string(height) + "x" + std::to_string(width);
}

void check_size(const char* what, int height, int width) {
    if (height < 1 || width < 1 || height > kLongestSide || width > kLongestSide) {
        throw std::invalid_argument(std::string("preprocess: ") + what + " is " +
                                    size_of(height, width) +
                                    " pixels; expected height x width, each from 1 to " +
                                    std::to_string(kLongestSide));
    }
}

void check(const Settings& s) {
    check_size("the frame", s.source_height, s.source_width);
    check_size("the resized frame", s.resize_height, s.resize_width);
    check_size("the crop", s.height, s.width);
    if (std::abs(static_cast<int64_t>(s.top)) > kLongestSide ||
        std::abs(static_cast<int64_t>(s.left)) > kLongestSide) {
        throw std::invalid_argument("preprocess: the crop begins at row " + std::to_string(s.top) +
                                    ", column " + std::to_string(s.left) +
                                    "; expected at most " + std::to_string(kLongestSide) +
                                    " pixels from the frame's corner");
    }
    for (int p = 0; p < 3; ++p) {
        if (!std::isfinite(s.mean[p]) || !std::isfinite(s.deviation[p]) || !(s.deviation[p] > 0)) {
            throw std::invalid_argument(
                "preprocess: mean " + std::to_string(s.mean[p]) + " and std " +
                std::to_string(s.deviation[p]) + " of channel " + std::to_string(p) +
                " cannot be used; expected finite numbers, std above 0");
        }
    }
}

template <class Weight>
void build(Resize<Weight>& resize, const Settings& s, const AxisWeights<Weight>& x,
           const AxisWeights<Weight>& y, int row_begin, int row_end, int column_begin,
           int column_end) {
    resize.width = column_end - column_begin;
    resize.height = row_end - row_begin;
    resize.x = packed(x, s.left + column_begin, resize.width, kRows);
    resize.y = packed(y, s.top + row_begin, resize.height, 1);
    resize.clamp = s.filter == Filter::bicubic;
    resize.reversed = s.bgr;
    resize.normalisation = normalisation(s.unit, s.mean.data(), s.deviation.data());
    plan(resize);
}

}  // namespace

Preprocessor::Preprocessor(const Settings& settings) : settings_(settings) {
    check(settings);
    const Settings& s = settings_;
    passes_ = passes_of(s.isa);
    row_begin_ = std::clamp(-s.top, 0, s.height);
    row_end_ = std::clamp(s.resize_height - s.top, row_begin_, s.height);
    column_begin_ = std::clamp(-s.left, 0, s.width);
    column_end_ = std::clamp(s.resize_width - s.left, column_begin_, s.width);
    if (row_begin_ == row_end_ || column_begin_ == column_end_) {
        throw std::invalid_argument(
            "preprocess: the crop of " + size_of(s.height, s.width) + " at row " +
            std::to_string(s.top) + ", column " + std::to_string(s.left) +
            " has no pixel of the resized frame of " + size_of(s.resize_height, s.resize_width));
    }
    if (passes_ == nullptr) return;  // the reference makes its own weights
    if (s.arithmetic == Arithmetic::real) {
        Resize<float>& resize = resize_.emplace<Resize<float>>();
        build(resize, s, real_weights(s.source_width, s.resize_width, s.filter, passes_->fma),
              real_weights(s.source_height, s.resize_height, s.filter, passes_->fma), row_begin_,
              row_end_, column_begin_, column_end_);
    } else {
        Resize<int32_t>& resize = resize_.emplace<Resize<int32_t>>();
        build(resize, s, fixed_weights(s.source_width, s.resize_width, s.filter),
              fixed_weights(s.source_height, s.resize_height, s.filter), row_begin_, row_end_,
              column_begin_, column_end_);
    }
}

const char* Preprocessor::isa() const { return passes_ ? passes_->name : "reference"; }

void Preprocessor::run(const uint8_t* const* frames, size_t count, float* out) const {
    const size_t bytes =
        std::visit([](const auto& resize) { return scratch_bytes(resize); }, resize_);
    const std::unique_ptr<void, Free> scratch(::operator new(bytes, kAlignment));
    const size_t size = size_t{3} * settings_.height * settings_.width;
    for (size_t i = 0; i < count; ++i) one(frames[i], out + i * size, scratch.get());
}

void Preprocessor::one(const uint8_t* frame, float* out, void* scratch) const {
    const Settings& s = settings_;
    const bool whole = row_begin_ == 0 && row_end_ == s.height && column_begin_ == 0 &&
                       column_end_ == s.width;
    if (!whole) black(out);
    const ptrdiff_t row = s.width, plane = row * s.height;
    out += row_begin_ * row + column_begin_;
    if (passes_ == nullptr) {
        const reference::Part part{s.top + row_begin_, s.left + column_begin_,
                                   row_end_ - row_begin_, column_end_ - column_begin_};
        reference::run(s, part, frame, out, plane, row);
    } else if (const auto* real = std::get_if<Resize<float>>(&resize_)) {
        passes_->real(*real, frame, out, plane, row, scratch);
    } else {
        passes_->fixed(std::get<Resize<int32_t>>(resize_), frame, out, plane, row, scratch);
    }
}

void Preprocessor::black(float* out) const {
    const Settings& s = settings_;
    const size_t plane = static_cast<size_t>(s.height) * s.width;
    for (int p = 0; p < 3; ++p) {
        std::fill_n(out + p * plane, plane, normalised(0, s.unit, s.mean[p], s.deviation[p]));
    }
}

}  // namespace rrm::preprocess
