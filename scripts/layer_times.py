"""Where the time of the ordinary network goes, by kind of layer."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
from benchmarking import median
from torch import Tensor

from rrm_extract.graph import Op, Program, execute
from rrm_extract.graph.program import LINEAR_KINDS

__all__ = ["KINDS", "ordinary_times"]

KINDS = ("linear", "batch-norm", "activation", "pooling", "other")

_KIND_OF = {"norm": "batch-norm", "activation": "activation", "pool": "pooling"}


@torch.inference_mode()
def ordinary_times(program: Program, frames: Tensor, *, repeats: int) -> dict[str, float]:
    """Milliseconds of a frame in dense PyTorch, nothing folded or fused, by :data:`KINDS`.

    Args:
        program: the network as it was loaded.
        frames: (T, *input_shape) float32, one batch.
        repeats: how often it is computed, after a first time that does not count; the median of
            each kind.
    """
    if frames.shape[1] < min(frames.shape[2:]):
        # The weights as well: PyTorch would bring them into that layout in every call.
        x = frames.contiguous(memory_format=torch.channels_last)
        program = in_channels_last(program)
    else:
        x = frames
    program(x)
    rounds = [_seconds(program, x) for _ in range(repeats)]
    return {kind: 1000 * median([one[kind] for one in rounds]) / len(frames) for kind in KINDS}


def in_channels_last(program: Program) -> Program:
    """The same with the weights of two-dimensional convolutions in that memory format."""
    return replace(program, ops=tuple(_op_in_channels_last(op) for op in program.ops))


def _op_in_channels_last(op: Op) -> Op:
    if op.kind not in LINEAR_KINDS or op.linear_map.weight.dim() != 4:
        return op
    linear = op.linear_map
    weight = linear.weight.contiguous(memory_format=torch.channels_last)
    return replace(op, call=replace(linear, weight=weight))


def _seconds(program: Program, x: Tensor) -> dict[str, float]:
    seconds = dict.fromkeys(KINDS, 0.0)

    def timed(op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        began = time.perf_counter()
        result = op.call(*args, **kwargs)
        kind = "linear" if op.kind in LINEAR_KINDS else _KIND_OF.get(op.kind, "other")
        seconds[kind] += time.perf_counter() - began
        return result

    execute(program, x, timed)
    return seconds
