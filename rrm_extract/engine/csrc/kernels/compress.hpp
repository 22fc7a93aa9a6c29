// From a row of an activation to its deltas: difference to the snapshot, threshold, list.
//
// A difference that is not a number passes the threshold: it must not hide in a snapshot.
#pragma once

#include "vector.hpp"

namespace rrm::RRM_ISA {

// Counts in registers; a delta that is infinite or not a number leaves a trace in `trace`.
struct Tally {
    int64_t nonzero = 0, deltas = 0;
    Vec trace = {};

    RRM_INLINE void watch(Vec delta) { trace += delta * splat(0.0f); }
    void add_to(Counts& counts) const {
        counts.nonzero += nonzero;
        counts.deltas += deltas;
        float sum = 0;
        for (int lane = 0; lane < kLanes; lane++) sum += trace[lane];
        counts.finite = counts.finite && sum == 0.0f;
    }
};

// One bit a lane.
RRM_INLINE uint32_t beyond(Vec delta, Vec threshold) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)magnitude(delta), (__m512)threshold, _CMP_NLE_UQ);
#elif defined(__AVX2__)
    return static_cast<uint32_t>(_mm256_movemask_ps(
        _mm256_cmp_ps((__m256)magnitude(delta), (__m256)threshold, _CMP_NLE_UQ)));
#else
    const VecInt mask = !(magnitude(delta) <= threshold);
    uint32_t bits = 0;
    for (int lane = 0; lane < kLanes; lane++) bits |= (mask[lane] & 1u) << lane;
    return bits;
#endif
}

RRM_INLINE uint32_t nonzero_mask(Vec x) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_NEQ_UQ);
#elif defined(__AVX2__)
    return static_cast<uint32_t>(
        _mm256_movemask_ps(_mm256_cmp_ps((__m256)x, _mm256_setzero_ps(), _CMP_NEQ_UQ)));
#else
    const VecInt mask = x != splat(0.0f);
    uint32_t bits = 0;
    for (int lane = 0; lane < kLanes; lane++) bits |= (mask[lane] & 1u) << lane;
    return bits;
#endif
}

RRM_INLINE Vec blend(uint32_t mask, Vec off, Vec on) {
#if defined(__AVX512F__)
    return (Vec)_mm512_mask_mov_ps((__m512)off, static_cast<__mmask16>(mask), (__m512)on);
#else
    VecBits lanes;
    for (int lane = 0; lane < kLanes; lane++) lanes[lane] = 1u << lane;
    return (lanes & mask) != 0 ? on : off;
#endif
}

RRM_INLINE int ones(uint32_t mask) { return __builtin_popcount(mask); }

#if defined(__AVX2__) && !defined(__AVX512F__)
// For each mask its lanes, as bytes, one after the other.
struct LaneOrders {
    uint64_t of[1 << kLanes] = {};

    constexpr LaneOrders() {
        for (uint32_t mask = 0; mask < 1u << kLanes; mask++)
            for (int lane = 0, byte = 0; lane < kLanes; lane++)
                if ((mask >> lane) & 1u) of[mask] |= static_cast<uint64_t>(lane) << (8 * byte++);
    }
};
inline constexpr LaneOrders kLaneOrders;
#endif

// Appends the chosen lanes; may write up to kListSlack elements beyond them.
RRM_INLINE int append(uint32_t* values, uint8_t* units, Vec delta, uint32_t mask, int first) {
#if defined(__AVX512F__)
    const __mmask16 lanes = static_cast<__mmask16>(mask);
    const __m512i ids = _mm512_add_epi32(
        _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
        _mm512_set1_epi32(first));
    _mm512_storeu_ps(values, _mm512_maskz_compress_ps(lanes, (__m512)delta));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(units),
                     _mm512_cvtepi32_epi8(_mm512_maskz_compress_epi32(lanes, ids)));
    return ones(mask);
#elif defined(__AVX2__)
    const uint64_t order = kLaneOrders.of[mask];
    const __m256i lanes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(order)));
    _mm256_storeu_ps(reinterpret_cast<float*>(values),
                     _mm256_permutevar8x32_ps((__m256)delta, lanes));
    const uint64_t ids = order + static_cast<uint64_t>(first) * 0x0101010101010101u;
    std::memcpy(units, &ids, sizeof(ids));
    return ones(mask);
