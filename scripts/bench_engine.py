"""Network-only speed: the recurrent network beside OpenVINO, ONNX Runtime and PyTorch.

    python scripts/bench_engine.py --videos clips/*.mp4 --noise \
        --models mobilenet_v2=weights.pth network.onnx --preprocess imagenet \
        --thresholds 0 1e-4 1e-2 --threads 1 2 --json docs/benchmarks/engine.json

Frames are decoded and preprocessed beforehand. All runtimes compute the same network up to the
default layer, in fp32 and bf16, with the same number of threads in the same run: in every round
each has its turn, and figures are medians over rounds. Of a dense runtime the best of its settings
counts (batches of 1, 8 and 16; OpenVINO's latency and throughput hints; one session for all cores
or one for each). The recurrent network begins each chunk, and each thread's part, with a key frame,
which counts.

Each record has ``frames_per_second``, its ratio to OpenVINO in fp32, and ``feature_error``: the
relative L2 distance to the features of torch's dense network in fp32, mean over frames, and of the
worst frame. ``density`` is that of the deltas, by MACs, over frames that do not begin a chunk;
``work`` is the share of the dense MACs that were done, over all frames, layers that ran dense
counted in full. ``milliseconds`` are those of one core for a frame. Of the ``frames``,
``repeated_frames`` equal the one before, as where a clip has fewer frames per second than are
sampled: dense runtimes compute them again, and the recurrent network does not.
"""

from __future__ import annotations

import argparse

from bench_options import add_options, run_plan
from benchmarking import write_json
from peers import BASELINES


def main() -> None:
    """Runs the benchmark and prints JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument(
        "--thresholds", nargs="+", type=float, default=[0.0, 1e-4, 1e-2], metavar="X"
    )
    parser.add_argument(
        "--baselines", nargs="*", choices=tuple(BASELINES), default=list(BASELINES), metavar="NAME"
    )
    parser.add_argument(
        "--precisions", nargs="+", choices=("fp32", "bf16", "int8"), default=["fp32", "bf16"]
    )
    arguments = parser.parse_args()
    write_json(run_plan(arguments, baselines=arguments.baselines), arguments.json)


if __name__ == "__main__":
    main()
