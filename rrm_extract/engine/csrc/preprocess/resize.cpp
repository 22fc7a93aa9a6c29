#include "resize.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "../cpu.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

// The instruction set of the build: SSE2 on x86-64, NEON on aarch64.
#define RRM_PREPROCESS_ISA portable
#define RRM_PREPROCESS_TARGET
#define RRM_PREPROCESS_LANES 4
#if defined(__aarch64__)
#define RRM_PREPROCESS_FMA 1
#else
#define RRM_PREPROCESS_FMA 0
#endif
#include "resize_passes.hpp"

#if defined(__x86_64__)
#define RRM_PREPROCESS_ISA avx2
#define RRM_PREPROCESS_TARGET __attribute__((target("avx2,fma")))
#define RRM_PREPROCESS_LANES 8
#define RRM_PREPROCESS_FMA 1
#include "resize_passes.hpp"

#define RRM_PREPROCESS_ISA avx512
#define RRM_PREPROCESS_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define RRM_PREPROCESS_LANES 16
#define RRM_PREPROCESS_FMA 1
#include "resize_passes.hpp"
#endif

namespace rrm::preprocess {

float normalised(int level, bool unit, float mean, float deviation) {
    float value = static_cast<float>(level);
    if (unit) value = value / 255.0f;
    value = value - mean;
    return value / deviation;
}

Normalisation normalisation(bool unit, const float* mean, const float* deviation) {
    Normalisation n{unit, true, {}, {}, {}};
    for (int p = 0; p < 3; ++p) {
        n.mean[p] = mean[p];
        n.deviation[p] = deviation[p];
        n.inverse[p] = 1.0f / deviation[p];
        // A quotient by reciprocal and one correction is the rounded quotient nearly always, but
        // not where the reciprocal overflows. There are 256 levels: all of them are tried.
        for (int level = 0; level < 256; ++level) {
            const float inverse255 = 1.0f / 255.0f;
            float x = static_cast<float>(level);
            if (unit) {
                const float quotient = x * inverse255;
                x = std::fma(std::fma(-255.0f, quotient, x), inverse255, quotient);
            }
            const float difference = x - mean[p];
            const float quotient = difference * n.inverse[p];
            const float value =
                std::fma(std::fma(-deviation[p], quotient, difference), n.inverse[p], quotient);
            n.reciprocal = n.reciprocal && value == normalised(level, unit, mean[p], deviation[p]);
        }
    }
    return n;
}

template <class Weight>
void plan(Resize<Weight>& resize) {
    const auto& x = resize.x;
    resize.strips.clear();
    resize.tile_columns = 0;
    for (int first = 0; first < x.outputs();) {
        int last = first + kRows;
        while (last < x.outputs() &&
               x.begin[last + kRows - 1] + x.taps - x.begin[first] <= kTileColumns) {
            last += kRows;
        }
        const int begin = x.begin[first], end = x.begin[last - 1] + x.taps;
        resize.strips.push_back({first, last, begin, end});
        resize.tile_columns = std::max(resize.tile_columns, end - begin);
        first = last;
    }
    // Rows enter kRows at a time: the oldest one still needed may be this far behind the newest.
    resize.ring_rows = (resize.y.taps + kRows - 1 + kRows - 1) / kRows * kRows;
}

template <class Weight>
size_t scratch_bytes(const Resize<Weight>& resize) {
    const size_t width = static_cast<size_t>(resize.x.outputs());
    const size_t tile = static_cast<size_t>(resize.tile_columns) * 3 * kRows;
    const size_t ring = static_cast<size_t>(resize.ring_rows) * 3 * width;
    return (tile + ring) * sizeof(Weight) + resize.y.taps * sizeof(void*);
}

template void plan(Resize<float>&);
template void plan(Resize<int32_t>&);
template size_t scratch_bytes(const Resize<float>&);
template size_t scratch_bytes(const Resize<int32_t>&);

const Passes* passes_of(const std::string& isa) {
    static constexpr Passes kPortable{"portable", portable::kFma, portable::run<portable::Real>,
                                      portable::run<portable::Fixed>};
#if defined(__x86_64__)
    static constexpr Passes kAvx2{"avx2", avx2::kFma, avx2::run<avx2::Real>,
                                  avx2::run<avx2::Fixed>};
    static constexpr Passes kAvx512{"avx512", avx512::kFma, avx512::run<avx512::Real>,
                                    avx512::run<avx512::Fixed>};
#endif
    std::string known;
    const std::vector<std::string> available = available_isas();
    for (const std::string& name : available) {
        known += (known.empty() ? "" : ", ") + name;
        if (name != isa && (isa != "auto" || name != available.back())) continue;
        if (name == "reference") return nullptr;
#if defined(__x86_64__)
        if (name == "avx2") return &kAvx2;
        // Others of the family add nothing that would be of use here.
        if (name.starts_with("avx512")) return &kAvx512;
#endif
        return &kPortable;
    }
    throw std::invalid_argument("preprocess: isa is '" + isa +
                                "'; expected auto or one that this processor has: " + known);
}

}  // namespace rrm::preprocess
