"""How many dimensions the values of a Program have, as far as its operations tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rrm_extract.graph.linear import Convolution
from rrm_extract.graph.program import Op, Program, Ref
from rrm_extract.graph.trace import MethodCall

__all__ = ["dimensions"]

_IMAGE = 4  # (N, C, H, W)


def dimensions(program: Program) -> dict[str, int]:
    """The number of dimensions by the value's name; values of which it is not known are left out.

    The network's input has four.
    """
    known = {program.input: _IMAGE}
    for op in program.ops:
        number = _of(op, known)
        if number is not None:
            known[op.name] = number
    return known


def _of(op: Op, known: Mapping[str, int]) -> int | None:
    if isinstance(op.call, Convolution):
        return op.call.weight.dim()
    if not op.inputs:
        return None
    if op.kind in ("add", "multiply", "concat"):
        numbers = [known.get(name) for name in op.inputs]
        return None if None in numbers else max(number for number in numbers if number)
    before = known.get(op.inputs[0])
    is_method = isinstance(op.call, MethodCall)
    called = getattr(op.call, "name" if is_method else "__name__", "")
    if isinstance(op.call, nn.Flatten):
        return _flattened(before, op.call.start_dim, op.call.end_dim)
    if called == "flatten":
        given = dict(zip(("start_dim", "end_dim"), op.args[1:], strict=False))
        given.update(op.kwargs)
        return _flattened(before, given.get("start_dim", 0), given.get("end_dim", -1))
    if called in ("view", "reshape"):
        return _reshaped(op)
    if called == "mean":
        return _mean(before, op)
    if op.kind in ("linear", "activation", "norm", "identity"):
        return before
    return before if op.kind == "pool" and isinstance(op.call, nn.Module) else None


def _flattened(before: int | None, start: Any, end: Any) -> int | None:
    if (start, end) == (1, -1):
        return 2
    if before is None or not isinstance(start, int) or not isinstance(end, int):
        return None
    return before - (end % before - start % before)


def _reshaped(op: Op) -> int | None:
    """Of ``x.view(2, -1)``, ``x.reshape((2, -1))`` and ``torch.reshape(x, (2, -1))``."""
    if op.kwargs or len(op.args) < 2 or isinstance(op.args[1], torch.dtype):
        return None
    sizes = op.args[1] if isinstance(op.args[1], (tuple, list)) else op.args[1:]
    # The size of another tensor, x.view(y.shape), is one reference and may be any number of sizes.
    return None if len(sizes) == 1 and isinstance(sizes[0], Ref) else len(sizes)


def _mean(before: int | None, op: Op) -> int | None:
    dims = op.args[1] if len(op.args) > 1 else op.kwargs.get("dim")
    keeps = op.args[2] if len(op.args) > 2 else op.kwargs.get("keepdim", False)
    if before is None or dims is None or keeps not in (True, False):
        return None
    if keeps:
        return before
    return before - (1 if isinstance(dims, int) else len(dims))
