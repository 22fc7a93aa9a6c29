// The Python class Preprocessor: checks and converts, nothing else.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "preprocess.hpp"

namespace nb = nanobind;

namespace rrm::preprocess {
namespace {

using Frame = nb::ndarray<const uint8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Frames = nb::ndarray<const uint8_t, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Pair = std::pair<int, int>;

template <class Value>
Value chosen(const char* what, const std::string& given,
             const std::pair<const char*, Value> (&choices)[2]) {
    for (const auto& [name, value] : choices) {
        if (given == name) return value;
    }
    throw std::invalid_argument(std::string("preprocess: ") + what + " is '" + given +
                                "'; expected '" + choices[0].first + "' or '" +
                                choices[1].first + "'");
}

template <class Array>
std::string shape_of(const Array& array) {
    std::string text = "(";
    for (size_t i = 0; i < array.ndim(); ++i) {
        text += (i ? ", " : "") + std::to_string(array.shape(i));
    }
    return text + ")";
}

void check_output(const Settings& s, const Output& out, size_t count) {
    if (out.shape(0) != count || out.shape(1) != 3 ||
        out.shape(2) != static_cast<size_t>(s.height) ||
        out.shape(3) != static_cast<size_t>(s.width)) {
        throw std::invalid_argument("preprocess: out is " + shape_of(out) + "; expected (" +
                                    std::to_string(count) + ", 3, " + std::to_string(s.height) +
                                    ", " + std::to_string(s.width) + ")");
    }
}

// `array` ends with the shape of a frame from axis `axis` on.
template <class Array>
void check_frame(const Settings& s, const Array& array, size_t axis) {
    if (array.shape(axis) != static_cast<size_t>(s.source_height) ||
        array.shape(axis + 1) != static_cast<size_t>(s.source_width) ||
        array.shape(axis + 2) != 3) {
        throw std::invalid_argument("preprocess: frames are " + shape_of(array) + "; expected " +
                                    (axis ? "(T, " : "(") + std::to_string(s.source_height) +
                                    ", " + std::to_string(s.source_width) + ", 3)");
    }
}

void run_list(const Preprocessor& self, const std::vector<Frame>& frames, const Output& out) {
    check_output(self.settings(), out, frames.size());
    std::vector<const uint8_t*> pointers;
    for (const Frame& frame : frames) {
        check_frame(self.settings(), frame, 0);
        pointers.push_back(frame.data());
    }
    const nb::gil_scoped_release release;
    self.run(pointers.data(), pointers.size(), out.data());
}

void run_array(const Preprocessor& self, const Frames& frames, const Output& out) {
    check_output(self.settings(), out, frames.shape(0));
    check_frame(self.settings(), frames, 1);
    const size_t size = frames.shape(1) * frames.shape(2) * 3;
    std::vector<const uint8_t*> pointers;
    for (size_t i = 0; i < frames.shape(0); ++i) pointers.push_back(frames.data() + i * size);
    const nb::gil_scoped_release release;
    self.run(pointers.data(), pointers.size(), out.data());
}

void construct(Preprocessor* self, Pair source, Pair resize, Pair offset, Pair crop,
               const std::string& interpolation, const std::array<double, 3>& mean,
               const std::array<double, 3>& deviation, int scale, const std::string& channels,
               const std::string& arithmetic, const std::string& isa) {
    if (scale != 1 && scale != 255) {
        throw std::invalid_argument("preprocess: scale is " + std::to_string(scale) +
                                    "; expected 1 or 255");
    }
    Settings s{};
    std::tie(s.source_height, s.source_width) = source;
    std::tie(s.resize_height, s.resize_width) = resize;
    std::tie(s.top, s.left) = offset;
    std::tie(s.height, s.width) = crop;
    s.filter = chosen<Filter>("interpolation", interpolation,
                              {{"bilinear", Filter::bilinear}, {"bicubic", Filter::bicubic}});
    s.arithmetic = chosen<Arithmetic>("arithmetic", arithmetic,
                                      {{"float", Arithmetic::real}, {"fixed", Arithmetic::fixed}});
    s.bgr = chosen<bool>("channels", channels, {{"rgb", false}, {"bgr", true}});
    s.unit = scale == 1;
    for (int p = 0; p < 3; ++p) {
        s.mean[p] = static_cast<float>(mean[p]);
        s.deviation[p] = static_cast<float>(deviation[p]);
    }
    s.isa = isa;
    new (self) Preprocessor(s);
}

}  // namespace
}  // namespace rrm::preprocess

void bind_preprocess(nb::module_& m) {
    using namespace nb::literals;
    using rrm::preprocess::Preprocessor;
    nb::class_<Preprocessor>(
        m, "Preprocessor",
        "Resizes, crops and normalises frames of one size; only pixels of the crop are computed.\n"
        "\n"
        "Sizes and positions are (height, width) or (top, left) in pixels. `offset` is where the\n"
        "crop begins in the resized frame; pixels outside it are black. `mean` and `std` are in\n"
        "the output's channel order and apply to levels scaled to 0..`scale`. `arithmetic`\n"
        "\"float\" rounds once, after both passes, as torchvision.transforms.functional.resize;\n"
        "\"fixed\" rounds weights and both passes, as torchvision.transforms.v2 does for uint8.\n"
        "`isa` is \"auto\" or one of `available_isas()`. Raises ValueError for impossible values.\n"
        "Threads may share an object.")
        .def("__init__", &rrm::preprocess::construct, nb::kw_only(), "source"_a, "resize"_a,
             "offset"_a, "crop"_a, "interpolation"_a = "bilinear", "mean"_a, "std"_a,
             "scale"_a = 1, "channels"_a = "rgb", "arithmetic"_a = "float", "isa"_a = "auto")
        .def("run", &rrm::preprocess::run_array, "frames"_a.noconvert(), "out"_a.noconvert(),
             "Fill `out`, (T, 3, height, width) float32, from `frames`, (T, H, W, 3) uint8 or a\n"
             "list of (H, W, 3) uint8; all C-contiguous. Raises ValueError for other sizes and\n"
             "TypeError for other types. The GIL is released.")
        .def("run", &rrm::preprocess::run_list, "frames"_a.noconvert(), "out"_a.noconvert())
        .def_prop_ro("isa", &Preprocessor::isa, "The instruction set in use.");
}
