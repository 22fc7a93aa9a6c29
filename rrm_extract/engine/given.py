"""What callers give a native network, checked."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rrm_extract.errors import ConfigError, EngineError
from rrm_extract.rrm.given import real_tensor

__all__ = ["MOST_FRAMES", "array_of", "batch_size", "frame_shape", "tensor_of"]

MOST_FRAMES = 4096
"""Of a batch: each takes memory in every layer, and far fewer already share a pass over weights."""


def batch_size(batch: Any) -> int:
    """The most frames of a batch.

    Raises:
        ConfigError: no whole number, or out of range.
    """
    size = _whole(batch)
    if size is None or not 1 <= size <= MOST_FRAMES:
        msg = f"batch {batch!r}; expected a whole number from 1 to {MOST_FRAMES}"
        raise ConfigError(msg)
    return size


def frame_shape(shape: Any) -> tuple[int, int, int]:
    """(C, H, W) of a frame.

    Raises:
        ConfigError: not three whole numbers of at least 1.
    """
    given = shape if isinstance(shape, (tuple, list)) else ()
    sizes = [size for size in map(_whole, given) if size is not None and size >= 1]
    if len(sizes) != 3 or len(given) != 3:
        msg = f"input_shape {shape!r}; expected (C, H, W), three whole numbers of at least 1"
        raise ConfigError(msg)
    channels, height, width = sizes
    return channels, height, width


def tensor_of(frames: Any) -> Tensor:
    """Frames as a tensor that carries nothing but numbers in memory: no gradient, no open sign.

    Raises:
        EngineError: see :func:`real_tensor`; or they are not on the CPU.
    """
    tensor = real_tensor(frames)
    if tensor.device.type != "cpu":
        msg = f"frames on {tensor.device}; expected them on the CPU, where this engine runs"
        raise EngineError(msg)
    return tensor.resolve_neg()


def array_of(frames: Any, size: tuple[int, int, int]) -> NDArray[np.float32]:
    """Consecutive frames as the kernels read them: (T, C, H, W) float32, contiguous.

    Args:
        frames: what the caller gave.
        size: (C, H, W).

    Raises:
        EngineError: of another kind or shape, or none at all.
    """
    tensor = tensor_of(frames)
    if tensor.dim() != 4 or len(tensor) == 0 or tuple(tensor.shape[1:]) != size:
        msg = (
            f"frames of shape {tuple(tensor.shape)}; expected (T, {', '.join(map(str, size))}) "
            "with T of at least 1, as the network was made for"
        )
        raise EngineError(msg)
    array: NDArray[np.float32] = tensor.contiguous().float().numpy()
    return array


def _whole(value: Any) -> int | None:
    try:
        return operator.index(value)
    except TypeError:
        return None
