"""Wall-clock of a network on a few clips of a dataset, beside dense runtimes in the same rounds."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from benchmarking import counted, say
from datasets import Dataset, Reading
from network_bench import (
    Measurement,
    Plan,
    Record,
    baseline_peers,
    best_of,
    feature_errors,
    measure,
    recurrent_peers,
)
from peers import BASELINES, Peer
from peers.base import consecutive_parts
from peers.rrm_peer import RrmPeer
from recognition_options import whole_number
from subjects import BATCHES, Clip, Subject, load_clip, load_subject, usable_batches
from table_page import Column, shown
from torch import Tensor

from rrm_extract.engine.backend import choose_engine
from rrm_extract.errors import ClipError

__all__ = [
    "ERROR_NOTE",
    "RUNTIMES",
    "Timer",
    "add_measuring_options",
    "batches_in_words",
    "error_column",
    "kept_errors",
    "measuring_settings",
    "subject_of",
    "timed_clips",
    "timed_in_words",
    "timing_plan",
    "verdict",
]

RUNTIMES = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime", "torch": "PyTorch"}
"""How tables call them."""

FROZEN = 0.5
"""Of the error of keeping the key frame's feature: above it, a speedup is one of not computing."""

LOST = 1.5
"""Of that error: above it, features are further from the truth than if nothing were computed."""

EXACT = 1e-5
"""Errors up to it are rounding, also on a picture of which nothing changes."""

ERROR_NOTE = (
    "Feature error: relative L2 distance to dense PyTorch in that very run, mean and worst frame, "
    "and, *kept*, the mean if every frame had just its key frame's feature. Where the mean is more "
    f"than {FROZEN:.0%} of that the row is called **frozen**: the threshold is too large for this "
    "network, next to nothing reaches the feature, and the speedup is that of not computing it. "
    f"Where it is more than {LOST:.0%} the row is **worse than kept**: its speedups mean nothing."
)


def dense_runtimes() -> list[str]:
    """The rivals of a table, as far as they are installed."""
    return [name for name in ("openvino", "torch") if find_spec(name) is not None]


