"""Raw outputs as networks give them, or as they were stored."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rrm_extract.errors import ConfigError

__all__ = ["as_maps"]


def as_maps(
    raw: Tensor | NDArray[np.floating], shape: tuple[int, int, int], *, layer: str
) -> Tensor:
    """Maps of T frames: (T, C, H, W) float.

    Args:
        raw: the same, or (T, C * H * W).
        shape: (C, H, W).
        layer: what gives them, for the message: "detector's last layer".

    Raises:
        ConfigError: ``raw`` has another shape.
    """
    # torch takes none that is read backwards, and warns of those that may not be written to.
    tensor = raw if isinstance(raw, Tensor) else torch.from_numpy(np.require(raw, None, ["C", "W"]))
    if tuple(tensor.shape[1:]) not in (shape, (math.prod(shape),)):
        channels, rows, columns = shape
        raise ConfigError(
            f"raw outputs are {tuple(tensor.shape)}; expected (T, {channels}, {rows}, {columns}) "
            f"or (T, {math.prod(shape)}), of the {layer} without pooling"
        )
    return tensor.reshape(len(tensor), *shape)
