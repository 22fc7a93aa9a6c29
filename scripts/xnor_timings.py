"""What bits and the recurrence save of an XNOR-Net's time, network only.

    python scripts/xnor_timings.py --videos clips/*.mp4 \
        --models xnor_alexnet xnor_resnet18 --weights random:0 --thresholds 0 1e-4 \
        --json docs/benchmarks/xnor.json

On one thread, in one run, each having its turn in every round, medians over rounds:

- ``bits, recurrent``: the native engine as it is;
- ``bits, first in full``: the same, but the first layer is computed in full for each frame, so that
  nothing before the first sign is rounded in another order;
- ``bits, anew``: the same kernels, every frame a key frame: the dense network on bits;
- ``numbers, recurrent``: the same network with its binary layers on the engine's fp32 kernels;
- ``fp32 twin, recurrent`` and ``fp32 twin, anew``: the same architecture in full precision (no
  signs, ordinary layers), at threshold 0;
- ``fp32 twin, torch``: the same in PyTorch, channels last, 8 frames at a time.

``feature_error`` is the relative L2 distance to PyTorch's features of the same network, mean over
frames, and of the worst frame. A binary network magnifies what is rounded before its signs: a
number near 0 may fall to the other side. So there is also ``equals_anew``, the share of frames that
are bit-equal to ``bits, anew``, and ``signs_changed``, the share of all signs that differ from it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from benchmarking import counted, interleaved, machine, median, say, versions, write_json
from network_bench import feature_errors
from peers.dense import feature_module
from subjects import Subject, clip_frames, load_subject
from torch import Tensor, nn

from rrm_extract.engine import NativeNetwork, forms
from rrm_extract.engine import lower as lowering
from rrm_extract.graph import (
    BinaryConv2d,
    BinaryLinear,
    Program,
    Sign,
    fold,
    select,
    trace,
)
from rrm_extract.models import load_model

BATCH = 8

Run = Callable[[Tensor], Tensor]


@dataclass
class Contestant:
    """One way to compute the features of a clip.

    Attributes:
        name, threshold: as in the records.
        run: (T, C, H, W) to (T, D).
        binary: whether it is the binary network, else its twin in full precision.
        network: the native one, for its densities; None for PyTorch.
        program: what it computes.
    """

    name: str
    threshold: float | None
    run: Run
    binary: bool
    network: NativeNetwork | None
    program: Program


def main() -> None:
    """Prints JSON; with --json also writes it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", nargs="+", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--models", nargs="+", default=["xnor_alexnet", "xnor_resnet18"], metavar="NAME[=WEIGHTS]"
    )
    parser.add_argument(
        "--weights", default="random:0", help="random:SEED or a file, for models that name none"
    )
    parser.add_argument("--thresholds", nargs="+", type=float, default=[0.0, 1e-4], metavar="X")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    records = []
    for spec in options.models:
        name, _, own_weights = spec.partition("=")
        weights = own_weights or options.weights
        subject = load_subject(name, weights=weights)
        twin = twin_program(subject, weights)
        for path in options.videos:
            frames = clip_frames(path, subject, count=options.frames)
            say(f"{name}, {path.name}: {counted(options.repeats, 'round')}")
            for record in measure(subject, twin, frames, options.thresholds, options.repeats):
                records.append({"model": name, "weights": weights, "clip": path.name, **record})
                say(in_words(records[-1]))
    write_json(
        {
            "machine": machine(),
            "versions": versions(["rrm-extract", "torch"]),
            "threads": 1,
            "repeats": options.repeats,
            "records": records,
        },
        options.json,
    )