def add_measuring_options(parser: argparse.ArgumentParser) -> None:
    """How the recurrence runs, and how it is timed."""
    parser.add_argument(
        "--policy", choices=("paper", "bounded"), default="bounded", help="(default: bounded)"
    )
    parser.add_argument("--chunk", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--engine", choices=("auto", "native", "torch"), default="auto")
    parser.add_argument(
        "--timed-videos", type=whole_number(0), default=1, metavar="N",
        help="of each dataset, evenly spread; 0 measures no time (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--timed-frames", type=whole_number(2), default=96, metavar="N", help="of each timed clip"
    )
    parser.add_argument("--threads", type=whole_number(1), default=1, metavar="N")
    parser.add_argument("--repeats", type=whole_number(1), default=5, metavar="R")
    parser.add_argument(
        "--dense", nargs="+", choices=tuple(BASELINES), default=dense_runtimes(), metavar="NAME",
        help="dense runtimes to compare with (default: openvino, if it is installed, and torch)",
    )  # fmt: skip


def measuring_settings(options: argparse.Namespace) -> dict[str, Any]:
    """What rows depend on, of :func:`add_measuring_options`."""
    return {
        "policy": options.policy,
        "chunk": options.chunk,
        "engine": choose_engine(options.engine).engine,
        "timed_videos": options.timed_videos,
        "timed_frames": options.timed_frames,
        "threads": options.threads,
        "repeats": options.repeats,
        "dense_runtimes": options.dense,
        "dense_batches": list(BATCHES),
    }


def batches_in_words(settings: Mapping[str, Any]) -> str:
    """At which batches dense runtimes were tried; what larger ones would give is not known."""
    batches = settings.get("dense_batches")
    if batches is None:
        return "Which batches dense runtimes were tried at is not in the file."
    *others, largest = map(str, batches)
    if others:
        frames = f"batches of {', '.join(others)} and {largest} frames"
        tried = f"{frames}, those of which a clip is a multiple"
    else:
        tried = f"batch {largest} alone, though the engine takes several frames at a time"
    is_all = batches[-1] == max(BATCHES)
    rest = "" if is_all else "; larger ones, which may suit them better, were not tried"
    return f"Dense runtimes were tried at {tried}{rest}."


def timed_in_words(rows: Sequence[Mapping[str, int]]) -> str:
    """What was timed; clips may have ended before the frames that were asked for.

    Args:
        rows: of each row the frames of its clips, by name.
    """
    frames = [count for clips in rows for count in clips.values()]
    if not frames:
        return "no clips"
    clips = [len(one) for one in rows]
    return f"the first {_span(frames, 'frame')} of {_span(clips, 'clip')} of each dataset"


def _span(numbers: Sequence[int], noun: str) -> str:
    least, most = min(numbers), max(numbers)
    text = counted(most, noun)
    return text if least == most else f"{least} to {text}"


def timing_plan(options: argparse.Namespace, thresholds: Sequence[float]) -> Plan:
    """What is timed: dense runtimes in fp32, and the engine at each threshold."""
    return Plan(
        thresholds=thresholds,
        threads=(options.threads,),
        baselines=options.dense,
        precisions=("fp32",),
        engines=(choose_engine(options.engine).engine,),
        repeats=options.repeats,
        finalists=1,
        trial_frames=8,  # at least: as many as a time batch has
        trial_rounds=2,
    )


def subject_of(spec: str, options: argparse.Namespace, *, fps: str) -> Subject:
    """A network as the options of a table have it.

    Raises:
        UsageError: there is no such network, or it cannot be used.
    """
    return load_subject(
        spec,
        weights=options.weights,
        preprocess=options.preprocess,
        fps=fps,
        chunk=options.chunk,
        policy=options.policy,
    )


def timed_clips(
    dataset: Dataset, subject: Subject, options: argparse.Namespace
) -> tuple[dict[str, Clip], Reading]:
    """The first frames of some videos, evenly spread; others take the place of broken ones.

    Args:
        dataset: to choose from.
        subject: the network whose input they become.
        options: of :func:`add_measuring_options` and ``tables.table_parser``.

    Returns:
        Clips by video id; and what was read.
    """
    videos, frames = options.timed_videos, options.timed_frames
    if options.max_frames is not None:
        frames = min(frames, options.max_frames)
    reading = Reading()
    count = len(dataset.videos)
    places = np.linspace(0, count - 1, min(videos, count)).round().astype(int).tolist()
    order = [*dict.fromkeys(places), *(i for i in range(count) if i not in places)]
    clips: dict[str, Clip] = {}
    for place in order:
        if len(clips) >= videos:
            break
        video = dataset.videos[place]
        try:
            clips[video.video_id] = load_clip(video.path, subject, count=frames)
        except ClipError as error:
            reading.drop(video, error)
            continue
        reading.used += 1
    return clips, reading


@dataclass
class _Prepared:
    batches: tuple[int, ...]
    peers: list[Peer]


@dataclass
class _Part:
    measured: Measurement
    frames: int
    split: dict[str, float] | None
    kept: float  # sum of the errors of keeping the key frame's feature


class Timer:
    """One network in all runtimes; the best settings of dense ones are looked for once.

    Args:
        subject: the network.
        plan: what to measure; of ``threads`` only the first counts.
        extra: further peers, prepared.
    """

    def __init__(self, subject: Subject, plan: Plan, *, extra: Sequence[Peer] = ()) -> None:
        self._subject, self._plan = subject, plan
        self._threads = plan.threads[0]
        self._dense = subject.dense()
        self._recurrent = [*recurrent_peers(subject, plan, self._threads, chunk=None), *extra]
        self._baselines: list[_Prepared] = []

    def measure(
        self, clip: Clip, *, thresholds: Sequence[float] | None = None
    ) -> list[Measurement]:
        """All peers on one clip: the best of each dense runtime, and every recurrent one.

        Args:
            clip: what they compute.
            thresholds: those of the plan that take part; None takes all.
        """
        return self._measure(clip, self._reference(clip.frames), thresholds)

    def _reference(self, frames: Tensor) -> Tensor:
        torch.set_num_threads(self._threads)
        return self._subject.reference(frames)

    def _measure(
        self, clip: Clip, reference: Tensor, thresholds: Sequence[float] | None
    ) -> list[Measurement]:
        recurrent = [
            peer
            for peer in self._recurrent
            if thresholds is None or peer.threshold is None or peer.threshold in thresholds
        ]
        for peer in recurrent:
            if isinstance(peer, RrmPeer):
                peer.chunk = clip.chunk
        frames = clip.frames
        peers = [*self._baseline_peers(frames), *recurrent]
        plan = self._plan
        measured = measure(
            peers, frames, reference, repeats=plan.repeats, pause=plan.pause, wake=plan.wake
        )
        return best_of(measured)

    def speeds(
        self,
        clips: Mapping[str, Clip],
        *,
        thresholds: Sequence[float] | None = None,
        split: bool = False,
    ) -> list[Record]:
        """Over some clips together, for each dense runtime and each threshold.

        Args:
            clips: by name.
            thresholds: as for :meth:`measure`.
            split: whether the native engine's time is told apart, in a run of its own.

        Returns:
            ``runtime``, ``threshold``, ``frames_per_second`` over all clips, ``feature_error``
            (mean over frames), ``feature_error_max``, ``feature_error_kept`` (the mean if every
            frame had its key frame's feature), ``work`` (share of the dense MACs that were done),
            ``split`` (shares of ``peers.rrm_peer.SPLIT``, or None), and ``settings`` and
            ``repeats`` of each clip.
        """
        by_peer: dict[tuple[str, float | None], list[_Part]] = {}
        for name, clip in clips.items():
            frames = clip.frames
            say(f"  {name}: {counted(self._plan.repeats, 'round')} of {len(frames)} frames")
            reference = self._reference(frames)
            # Each thread's part of the clip begins with a key frame of its own.
            shares = consecutive_parts(reference, self._threads)
            kept = torch.cat([kept_errors(share, chunk=clip.chunk) for share in shares])
            for one in self._measure(clip, reference, thresholds):
                seconds = (
                    one.peer.split(frames) if split and isinstance(one.peer, RrmPeer) else None
                )
                key = (one.peer.runtime, one.peer.threshold)
                by_peer.setdefault(key, []).append(
                    _Part(one, len(frames), seconds, float(kept.sum()))
                )
        return [_together(*key, parts) for key, parts in by_peer.items()]

    def _baseline_peers(self, frames: Tensor) -> list[Peer]:
        batches = usable_batches([frames])
        for prepared in self._baselines:
            if prepared.batches == batches:
                return prepared.peers
        peers = baseline_peers(
            self._subject, self._dense, {"clip": frames}, self._plan, self._threads
        )
        self._baselines.append(_Prepared(batches, peers))
        return peers


def kept_errors(reference: Tensor, *, chunk: int) -> Tensor:
    """Relative L2 error of each frame if it had the feature of its key frame, (T,) float64.

    What is as far from the truth as that need not have been computed at all.

    Args:
        reference: (T, D), the dense network's features.
        chunk: frames from one key frame to the next.
    """
    parts = torch.split(reference, chunk)
    return torch.cat([feature_errors(part[:1].expand_as(part), part) for part in parts])


def error_column() -> Column:
    """The feature's error, beside that of computing nothing after a key frame; see ERROR_NOTE."""

    def cell(row: Record) -> str:
        measured = row["measured"] or {}
        names = ("feature_error", "feature_error_max", "feature_error_kept")
        text = " / ".join(shown(measured.get(name), ".0e") for name in names)
        return f"{text} **{verdict(measured)}**" if verdict(measured) else text

    return Column(title="feature error: mean / worst / kept", cell=cell, kind="measured")


def verdict(measured: Record) -> str:
    """What a speedup is not worth: "frozen" or "worse than kept", see ERROR_NOTE; else empty."""
    error, kept = measured.get("feature_error"), measured.get("feature_error_kept")
    if not error or not kept:  # exact, nothing measured, or a picture that stands still
        return ""
    if error > max(LOST * kept, EXACT):
        return "worse than kept"
    return "frozen" if error > max(FROZEN * kept, EXACT) else ""


def _together(runtime: str, threshold: float | None, parts: Sequence[_Part]) -> Record:
    total = sum(part.frames for part in parts)
    seconds = sum(part.frames / part.measured.rate for part in parts)
    spent: Counter[str] = Counter()
    for part in parts:
        spent.update(part.split or {})
    whole = sum(spent.values())
    return {
        "runtime": runtime,
        "threshold": threshold,
        "frames_per_second": total / seconds,
        "feature_error": sum(float(part.measured.errors.sum()) for part in parts) / total,
        "feature_error_max": max(float(part.measured.errors.max()) for part in parts),
        "feature_error_kept": sum(part.kept for part in parts) / total,
        "work": sum(part.measured.work * part.frames for part in parts) / total,
        "split": {name: value / whole for name, value in spent.items()} if whole else None,
        "settings": [part.measured.peer.settings for part in parts],
        "repeats": [part.measured.rates for part in parts],
    }
