// The passes, included by resize.cpp once for each instruction set with
//   RRM_PREPROCESS_ISA     the namespace of this copy
//   RRM_PREPROCESS_TARGET  the function attribute that allows the instructions
//   RRM_PREPROCESS_LANES   32-bit lanes of a vector: 4, 8 or 16
//   RRM_PREPROCESS_FMA     0 or 1
// Vectors are GCC's and Clang's extension; intrinsics stand where it has no operator, or a bad one.

#define RRM_FN RRM_PREPROCESS_TARGET static inline
#define RRM_LEAF RRM_FN __attribute__((always_inline))
#define RRM_METHOD RRM_PREPROCESS_TARGET inline __attribute__((always_inline))

namespace rrm::preprocess::RRM_PREPROCESS_ISA {

constexpr int kLanes = RRM_PREPROCESS_LANES;
constexpr bool kFma = RRM_PREPROCESS_FMA;
typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint8_t Bytes __attribute__((vector_size(16)));
typedef uint16_t Shorts __attribute__((vector_size(16)));

// Memory need not be aligned to vectors.
template <class Vec>
RRM_LEAF Vec load(const void* from) {
    Vec vec;
    std::memcpy(&vec, from, sizeof vec);
    return vec;
}
template <class Vec>
RRM_LEAF void store(Vec vec, void* to) {
    std::memcpy(to, &vec, sizeof vec);
}

RRM_LEAF Floats multiply_add(Floats a, Floats b, Floats c) {
#if !RRM_PREPROCESS_FMA
    return a * b + c;
#elif RRM_PREPROCESS_LANES == 16
    return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif RRM_PREPROCESS_LANES == 8
    return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#endif
}

// The float32 arithmetic: nothing is rounded to levels between the passes.
struct Real {
    using Weight = float;
    using Vec = Floats;
    static constexpr bool kSplit = kFma;  // sums are fused from AxisWeights::fused_from on only

    explicit Real(int /*precision*/) {}
    RRM_METHOD Vec first(Vec x, float w) const { return x * w; }
    RRM_METHOD Vec add(Vec sum, Vec x, float w) const { return sum + x * w; }
    RRM_METHOD Vec fuse(Vec sum, Vec x, float w) const {
        return multiply_add(x, w - Floats{}, sum);
    }
    RRM_METHOD Vec between(Vec sum) const { return sum; }
    // Rounded half to even, as torch.round.
    RRM_METHOD Floats level(Vec sum, bool clamp) const {
        if (clamp) {
            sum = sum < 0.0f ? Floats{} : sum;
            sum = sum > 255.0f ? 255.0f - Floats{} : sum;
        }
        // Adding 1.5 * 2^23 leaves no bits for the fraction.
        constexpr float kShift = 12582912.0f;
        return (sum + kShift) - kShift;
    }
};

// The fixed-point arithmetic: rounded to levels after each pass.
struct Fixed {
    using Weight = int32_t;
    using Vec = Ints;
    static constexpr bool kSplit = false;
    int precision;
    int32_t half;