#else
    int count = 0;
    while (mask != 0) {
        const int lane = __builtin_ctz(mask);
        mask &= mask - 1;
        values[count] = as_bits(delta[lane]);
        units[count++] = static_cast<uint8_t>(first + lane);
    }
    return count;
#endif
}

// The same for bf16: neighbouring channels form a unit, taken when either of them is chosen.
// `rounded` is zero where nothing is chosen.
RRM_INLINE int append_pairs(uint32_t* values, uint8_t* units, Vec rounded, uint32_t mask,
                            int first) {
#if defined(__AVX512BF16__)
    const __m256i pairs = (__m256i)_mm512_cvtneps_pbh((__m512)rounded);
    uint32_t either = (mask | (mask >> 1)) & 0x5555u;
    either = (either | (either >> 1)) & 0x3333u;
    either = (either | (either >> 2)) & 0x0f0fu;
    either = (either | (either >> 4)) & 0x00ffu;
    const __mmask8 lanes = static_cast<__mmask8>(either);
    const __m256i ids =
        _mm256_add_epi32(_mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0), _mm256_set1_epi32(first / 2));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(values),
                        _mm256_maskz_compress_epi32(lanes, pairs));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(units),
                     _mm256_cvtepi32_epi8(_mm256_maskz_compress_epi32(lanes, ids)));
    return ones(either);
#else
    int count = 0;
    for (int lane = 0; lane < kLanes; lane += 2)
        if ((mask >> lane) & 3u) {
            values[count] = to_bf16(rounded[lane]) | (to_bf16(rounded[lane + 1]) << 16);
            units[count++] = static_cast<uint8_t>((first + lane) / 2);
        }
    return count;
#endif
}

// The lanes of a vector that hold channels; the last block of a layer may be partly padding.
RRM_INLINE uint32_t lanes_of(int channels) {
    return channels >= kLanes ? (kLanes == 32 ? ~0u : (1u << kLanes) - 1u)
                              : (channels <= 0 ? 0u : (1u << channels) - 1u);
}

#if defined(__AVX512VBMI2__)
// Four full blocks of one pixel at once, fp32: the 64 masks of lanes become one word, so that
// counting and compressing the units take one instruction each.
template <bool kPaper>
RRM_INLINE int compress_pixel64(const float* x, ptrdiff_t x_block, float* kept,
                                ptrdiff_t kept_block, ptrdiff_t next_row, __m512 threshold,
                                uint32_t* values, uint8_t* units, __m512i iota, Vec& trace,
                                int& nonzero) {
    __mmask16 mask[4], occupied[4];
    __m512 delta[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        const __m512 value = _mm512_loadu_ps(x + v * x_block);
        float* const here = kept + v * kept_block;
        const __m512 last = _mm512_loadu_ps(here);
        __builtin_prefetch(here + next_row, 1, 2);
        delta[v] = _mm512_sub_ps(value, last);
        mask[v] = _mm512_cmp_ps_mask(_mm512_abs_ps(delta[v]), threshold, _CMP_NLE_UQ);
        occupied[v] = _mm512_cmp_ps_mask(value, _mm512_setzero_ps(), _CMP_NEQ_UQ);
        _mm512_storeu_ps(here, kPaper ? value : _mm512_mask_mov_ps(last, mask[v], value));
        trace += (Vec)delta[v] * splat(0.0f);
    }
    const auto joined = [](const __mmask16* m) {
        return static_cast<uint64_t>(_mm512_kunpackd(_mm512_kunpackw(m[3], m[2]),
                                                     _mm512_kunpackw(m[1], m[0])));
    };
    nonzero = __builtin_popcountll(joined(occupied));
    const uint64_t all = joined(mask);
    if (all == 0) return 0;
    _mm512_storeu_si512(units, _mm512_maskz_compress_epi8(all, iota));
    int count = 0;
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        _mm512_storeu_ps(values + count, _mm512_maskz_compress_ps(mask[v], delta[v]));
        count += ones((all >> (16 * v)) & 0xffffu);
    }
    return count;
}
#endif

