"""Sums over frames and videos, from which the measures of a video and of a run follow."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rrm_extract.jobs.control import EVENTS
from rrm_extract.rrm.cost import (
    LayerCost,
    overall_density,
    overall_sparsity,
    theoretical_speedup_over_sparse_input,
)
from rrm_extract.store import ChunkResult

__all__ = ["STAGES", "Accounting", "count_not_finite", "layer_columns"]

STAGES = ("decode", "preprocess", "network")
"""What the seconds of a chunk are taken of; those of a task have "task" as well."""


class Accounting:
    """What the linear layers saw, summed over chunks.

    Args:
        layers: the network's linear layers with their sizes.

    Attributes:
        frames, delta_frames: all frames, and those that were not key frames.
        work: sum over all frames of the share of the dense MACs.
        not_finite: frames whose features, or a task's raw outputs, have NaN or infinities.
        seconds: by stage.
        events: see :data:`rrm_extract.jobs.control.EVENTS`.
        found: objects or people in all frames, None where they have features.
    """

    def __init__(self, layers: tuple[LayerCost, ...]) -> None:
        self._layers = layers
        self._density = np.zeros(len(layers))
        self._density_delta = np.zeros(len(layers))
        self.frames = 0
        self.delta_frames = 0
        self.work = 0.0
        self.not_finite = 0
        self.events: Counter[str] = Counter()
        self._errors: list[npt.NDArray[np.float32]] = []
        self._estimates: list[npt.NDArray[np.float32]] = []
        self.seconds: dict[str, float] = {**dict.fromkeys(STAGES, 0.0), "write": 0.0}
        self.found: int | None = None

    def add(self, chunk: ChunkResult) -> None:
        """Takes one chunk into account."""
        delta = ~chunk.key_frame
        self.frames += len(chunk.key_frame)
        self.delta_frames += int(delta.sum())
        self.work += float(chunk.work.sum(dtype=np.float64))
        # Of a task's chunk, whose features have no columns, the extractor has counted them.
        self.not_finite += count_not_finite(chunk.features)
        self.not_finite += int(chunk.attrs.get("n_not_finite", 0))
        self._density += chunk.density.sum(axis=0, dtype=np.float64)
        self._density_delta += chunk.density_delta[delta].sum(axis=0, dtype=np.float64)
        for rows, kept in (
            (chunk.audit_error, self._errors),
            (chunk.estimate, self._estimates),
        ):
            if rows is not None:
                kept.append(rows[~np.isnan(rows)])
        for event in EVENTS:
            self.events[event] += int(chunk.attrs.get(f"n_{event}", 0))
        for stage in STAGES:
            self.seconds[stage] += float(chunk.attrs.get(f"seconds_{stage}", 0.0))
        if chunk.found is not None:
            self.found = (self.found or 0) + int(chunk.found.counts.sum())
            self.seconds["task"] = self.seconds.get("task", 0.0) + float(
                chunk.attrs.get("seconds_task", 0.0)
            )

    def merge(self, other: Accounting) -> None:
        """Takes all that another one has seen into account."""
        self.frames += other.frames
        self.delta_frames += other.delta_frames
        self.work += other.work
        self.not_finite += other.not_finite
        self._density += other._density
        self._density_delta += other._density_delta
        self.events.update(other.events)
        self._errors += other._errors
        self._estimates += other._estimates
        if other.found is not None:
            self.found = (self.found or 0) + other.found
        for stage, seconds in other.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def audited_errors(self) -> npt.NDArray[np.float32]:
        """Relative L2 errors of the frames that were audited."""
        return np.concatenate([np.empty(0, np.float32), *self._errors])

    def estimates(self) -> npt.NDArray[np.float32]:
        """Relative L2 errors as predicted, of the frames where something predicts them."""
        return np.concatenate([np.empty(0, np.float32), *self._estimates])

    def layers(self) -> tuple[LayerCost, ...]:
        """The layers with their mean densities, NaN where no frame counts.

        Of the input over all frames; of the delta over the frames that were not key frames.
        """
        return tuple(
            replace(
                layer,
                density=_mean(self._density[i], self.frames),
                density_delta=_mean(self._density_delta[i], self.delta_frames),
            )
            for i, layer in enumerate(self._layers)
        )

    def counts(self) -> dict[str, int]:
        """How many frames there were and, where a task finds any, objects or people in them."""
        return {"frames": self.frames} | ({} if self.found is None else {"found": self.found})

    def speedup_theoretical(self) -> float:
        """Dense MACs over MACs done, key frames included (they count in full); NaN if no frames."""
        return self.frames / self.work if self.work else math.nan

    def measures(self) -> dict[str, float]:
        """The network-wide measures, named as in the file."""
        layers = self.layers()
        return {
            "density": overall_density(layers, of="input"),
            "density_delta": overall_density(layers),
            "sparsity_macs": overall_sparsity(layers),
            "sparsity_elements": overall_sparsity(layers, weight="elements"),
            "speedup_theoretical": self.speedup_theoretical(),
            "speedup_theoretical_over_sparse_input": theoretical_speedup_over_sparse_input(layers),
        }


def count_not_finite(rows: npt.NDArray[np.float32]) -> int:
    """How many of T frames have NaN or infinities, of (T, D) features or raw outputs."""
    return int((~np.isfinite(rows).all(axis=1)).sum())


def layer_columns(layers: tuple[LayerCost, ...]) -> Mapping[str, npt.NDArray[Any]]:
    """The columns of a video's ``layers`` group; ``speedup`` is the theoretical one, per layer."""
    with np.errstate(divide="ignore"):
        density_delta = np.array([layer.density_delta for layer in layers], np.float64)
        speedup = 1.0 / density_delta
    columns: dict[str, npt.NDArray[Any]] = {
        "name": np.array([layer.name for layer in layers], object),
        "macs": np.array([layer.macs for layer in layers], np.int64),
        "input_elements": np.array([layer.input_elements for layer in layers], np.int64),
        "output_elements": np.array([layer.output_elements for layer in layers], np.int64),
        "density": np.array([layer.density for layer in layers], np.float64),
        "density_delta": density_delta,
        "speedup": speedup,
    }
    channels = [layer.channels for layer in layers if layer.channels is not None]
    if len(channels) == len(layers):
        columns["in_channels"] = np.array([known.inputs for known in channels], np.int64)
        columns["out_channels"] = np.array([known.outputs for known in channels], np.int64)
        columns["groups"] = np.array([known.groups for known in channels], np.int64)
    return columns


def _mean(total: float, count: int) -> float:
    return float(total) / count if count else math.nan
