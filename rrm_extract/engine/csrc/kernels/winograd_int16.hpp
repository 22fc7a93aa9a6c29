// What stands between the transforms of winograd.hpp in networks of bfloat16: whole numbers of 16
// bits, see Int16InputArgs.
#pragma once

#include "compress.hpp"
#include "winograd.hpp"

namespace rrm::RRM_ISA {

RRM_INLINE VecBits rounded(Vec x, Vec scale) { return (VecBits)(x * scale + kRounder); }

inline constexpr uint32_t kInfinityBits = 0x7f800000u;

// Greatest of the bits of magnitudes, of which any NaN's are greater than any number's.
RRM_INLINE VecInt greatest(VecInt a, VecInt b) { return a > b ? a : b; }
RRM_INLINE int32_t greatest_of(VecInt v) {
    for (int half = kLanes / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; lane++)
            v[lane] = v[lane] > v[lane + half] ? v[lane] : v[lane + half];
    return v[0];
}

// Rows of a few pixels: no processor sees a stream in them.
RRM_INLINE void fetch_tile(const uint32_t* x, ptrdiff_t row, ptrdiff_t column) {
    for (int r = 0; r < kWinogradInputs; r++)
        for (int c = 2; c <= kWinogradInputs; c += 2)  // its neighbour has read the first two
            __builtin_prefetch(x + r * row + least(c, kWinogradInputs - 1) * column, 0, 3);
}

template <Arithmetic kArithmetic>
void int16_input_tiles(const Int16InputArgs& args) {
    alignas(64) float numbers[kInt16Blocks * kWinogradPositions * kBlock];
    const int blocks = (args.channels + kBlock - 1) / kBlock;
    for (int tile = 0; tile < args.count; tile++) {
        VecInt highest = {};
        for (int block = 0; block < blocks; block++)
            for (int lane = 0; lane < kBlock; lane += kLanes) {
                const uint32_t* x = args.tiles[tile] + args.offset + block * args.x_block;
                float* to = numbers + block * kWinogradPositions * kBlock + lane;
                uint32_t* const then = args.to + block * args.block + tile * (kBlock / 2);
                if (lane == 0 && tile + 1 < args.count)
                    fetch_tile(args.tiles[tile + 1] + args.offset + block * args.x_block,
                               args.x_row, args.x_column);
                const auto transform = [&](auto channel) __attribute__((always_inline)) {
                    both_ways<InputPositions>(
                        [&](int r, int c) __attribute__((always_inline)) {
                            return channel(channels_of(x + r * args.x_row + c * args.x_column,
                                                       lane, kArithmetic));
                        },
                        [&](int i, int j, Vec value) __attribute__((always_inline)) {
                            highest = greatest(highest, (VecInt)magnitude(value));
                            store(to + (i * 6 + j) * kBlock, value);
                            // What is written once the scale is known.
                            if (lane == 0)
                                __builtin_prefetch(then + (i * 6 + j) * args.position, 1, 3);
                        });
                };
                // Beyond the last channel stands what may be anything.
                const uint32_t lanes = lanes_of(args.channels - block * kBlock - lane);
                if (lanes == lanes_of(kLanes))
                    transform([](Vec value) __attribute__((always_inline)) { return value; });
                else
                    transform([&](Vec value) __attribute__((always_inline)) {
                        return blend(lanes, splat(0), value);
                    });
            }
        const auto bits = static_cast<uint32_t>(greatest_of(highest));
        const float largest = as_float(bits);
        const bool usable = bits < kInfinityBits && largest > kInt16Least;
        const Vec scale = splat(usable ? kInt16Input / largest : 0.0f);
        args.scales[tile] = bits >= kInfinityBits ? as_float(kInfinityBits | 1u)
                            : usable              ? largest / kInt16Input
                                                  : 0.0f;
        for (int block = 0; block < blocks; block++) {
            const float* from = numbers + block * kWinogradPositions * kBlock;
            uint32_t* to = args.to + block * args.block + tile * (kBlock / 2);
            for (int position = 0; position < kWinogradPositions; position++)
                for (int lane = 0; lane < kBlock; lane += kLanes)
                    *(reinterpret_cast<VecHalf*>(to + position * args.position) + lane / kLanes) =
                        __builtin_convertvector(
                            rounded(load(from + position * kBlock + lane), scale), VecHalf);
        }
    }
}

void int16_input(const Int16InputArgs& args, Arithmetic arithmetic) {
    if (arithmetic == Arithmetic::fp32)
        int16_input_tiles<Arithmetic::fp32>(args);
    else
        int16_input_tiles<Arithmetic::bf16>(args);
}

void int16_weights(const Int16WeightsArgs& args) {
    // Each rounding may add a half.
    const float most_sum = static_cast<float>(kInt16Sum - args.channels);
    for (int position = 0; position < kWinogradPositions; position++)
        for (int lane = 0; lane < kBlock; lane += kLanes) {
            const float* from = args.kernels + position * args.position + lane;
            auto* to = reinterpret_cast<uint32_t*>(args.kernels + position * args.position) + lane;
            Vec sum = splat(0), highest = splat(0);
            for (int channel = 0; channel < args.channels; channel++) {
                const Vec size = magnitude(load(from + channel * kBlock));
                sum += size;
                highest = maximum(highest, size);
            }
            const VecInt usable = (sum > kInt16Least) & ((VecInt)sum < (int32_t)kInfinityBits);
            const Vec by_sum = most_sum / sum, by_size = kInt16Weight / highest;
            const Vec scale = select(usable, select(by_sum < by_size, by_sum, by_size), splat(0));
            store(args.scales + position * args.position + lane,
                  select(usable, 1.0f / scale, sum * 0.0f));
            for (int channel = 0; channel < args.channels; channel += 2) {
                const VecBits even = rounded(load(from + channel * kBlock), scale) & 0xffffu;
                const VecBits odd = channel + 1 < args.channels
                                        ? rounded(load(from + (channel + 1) * kBlock), scale) << 16
                                        : VecBits{};
                *reinterpret_cast<VecBits*>(to + channel / 2 * kBlock) = even | odd;
            }
        }
}

// Adds the products of two pairs, lane by lane.
RRM_INLINE VecBits add_products(VecBits sum, VecBits x, VecBits w) {
#if defined(__AVX512VNNI__)
    return (VecBits)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)w, (__m512i)x);