// kFull: vectors of a group whose lanes are all channels, or 0 for any group.
template <Arithmetic kArithmetic, bool kPaper, int kFull>
void compress_row(const CompressArgs& args) {
    const Vec threshold = splat(args.threshold);
    const int vectors = kFull > 0 ? kFull : (args.channels + kLanes - 1) / kLanes;
    const uint32_t last_lanes = lanes_of(args.channels - (vectors - 1) * kLanes);
    const ptrdiff_t x_block = args.x_block, snapshot_block = args.snapshot_block;
    uint32_t* const values = args.values;
    uint8_t* const units = args.units;
    uint32_t* const starts = args.starts;
    uint8_t* const hits = args.hits;
    uint8_t* const occupied = args.occupied;
    const ptrdiff_t next_row = static_cast<ptrdiff_t>(args.width) * kBlock;
    const uint8_t keep_hits = args.first ? 0 : 0xff;
#if defined(__AVX512VBMI2__)
    alignas(64) uint8_t numbers[64];
    for (int i = 0; i < 64; i++) numbers[i] = static_cast<uint8_t>(i);
    const __m512i iota = _mm512_load_si512(numbers);
#endif
    Tally tally;
    uint32_t count = 0;
    int next = 0;
    const auto skip_to = [&](int column) {
        for (; next < column; next++) {
            starts[next] = count;
            hits[next] &= keep_hits;
        }
    };
    for (int run = 0; run < args.run_count; run++) {
        skip_to(args.runs[run].begin);
        const float* x = args.x + static_cast<ptrdiff_t>(next) * kBlock;
        float* kept = args.snapshot + static_cast<ptrdiff_t>(next) * kBlock;
        for (; next < args.runs[run].end; next++, x += kBlock, kept += kBlock) {
            starts[next] = count;
            int nonzero = 0, deltas = 0;
#if defined(__AVX512VBMI2__)
            if constexpr (kFull == 4 && kArithmetic == Arithmetic::fp32) {
                deltas = compress_pixel64<kPaper>(x, x_block, kept, snapshot_block, next_row,
                                                  (__m512)threshold, values + count, units + count,
                                                  iota, tally.trace, nonzero);
                count += static_cast<uint32_t>(deltas);
            } else
#endif
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++) {
                const uint32_t lanes =
                    kFull > 0 || v + 1 < vectors ? lanes_of(kLanes) : last_lanes;
                const ptrdiff_t lane = (v % kSlices) * kLanes;
                float* const here = kept + (v / kSlices) * snapshot_block + lane;
                const Vec value = load(x + (v / kSlices) * x_block + lane);
                const Vec last = load(here);
                __builtin_prefetch(here + next_row, 1, 2);
                Vec delta = value - last;
                const uint32_t mask = beyond(delta, threshold) & lanes;
                nonzero += ones(nonzero_mask(value) & lanes);
                tally.watch(delta);
                if constexpr (kArithmetic == Arithmetic::fp32) {
                    store(here, kPaper ? value : blend(mask, last, value));
                    const int added =
                        append(values + count, units + count, delta, mask, v * kLanes);
                    count += static_cast<uint32_t>(added);
                    deltas += added;
                } else {
                    // The snapshot holds what is propagated, so that rounding cannot accumulate.
                    delta = blend(mask, splat(0.0f), round_bf16(delta));
                    const Vec propagated = last + delta;
                    store(here, kPaper ? blend(mask, value, propagated) : propagated);
                    deltas += ones(mask);
                    count += static_cast<uint32_t>(
                        append_pairs(values + count, units + count, delta, mask, v * kLanes));
                }
            }
            tally.nonzero += nonzero - occupied[next];
            tally.deltas += deltas;
            occupied[next] = static_cast<uint8_t>(nonzero);
            hits[next] = static_cast<uint8_t>((hits[next] & keep_hits) | (deltas > 0));
        }
    }
    skip_to(args.width);
    starts[args.width] = count;
    tally.add_to(*args.counts);
}

template <Arithmetic kArithmetic, bool kPaper>
void compress_any(const CompressArgs& args) {
    if (args.channels == 4 * kLanes) return compress_row<kArithmetic, kPaper, 4>(args);
    if (args.channels == 8 * kLanes) return compress_row<kArithmetic, kPaper, 8>(args);
    compress_row<kArithmetic, kPaper, 0>(args);
}

