// A fully-connected layer on codes: each entry of a column that is not 0 adds its share to the sums
// of one output, which lie side by side for all frames. A weight is decoded once for them.
#pragma once

#include "vector.hpp"

namespace rrm::RRM_ISA {

inline constexpr int kFrameLanes = kLanes < kCodedFrames ? kLanes : kCodedFrames;
inline constexpr int kFrameVectors = kCodedFrames / kFrameLanes;
typedef float VecFrames __attribute__((vector_size(4 * kFrameLanes), aligned(4), may_alias));

// One frame, and kCodedFrames of them: the multiples of a weight, added to the sums of an output.
struct OneFrame {
    static constexpr int kFrames = 1;
    float x;

    explicit RRM_INLINE OneFrame(const float* p) : x(*p) {}
    RRM_INLINE void add(float* sums, float weight) const { *sums += x * weight; }
};

struct AllFrames {
    static constexpr int kFrames = kCodedFrames;
    VecFrames x[kFrameVectors];

    explicit RRM_INLINE AllFrames(const float* p) {
#pragma GCC unroll 2
        for (int v = 0; v < kFrameVectors; v++)
            x[v] = *reinterpret_cast<const VecFrames*>(p + v * kFrameLanes);
    }
    RRM_INLINE void add(float* sums, float weight) const {
#pragma GCC unroll 2
        for (int v = 0; v < kFrameVectors; v++)
            *reinterpret_cast<VecFrames*>(sums + v * kFrameLanes) += x[v] * weight;
    }
};

// `kCodeBits`: those of the layer, known when this is compiled; 0 where they are not.
template <class Frames, int kCodeBits>
void coded_columns(const CodedArgs& args) {
    const int code_bits = kCodeBits > 0 ? kCodeBits : args.code_bits;
    const unsigned code_mask = (1u << code_bits) - 1;
    const float* const codebook = args.codebook;
    float* const y = args.y;
    for (int i = 0; i < args.count; i++) {
        const uint32_t column = args.columns[i];
        const uint16_t* entry = args.entries + args.starts[column];
        const uint16_t* const end = args.entries + args.starts[column + 1];
        const Frames x(args.x + static_cast<ptrdiff_t>(i) * Frames::kFrames);
#pragma GCC unroll 4
        for (; entry < end; entry++) {
            const unsigned bits = *entry;
            x.add(y + static_cast<size_t>(bits >> code_bits) * Frames::kFrames,
                  codebook[bits & code_mask]);
        }
    }
}

template <class Frames>
void coded_frames(const CodedArgs& args) {
    switch (args.code_bits) {
        case 4: return coded_columns<Frames, 4>(args);  // of the published AlexNet
        case 5: return coded_columns<Frames, 5>(args);
        default: return coded_columns<Frames, 0>(args);
    }
}

void coded(const CodedArgs& args) {
    args.frames == 1 ? coded_frames<OneFrame>(args) : coded_frames<AllFrames>(args);
}

}  // namespace rrm::RRM_ISA