    explicit Fixed(int bits) : precision(bits), half(1 << (bits - 1)) {}
    RRM_METHOD Vec first(Vec x, int32_t w) const { return x * w + half; }
    RRM_METHOD Vec add(Vec sum, Vec x, int32_t w) const { return sum + x * w; }
    RRM_METHOD Vec fuse(Vec sum, Vec x, int32_t w) const { return sum + x * w; }
    RRM_METHOD Vec between(Vec sum) const {
        const Ints level = sum >> precision;
        const Ints above = level < 0 ? Ints{} : level;
        return above > 255 ? 255 - Ints{} : above;
    }
    RRM_METHOD Floats level(Vec sum, bool /*clamp*/) const {
        return __builtin_convertvector(between(sum), Floats);
    }
};

// What the terms of a sum are read from: one vector in the tile every `step`, or one in each row.
template <class Arithmetic>
struct TileTerms {
    const typename Arithmetic::Weight* first;
    ptrdiff_t step;
    RRM_METHOD typename Arithmetic::Vec operator[](int k) const {
        return load<typename Arithmetic::Vec>(first + k * step);
    }
};
template <class Arithmetic>
struct RowTerms {
    const typename Arithmetic::Weight* const* rows;
    ptrdiff_t x;
    RRM_METHOD typename Arithmetic::Vec operator[](int k) const {
        return load<typename Arithmetic::Vec>(rows[k] + x);
    }
};

// w: (taps,). kTaps: their number, where the compiler can know it and none is added apart; or 0.
template <int kTaps, class Arithmetic, class Terms>
RRM_LEAF typename Arithmetic::Vec weighted_sum(const Arithmetic& arithmetic, const Terms& terms,
                                               const typename Arithmetic::Weight* w, int taps,
                                               int fused_from) {
    typename Arithmetic::Vec sum = arithmetic.first(terms[0], w[0]);
    if constexpr (kTaps > 0) {
#pragma GCC unroll 4
        for (int k = 1; k < kTaps; ++k) sum = arithmetic.fuse(sum, terms[k], w[k]);
    } else {
        int k = 1;
        if constexpr (Arithmetic::kSplit) {
            for (; k < fused_from; ++k) sum = arithmetic.add(sum, terms[k], w[k]);
        }
        for (; k < taps; ++k) sum = arithmetic.fuse(sum, terms[k], w[k]);
    }
    return sum;
}

// (a0 b0 a1 b1 ...) of the lower, and of the upper half.
template <class Vec, int... I>
RRM_LEAF void interleave(Vec a, Vec b, Vec& low, Vec& high, std::integer_sequence<int, I...>) {
    constexpr int n = sizeof...(I);
#if defined(__clang__)
    low = __builtin_shufflevector(a, b, ((I % 2 ? n : 0) + I / 2)...);
    high = __builtin_shufflevector(a, b, ((I % 2 ? n : 0) + I / 2 + n / 2)...);
#else
    using Order = decltype(a == b);  // integers of the same size
    low = __builtin_shuffle(a, b, Order{((I % 2 ? n : 0) + I / 2)...});
    high = __builtin_shuffle(a, b, Order{((I % 2 ? n : 0) + I / 2 + n / 2)...});
#endif
}

// Transposes n vectors of n elements: log2(n) times, vectors i and i + n/2 are interleaved.
template <int n, int left, class Vec>
RRM_LEAF void transpose(Vec* v) {
    if constexpr (left > 1) {
        Vec next[n];
#pragma GCC unroll 16
        for (int i = 0; i < n / 2; ++i) {
            interleave(v[i], v[i + n / 2], next[2 * i], next[2 * i + 1],
                       std::make_integer_sequence<int, n>{});
        }
#pragma GCC unroll 16
        for (int i = 0; i < n; ++i) v[i] = next[i];
        transpose<n, left / 2>(v);
    }
}

RRM_LEAF void store_as(Ints lanes, int32_t* to) { store(lanes, to); }
RRM_LEAF void store_as(Ints lanes, float* to) {
    store(__builtin_convertvector(lanes, Floats), to);
}

// Sixteen bytes to as many numbers. Left to the compiler, it may well become byte by byte.
template <class Weight>
RRM_LEAF void widen(Bytes bytes, Weight* to) {
#if RRM_PREPROCESS_LANES == 16
    store_as((Ints)_mm512_cvtepu8_epi32((__m128i)bytes), to);
#elif RRM_PREPROCESS_LANES == 8
    store_as((Ints)_mm256_cvtepu8_epi32((__m128i)bytes), to);
    store_as((Ints)_mm256_cvtepu8_epi32(_mm_srli_si128((__m128i)bytes, 8)), to + 8);
#else
    // Bytes with zeros between them are wider little-endian numbers.
    Bytes half[2];
    interleave(bytes, Bytes{}, half[0], half[1], std::make_integer_sequence<int, 16>{});
    for (int i = 0; i < 2; ++i) {
        Shorts low, high;
        interleave((Shorts)half[i], Shorts{}, low, high, std::make_integer_sequence<int, 8>{});
        store_as((Ints)low, to + 8 * i);
        store_as((Ints)high, to + 8 * i + 4);
    }
#endif
}

// rows: kRows rows of bytes, of which `count` from `offset` on are taken
// tile: (count, kRows), one byte of each row side by side
template <class Weight>
RRM_FN void turn(const uint8_t* const* rows, ptrdiff_t offset, int count, Weight* tile) {
    int j = 0;
    for (; j + 16 <= count; j += 16) {
        Bytes v[16];
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
            v[r] = load<Bytes>(rows[r] + offset + j);
        }
        transpose<16, 16>(v);
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) widen(v[i], tile + (j + i) * kRows);
    }
    for (; j < count; ++j) {
        for (int r = 0; r < kRows; ++r) {
            tile[j * kRows + r] = static_cast<Weight>(rows[r][offset + j]);
        }
    }
}

