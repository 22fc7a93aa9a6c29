"""A computation that runs without torch: all of the network on the native kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrm_extract.engine.compiled import CompiledNetwork, CompiledPlan
from rrm_extract.engine.mapped import load_mapped, save_mapped
from rrm_extract.engine.pictures import PictureTransform
from rrm_extract.engine.seen import Seen
from rrm_extract.errors import StoreWriteError
from rrm_extract.jobs.extractor import pictures
from rrm_extract.video import SampledFrame

__all__ = ["CompiledComputation", "load_compiled", "save_compiled"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CompiledComputation:
    """From frames to features; see :class:`rrm_extract.jobs.extractor.Computation`.

    Attributes:
        plan: the network.
        preprocess: description of the transform.
        pool, time_batch: as in the job.
        feature_shape: of one frame's stored feature before it is flattened.
        n_layers: number of linear layers.
    """

    plan: CompiledPlan
    preprocess: Mapping[str, Any]
    pool: str
    time_batch: int
    feature_shape: tuple[int, ...]
    n_layers: int

    def open(self) -> CompiledFrameNetwork:
        """A network with a state of its own."""
        return CompiledFrameNetwork(self)


class CompiledFrameNetwork:
    """See :class:`rrm_extract.jobs.extractor.FrameNetwork`."""

    def __init__(self, computation: CompiledComputation) -> None:
        self._network = CompiledNetwork(computation.plan)
        self._transform = PictureTransform(computation.preprocess)
        self._average = computation.pool == "avg"

    def reset(self) -> None:
        """Forgets the past: the next frame is a key frame."""
        self._network.reset()

    def input(self, batch: list[SampledFrame], /) -> NDArray[np.float32]:
        """(T, C, h, w) float32."""
        images, positions = pictures(batch)
        x = self._transform.images(images)
        return x if len(images) == len(batch) else x[positions]

    def features(self, x: NDArray[np.float32], /) -> tuple[NDArray[np.float32], Seen]:
        """(T, D) features, and what the layers saw."""
        (output,), seen = self._network.run(x)
        if self._average and output.ndim == 4:
            output = output.mean(axis=(2, 3))
        return output.reshape(len(output), -1), seen


def save_compiled(computation: CompiledComputation, path: Path) -> None:
    """Writes a computation for :func:`load_compiled`.

    Raises:
        StoreWriteError: no space or no permission.
    """
    try:
        save_mapped(computation, path)
    except OSError as error:
        reason = error.strerror or str(error)
        msg = f"cannot write {path}: {reason}; make room, then run the same command again"
        raise StoreWriteError(msg) from error


def load_compiled(path: Path) -> CompiledComputation:
    """Reads a computation that this job has written; all workers share the weights in memory."""
    computation = load_mapped(path)
    if not isinstance(computation, CompiledComputation):
        msg = f"{path} holds {type(computation).__name__}, expected a computation"
        raise TypeError(msg)
    return computation
