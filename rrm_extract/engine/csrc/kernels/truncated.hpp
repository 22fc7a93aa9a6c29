// What the threshold holds back, for an estimate of the error that comes of it.
#pragma once

#include "compress.hpp"

namespace rrm::RRM_ISA {

void truncated(const TruncatedArgs& args) {
    const Vec threshold = splat(args.threshold);
    const int vectors = (args.channels + kLanes - 1) / kLanes;
    const uint32_t last_lanes = lanes_of(args.channels - (vectors - 1) * kLanes);
    double change = 0;
    for (int run = 0; run < args.run_count; run++)
        for (int column = args.runs[run].begin; column < args.runs[run].end; column++) {
            const float* const x = args.x + static_cast<ptrdiff_t>(column) * kBlock;
            const float* const last = args.last + static_cast<ptrdiff_t>(column) * kBlock;
            Vec squares = {};
            for (int v = 0; v < vectors; v++) {
                const ptrdiff_t block = v / kSlices, lane = (v % kSlices) * kLanes;
                const Vec delta =
                    load(x + block * args.x_block + lane) - load(last + block * args.last_block + lane);
                const uint32_t passed = beyond(delta, threshold);
                const uint32_t lanes = v + 1 < vectors ? lanes_of(kLanes) : last_lanes;
                const Vec held = blend(lanes & ~passed, splat(0.0f), delta);
                squares += held * held;
            }
            const float sum = sum_of(squares);
            if (args.energy == nullptr) {
                change += sum;
                continue;
            }
            change += static_cast<double>(sum) - args.energy[column];
            args.energy[column] = sum;
        }
    *args.sum += change;
}

}  // namespace rrm::RRM_ISA