void compress(const CompressArgs& args, Arithmetic arithmetic) {
    if (arithmetic == Arithmetic::fp32)
        args.paper ? compress_any<Arithmetic::fp32, true>(args)
                   : compress_any<Arithmetic::fp32, false>(args);
    else
        args.paper ? compress_any<Arithmetic::bf16, true>(args)
                   : compress_any<Arithmetic::bf16, false>(args);
}

// kFull: vectors of a group whose lanes are all channels, or 0 for any group.
template <Arithmetic kArithmetic, int kFull>
void keep_row(const KeepArgs& args) {
    const Vec threshold = splat(args.threshold);
    const int vectors = kFull > 0 ? kFull : (args.channels + kLanes - 1) / kLanes;
    constexpr int pixel = kArithmetic == Arithmetic::fp32 ? kBlock : kBlock / 2;
    constexpr int step = pixel * kLanes / kBlock;
    Tally tally;
    for (int column = 0; column < args.width; column++) {
        int nonzero = 0, deltas = 0;
        uint32_t differs = 0;
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) {
            const uint32_t lanes = lanes_of(kFull > 0 ? kLanes : args.channels - v * kLanes);
            const ptrdiff_t at = static_cast<ptrdiff_t>(column) * kBlock + (v % kSlices) * kLanes;
            const ptrdiff_t unit = (v / kSlices) * args.dense_block +
                                   static_cast<ptrdiff_t>(column) * pixel + (v % kSlices) * step;
            const Vec value = load(args.x + (v / kSlices) * args.x_block + at);
            const Vec last = args.snapshot != nullptr
                                 ? load(args.snapshot + (v / kSlices) * args.snapshot_block + at)
                                 : channels_of(args.last + unit, 0, kArithmetic);
            __builtin_prefetch(args.dense + unit + args.ahead, 1, 2);
            nonzero += ones(nonzero_mask(value) & lanes);
            deltas += ones(beyond(value - last, threshold) & lanes);
            tally.watch(value);
            const Vec kept = kArithmetic == Arithmetic::fp32 ? value : round_bf16(value);
            if constexpr (kArithmetic == Arithmetic::bf16) {
                const Vec rounded = args.snapshot != nullptr ? round_bf16(last) : last;
                differs |= nonzero_mask(kept - rounded) & lanes;
            }
            if (args.next_snapshot != nullptr)
                store(args.next_snapshot + (v / kSlices) * args.snapshot_block + at, kept);
            if constexpr (kArithmetic == Arithmetic::fp32)
                store(reinterpret_cast<float*>(args.dense + unit), kept);
            else
                store_bf16(reinterpret_cast<uint16_t*>(args.dense + unit), kept);
        }
        tally.nonzero += nonzero - args.occupied[column];
        if (kArithmetic == Arithmetic::fp32 || differs != 0) tally.deltas += deltas;
        args.occupied[column] = static_cast<uint8_t>(nonzero);
    }
    tally.add_to(*args.counts);
}

template <Arithmetic kArithmetic>
void keep_any(const KeepArgs& args) {
    if (args.channels == 4 * kLanes) return keep_row<kArithmetic, 4>(args);
    if (args.channels == 8 * kLanes) return keep_row<kArithmetic, 8>(args);
    keep_row<kArithmetic, 0>(args);
}

template <Arithmetic kArithmetic>
void take_row(const KeepArgs& args) {
    const int blocks = (args.channels + kBlock - 1) / kBlock;
    for (int block = 0; block < blocks; block++) {
        const float* const x = args.x + block * args.x_block;
        uint32_t* const dense = args.dense + block * args.dense_block;
        if constexpr (kArithmetic == Arithmetic::fp32) {
            std::memcpy(dense, x, sizeof(float) * kBlock * static_cast<size_t>(args.width));
            continue;
        }
        for (int at = 0; at < args.width * kBlock; at += kLanes)
            store_bf16(reinterpret_cast<uint16_t*>(dense) + at, load(x + at));
    }
}

void keep(const KeepArgs& args, Arithmetic arithmetic) {
    if (args.counts == nullptr)
        return arithmetic == Arithmetic::fp32 ? take_row<Arithmetic::fp32>(args)
                                              : take_row<Arithmetic::bf16>(args);
    arithmetic == Arithmetic::fp32 ? keep_any<Arithmetic::fp32>(args)
                                   : keep_any<Arithmetic::bf16>(args);
}

