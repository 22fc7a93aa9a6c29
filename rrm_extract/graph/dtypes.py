"""Which types of numbers a network's values have, as far as its operations tell."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import nn

from rrm_extract.graph.linear import LinearMap
from rrm_extract.graph.program import Constant, Op

__all__ = ["type_of", "type_of_frames"]

_CASTS = {
    "half": torch.float16,
    "bfloat16": torch.bfloat16,
    "float": torch.float32,
    "double": torch.float64,
}
_LIKE_ANOTHER = ("to", "type", "type_as")
_FACTS = ("shape", "ndim", "device", "size", "dim", "numel", "stride", "item")
"""What a tensor is asked for that is no tensor."""


def type_of_frames(module: nn.Module) -> torch.dtype:
    """What a network's input is made of: that of its parameters; float32 where they differ."""
    types = {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()}
    return types.pop() if len(types) == 1 else torch.float32


def type_of(op: Op, known: Mapping[str, torch.dtype]) -> torch.dtype | None:
    """The type of an operation's result, or that a value names.

    Args:
        op: the operation.
        known: the types of earlier values.

    Returns:
        None where it is not known, and for numbers and tensors of no dimension: they leave what
        they are combined with the type that it has.
    """
    if isinstance(op.call, Constant):
        return op.call.value.dtype if op.call.value.dim() > 0 else None
    if isinstance(op.call, LinearMap):
        return op.call.weight.dtype
    given = [value for value in (*op.args, *op.kwargs.values()) if isinstance(value, torch.dtype)]
    if given:
        return given[0]
    called = str(getattr(op.call, "name", getattr(op.call, "__name__", "")))
    asked = op.args[-1] if op.call is getattr else called
    if asked in _FACTS:
        return None
    if called in _CASTS:
        return _CASTS[called]
    types = [known[name] for name in op.inputs if name in known]
    if called in _LIKE_ANOTHER:
        return types[-1] if types else None
    return reduce(torch.promote_types, types) if types else None
