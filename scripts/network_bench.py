"""Network-only speed: the recurrent network beside dense runtimes, in one run.

Frames are decoded and preprocessed beforehand. Every runtime has the same number of threads and
its turn in every round, after a short run of its own that is not counted. A dense runtime has many
settings: all are tried, and the best ones take part in every round.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from benchmarking import counted, interleaved, median, say
from peers import BASELINES, DenseNetwork, Peer, baseline_candidates
from peers.rrm_peer import RrmPeer
from subjects import LARGEST_BATCH, NOISE, Subject, even_sample, usable_batches
from torch import Tensor

__all__ = [
    "PACKAGES",
    "RRM_PRECISIONS",
    "Measurement",
    "Plan",
    "Record",
    "baseline_peers",
    "bench_subject",
    "best_of",
    "feature_errors",
    "measure",
    "recurrent_peers",
]

PACKAGES = (
    *("rrm-extract", "torch", "torchvision", "numpy", "av"),
    *("openvino", "nncf", "onnxruntime", "onnx"),
)
"""Distributions whose versions belong to the figures."""

RRM_PRECISIONS = {"native": ("fp32", "bf16"), "torch": ("fp32",)}
"""Engines of the recurrent network and the precisions in which each is measured."""

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured of each network and clip.

    Attributes:
        thresholds: of the recurrence.
        threads: numbers of threads, one after the other.
        baselines: dense runtimes, of ``peers.BASELINES``.
        precisions: "fp32", "bf16" and "int8"; each runtime takes part with those it has.
        engines: of the recurrence, of ``RRM_PRECISIONS``.
        repeats: rounds.
        finalists: settings of each dense runtime and precision that take part in the rounds.
        trial_frames, trial_rounds: with which they are chosen; more frames where the largest batch
            would else not keep every thread busy.
        calibration_frames: for int8, taken evenly from the clips.
        pause: seconds before each turn, for the threads of the one before to fall asleep.
        wake: frames of the short run before each turn, which is not counted; at least a batch.
    """

    thresholds: Sequence[float]
    threads: Sequence[int] = (1,)
    baselines: Sequence[str] = tuple(BASELINES)
    precisions: Sequence[str] = ("fp32", "bf16")
    engines: Sequence[str] = ("native",)
    repeats: int = 5
    finalists: int = 2
    trial_frames: int = 2 * LARGEST_BATCH
    trial_rounds: int = 3
    calibration_frames: int = 48
    pause: float = 0.05
    wake: int = LARGEST_BATCH


