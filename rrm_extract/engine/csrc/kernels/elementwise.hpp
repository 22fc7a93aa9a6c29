// What lies between two linear layers: finishing an output, activation, pooling.
#pragma once

#include "vector.hpp"

namespace rrm::RRM_ISA {

// e^x: 2^n times a polynomial of degree 6 on [-ln 2 / 2, ln 2 / 2] (Cephes' coefficients), within
// 2 units in the last place; infinity from 88.4 on, and e^-87 below -87. A NaN stays one.
RRM_INLINE Vec exponential(Vec x) {
    x = minimum(splat(89.0f), maximum(splat(-87.0f), x));
    const Vec magic = splat(kRounder);
    const Vec shifted = x * splat(1.44269504088896341f) + magic;
    const Vec n = shifted - magic;
    Vec r = x - n * splat(0.693359375f);
    r = r - n * splat(-2.12194440e-4f);
    Vec p = splat(1.9875691500e-4f);
    p = p * r + splat(1.3981999507e-3f);
    p = p * r + splat(8.3334519073e-3f);
    p = p * r + splat(4.1665795894e-2f);
    p = p * r + splat(1.6666665459e-1f);
    p = p * r + splat(5.0000001201e-1f);
    p = p * r * r + r + splat(1.0f);
    // The low bits of `shifted` are n.
    const VecInt exponent = ((VecInt)shifted << 23) + (127 << 23);
    return p * (Vec)exponent;
}

template <Activation kActivation>
RRM_INLINE Vec activate(Vec x, Vec low, Vec high) {
    const Vec zero = splat(0.0f), one = splat(1.0f);
    if constexpr (kActivation == Activation::none) return x;
    // The second operand of a maximum is what a NaN gives way to, so x comes second.
    if constexpr (kActivation == Activation::relu) return maximum(zero, x);
    if constexpr (kActivation == Activation::clamp) return limited(x, low, high);
    if constexpr (kActivation == Activation::leaky_relu) {
        const VecInt negative = x < zero;
        return negative ? x * low : x;
    }
    if constexpr (kActivation == Activation::sigmoid) return one / (one + exponential(-x));
    if constexpr (kActivation == Activation::silu) return x / (one + exponential(-x));
    if constexpr (kActivation == Activation::hardsigmoid)
        return minimum(splat(6.0f), maximum(zero, x + splat(3.0f))) * splat(1.0f / 6.0f);
    if constexpr (kActivation == Activation::hardswish)
        return x * minimum(splat(6.0f), maximum(zero, x + splat(3.0f))) * splat(1.0f / 6.0f);
    if constexpr (kActivation == Activation::tanh) {
        const Vec e = exponential(minimum(splat(80.0f), x + x));
        // Near zero the quotient would be a difference of numbers near one (Cephes' polynomial).
        const Vec z = x * x;
        Vec p = splat(-5.70498872745e-3f);
        p = p * z + splat(2.06390887954e-2f);
        p = p * z + splat(-5.37397155531e-2f);
        p = p * z + splat(1.33314422036e-1f);
        p = p * z + splat(-3.33332819422e-1f);
        const VecInt small = magnitude(x) < splat(0.625f);
        return small ? x + x * z * p : (e - one) / (e + one);
    }
    if constexpr (kActivation == Activation::sign) {
        const VecInt negative = x < zero;
        const VecInt number = x == x;
        return number ? (negative ? -one : one) : x;
    }
    return x;
}

enum class Residual { none, fp32, bf16 };

template <Activation kActivation, Residual kResidual>
void finish_row(const FinishArgs& args) {
    const Vec low = splat(args.low), high = splat(args.high);
    const size_t count = static_cast<size_t>(args.width) * kBlock;
    Vec trace = {};
    for (int block = 0; block < args.blocks; block++) {
        float* y = args.y + block * args.y_block;
        float* delta = args.delta == nullptr ? nullptr : args.delta + block * args.delta_block;
        const float* residual = nullptr;
        const uint16_t* rounded = nullptr;
        if constexpr (kResidual == Residual::fp32)
            residual = args.residual + block * args.residual_block;
        if constexpr (kResidual == Residual::bf16)
            rounded = args.rounded + block * args.residual_block;
        float* x = args.x + block * args.x_block;
        for (size_t i = 0; i < count; i += kLanes) {
            Vec value = load(y + i);
            if (delta != nullptr) {
                const Vec change = load(delta + i);
                value = args.replace ? change : value + change;
                store(delta + i, splat(0.0f));
                store(y + i, value);
            }
            if constexpr (kResidual == Residual::fp32) {
                value += load(residual + i);
                __builtin_prefetch(residual + i + args.next_row, 0, 2);
            }
            if constexpr (kResidual == Residual::bf16) {
                value += load_bf16(rounded + i);
                __builtin_prefetch(rounded + i + args.next_row, 0, 2);
            }
            __builtin_prefetch(x + i + args.next_row, 1, 2);
            trace += value * splat(0.0f);
            store(x + i, activate<kActivation>(value, low, high));
        }
    }
    if (args.finite == nullptr) return;
    float sum = 0;
    for (int lane = 0; lane < kLanes; lane++) sum += trace[lane];
    *args.finite = *args.finite && sum == 0.0f;
}

template <Activation kActivation>
void map_pixels(const MapArgs& args) {
    const Vec low = splat(args.low), high = splat(args.high);
    for (size_t pixel = 0; pixel < args.count; pixel++)
        for (int slice = 0; slice < kBlock; slice += kLanes) {
            float* x = args.x + pixel * kBlock + slice;
            Vec value = load(x);
            if (args.scale != nullptr)
                value = value * load(args.scale + slice) + load(args.shift + slice);
            store(x, activate<kActivation>(value, low, high));
        }
}

#define RRM_ACTIVATIONS(use)                                                        \
    switch (args.activation) {                                                      \
        case Activation::none: use(Activation::none);                               \
        case Activation::relu: use(Activation::relu);                               \
        case Activation::clamp: use(Activation::clamp);                             \
        case Activation::leaky_relu: use(Activation::leaky_relu);                   \
        case Activation::sigmoid: use(Activation::sigmoid);                         \
        case Activation::silu: use(Activation::silu);                               \
        case Activation::hardsigmoid: use(Activation::hardsigmoid);                 \
        case Activation::hardswish: use(Activation::hardswish);                     \
        case Activation::tanh: use(Activation::tanh);                               \
        case Activation::sign: use(Activation::sign);                               \
    }

void finish(const FinishArgs& args) {
    if (args.residual != nullptr) {
#define RRM_USE(activation) return finish_row<activation, Residual::fp32>(args)
        RRM_ACTIVATIONS(RRM_USE)
#undef RRM_USE
    }
    if (args.rounded != nullptr) {
#define RRM_USE(activation) return finish_row<activation, Residual::bf16>(args)
        RRM_ACTIVATIONS(RRM_USE)
#undef RRM_USE
    }
#define RRM_USE(activation) return finish_row<activation, Residual::none>(args)
    RRM_ACTIVATIONS(RRM_USE)
#undef RRM_USE
}

void map(const MapArgs& args) {
#define RRM_USE(activation) return map_pixels<activation>(args)
    RRM_ACTIVATIONS(RRM_USE)
#undef RRM_USE
}

// A NaN anywhere in the window is the result, as in torch: the maximum of two is the second where
// either is a NaN.
RRM_INLINE Vec larger(Vec a, Vec b) {
#if defined(__AVX512F__)
    const auto number = _mm512_cmp_ps_mask((__m512)a, (__m512)a, _CMP_ORD_Q);
    return (Vec)_mm512_mask_max_ps((__m512)a, number, (__m512)a, (__m512)b);
#else
    const VecInt number = a == a;
    return number ? maximum(a, b) : a;
#endif
}

// Columns `begin` to `end`, whose windows lie inside of the image, for the usual sizes.
template <int kRows, int kColumns>
void maxima(const PoolArgs& args, int begin, int end) {
    const int step = args.dilation * kBlock;
    // The last column of a window is the first of the next one.
    const bool shares = args.stride == (kColumns - 1) * args.dilation;
    for (int slice = 0; slice < kBlock; slice += kLanes) {
        const float* lines[kRows];
        for (int r = 0; r < kRows; r++)
            lines[r] = args.lines[r] +
                       static_cast<ptrdiff_t>(begin * args.stride - args.padding) * kBlock + slice;
        const auto down = [&](ptrdiff_t at) __attribute__((always_inline)) {
            Vec acc = load(lines[0] + at);
#pragma GCC unroll 3
            for (int r = 1; r < kRows; r++) acc = larger(acc, load(lines[r] + at));
            return acc;
        };
        Vec first = down(0);
        for (int column = begin; column < end; column++) {
            if (!shares) first = down(0);
            Vec acc = first;
#pragma GCC unroll 3
            for (int s = 1; s < kColumns; s++) {
                const Vec one = down(s * step);
                acc = larger(acc, one);
                if (s == kColumns - 1) first = one;
            }
            store(args.y + static_cast<ptrdiff_t>(column) * kBlock + slice, acc);
#pragma GCC unroll 3
            for (int r = 0; r < kRows; r++) lines[r] += args.stride * kBlock;
        }
    }
}

void pool_columns(const PoolArgs& args, int begin, int end) {
    for (int column = begin; column < end; column++) {
        const int first = column * args.stride - args.padding;
        for (int slice = 0; slice < kBlock; slice += kLanes) {
            Vec acc = splat(args.maximum ? -INFINITY : 0.0f);
            for (int s = 0; s < args.kernel_columns; s++) {
                const int from = first + s * args.dilation;
                if (from < 0 || from >= args.width) continue;
                const ptrdiff_t at = static_cast<ptrdiff_t>(from) * kBlock + slice;
                for (int r = 0; r < args.rows; r++) {
                    const Vec value = load(args.lines[r] + at);
                    acc = args.maximum ? larger(acc, value) : acc + value;
                }
            }
            if (!args.maximum) acc = acc * splat(args.factors[column]);
            store(args.y + static_cast<ptrdiff_t>(column) * kBlock + slice, acc);
        }
    }
}

void pool(const PoolArgs& args) {
    const int reach = (args.kernel_columns - 1) * args.dilation;
    const int size = args.kernel_columns;
    if (!args.maximum || size < 2 || size > 3 || args.rows < 2 || args.rows > 3)
        return pool_columns(args, args.column_begin, args.column_end);
    const int inside = args.width - 1 + args.padding - reach;
    const int first = most(args.column_begin, (args.padding + args.stride - 1) / args.stride);
    const int last = least(args.column_end, inside < 0 ? 0 : inside / args.stride + 1);
    if (first >= last) return pool_columns(args, args.column_begin, args.column_end);
    pool_columns(args, args.column_begin, first);
    if (size == 3)
        args.rows == 3 ? maxima<3, 3>(args, first, last) : maxima<2, 3>(args, first, last);
    else
        args.rows == 3 ? maxima<3, 2>(args, first, last) : maxima<2, 2>(args, first, last);
    pool_columns(args, last, args.column_end);
}

}  // namespace rrm::RRM_ISA
