"""What callers give a recurrent network, checked."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rrm_extract.errors import ConfigError, EngineError

__all__ = ["factor_of_thresholds", "real_tensor", "threshold_number"]


def threshold_number(value: Any, name: str) -> float:
    """A threshold as a float, of which infinity is one: it lets nothing pass.

    Raises:
        ConfigError: it is negative or no number; ``name`` says whose it is.
    """
    number = _number(value)
    if not number >= 0:
        msg = f"threshold {_shown(value)} for {name!r}; expected a number of at least 0"
        raise ConfigError(msg)
    return number


def factor_of_thresholds(value: Any) -> float:
    """What all thresholds are multiplied with, as a float.

    Raises:
        ConfigError: it is negative, not finite or no number.
    """
    number = _number(value)
    if not 0 <= number < math.inf:
        msg = f"factor {_shown(value)} for thresholds; expected a finite number of at least 0"
        raise ConfigError(msg)
    return number


def real_tensor(frames: Any) -> Tensor:
    """Frames as a tensor without a gradient.

    Raises:
        EngineError: no tensor, without numbers, sparse, quantised or complex.
    """
    if not isinstance(frames, Tensor):
        msg = (
            f"frames of type {type(frames).__name__}; expected a torch.Tensor, such as "
            "torch.from_numpy makes of an array"
        )
        raise EngineError(msg)
    strided = frames.layout == torch.strided
    if frames.is_meta or not strided or frames.is_quantized or frames.is_complex():
        kind = str(frames.dtype if strided else frames.layout).removeprefix("torch.")
        msg = f"frames are {kind} on {frames.device}; expected a dense tensor of real numbers"
        raise EngineError(msg)
    return frames.detach()


def _number(value: Any) -> float:
    """NaN for what is no number; text is none, though it may show one."""
    if isinstance(value, (str, bytes, bytearray)):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # RuntimeError: a tensor of many
        return math.nan


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"{text[:37]}..."