def measure(
    subject: Subject,
    twin: Program,
    frames: Tensor,
    thresholds: Sequence[float],
    repeats: int,
) -> list[dict[str, Any]]:
    """The records of one network and clip."""
    contestants = contestants_of(subject, twin, thresholds)
    programs = {c.binary: c.program for c in contestants}
    references = {
        binary: dense_features(partial(feature, program), frames)
        for binary, program in programs.items()
    }
    results = [c.run(frames) for c in contestants]  # once, uncounted
    times = interleaved([partial(seconds, c.run, frames) for c in contestants], repeats=repeats)
    anew = next(r for c, r in zip(contestants, results, strict=True) if c.name == "bits, anew")
    records: list[dict[str, Any]] = []
    for contestant, result, taken in zip(contestants, results, times, strict=True):
        errors = feature_errors(result, references[contestant.binary])
        rates = [len(frames) / each for each in taken]
        record: dict[str, Any] = {
            "way": contestant.name,
            "threshold": contestant.threshold,
            "frames": len(frames),
            "frames_per_second": median(rates),
            "repeats": rates,
            "feature_error": float(errors.mean()),
            "feature_error_max": float(errors.max()),
        }
        if contestant.name.startswith(("bits", "numbers")):
            record["equals_anew"] = float((result == anew).all(dim=1).double().mean())
        if contestant.name == "bits, recurrent":
            record |= densities(contestant, frames)
            record["signs_changed"] = signs_changed(
                subject, contestant.program, frames, contestant.threshold or 0.0
            )
        records.append(record)
    base = {record["way"]: record["frames_per_second"] for record in records}
    for record in records:
        rate = record["frames_per_second"]
        record["ratio_to_bits_anew"] = rate / base["bits, anew"]
        record["ratio_to_twin_torch"] = rate / base["fp32 twin, torch"]
    return records


def contestants_of(
    subject: Subject, twin: Program, thresholds: Sequence[float]
) -> list[Contestant]:
    """All ways to compute one network's features."""
    program = subject.recipe.program
    ways: list[Contestant] = []

    def native(
        name: str, what: Program, threshold: float, *, binary: bool, anew: bool = False,
        bits: bool = True,
    ) -> None:  # fmt: skip
        with without_bits() if not bits else nullcontext():
            network = NativeNetwork(
                what, input_shape=subject.input_shape, threshold=threshold, batch=BATCH
            )
        run = partial(each_anew if anew else recurrent, network)
        shown = None if anew else threshold
        ways.append(Contestant(name, shown, run, binary, network, what))

    for threshold in thresholds:
        native("bits, recurrent", program, threshold, binary=True)
    with first_in_full():
        native("bits, first in full", program, 0.0, binary=True)
    native("bits, anew", program, 0.0, binary=True, anew=True)
    native("numbers, recurrent", program, 0.0, binary=True, bits=False)
    native("fp32 twin, recurrent", twin, 0.0, binary=False)
    native("fp32 twin, anew", twin, 0.0, binary=False, anew=True)
    module = feature_module(twin, in_place=True).to(memory_format=torch.channels_last)
    ways.append(
        Contestant("fp32 twin, torch", None, partial(dense_features, module), False, None, twin)
    )
    return ways


def without_bits() -> AbstractContextManager[object]:
    """Networks made inside have their binary layers on the kernels for numbers."""
    return mock.patch.object(lowering, "fits_bits", return_value=False)


def first_in_full() -> AbstractContextManager[object]:
    """Networks made inside compute their first layer in full."""
    names = [name for name in forms.BREAK_EVEN if "columns" in name]
    return mock.patch.dict(forms.BREAK_EVEN, dict.fromkeys(names, -1.0))


def twin_program(subject: Subject, weights: str) -> Program:
    """The same architecture and weights in full precision, up to the same feature."""
    module = load_model(subject.name, weights=weights).module
    return fold(select(trace(full_precision(module)), (subject.recipe.layer,)))


def full_precision(module: nn.Module) -> nn.Module:
    """``module``, changed in place: ordinary layers instead of binary ones, and no signs."""
    for name, child in module.named_children():
        if isinstance(child, Sign):
            setattr(module, name, nn.Identity())
        elif isinstance(child, (BinaryConv2d, BinaryLinear)):
            child.__class__ = nn.Linear if isinstance(child, nn.Linear) else nn.Conv2d  # type: ignore[assignment]
        else:
            full_precision(child)
    return module


