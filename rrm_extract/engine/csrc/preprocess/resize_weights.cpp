#include "resize_weights.hpp"

#include <algorithm>
#include <cmath>

namespace rrm::preprocess {
namespace {

double multiply_add(double a, double b, double c, bool /*fma*/) { return a * b + c; }
float multiply_add(float a, float b, float c, bool fma) {
    return fma ? std::fma(a, b, c) : a * b + c;
}

template <class Real>
Real triangle(Real x) {
    x = std::abs(x);
    return x < Real(1) ? Real(1) - x : Real(0);
}

// Keys' cubic with a = -1/2, in torch's order of operations.
template <class Real>
Real cubic(Real x, bool fma) {
    const Real a = Real(-0.5);
    x = std::abs(x);
    if (x < Real(1)) {
        const Real inner = multiply_add(a + 2, x, -(a + 3), fma);
        return multiply_add(inner * x, x, Real(1), fma);
    }
    if (x < Real(2)) {
        const Real inner = multiply_add(a, x, -5 * a, fma);
        return multiply_add(multiply_add(inner, x, 8 * a, fma), x, -4 * a, fma);
    }
    return Real(0);
}

// Real is float or double. Where an expression has the constant 0.5, it is computed in double and
// then rounded, as C++ does it in torch.
template <class Real>
AxisWeights<Real> weights_of(int source, int target, Filter filter, bool fma) {
    const double radius = filter == Filter::bilinear ? 1.0 : 2.0;
    const Real scale = static_cast<Real>(source) / static_cast<Real>(target);
    const Real support = scale >= 1 ? static_cast<Real>(radius * scale) : static_cast<Real>(radius);
    const Real inverse = scale >= 1 ? static_cast<Real>(1.0 / scale) : Real(1);

    AxisWeights<Real> axis;
    axis.source = source;
    axis.taps = static_cast<int>(std::ceil(support)) * 2 + 1;
    axis.begin.resize(target);
    axis.fused_from.resize(target);
    axis.weights.assign(static_cast<size_t>(target) * axis.taps, Real(0));
    for (int i = 0; i < target; ++i) {
        const Real center = static_cast<Real>(scale * (i + 0.5));
        const int begin = std::max(static_cast<int>(center - support + 0.5), 0);
        const int end = std::min(static_cast<int>(center + support + 0.5), source);
        const int count = std::clamp(end - begin, 0, axis.taps);
        Real* weights = &axis.weights[static_cast<size_t>(i) * axis.taps];
        Real total = 0;
        for (int k = 0; k < count; ++k) {
            const Real offset = static_cast<Real>(k + begin);
            const Real x = static_cast<Real>((offset - center + 0.5) * inverse);
            weights[k] = filter == Filter::bilinear ? triangle(x) : cubic(x, fma);
            total += weights[k];
        }
        for (int k = 0; total != 0 && k < count; ++k) weights[k] /= total;
        axis.begin[i] = std::min(begin, source - 1);
        axis.fused_from[i] = 1 + std::max(count - 1, 0) / 4 * 4;
    }
    return axis;
}

}  // namespace

AxisWeights<float> real_weights(int source, int target, Filter filter, bool fma) {
    return weights_of<float>(source, target, filter, fma);
}

AxisWeights<int32_t> fixed_weights(int source, int target, Filter filter) {
    const AxisWeights<double> exact = weights_of<double>(source, target, filter, false);
    const double largest = *std::max_element(exact.weights.begin(), exact.weights.end());

    // As many bits as leave the largest weight in 16 bits with its sign.
    AxisWeights<int32_t> axis;
    while (axis.precision < 22 &&
           static_cast<int>(0.5 + largest * (1 << (axis.precision + 1))) < (1 << 15)) {
        ++axis.precision;
    }
    axis.source = source;
    axis.taps = exact.taps;
    axis.begin = exact.begin;
    axis.fused_from = exact.fused_from;
    axis.weights.reserve(exact.weights.size());
    for (const double weight : exact.weights) {
        const double scaled = weight * (1 << axis.precision);
        axis.weights.push_back(static_cast<int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5));
    }
    return axis;
}

template <class Weight>
AxisWeights<Weight> packed(const AxisWeights<Weight>& all, int first, int count, int multiple) {
    struct Window {
        int begin, end;
    };
    std::vector<Window> windows;
    AxisWeights<Weight> axis;
    axis.source = all.source;
    axis.precision = all.precision;
    for (int i = first; i < first + count; ++i) {
        const Weight* weights = &all.weights[static_cast<size_t>(i) * all.taps];
        int from = 0, to = all.taps;
        while (to > 1 && weights[to - 1] == 0) --to;
        while (from < to - 1 && weights[from] == 0) ++from;
        windows.push_back({all.begin[i] + from, all.begin[i] + to});
        axis.taps = std::max(axis.taps, to - from);
    }
    const int outputs = (count + multiple - 1) / multiple * multiple;
    windows.resize(outputs, windows.back());

    // Windows of one length, inside the source and in ascending order: some begin earlier than they
    // need. A window without its zeros may begin after the next one: then all become longer.
    axis.begin.resize(outputs);
    for (bool fits = false; !fits;) {
        fits = true;
        int begin = axis.source - axis.taps;
        for (int i = outputs - 1; i >= 0; --i) {
            begin = std::min(begin, windows[i].begin);
            axis.begin[i] = begin;
            fits = fits && windows[i].end <= begin + axis.taps;
        }
        if (!fits) ++axis.taps;
    }
    axis.fused_from.resize(outputs);
    axis.weights.assign(static_cast<size_t>(outputs) * axis.taps, Weight(0));
    for (int i = 0; i < outputs; ++i) {
        const int original = first + std::min(i, count - 1);
        const Weight* weights = &all.weights[static_cast<size_t>(original) * all.taps];
        Weight* packed_weights = &axis.weights[static_cast<size_t>(i) * axis.taps];
        for (int j = windows[i].begin; j < windows[i].end; ++j) {
            packed_weights[j - axis.begin[i]] = weights[j - all.begin[original]];
        }
        const int fused_from = all.begin[original] + all.fused_from[original] - axis.begin[i];
        axis.fused_from[i] = std::clamp(fused_from, 1, axis.taps);
    }
    return axis;
}

template AxisWeights<float> packed(const AxisWeights<float>&, int, int, int);
template AxisWeights<int32_t> packed(const AxisWeights<int32_t>&, int, int, int);

}  // namespace rrm::preprocess
