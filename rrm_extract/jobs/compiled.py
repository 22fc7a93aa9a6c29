"""A computation that runs without torch: all of the network on the native kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrm_extract.engine.compiled import CompiledNetwork, CompiledPlan, NotFiniteError
from rrm_extract.engine.mapped import load_mapped, save_mapped
from rrm_extract.engine.pictures import PictureTransform
from rrm_extract.engine.seen import Seen
from rrm_extract.errors import StoreWriteError
from rrm_extract.jobs.control import Control
from rrm_extract.jobs.extractor import FrameNetwork, pictures
from rrm_extract.video import SampledFrame

__all__ = ["CompiledComputation", "beside", "load_compiled", "save_compiled"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CompiledComputation:
    """From frames to features; see :class:`rrm_extract.jobs.extractor.Computation`.

    Attributes:
        plan: the network.
        preprocess: description of the transform.
        pool, time_batch: as in the job.
        feature_shape: of one frame's stored feature before it is flattened.
        n_layers: number of linear layers.
        control: what decides about key frames and thresholds.
        exact: the network in fp32, where the control measures errors and ``plan`` has another
            precision.
        recipe_path: of the same computation with torch, for frames that are not finite; set where
            this one is read.
    """

    plan: CompiledPlan
    preprocess: Mapping[str, Any]
    pool: str
    time_batch: int
    feature_shape: tuple[int, ...]
    n_layers: int
    control: Control
    exact: CompiledPlan | None
    recipe_path: Path | None = None

    @property
    def reading(self) -> None:
        """Features are stored: what reads raw outputs needs torch."""
        return None

    def open(self) -> CompiledFrameNetwork:
        """A network with a state of its own."""
        return CompiledFrameNetwork(self)


class CompiledFrameNetwork:
    """See :class:`rrm_extract.jobs.extractor.FrameNetwork`."""

    def __init__(self, computation: CompiledComputation) -> None:
        self._network = CompiledNetwork(computation.plan)
        self._exact_plan = computation.exact or computation.plan
        self._exact: CompiledNetwork | None = None
        self._tracks = False
        self._scale = 1.0
        self._transform = PictureTransform(computation.preprocess)
        self._average = computation.pool == "avg"
        self._recipe_path = computation.recipe_path
        self._with_torch: FrameNetwork | None = None

    def reset(self) -> None:
        """Forgets the past: the next frame is a key frame."""
        self._network.reset()

    def key_frame(self) -> None:
        """The next frame is a key frame."""
        self._network.key_frame()

    def input(self, batch: list[SampledFrame], /) -> NDArray[np.float32]:
        """(T, C, h, w) float32."""
        images, positions = pictures(batch)
        x = self._transform.images(images)
        return x if len(images) == len(batch) else x[positions]

    def track(self) -> None:
        """Has what is truncated counted from here on."""
        self._tracks = True
        self._network.track()

    def scale_thresholds(self, factor: float, /) -> None:
        """All thresholds times a factor, from the next frame on."""
        self._scale = factor
        self._network.scale_thresholds(factor)

    def run(self, x: NDArray[np.float32], /) -> tuple[tuple[NDArray[np.float32], ...], Seen]:
        """(T, D) features, and what the layers saw."""
        try:
            (output,), seen = self._network.run(x)
        except NotFiniteError:
            # The frames are computed from nothing, each by itself, and so is what follows: no
            # state has to pass from one network to the other.
            network = self._with_recipe()
            if self._tracks:
                network.track()
            network.scale_thresholds(self._scale)
            return network.run(torch_tensor(x))
        return (self._flat(output),), seen

    def exact(self, x: NDArray[np.float32], /) -> NDArray[np.float32]:
        """(T, D) features of the dense network, in fp32."""
        if self._exact is None:
            self._exact = CompiledNetwork(self._exact_plan)
        features = []
        for frame in x:
            self._exact.reset()
            try:
                (output,), _ = self._exact.run(frame[None])
            except NotFiniteError:
                features.append(self._with_recipe().exact(torch_tensor(frame[None])))
            else:
                features.append(self._flat(output))
        return np.concatenate(features)

    def _flat(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._average and output.ndim == 4:
            output = output.mean(axis=(2, 3))
        return output.reshape(len(output), -1)

    def _with_recipe(self) -> FrameNetwork:
        """The same with torch, which hardly any job ever needs, from nothing."""
        from rrm_extract.jobs.recipe import load_recipe, prepare_process

        if self._with_torch is None:
            if self._recipe_path is None:
                msg = "a computation that was not read from a file has no recipe beside it"
                raise TypeError(msg)
            prepare_process(1)
            self._with_torch = load_recipe(self._recipe_path).open()
        self._with_torch.reset()
        return self._with_torch


def torch_tensor(x: NDArray[np.float32]) -> Any:
    """The array as a tensor; PyTorch is imported only here."""
    import torch

    return torch.from_numpy(x)


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
    """Reads a computation that a job has written; all workers share the weights in memory."""
    computation = load_mapped(path)
    if not isinstance(computation, CompiledComputation):
        msg = f"{path} holds {type(computation).__name__}, expected a computation"
        raise TypeError(msg)
    return replace(computation, recipe_path=beside(path))  # both may have been moved


def beside(path: Path) -> Path:
    """Where the recipe with torch lies, of a computation without."""
    return path.with_name(f"{path.stem}.torch{path.suffix}")  # temporary if the other is
