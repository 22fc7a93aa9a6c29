"""Where a map has its channels, as far as a Program's operations tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Permute

from rrm_extract.graph.linear import Convolution, FullyConnected
from rrm_extract.graph.program import Op, Program, Ref
from rrm_extract.graph.trace import MethodCall

__all__ = ["ChannelsFirst", "channels_first"]

_FIRST, _LAST = 1, 3
"""Dimensions of (N, C, H, W), and of (N, H, W, C)."""

_BY_FIRST = (
    *(nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)


@dataclass(frozen=True)
class ChannelsFirst:
    """(N, H, W, C) to (N, C, H, W); what has other dimensions stays as it is."""

    def __call__(self, x: Tensor) -> Tensor:
        """See the class."""
        return x.permute(0, 3, 1, 2) if x.dim() == 4 else x


def channels_first(program: Program) -> Program:
    """The same where the first output, if it is a map, has its channels as convolutions have them.

    Transformers such as Swin keep them last, behind fully-connected layers and normalisation by
    pixel; a mean over "space" would then be one over columns and channels.
    """
    output = program.outputs[0]
    if _dimension(program).get(output) != _LAST:
        return program
    name = f"{output}.channels_first"
    op = Op(name=name, kind="reshape", call=ChannelsFirst(), args=(Ref(output),))
    return replace(program, ops=(*program.ops, op), outputs=(name, *program.outputs[1:]))


def _dimension(program: Program) -> dict[str, int]:
    """The dimension of channels by the value's name, were it a map; unknown ones are left out."""
    known: dict[str, int] = {}
    for op in program.ops:
        place = _of(op, known)
        if place is not None:
            known[op.name] = place
    return known


def _of(op: Op, known: Mapping[str, int]) -> int | None:
    if isinstance(op.call, (Convolution, *_BY_FIRST)):
        return _FIRST
    if isinstance(op.call, FullyConnected) or _is_norm_by_pixel(op):
        return _LAST
    before = next((known[name] for name in op.inputs if name in known), None)
    called = op.call.name if isinstance(op.call, MethodCall) else getattr(op.call, "__name__", "")
    if called in ("flatten", "view", "reshape", "unflatten") or isinstance(op.call, nn.Flatten):
        return None
    if before is None:
        return None
    if isinstance(op.call, Permute):
        return _moved(before, op.call.dims)
    if called == "permute":
        given = op.args[1:] or (op.kwargs.get("dims"),)
        return _moved(before, given[0] if isinstance(given[0], (tuple, list)) else given)
    if called == "transpose":
        return _swapped(before, op.args[1:] or (op.kwargs.get("dim0"), op.kwargs.get("dim1")))
    return before


def _is_norm_by_pixel(op: Op) -> bool:
    if type(op.call) is nn.LayerNorm:  # subclasses have the channels where they like
        return len(op.call.normalized_shape) == 1
    if op.call is F.layer_norm or op.call is torch.layer_norm:
        shape = op.args[1] if len(op.args) > 1 else op.kwargs.get("normalized_shape")
        return isinstance(shape, (tuple, list, torch.Size)) and len(shape) == 1
    return False


def _moved(before: int, dims: Any) -> int | None:
    places = [dim % 4 for dim in dims if isinstance(dim, int)]
    return places.index(before) if sorted(places) == [0, 1, 2, 3] else None


def _swapped(before: int, pair: Any) -> int | None:
    if len(pair) != 2 or not all(isinstance(dim, int) for dim in pair):
        return None
    one, other = (int(dim) % 4 for dim in pair)
    return {one: other, other: one}.get(before, before)