// One channel of a strip.
// tile: (columns, 3, kRows), from the strip's first column on, at the channel
// ring: kRows rows `stride` apart, at the plane
template <class Arithmetic, int kTaps>
RRM_FN void horizontal(const AxisWeights<typename Arithmetic::Weight>& axis, const Strip& strip,
                       const typename Arithmetic::Weight* tile,
                       typename Arithmetic::Weight* ring, ptrdiff_t stride) {
    using Vec = typename Arithmetic::Vec;
    constexpr ptrdiff_t kStep = 3 * kRows;  // between neighbouring columns of the tile
    const Arithmetic arithmetic(axis.precision);
    const int taps = kTaps ? kTaps : axis.taps;
    for (int first = strip.first; first < strip.last; first += kLanes) {
        for (int rows = 0; rows < kRows; rows += kLanes) {
            Vec sums[kLanes];  // of one output each; a lane is a row
#pragma GCC unroll 16
            for (int i = 0; i < kLanes; ++i) {
                const int o = first + i;
                const ptrdiff_t column = axis.begin[o] - strip.column_begin;
                const TileTerms<Arithmetic> terms{tile + column * kStep + rows, kStep};
                sums[i] = arithmetic.between(weighted_sum<kTaps>(
                    arithmetic, terms, axis.weights.data() + static_cast<size_t>(o) * taps, taps,
                    axis.fused_from[o]));
            }
            transpose<kLanes, kLanes>(sums);
#pragma GCC unroll 16
            for (int i = 0; i < kLanes; ++i) {
                store(sums[i], ring + (rows + i) * stride + first);
            }
        }
    }
}

RRM_LEAF Floats normalise(Floats level, const Normalisation& n, int plane) {
    const Floats mean = n.mean[plane] - Floats{}, deviation = n.deviation[plane] - Floats{};
    if (kFma && n.reciprocal) {
        const Floats zero = {};
        if (n.unit) {
            const Floats inverse = (1.0f / 255.0f) - zero;
            const Floats quotient = level * inverse;
            const Floats rest = multiply_add(-255.0f - zero, quotient, level);
            level = multiply_add(rest, inverse, quotient);
        }
        const Floats inverse = n.inverse[plane] - zero;
        const Floats difference = level - mean;
        const Floats quotient = difference * inverse;
        const Floats rest = multiply_add(-deviation, quotient, difference);
        return multiply_add(rest, inverse, quotient);
    }
    if (n.unit) level = level / 255.0f;
    return (level - mean) / deviation;
}