#elif defined(__AVX512BW__)
    return sum + (VecBits)_mm512_madd_epi16((__m512i)w, (__m512i)x);
#elif defined(__AVX2__)
    return sum + (VecBits)_mm256_madd_epi16((__m256i)w, (__m256i)x);
#else
    const VecInt low = ((VecInt)(x << 16) >> 16) * ((VecInt)(w << 16) >> 16);
    const VecInt high = ((VecInt)x >> 16) * ((VecInt)w >> 16);
    return sum + (VecBits)low + (VecBits)high;
#endif
}

inline constexpr int kInt16Tiles = kRegisters == 32 ? 14 : 6;  // in registers, of two vectors each

// `vector` is the first of two, in each of one or two blocks of outputs.
template <int kVectors, int kTiles>
void int16_products_of(const Int16ProductArgs& args, int vector, int row, int tile) {
    const uint32_t* x = args.x + row * args.x_row + tile * (kBlock / 2);
    const uint32_t* w[kVectors];
    for (int v = 0; v < kVectors; v++)
        w[v] = args.weights[(vector + v) / kSlices] + (vector + v) % kSlices * kLanes;
    VecBits sums[kTiles][kVectors] = {};
    for (int pairs = args.pairs; pairs > 0; x += args.x_block, pairs -= kBlock / 2) {
        const int count = least(pairs, kBlock / 2);
        for (int pair = 0; pair < count; pair++) {
            VecBits weights[kVectors];
#pragma GCC unroll 2
            for (int v = 0; v < kVectors; v++) {
                weights[v] = *reinterpret_cast<const VecBits*>(w[v]);
                w[v] += kBlock;
            }
#pragma GCC unroll 16
            for (int t = 0; t < kTiles; t++) {
                const VecBits value = x[pair + t * (kBlock / 2)] - VecBits{};
#pragma GCC unroll 2
                for (int v = 0; v < kVectors; v++)
                    sums[t][v] = add_products(sums[t][v], value, weights[v]);
            }
        }
    }
    const float* const scales = args.input_scales + row * args.scales_row + tile;
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; v++) {
        const int block = (vector + v) / kSlices, lane = (vector + v) % kSlices * kLanes;
        float* const y = args.y[block] + row * args.y_row + tile * kBlock + lane;
        const Vec scale = load(args.weight_scales[block] + lane);
#pragma GCC unroll 16
        for (int t = 0; t < kTiles; t++) {
            const Vec sum = __builtin_convertvector((VecInt)sums[t][v], Vec) * (scale * scales[t]);
            store(y + t * kBlock, args.begins ? sum : load(y + t * kBlock) + sum);
        }
    }
}

template <int kVectors>
void int16_rows(const Int16ProductArgs& args, int vector) {
    using Products = void (*)(const Int16ProductArgs&, int vector, int row, int tile);
    const auto of = [](int tiles) -> Products {
        switch (tiles) {
#define RRM_CASE(n) \
    case n:         \
        if constexpr (n <= kInt16Tiles) return int16_products_of<kVectors, n>;
            RRM_CASE(1) RRM_CASE(2) RRM_CASE(3) RRM_CASE(4) RRM_CASE(5) RRM_CASE(6) RRM_CASE(7)
            RRM_CASE(8) RRM_CASE(9) RRM_CASE(10) RRM_CASE(11) RRM_CASE(12) RRM_CASE(13) RRM_CASE(14)
#undef RRM_CASE
        }
        return nullptr;
    };
    const Parts parts = Parts::of(args.tiles, kInt16Tiles);
    const Products first = of(parts.size), then = of(parts.size - 1);
    for (int row = 0; row < args.rows; row++)
        for (int part = 0, tile = 0; part < parts.count; tile += parts.size_of(part), part++)
            (part < parts.larger ? first : then)(args, vector, row, tile);
}

void int16_products(const Int16ProductArgs& args) {
    const int vectors = args.blocks * kSlices;
    int vector = 0;
    for (; vector + 2 <= vectors; vector += 2) int16_rows<2>(args, vector);
    if (vector < vectors) int16_rows<1>(args, vector);
}

}  // namespace rrm::RRM_ISA
