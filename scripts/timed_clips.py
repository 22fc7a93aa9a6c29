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
    measure,
    recurrent_peers,
)
from peers import BASELINES, Peer
from peers.rrm_peer import RrmPeer
from recognition_options import whole_number
from subjects import Subject, clip_frames, load_subject, usable_batches
from torch import Tensor

from rrm_extract.engine.backend import choose_engine
from rrm_extract.errors import ClipError

__all__ = [
    "RUNTIMES",
    "Timer",
    "add_measuring_options",
    "measuring_settings",
    "subject_of",
    "timed_clips",
    "timing_plan",
]

RUNTIMES = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime", "torch": "PyTorch"}
"""How tables call them."""


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
    dataset: Dataset, subject: Subject, options: argparse.Namespace
) -> tuple[dict[str, Tensor], Reading]:
    """The first frames of some videos, evenly spread; others take the place of broken ones.

    Args:
        dataset: to choose from.
        subject: the network whose input they become.
        options: of :func:`add_measuring_options` and ``tables.table_parser``.

    Returns:
        (T, *input_shape) float32 by video id; and what was read.
    """
    videos, frames = options.timed_videos, options.timed_frames
    if options.max_frames is not None:
        frames = min(frames, options.max_frames)
    reading = Reading()
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

    def measure(
        self, frames: Tensor, *, thresholds: Sequence[float] | None = None
    ) -> list[Measurement]:
        """All peers on one clip: the best of each dense runtime, and every recurrent one.

        Args:
            frames: (T, *input_shape) float32.
            thresholds: those of the plan that take part; None takes all.
        """
        torch.set_num_threads(self._threads)
        reference = self._subject.reference(frames)
        recurrent = [
            peer
            for peer in self._recurrent
            if thresholds is None or peer.threshold is None or peer.threshold in thresholds
        ]
        peers = [*self._baseline_peers(frames), *recurrent]
        plan = self._plan
        return best_of(measure(peers, frames, reference, repeats=plan.repeats, pause=plan.pause))

    def speeds(
        self,
        clips: Mapping[str, Tensor],
        *,
        thresholds: Sequence[float] | None = None,
        split: bool = False,
    ) -> list[Record]:
        """Over some clips together, for each dense runtime and each threshold.

        Args:
            clips: (T, *input_shape) float32 by name.
            thresholds: as for :meth:`measure`.
            split: whether the native engine's time is told apart, in a run of its own.

        Returns:
            ``runtime``, ``threshold``, ``frames_per_second`` over all clips, ``feature_error``
            (mean over frames) and ``feature_error_max``, ``density`` and ``work``, mean over
            frames, ``split`` (shares of ``peers.rrm_peer.SPLIT``, or None), and ``settings`` and
            ``repeats`` of each clip.
        """
        by_peer: dict[tuple[str, float | None], list[_Part]] = {}
        for name, frames in clips.items():
            say(f"  {name}: {counted(self._plan.repeats, 'round')} of {len(frames)} frames")
            for one in self.measure(frames, thresholds=thresholds):
                seconds = (
                    one.peer.split(frames) if split and isinstance(one.peer, RrmPeer) else None
                )
                key = (one.peer.runtime, one.peer.threshold)
                by_peer.setdefault(key, []).append(_Part(one, len(frames), seconds))
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


def _together(runtime: str, threshold: float | None, parts: Sequence[_Part]) -> Record:
    total = sum(part.frames for part in parts)
    seconds = sum(part.frames / part.measured.rate for part in parts)
    densities = [(part.measured.density, part.frames) for part in parts]
    known = [(density, frames) for density, frames in densities if density is not None]
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
        "density": sum(d * n for d, n in known) / sum(n for _, n in known) if known else None,
        "work": sum(part.measured.work * part.frames for part in parts) / total,
        "split": {name: value / whole for name, value in spent.items()} if whole else None,
        "settings": [part.measured.peer.settings for part in parts],
        "repeats": [part.measured.rates for part in parts],
    }
