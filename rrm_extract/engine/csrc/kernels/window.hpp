// A 3x3 convolution of stride 1 on a list of deltas: nine accumulators slide along a row.
//
// Every delta multiplies nine vectors of weights, one for each tap; the three columns of outputs
// that it reaches stay in registers until the window has passed (Sec. 3.2 on a compressed input).
#pragma once

#include "vector.hpp"

namespace rrm::RRM_ISA {

// kRows of the three rows of outputs: fewer at the border of what is computed.
template <int kRows>
RRM_INLINE void window_clear(Vec* a) {
#pragma GCC unroll 3
    for (int r = 0; r < kRows; r++) a[r] = Vec{};
}

// What changed is summed apart: it is smaller than what it is added to, and so are its rounding errors.
template <int kRows>
RRM_INLINE void window_add(const Vec* a, float* y, ptrdiff_t row) {
#pragma GCC unroll 3
    for (int r = 0; r < kRows; r++) store(y + r * row, load(y + r * row) + a[r]);
}

template <class A, int kRows>
RRM_INLINE void window_pixel(Vec* a, Vec* b, Vec* c, const uint32_t* values, const uint8_t* units,
                             uint32_t i, uint32_t end, const uint32_t* weights) {
    do {
        const uint32_t* w = weights + static_cast<size_t>(units[i]) * (9 * kBlock);
        const typename A::Value x = A::broadcast(values + i);
        pin(w);
#pragma GCC unroll 3
        for (int r = 0; r < kRows; r++) a[r] = A::multiply_add(a[r], x, w + r * kBlock);
#pragma GCC unroll 3
        for (int r = 0; r < kRows; r++) b[r] = A::multiply_add(b[r], x, w + (3 + r) * kBlock);
#pragma GCC unroll 3
        for (int r = 0; r < kRows; r++) c[r] = A::multiply_add(c[r], x, w + (6 + r) * kBlock);
    } while (++i < end);
}

template <class A, int kRows>
void window_row(const uint32_t* values, const uint8_t* units, const uint32_t* starts, int width,
                const uint32_t* weights, float* y, ptrdiff_t row) {
    int x = 0;
    while (x < width && starts[x + 1] == 0) x++;
    int last = width;
    while (last > x && starts[last - 1] == starts[width]) last--;
    y += static_cast<ptrdiff_t>(x) * kBlock;
    Vec a[3], b[3], c[3];
    window_clear<kRows>(a);
    window_clear<kRows>(b);
    window_clear<kRows>(c);
    uint32_t i = 0;
    // Three copies of the step let the accumulators trade names instead of registers.
#define RRM_STEP(p, q, s)                                                             \
    {                                                                                 \
        const uint32_t end = starts[x + 1];                                           \
        if (i < end) window_pixel<A, kRows>(p, q, s, values, units, i, end, weights); \
        i = end;                                                                      \
        window_add<kRows>(p, y, row);                                                 \
        y += kBlock;                                                                  \
        if (++x == last) {                                                            \
            window_add<kRows>(q, y, row);                                             \
            window_add<kRows>(s, y + kBlock, row);                                    \
            return;                                                                   \
        }                                                                             \
        window_clear<kRows>(p);                                                       \
    }
    for (;;) {
        RRM_STEP(a, b, c)
        RRM_STEP(b, c, a)
        RRM_STEP(c, a, b)
    }
#undef RRM_STEP
}

template <class A>
void window_frame(const WindowArgs& args) {
    const List& list = *args.list;
    for (int row = most(0, args.row_begin - 2); row < least(list.height, args.row_end); row++) {
        const size_t span = list.span(row, args.group);
        const uint32_t* starts = list.starts + span * (list.width + 1);
        if (starts[list.width] == 0) continue;
        const int first = most(0, args.row_begin - row), end = least(3, args.row_end - row);
        for (int slice = 0; slice < kSlices; slice++) {
            const uint32_t* values = list.values + span * list.capacity;
            const uint8_t* units = list.units + span * list.capacity;
            const uint32_t* weights = args.weights + slice * kLanes + first * kBlock;
            float* y = args.y + (row + first) * args.y_row + slice * kLanes;
            if (end - first == 3)
                window_row<A, 3>(values, units, starts, list.width, weights, y, args.y_row);
            else if (end - first == 2)
                window_row<A, 2>(values, units, starts, list.width, weights, y, args.y_row);
            else
                window_row<A, 1>(values, units, starts, list.width, weights, y, args.y_row);
        }
    }
}

void window(const WindowArgs& args, Arithmetic arithmetic) {
    arithmetic == Arithmetic::fp32 ? window_frame<Fp32>(args) : window_frame<Bf16>(args);
}

}  // namespace rrm::RRM_ISA
