"""Wall-clock of a network on a few clips of a dataset, beside dense runtimes in the same rounds."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from benchmarking import counted, say
from datasets import Dataset
from network_bench import (
    Measurement,
    Plan,
    Record,
    baseline_peers,
    best_of,
    measure,
    recurrent_peers,
)
from peers import BASELINES, Peer
from recognition_options import whole_number
from subjects import Subject, clip_frames, load_subject, usable_batches
from torch import Tensor

from rrm_extract.engine.backend import choose_engine
from rrm_extract.errors import ClipError

__all__ = [
    "Timer",
    "add_measuring_options",
    "measuring_settings",
    "subject_of",
    "timed_clips",
    "timing_plan",
]


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
        "timed_frames": options.timed_frames,
        "threads": options.threads,
        "repeats": options.repeats,
        "dense_runtimes": options.dense,
    }


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
        trial_frames=16,
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
    dataset: Dataset, subject: Subject, *, videos: int, frames: int
) -> dict[str, Tensor]:
    """The first frames of some videos, evenly spread; others take the place of broken ones.

    Returns:
        (T, *input_shape) float32 by video id; at most ``videos`` of them.
    """
    count = len(dataset.videos)
    places = np.linspace(0, count - 1, min(videos, count)).round().astype(int).tolist()
    order = [*dict.fromkeys(places), *(i for i in range(count) if i not in places)]
    clips: dict[str, Tensor] = {}
    for place in order:
        if len(clips) >= videos:
            break
        video = dataset.videos[place]
        try:
            clips[video.video_id] = clip_frames(video.path, subject, count=frames)
        except ClipError:
            continue  # it is named where all videos are counted
    return clips


@dataclass
class _Prepared:
    batches: tuple[int, ...]
    peers: list[Peer]


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
        self._recurrent = [*recurrent_peers(subject, plan, self._threads), *extra]
        self._baselines: list[_Prepared] = []

    def measure(self, frames: Tensor) -> list[Measurement]:
        """All peers on one clip: the best of each dense runtime, and every recurrent one.

        Args:
            frames: (T, *input_shape) float32.
        """
        torch.set_num_threads(self._threads)
        reference = self._subject.reference(frames)
        peers = [*self._baseline_peers(frames), *self._recurrent]
        plan = self._plan
        measured = measure(
            peers, frames, reference, repeats=plan.repeats, pause=plan.pause, wake=plan.wake
        )
        return best_of(measured)

    def speeds(self, clips: Mapping[str, Tensor]) -> list[Record]:
        """Over some clips together, for each dense runtime and each threshold.

        Returns:
            ``runtime``, ``threshold``, ``frames_per_second`` over all clips, ``feature_error``
            (mean over frames) and ``feature_error_max``, ``work``, and ``settings`` and
            ``repeats`` of each clip.
        """
        by_peer: dict[tuple[str, float | None], list[tuple[Measurement, int]]] = {}
        for name, frames in clips.items():
            say(f"  {name}: {counted(self._plan.repeats, 'round')} of {len(frames)} frames")
            for one in self.measure(frames):
                key = (one.peer.runtime, one.peer.threshold)
                by_peer.setdefault(key, []).append((one, len(frames)))
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


def _together(
    runtime: str, threshold: float | None, parts: Sequence[tuple[Measurement, int]]
) -> Record:
    seconds = sum(frames / one.rate for one, frames in parts)
    total = sum(frames for _, frames in parts)
    return {
        "runtime": runtime,
        "threshold": threshold,
        "frames_per_second": total / seconds,
        "feature_error": sum(float(one.errors.sum()) for one, _ in parts) / total,
        "feature_error_max": max(float(one.errors.max()) for one, _ in parts),
        "work": sum(one.work * frames for one, frames in parts) / total,
        "settings": [one.peer.settings for one, _ in parts],
        "repeats": [one.rates for one, _ in parts],
    }