// The usual case: bounded, and there is a frame before. kFull: vectors of a group whose lanes are
// all channels, or 0 for any group.
template <int kFull>
void select_row(const SelectArgs& args) {
    const Vec threshold = splat(args.threshold);
    const int vectors = kFull > 0 ? kFull : (args.channels + kLanes - 1) / kLanes;
    const uint32_t last_lanes = lanes_of(args.channels - (vectors - 1) * kLanes);
    const ptrdiff_t x_block = args.x_block, last_block = args.last_block;
    const ptrdiff_t next_block = args.next_block, ahead = args.ahead;
    const float* x = args.x;
    const float* last = args.last;
    float* next = args.next;
    uint8_t* const hits = args.hits;
    uint8_t* const occupied = args.occupied;
    const int width = args.width;
    Vec trace = {};
    int64_t all_nonzero = 0, all_deltas = 0;
    for (int column = 0; column < width; column++, x += kBlock, last += kBlock, next += kBlock) {
        int nonzero = 0, deltas = 0;
#pragma GCC unroll 9
        for (int v = 0; v < vectors; v++) {
            const uint32_t lanes = kFull > 0 || v + 1 < vectors ? lanes_of(kLanes) : last_lanes;
            const ptrdiff_t block = v / kSlices, lane = (v % kSlices) * kLanes;
            const float* const from = last + block * last_block + lane;
            const Vec value = load(x + block * x_block + lane), before = load(from);
            __builtin_prefetch(from + ahead, 1, 2);
            const uint32_t mask = beyond(value - before, threshold);
            store(next + block * next_block + lane, blend(mask, before, value));
            nonzero += ones(nonzero_mask(value) & lanes);
            deltas += ones(mask & lanes);
            trace += value * splat(0.0f);
        }
        all_nonzero += nonzero - occupied[column];
        all_deltas += deltas;
        occupied[column] = static_cast<uint8_t>(nonzero);
        hits[column] = static_cast<uint8_t>(hits[column] | (deltas > 0));
    }
    Tally{all_nonzero, all_deltas, trace}.add_to(*args.counts);
}

// The first frame, and the paper's policy.
void select_any(const SelectArgs& args) {
    const Vec threshold = splat(args.threshold);
    Tally tally;
    const int vectors = (args.channels + kLanes - 1) / kLanes;
    for (int column = 0; column < args.width; column++) {
        int nonzero = 0, deltas = 0;
        for (int v = 0; v < vectors; v++) {
            const uint32_t lanes = lanes_of(args.channels - v * kLanes);
            const ptrdiff_t offset = column * kBlock + (v % kSlices) * kLanes;
            const Vec value = load(args.x + (v / kSlices) * args.x_block + offset);
            float* next = args.next + (v / kSlices) * args.next_block + offset;
            nonzero += ones(nonzero_mask(value) & lanes);
            tally.watch(value);
            if (args.last == nullptr) {
                store(next, value);
                continue;
            }
            const Vec before = load(args.last + (v / kSlices) * args.last_block + offset);
            const Vec delta =
                value - load(args.previous + (v / kSlices) * args.previous_block + offset);
            const uint32_t mask = beyond(delta, threshold);
            deltas += ones(mask & lanes);
            store(next, before + blend(mask, splat(0.0f), delta));
        }
        if (args.previous != nullptr)
            for (int v = 0; v < vectors; v++) {
                const ptrdiff_t offset = column * kBlock + (v % kSlices) * kLanes;
                store(args.previous + (v / kSlices) * args.previous_block + offset,
                      load(args.x + (v / kSlices) * args.x_block + offset));
            }
        if (args.last == nullptr) deltas = nonzero;
        tally.nonzero += nonzero - args.occupied[column];
        tally.deltas += deltas;
        args.occupied[column] = static_cast<uint8_t>(nonzero);
        const bool hit = args.last == nullptr || deltas > 0;
        args.hits[column] = static_cast<uint8_t>(args.hits[column] | hit);
    }
    tally.add_to(*args.counts);
}

void select(const SelectArgs& args) {
    if (args.last == nullptr || args.paper) return select_any(args);
    const int vectors = args.channels % kLanes == 0 ? args.channels / kLanes : 0;
    switch (vectors) {
        case 1: return select_row<1>(args);
        case 2: return select_row<2>(args);
        case 4: return select_row<4>(args);
        case 6: return select_row<6>(args);
        case 8: return select_row<8>(args);
        default: return select_row<0>(args);
    }
}