@dataclass
class Measurement:
    """One peer on one clip.

    Attributes:
        peer: what was measured.
        rates: frames/s, one for each round.
        errors: (T,) relative L2 of each frame's feature.
        density: of the deltas, None for a dense network.
        work: share of the dense MACs that were done.
        stages: milliseconds of one core for a frame, by stage.
    """

    peer: Peer
    rates: list[float] = field(default_factory=list)
    errors: Tensor = field(default_factory=lambda: torch.empty(0))
    density: float | None = None
    work: float = 1.0
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Frames/s, the median over rounds."""
        return median(self.rates)


def bench_subject(subject: Subject, clips: Mapping[str, Tensor], plan: Plan) -> list[Record]:
    """All records of one network.

    Args:
        subject: the network.
        clips: name to network input, (T, *input_shape) float32.
        plan: what to measure.
    """
    references = {name: subject.reference(frames) for name, frames in clips.items()}
    dense = subject.dense()
    records: list[Record] = []
    for threads in plan.threads:
        torch.set_num_threads(threads)
        recurrent = recurrent_peers(subject, plan, threads, chunk=subject.sampling.frames_per_chunk)
        baselines: dict[tuple[int, ...], list[Peer]] = {}
        calibration = _calibration(clips, plan)
        for name, frames in clips.items():
            # A short clip must not keep the others' rivals from their best batches.
            batches = usable_batches([frames])
            if batches not in baselines:
                alike = {
                    other: clip
                    for other, clip in clips.items()
                    if usable_batches([clip]) == batches
                }
                baselines[batches] = baseline_peers(
                    subject, dense, alike, plan, threads, calibration=calibration
                )
            if batches[-1] < LARGEST_BATCH:
                say(f"{name}: {len(frames)} frames, rivals take batches of {batches[-1]} at most")
            say(f"{subject.name}, {name}, {counted(threads, 'thread')}: {plan.repeats} rounds")
            measured = measure(
                [*baselines[batches], *recurrent],
                frames,
                references[name],
                repeats=plan.repeats,
                pause=plan.pause,
                wake=plan.wake,
            )
            kept = best_of(measured)
            basis = next(
                (m for m in kept if (m.peer.runtime, m.peer.precision) == ("openvino", "fp32")),
                None,
            )
            common = {
                "model": subject.name,
                "weights": subject.weights_id,
                "clip": name,
                "frames": len(frames),
                "repeated_frames": repeated_frames(frames),
                "rivals_largest_batch": batches[-1],
            }
            records += [{**common, **_record(m, basis)} for m in kept]
            for record in records[-len(kept) :]:
                say(f"  {in_words(record)}")
    return records


def repeated_frames(frames: Tensor) -> int:
    """How many of (T, ...) frames are the one before once more; a recurrent network skips them."""
    return sum(torch.equal(one, other) for one, other in itertools.pairwise(frames))


def measure(
    peers: Sequence[Peer],
    frames: Tensor,
    reference: Tensor,
    *,
    repeats: int,
    pause: float = 0.0,
    wake: int = LARGEST_BATCH,
) -> list[Measurement]:
    """Error, density and speed of prepared peers on one clip, in rounds.

    Args:
        peers: what to measure.
        frames: (T, *input_shape) float32.
        reference: (T, D), the features they should give.
        repeats: rounds.
        pause: seconds before each turn.
        wake: frames of the short run before each turn, which is not counted.
    """
    measurements = [Measurement(peer) for peer in peers]
    for m in measurements:  # also the first, cold run of each
        m.errors = feature_errors(m.peer.run(frames), reference)
        m.density, m.work = m.peer.density(), m.peer.work()
    spent: list[dict[str, float]] = [{} for _ in peers]
    turns = [
        partial(_turn, m.peer, frames, pause, s, wake)
        for m, s in zip(measurements, spent, strict=True)
    ]
    rounds = interleaved(turns, repeats=repeats)
    for m, rates, stages in zip(measurements, rounds, spent, strict=True):
        m.rates = rates
        timed = repeats * len(frames)
        m.stages = {stage: 1000 * seconds / timed for stage, seconds in stages.items()}
        if not m.stages:
            m.stages = {"network": 1000 * m.peer.threads / m.rate}
    return measurements


def _turn(
    peer: Peer,
    frames: Tensor,
    pause: float,
    stages: dict[str, float],
    wake: int = LARGEST_BATCH,
) -> float:
    """One timed run, frames/s; adds to ``stages`` what it spent where."""
    time.sleep(pause)
    # Wakes its threads and brings its weights into the caches.
    peer.run(frames[: _whole_batches(wake, peer.batch)])
    before = peer.stages()
    began = time.perf_counter()
    peer.run(frames)
    seconds = time.perf_counter() - began
    for stage, total in peer.stages().items():
        stages[stage] = stages.get(stage, 0.0) + total - before.get(stage, 0.0)
    return len(frames) / seconds


def feature_errors(result: Tensor, reference: Tensor) -> Tensor:
    """Relative L2 distance of each frame's feature, (T,) float64.

    A feature of zeros has no relative error: it is 0 if the result is zero too, else infinite.

    Args:
        result: (T, D).
        reference: (T, D).
    """
    expected = reference.double()
    distance, size = (result.double() - expected).norm(dim=1), expected.norm(dim=1)
    return torch.where(distance == 0, 0.0, distance / size)


def best_of(measured: Sequence[Measurement]) -> list[Measurement]:
    """The fastest of each dense runtime and precision, and all of the recurrent network's."""
    best: dict[tuple[Any, ...], Measurement] = {}
    for m in measured:
        key = (m.peer.runtime, m.peer.precision, m.peer.threshold)
        if key not in best or m.rate > best[key].rate:
            best[key] = m
    return list(best.values())