// Output row `o` of one plane. rows: (taps,) pointers to rows of the ring, at the plane.
template <class Arithmetic, int kTaps>
RRM_FN void vertical(const Resize<typename Arithmetic::Weight>& resize, int o, int plane,
                     const typename Arithmetic::Weight* const* rows, float* out) {
    const Arithmetic arithmetic(resize.y.precision);
    const Normalisation n = resize.normalisation;
    const int width = resize.width, taps = kTaps ? kTaps : resize.y.taps;
    const int fused_from = resize.y.fused_from[o];
    const auto* const w = resize.y.weights.data() + static_cast<size_t>(o) * taps;
    for (int x = 0; x < width; x += kLanes) {
        const RowTerms<Arithmetic> terms{rows, x};
        const auto sum = weighted_sum<kTaps>(arithmetic, terms, w, taps, fused_from);
        const Floats value = normalise(arithmetic.level(sum, resize.clamp), n, plane);
        if (x + kLanes <= width) {
            store(value, out + x);
        } else {
            std::memcpy(out + x, &value, static_cast<size_t>(width - x) * sizeof(float));
        }
    }
}

template <class Arithmetic>
RRM_PREPROCESS_TARGET static void run(const Resize<typename Arithmetic::Weight>& resize,
                                      const uint8_t* frame, float* out, ptrdiff_t plane,
                                      ptrdiff_t row, void* scratch) {
    using Weight = typename Arithmetic::Weight;
    const auto& y = resize.y;
    const ptrdiff_t stride = static_cast<ptrdiff_t>(resize.x.source) * 3;
    const ptrdiff_t width = resize.x.outputs();
    Weight* const tile = static_cast<Weight*>(scratch);
    Weight* const ring = tile + static_cast<ptrdiff_t>(resize.tile_columns) * 3 * kRows;
    const Weight** const lines =
        reinterpret_cast<const Weight**>(ring + resize.ring_rows * 3 * width);

    const int x_taps = known_taps(resize.x), y_taps = known_taps(y);
    const auto across = x_taps == 1   ? horizontal<Arithmetic, 1>
                        : x_taps == 2 ? horizontal<Arithmetic, 2>
                        : x_taps == 4 ? horizontal<Arithmetic, 4>
                                      : horizontal<Arithmetic, 0>;
    const auto down = y_taps == 1   ? vertical<Arithmetic, 1>
                      : y_taps == 2 ? vertical<Arithmetic, 2>
                      : y_taps == 4 ? vertical<Arithmetic, 4>
                                    : vertical<Arithmetic, 0>;

    const int source_begin = y.begin.front();
    int ready = source_begin;  // source rows that went through the horizontal pass
    for (int o = 0; o < resize.height; ++o) {
        const int end = y.begin[o] + y.taps;
        for (; ready < end; ready += kRows) {
            const uint8_t* rows[kRows];
            for (int r = 0; r < kRows; ++r) {
                // Beyond the frame: any row, its result is not used.
                rows[r] = frame + std::min(ready + r, y.source - 1) * stride;
            }
            Weight* const target = ring + (ready - source_begin) % resize.ring_rows * 3 * width;
            for (const Strip& strip : resize.strips) {
                turn(rows, static_cast<ptrdiff_t>(strip.column_begin) * 3,
                     (strip.column_end - strip.column_begin) * 3, tile);
                for (int p = 0; p < 3; ++p) {
                    const int channel = resize.reversed ? 2 - p : p;
                    across(resize.x, strip, tile + channel * kRows, target + p * width, 3 * width);
                }
            }
        }
        for (int p = 0; p < 3; ++p) {
            for (int k = 0; k < y.taps; ++k) {
                const int line = (y.begin[o] - source_begin + k) % resize.ring_rows;
                lines[k] = ring + (line * 3 + p) * width;
            }
            down(resize, o, p, lines, out + p * plane + o * row);
        }
    }
}

}  // namespace rrm::preprocess::RRM_PREPROCESS_ISA

#undef RRM_METHOD
#undef RRM_LEAF
#undef RRM_FN
#undef RRM_PREPROCESS_ISA
#undef RRM_PREPROCESS_TARGET
#undef RRM_PREPROCESS_LANES
#undef RRM_PREPROCESS_FMA
