"""The ordinary network, on frames instead of batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rrm_extract.errors import EngineError
from rrm_extract.graph import Program
from rrm_extract.rrm.apart import keeps_frames_apart
from rrm_extract.rrm.frames import by_frame, refuse_other_numbers

__all__ = ["OrdinaryNetwork"]


class OrdinaryNetwork:
    """What a recurrent network is compared with: each frame is computed in full, and by itself.

    Args:
        program: the network, on the frames' device.
    """

    def __init__(self, program: Program) -> None:
        self._given: Program | None = program  # until it has taken a frame
        self._program = by_frame(program)
        self._apart: bool | None = None

    def __call__(self, frames: Tensor) -> tuple[Any, ...]:
        """(T, C, H, W) -> one (T, ...) tensor for each output of the Program.

        Raises:
            EngineError: there are no frames, or frames by themselves make another network.
        """
        if len(frames) == 0:
            shape = tuple(frames.shape)
            msg = f"frames of shape {shape}; expected (T, C, H, W) with T of at least 1"
            raise EngineError(msg)
        if self._given is not None:
            refuse_other_numbers(self._given, self._program, frames)
        outputs = self._outputs(frames)
        self._given = None  # what takes no such frame was not compared
        return outputs

    def _outputs(self, frames: Tensor) -> tuple[Any, ...]:
        if len(frames) > 1 and self._apart is None:
            self._apart = keeps_frames_apart(self._program, frames)
        if len(frames) == 1 or self._apart:
            return self._program(frames)
        each = [self._program(frame[None]) for frame in frames]
        return tuple(_joined(values) for values in zip(*each, strict=True))


def _joined(values: Sequence[Any]) -> Any:
    if isinstance(values[0], (tuple, list)):
        return tuple(map(_joined, zip(*values, strict=True)))
    return torch.cat(list(values))
