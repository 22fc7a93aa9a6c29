"""What every transform is given."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import PreprocessError

__all__ = ["check_frames", "check_tensor"]


def check_tensor(frames: object) -> None:
    """Raise PreprocessError unless ``frames`` is a tensor."""
    if not isinstance(frames, Tensor):
        raise PreprocessError(
            f"frames of type {type(frames).__name__}; expected a torch.Tensor, such as "
            "torch.from_numpy makes"
        )


def check_frames(frames: Tensor) -> None:
    """Raise PreprocessError unless ``frames`` is (T, 3, H, W) uint8."""
    check_tensor(frames)
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1] != 3:
        raise PreprocessError(
            f"frames are {frames.dtype} {tuple(frames.shape)}; expected uint8 (T, 3, H, W) in RGB"
        )
