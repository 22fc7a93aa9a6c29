"""Feature error and speed of several thresholds on the same frames, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rrm_extract.engine.seen import Seen, joined
from rrm_extract.graph import dense_module
from rrm_extract.jobs.control import ControlledNetwork, relative_errors
from rrm_extract.jobs.recipe import Recipe, RecipeNetwork, pooled
from rrm_extract.jobs.samples import Sample, portions, run_controlled
from rrm_extract.rrm import by_frame
from rrm_extract.rrm.apart import keeps_frames_apart

__all__ = ["TriedThreshold", "Tuning", "try_thresholds"]

DENSE_BATCH = 16
"""Frames in a call of the dense network, where it is fastest."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TriedThreshold:
    """One threshold on all frames.

    Attributes:
        threshold: for all layers.
        errors: (T,) float64, relative L2 error of each frame's feature.
        density: of the deltas by MACs, mean over frames that were not key frames; NaN without such.
        work: mean share of the dense MACs that were done, key frames counting in full.
        key_frames: how many there were.
        seconds: of the network alone for all frames, one number for each round.
    """

    threshold: float
    errors: NDArray[np.float64]
    density: float
    work: float
    key_frames: int
    seconds: tuple[float, ...]

    @property
    def error_mean(self) -> float:
        """Mean over frames."""
        return float(self.errors.mean())

    @property
    def error_max(self) -> float:
        """Of the worst frame."""
        return float(self.errors.max())

    def error_percentile(self, percent: float) -> float:
        """That share of frames, in percent, is no worse."""
        # An error may be infinite, and two such have nothing in between.
        return float(np.percentile(self.errors, percent, method="higher"))

    @property
    def frames_per_second(self) -> float:
        """The median over rounds."""
        return len(self.errors) / median(self.seconds)


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What some thresholds are worth.

    Attributes:
        tried: in the order of the thresholds; 0 is the first.
        seconds_dense: of the dense network in PyTorch for all frames, for each round.
        dense_batch: frames that it took at a time, as far as there were so many.
        frames: number of frames.
        clips: their names.
    """

    tried: tuple[TriedThreshold, ...]
    seconds_dense: tuple[float, ...]
    dense_batch: int
    frames: int
    clips: tuple[str, ...]

    @property
    def frames_per_second_dense(self) -> float:
        """The median over rounds."""
        return self.frames / median(self.seconds_dense)

    @property
    def spread(self) -> float:
        """How many times as long as its quickest round the slowest one of anything took."""
        rounds = [self.seconds_dense, *(each.seconds for each in self.tried)]
        return max(max(seconds) / min(seconds) for seconds in rounds)


def try_thresholds(
    recipe: Recipe,
    samples: Sequence[Sample],
    thresholds: Sequence[float],
    *,
    repeats: int,
    say: Callable[[str], None],
) -> Tuning:
    """Measures each threshold beside the dense network.

    The dense network and every threshold have their turn in each round, so that whatever else the
    machine does meets all of them alike. What is timed is the network with its control (cuts become
    key frames); decoding and preprocessing are done before.

    Args:
        recipe: the network.
        samples: what it is tried on; each begins with a key frame.
        thresholds: 0 or more, each for all layers; 0 is measured in any case.
        repeats: rounds.
        say: is told what is being done.
    """
    dense = _Dense(recipe)
    seconds_dense: list[float] = []
    turns = [_Turns(recipe, samples, threshold) for threshold in sorted({0.0, *thresholds})]
    for number in range(repeats):
        say(f"round {number + 1} of {repeats}: the dense network and {len(turns)} thresholds")
        seconds_dense.append(dense.seconds(samples))
        for each in turns:
            each.take()
    return Tuning(
        tried=tuple(each.result() for each in turns),
        seconds_dense=tuple(seconds_dense),
        dense_batch=dense.batch(samples),
        frames=sum(map(len, samples)),
        clips=tuple(sample.name for sample in samples),
    )


class _Dense:
    """The ordinary network in PyTorch as one would run it for speed: channels_last, fp32."""

    def __init__(self, recipe: Recipe) -> None:
        channels, *sides = recipe.input_shape
        # Networks that take (h, w, C) have their channels last as they are.
        self._layout = torch.channels_last if channels < min(sides) else torch.contiguous_format
        # Moved as a Program: devices that the network names move as well.
        program = recipe.program.to(torch.device(recipe.device))
        network = dense_module(program, in_place=True)
        self._network = network.to(memory_format=torch.channels_last)
        self._recipe, self._pool = recipe, recipe.pool
        self._batch: int | None = None

    def seconds(self, samples: Sequence[Sample]) -> float:
        """Time for all frames."""
        batch = self.batch(samples)
        self._run(samples[0].x[:batch])  # its weights come into the caches
        total = 0.0
        for sample in samples:
            for part in portions(sample.x, batch):
                began = time.perf_counter()
                self._run(part)
                total += time.perf_counter() - began
        return total

    def batch(self, samples: Sequence[Sample]) -> int:
        """How many frames it takes at a time: one where it would mix them, or take no more."""
        if self._batch is None:
            largest = min(DENSE_BATCH, max(map(len, samples)))
            first = samples[0].x[:largest]
            program = by_frame(self._recipe.program.to(first.device))
            self._batch = largest if keeps_frames_apart(program, first) else 1
        return self._batch

    @torch.inference_mode()
    def _run(self, x: Tensor) -> NDArray[np.float32]:
        output = self._network(x.contiguous(memory_format=self._layout))
        # One frame's feature may have lost the dimension of frames.
        rows = pooled(output, self._pool).reshape(len(x), -1)
        feature: NDArray[np.float32] = rows.float().cpu().numpy()
        return feature


@dataclass
class _Turns:
    """One threshold, round after round."""

    recipe: Recipe
    samples: Sequence[Sample]
    threshold: float
    seconds: list[float] = field(default_factory=list)
    errors: list[NDArray[np.float64]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)

    def take(self) -> None:
        """One run over all samples; the first also says how far the features are off."""
        # Opened anew each time: the states of many thresholds would fill the memory.
        core = RecipeNetwork(replace(self.recipe, threshold=self.threshold))
        network = ControlledNetwork(core, self.recipe.control)
        first = not self.seconds
        batch = self.recipe.time_batch
        cold = self.samples[0].first(batch)  # not timed
        run_controlled(network, cold, batch, clock=time.perf_counter)
        total = 0.0
        for sample in self.samples:
            features, seen, seconds = run_controlled(
                network, sample, batch, clock=time.perf_counter
            )
            total += seconds
            if first:
                self.errors.append(relative_errors(features, sample.exact))
                self.seen.append(seen)
        self.seconds.append(total)

    def result(self) -> TriedThreshold:
        """What was found."""
        seen = joined(self.seen)
        macs = np.array([layer.macs for layer in self.recipe.layers], np.float64)
        deltas = seen.density_delta[~seen.key_frame]
        return TriedThreshold(
            threshold=self.threshold,
            errors=np.concatenate(self.errors),
            density=float(np.average(deltas.mean(axis=0), weights=macs))
            if len(deltas) and macs.any()
            else float("nan"),
            work=float(seen.work.mean()),
            key_frames=int(seen.key_frame.sum()),
            seconds=tuple(self.seconds),
        )