def recurrent(network: NativeNetwork, frames: Tensor) -> Tensor:
    """Features of a clip whose first frame is a key frame, (T, D)."""
    network.reset()
    return torch.cat([network.run(some)[0][0].flatten(1) for some in torch.split(frames, BATCH)])


def each_anew(network: NativeNetwork, frames: Tensor) -> Tensor:
    """Features of frames that are all key frames, (T, D)."""
    rows = []
    for frame in frames:
        network.reset()
        rows.append(network.run(frame[None])[0][0].flatten(1))
    return torch.cat(rows)


def feature(program: Program, frames: Tensor) -> Tensor:
    """What a Program with one output says of some frames, (T, D)."""
    output: Tensor
    (output,) = program(frames)
    return output.flatten(1)


@torch.inference_mode()
def dense_features(network: Run, frames: Tensor) -> Tensor:
    """Features by PyTorch, of some frames at a time, (T, D)."""
    batches = torch.split(frames, BATCH)
    return torch.cat([network(some.to(memory_format=torch.channels_last)) for some in batches])


def seconds(run: Run, frames: Tensor) -> float:
    """How long one run takes."""
    began = time.perf_counter()
    run(frames)
    return time.perf_counter() - began


def densities(contestant: Contestant, frames: Tensor) -> dict[str, Any]:
    """Of the flips of binary layers, and of the deltas of the others, without the key frame."""
    network = contestant.network
    if network is None:
        return {}
    network.reset()
    seen = [network.run(some)[1] for some in torch.split(frames, BATCH)]
    deltas = torch.cat([part.density_delta for part in seen])[1:].mean(dim=0)
    names = [op.name for op in network.program.linear_ops]
    flips = [float(d) for name, d in zip(names, deltas, strict=True) if name.endswith(".sums")]
    others = [float(d) for name, d in zip(names, deltas, strict=True) if not name.endswith(".sums")]
    return {
        "flips": flips,
        "mean_flips": sum(flips) / len(flips),
        "deltas_of_others": others,
        "work": float(torch.cat([part.work for part in seen]).double().mean()),
    }


def signs_changed(subject: Subject, program: Program, frames: Tensor, threshold: float) -> float:
    """Share of the signs inside that differ from those of frames computed anew."""
    names = tuple(op.name for op in program.ops if isinstance(op.call, Sign))
    inside = replace(program, outputs=names)
    network = NativeNetwork(
        inside, input_shape=subject.input_shape, threshold=threshold, batch=BATCH
    )
    different = total = 0
    recurrently = [network.run(some)[0] for some in torch.split(frames, BATCH)]
    for values in zip(*recurrently, strict=True):
        total += sum(value.numel() for value in values)
    anew = network.fork()
    for number, frame in enumerate(frames):
        anew.reset()
        for mine, ours in zip(recurrently[number // BATCH], anew.run(frame[None])[0], strict=True):
            different += int((mine[number % BATCH] != ours[0]).sum())
    return different / total


def in_words(record: dict[str, Any]) -> str:
    """One record as a line for people."""
    threshold = "" if record["threshold"] is None else f" at {record['threshold']:g}"
    flips = f", flips {record['mean_flips']:.3f}" if "mean_flips" in record else ""
    signs = f", signs {record['signs_changed']:.1e}" if "signs_changed" in record else ""
    equal = f", {record['equals_anew']:.2f} bit-equal" if "equals_anew" in record else ""
    return (
        f"  {record['way']}{threshold}: {record['frames_per_second']:.1f} frames/s "
        f"({record['ratio_to_twin_torch']:.2f}x torch, {record['ratio_to_bits_anew']:.2f}x bits "
        f"anew), error {record['feature_error']:.1e}{equal}{signs}{flips}"
    )


if __name__ == "__main__":
    main()