void keep_columns(const KeepColumnsArgs& args) {
    const int count = args.width * args.channels;
    const Vec threshold = splat(args.threshold);
    Tally tally;
    std::memset(args.hits, 0, static_cast<size_t>(args.width));
    int at = 0;
    for (; at + kLanes <= count; at += kLanes) {
        const Vec x = load(args.x + at), last = load(args.last + at), delta = x - last;
        tally.nonzero += ones(nonzero_mask(x));
        tally.deltas += ones(beyond(delta, threshold));
        tally.watch(x);
        if (args.snapshot != nullptr) store(args.snapshot + at, x);
        store(args.dense + at, x);
        uint32_t other = nonzero_mask(delta);
        if (other == lanes_of(kLanes)) {
            const int first = at / args.channels, last_one = (at + kLanes - 1) / args.channels;
            std::memset(args.hits + first, 1, static_cast<size_t>(last_one - first + 1));
            continue;
        }
        while (other != 0) {
            const int lane = __builtin_ctz(other);
            const int column = (at + lane) / args.channels;
            args.hits[column] = 1;
            // The other channels of that pixel need not be looked at.
            const int next = (column + 1) * args.channels - at;
            other = next >= kLanes ? 0 : other >> next << next;
        }
    }
    for (; at < count; at++) {
        const float x = args.x[at], last = args.last[at];
        tally.trace[0] += x * 0.0f;
        tally.nonzero += x != 0;
        tally.deltas += !(std::fabs(x - last) <= args.threshold);
        if (x - last != 0) args.hits[at / args.channels] = 1;
        if (args.snapshot != nullptr) args.snapshot[at] = x;
        args.dense[at] = x;
    }
    tally.add_to(*args.counts);
}

// Lists of columns are appended to in the order of rows: where a row's deltas go depends on what
// the column holds already. The row is looked at in vectors, and only what passes the threshold is
// taken to its column.
template <int kChannels>
void compress_columns_row(const CompressColumnsArgs& args) {
    ColumnList& list = *args.list;
    const uint16_t* before = list.starts + static_cast<size_t>(args.row) * list.width;
    uint16_t* after = list.starts + static_cast<size_t>(args.row + 1) * list.width;
    const int channels = kChannels > 0 ? kChannels : list.channels;
    const int count = list.width * channels;
    const int first = args.row * channels;
    std::memcpy(after, before, sizeof(uint16_t) * static_cast<size_t>(list.width));
    std::memset(args.hits, 0, static_cast<size_t>(list.width));
    const auto take = [&](int at, float delta) {
        const int column = at / channels;
        const size_t entry = column * list.capacity + after[column]++;
        list.values[entry] = as_bits(delta);
        list.rows[entry] = static_cast<uint16_t>(first + at - column * channels);
        args.hits[column] = 1;
    };
    const Vec threshold = splat(args.threshold);
    Tally tally;
    int at = 0;
    for (; at + kLanes <= count; at += kLanes) {
        const Vec x = load(args.x + at), last = load(args.snapshot + at), delta = x - last;
        uint32_t chosen = beyond(delta, threshold);
        tally.watch(delta);
        tally.nonzero += ones(nonzero_mask(x));
        tally.deltas += ones(chosen);
        if (args.paper)
            store(args.snapshot + at, x);
        else if (chosen != 0)
            store(args.snapshot + at, blend(chosen, last, x));
        float deltas[kLanes];
        store(deltas, delta);
        for (; chosen != 0; chosen &= chosen - 1) {
            const int lane = __builtin_ctz(chosen);
            take(at + lane, deltas[lane]);
        }
    }
    for (; at < count; at++) {
        const float x = args.x[at], delta = x - args.snapshot[at];
        const bool chosen = !(std::fabs(delta) <= args.threshold);
        tally.trace[0] += delta * 0.0f;
        tally.nonzero += x != 0;
        tally.deltas += chosen;
        if (args.paper || chosen) args.snapshot[at] = x;
        if (chosen) take(at, delta);
    }
    tally.add_to(*args.counts);
}

void compress_columns(const CompressColumnsArgs& args) {
    args.list->channels == 3 ? compress_columns_row<3>(args) : compress_columns_row<0>(args);
}

}  // namespace rrm::RRM_ISA