def in_words(record: Record) -> str:
    """One record as a line for people."""
    threshold = "" if record["threshold"] is None else f" at {record['threshold']:g}"
    ratio = record["ratio_to_openvino_fp32"]
    density = "" if record["density"] is None else f", density {record['density']:.3f}"
    return (
        f"{record['runtime']} {record['precision']}{threshold}: "
        f"{record['frames_per_second']:.1f} frames/s"
        f"{'' if ratio is None else f' ({ratio:.2f}x)'}, error {record['feature_error']:.1e}"
        f"{density} [{record['settings']}]"
    )


def _record(m: Measurement, basis: Measurement | None) -> Record:
    return {
        "runtime": m.peer.runtime,
        "precision": m.peer.precision,
        "threshold": m.peer.threshold,
        "threads": m.peer.threads,
        "settings": m.peer.settings,
        "frames_per_second": m.rate,
        "repeats": m.rates,
        "ratio_to_openvino_fp32": None if basis is None else m.rate / basis.rate,
        "feature_error": float(m.errors.mean()),
        "feature_error_max": float(m.errors.max()),
        "density": m.density,
        "work": m.work,
        "milliseconds": m.stages,
    }


def baseline_peers(
    subject: Subject,
    network: DenseNetwork,
    clips: Mapping[str, Tensor],
    plan: Plan,
    threads: int,
    *,
    calibration: Tensor | None = None,
) -> list[Peer]:
    """The best settings of each dense runtime in each precision, prepared.

    Args:
        subject: the network.
        network: the same, dense.
        clips: of one number of frames, but for multiples of the largest batch.
        plan: what to measure.
        threads: of each runtime.
        calibration: frames that quantised networks are made with; None takes some of the clips.
    """
    batches = usable_batches(clips.values())
    # A request of the largest batch for every thread, as a whole clip has them.
    count = _whole_batches(max(plan.trial_frames, batches[-1] * threads), batches[-1])
    trial = next(iter(clips.values()))[:count]
    wanted = [
        (name, precision)
        for name in plan.baselines
        for precision in plan.precisions
        if precision in BASELINES[name]
    ]
    if calibration is None:
        calibration = _calibration(clips, plan)
    chosen: list[Peer] = []
    for name, precision in wanted:
        candidates = baseline_candidates(
            name,
            network,
            precision=precision,
            threads=threads,
            batches=batches,
            calibration=calibration,
        )
        if not candidates:
            say(f"{name} {precision}: not on this processor")
            continue
        what = f"{counted(len(candidates), 'setting')} of {name} {precision}"
        say(f"{subject.name}, {counted(threads, 'thread')}: {what}")
        chosen += _finalists(candidates, trial, plan)
    return chosen


def _calibration(clips: Mapping[str, Tensor], plan: Plan) -> Tensor:
    """Frames of all clips, none of noise where there are others."""
    pictures = [clip for name, clip in clips.items() if name != NOISE] or list(clips.values())
    return even_sample(pictures, plan.calibration_frames)


def _whole_batches(count: int, batch: int) -> int:
    """The least number of frames from ``count`` on that is a multiple of ``batch``."""
    return math.ceil(count / batch) * batch


def _finalists(candidates: Sequence[Peer], frames: Tensor, plan: Plan) -> list[Peer]:
    for peer in candidates:
        peer.prepare()
        peer.run(frames)
    turns = [partial(_turn, peer, frames, plan.pause, {}, plan.wake) for peer in candidates]
    rates = interleaved(turns, repeats=plan.trial_rounds)
    # The best round, not the median: a rival is not to be dropped for what disturbed it.
    order = sorted(range(len(candidates)), key=lambda index: max(rates[index]), reverse=True)
    return [candidates[index] for index in order[: plan.finalists]]


def recurrent_peers(
    subject: Subject, plan: Plan, threads: int, *, chunk: int | None
) -> list[RrmPeer]:
    """The recurrent network on each engine, in each precision, at each threshold, prepared.

    Args:
        subject: the network.
        plan: engines, precisions and thresholds.
        threads: of each.
        chunk: frames from one key frame to the next; None makes a clip one chunk.
    """
    peers = [
        RrmPeer(
            subject.recipe,
            engine=engine,
            threshold=threshold,
            precision=precision,
            threads=threads,
            chunk=chunk,
        )
        for engine in plan.engines
        for precision in plan.precisions
        if precision in RRM_PRECISIONS[engine]
        for threshold in plan.thresholds
    ]
    for peer in peers:
        peer.prepare()
    return peers
