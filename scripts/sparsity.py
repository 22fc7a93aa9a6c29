"""How sparse a network's inputs and deltas are over the videos of a dataset (Eq. 9)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from datasets import Dataset, Reading
from subjects import Clip, Subject, clip_chunks
from torch import Tensor

from rrm_extract.engine.backend import Network, choose_engine
from rrm_extract.errors import ClipError
from rrm_extract.rrm import FrameDensities, LayerCost, RecurrentNetwork

__all__ = ["Sparsity", "measure_sparsity", "pure_network", "sparsity_of_clips"]


@dataclass(frozen=True, kw_only=True)
class Sparsity:
    """Of one network at one threshold.

    Attributes:
        layers: means over all frames; densities of the deltas over frames that are no key frames.
        frames, key_frames: counts.
        work: mean share of the dense MACs over all frames, key frames counting in full.
    """

    layers: tuple[LayerCost, ...]
    frames: int
    key_frames: int
    work: float


def measure_sparsity(
    subject: Subject,
    dataset: Dataset,
    thresholds: Sequence[float],
    *,
    max_frames: int | None,
    engine: str,
) -> tuple[list[Sparsity], Reading]:
    """The recurrence as the paper has it over all videos: no layer but a key frame's runs dense.

    A video that cannot be decoded to its end, or to ``max_frames``, counts in nothing.

    Args:
        subject: the network; each chunk of its sampling begins with a key frame.
        dataset: the videos.
        thresholds: one result for each.
        max_frames: most of each video.
        engine: "native", "torch" or "auto".

    Returns:
        Results in the order of ``thresholds``, with no frame if no video is usable; and what was
        read.
    """
    networks = [pure_network(subject, threshold, engine=engine) for threshold in thresholds]
    sums = [_Sums(len(subject.recipe.layers)) for _ in thresholds]
    reading = Reading()
    for video in dataset.videos:
        own = [_Sums(len(subject.recipe.layers)) for _ in thresholds]
        try:
            for frames in clip_chunks(video.path, subject, count=max_frames):
                for network, sum_ in zip(networks, own, strict=True):
                    sum_.run(network, frames, subject.recipe.time_batch)
        except ClipError as error:
            reading.drop(video, error)
            continue
        reading.used += 1
        for total, sum_ in zip(sums, own, strict=True):
            total.join(sum_)
    return [total.result(subject.recipe.layers) for total in sums], reading


def sparsity_of_clips(
    subject: Subject, clips: Iterable[Clip], threshold: float, *, engine: str
) -> Sparsity:
    """The same of clips that are network input already.

    What an engine counts while it is timed is something else: where a layer runs dense it compares
    only some of the frames.

    Args:
        subject: the network.
        clips: every chunk of them begins with a key frame.
        threshold: of the recurrence.
        engine: "native", "torch" or "auto".
    """
    network = pure_network(subject, threshold, engine=engine)
    sums = _Sums(len(subject.recipe.layers))
    for clip in clips:
        for frames in torch.split(clip.frames, clip.chunk):
            sums.run(network, frames, subject.recipe.time_batch)
    return sums.result(subject.recipe.layers)


def pure_network(subject: Subject, threshold: float, *, engine: str) -> Network:
    """The network whose layers never choose to run dense, on either engine.

    Layers that the native engine leaves to plain PyTorch are always dense, and nobody counts what
    they read: a network that has some is counted by the readable engine.
    """
    recipe = subject.recipe
    plain = RecurrentNetwork(recipe.program, threshold=threshold, policy=recipe.policy)
    if choose_engine(engine).engine == "torch":
        return plain
    from rrm_extract.engine import NativeNetwork

    network = NativeNetwork(
        recipe.program,
        input_shape=subject.input_shape,
        threshold=threshold,
        policy=recipe.policy,
        batch=recipe.time_batch,
        adaptive=False,
        packed=recipe.packed,
    )
    uncounted = {name for name, _ in network.islands} & set(recipe.program.linear_names())
    return plain if uncounted else network


class _Sums:
    """Over frames.

    Args:
        layers: how many.
    """

    def __init__(self, layers: int) -> None:
        self._density = torch.zeros(layers, dtype=torch.float64)
        self._delta = torch.zeros(layers, dtype=torch.float64)
        self._work = 0.0
        self._frames = self._key_frames = 0

    def run(self, network: Network, chunk: Tensor, time_batch: int) -> None:
        network.reset()
        for batch in torch.split(chunk, time_batch):
            self.add(network.run(batch)[1])

    def add(self, seen: FrameDensities) -> None:
        self._density += seen.density.sum(dim=0)
        self._delta += seen.density_delta[~seen.key_frame].sum(dim=0)
        self._work += float(seen.work.sum())
        self._frames += len(seen.key_frame)
        self._key_frames += int(seen.key_frame.sum())

    def join(self, other: _Sums) -> None:
        self._density += other._density
        self._delta += other._delta
        self._work += other._work
        self._frames += other._frames
        self._key_frames += other._key_frames

    def result(self, layers: Sequence[LayerCost]) -> Sparsity:
        density = _means(self._density, self._frames)
        delta = _means(self._delta, self._frames - self._key_frames)
        return Sparsity(
            layers=tuple(
                replace(layer, density=one, density_delta=other)
                for layer, one, other in zip(layers, density, delta, strict=True)
            ),
            frames=self._frames,
            key_frames=self._key_frames,
            work=self._work / self._frames if self._frames else float("nan"),
        )


def _means(sums: Tensor, count: int) -> list[float]:
    return [float(value) / count if count else float("nan") for value in sums]
