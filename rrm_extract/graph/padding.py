"""Zeros that a network puts around a map for a convolution become the convolution's own padding.

So TensorFlow's networks are written in PyTorch, whose padding is the same on both sides, and so
they come from ONNX files. A layer's deltas are then those of the map without its zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from torch import nn

from rrm_extract.graph.constants import constant_value
from rrm_extract.graph.linear import Convolution
from rrm_extract.graph.program import Op, Program, Ref, references, substitute

__all__ = ["fold_padding"]

_Sides = tuple[tuple[int, int], ...]
"""Zeros before and behind each dimension, the last one first."""


@dataclass(frozen=True)
class _Same:
    """As many zeros as make ceil(size / stride) outputs, whatever the size: timm's ``pad_same``."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]


def fold_padding(program: Program) -> Program:
    """Has convolutions pad by themselves what is padded with zeros for them.

    What was padded is still made, for whoever else reads it.
    """
    by_name = {op.name: op for op in program.ops}
    return replace(program, ops=tuple(_folded(op, by_name) for op in program.ops))


def _folded(op: Op, by_name: Mapping[str, Op]) -> Op:
    """The convolution over what was padded for it, or itself."""
    convolution = op.call
    before = by_name.get(op.inputs[0]) if op.inputs else None
    if (
        before is None
        or not isinstance(convolution, Convolution)
        or op.args != (Ref(before.name),)
        or convolution.padding_mode != "zeros"
        or not (convolution.padding == "valid" or isinstance(convolution.padding, tuple))
    ):
        return op
    zeros = _zeros(before, by_name)
    if zeros is None:
        return op
    source, amounts = zeros
    around = _with(convolution, amounts)
    return op if around is None else replace(op, call=around, args=(source,))


def _with(convolution: Convolution, zeros: _Sides | _Same) -> Convolution | None:
    """The convolution with more padding, or None where it cannot be."""
    dims = len(convolution.stride)
    own = convolution.zeros(())  # whatever the sizes: it is not "same"
    if isinstance(zeros, _Same):
        kernel = tuple(convolution.weight.shape[2:])
        alike = zeros == _Same(kernel, convolution.stride, convolution.dilation)
        fits = alike and own == ((0, 0),) * dims
        return replace(convolution, padding="same", behind=None) if fits else None
    if len(zeros) > dims and any(any(pair) for pair in zeros[dims:]):  # of the channels
        return None
    added = (*reversed(zeros[:dims]),)
    added = ((0, 0),) * (dims - len(added)) + added
    before = tuple(a[0] + b[0] for a, b in zip(own, added, strict=True))
    behind = tuple(a[1] + b[1] for a, b in zip(own, added, strict=True))
    return replace(convolution, padding=before, behind=None if behind == before else behind)


def _zeros(op: Op, by_name: Mapping[str, Op]) -> tuple[Ref, _Sides | _Same] | None:
    """What an operation puts zeros around, and how many; None if it does something else."""
    call = op.call
    if isinstance(call, nn.Module):
        zero = isinstance(call, (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d)) or (
            isinstance(call, (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d))
            and call.value == 0
        )
        plain = type(call).forward is nn.ConstantPad2d.forward
        plain = plain and not (call._forward_hooks or call._forward_pre_hooks)
        given: dict[str, Any] = {"pad": getattr(call, "padding", None)}
        if not zero or not plain or len(op.args) != 1 or op.kwargs:
            return None
    elif call is F.pad:
        given = dict(zip(("pad", "mode", "value"), op.args[1:], strict=False)) | dict(op.kwargs)
        if not set(given) <= {"pad", "mode", "value"}:
            return None
    elif _is_pad_same(call):
        names = ("kernel_size", "stride", "dilation", "value")
        given = dict(zip(names, op.args[1:], strict=False)) | dict(op.kwargs)
        if not {"kernel_size", "stride"} <= set(given) <= set(names):
            return None
    else:
        return None
    source = op.args[0] if op.args else None
    told = _told(given, by_name)
    if not isinstance(source, Ref) or told is None or told.get("mode", "constant") != "constant":
        return None
    if told.get("value") not in (None, 0):
        return None
    if "pad" not in told:
        pairs = [_pair(told.get(name, 1)) for name in ("kernel_size", "stride", "dilation")]
        return source, _Same(*pairs)
    amounts = told["pad"]
    # Less than nothing cuts a piece off.
    if not isinstance(amounts, (tuple, list)) or not all(
        isinstance(amount, int) and amount >= 0 for amount in amounts
    ):
        return None
    return source, tuple(zip(amounts[::2], amounts[1::2], strict=True))


def _told(given: Mapping[str, Any], by_name: Mapping[str, Op]) -> dict[str, Any] | None:
    """Arguments with the values of what the network makes from its parameters' shapes."""
    values: dict[str, Any] = {}
    for name in references(given):
        found = constant_value(name, by_name)
        if found is None:
            return None
        values[name] = found[0]
    told: dict[str, Any] = substitute(dict(given), values)
    return told


def _is_pad_same(call: Any) -> bool:
    """Whether it is timm's, told by its name so that timm need not be installed."""
    module = str(getattr(call, "__module__", ""))
    return module.startswith("timm.") and getattr(call, "__name__", "") == "pad_same"


def _pair(value: Any) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)
