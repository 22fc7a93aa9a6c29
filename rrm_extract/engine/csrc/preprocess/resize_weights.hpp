// The weights of an antialiased resize along one axis.
//
// The numbers are those of torch's interpolate(antialias=True) (after Pillow's Resample.c), in
// both of its arithmetics, to the last bit:
//   real    float32 weights; what torchvision's transforms.functional.resize uses
//   fixed   16-bit weights scaled by 2^precision; what transforms.v2 uses on uint8
#pragma once

#include <cstdint>
#include <vector>

namespace rrm::preprocess {

enum class Filter { bilinear, bicubic };
enum class Arithmetic { real, fixed };

// Output i is the sum over k < taps of source[begin[i] + k] * weights[i * taps + k], in this order.
// What an output does not need has weight 0.
//
// How the real sums are rounded is what the compiler made of torch's loop where there is a fused
// multiply-add (seen in torch 2.13 and 2.15, both for AVX2 and AVX-512): of n terms the first is a
// product; the next floor((n - 1) / 4) * 4 were multiplied four at a time and are added one by one,
// so that product and sum are both rounded; the others are fused and rounded once.
// Weight: float (real) or int32_t (fixed).
template <class Weight>
struct AxisWeights {
    int source = 0;              // length of the source axis
    int taps = 0;
    int precision = 0;           // fixed: the sum is shifted right by this; real: unused
    std::vector<int> begin;      // (outputs,)
    std::vector<int> fused_from; // (outputs,), the first term that is fused; fixed: unused
    std::vector<Weight> weights; // (outputs, taps)

    int outputs() const { return static_cast<int>(begin.size()); }
};

// All `target` outputs, in windows as torch has them; one may end beyond the source, with zeros.
// fma: whether this machine's sums are fused; it also touches the last bit of bicubic weights.
AxisWeights<float> real_weights(int source, int target, Filter filter, bool fma);
AxisWeights<int32_t> fixed_weights(int source, int target, Filter filter);

// Outputs [first, first + count) only, the last of them repeated until their number is a multiple
// of `multiple`, in ascending windows that lie inside the source, as short as zeros allow. The sums
// stay the same to the bit: what is left out or added is a product with 0.
template <class Weight>
AxisWeights<Weight> packed(const AxisWeights<Weight>& all, int first, int count, int multiple);

}  // namespace rrm::preprocess
