"""What a linear layer can take in: padding before it, batch normalisation behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from rrm_extract.graph.dimensions import dimensions
from rrm_extract.graph.padding import fold_padding
from rrm_extract.graph.program import LINEAR_KINDS, Op, Program, Ref
from rrm_extract.graph.select import prune

__all__ = ["fold", "fold_batch_norm"]

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold(program: Program) -> Program:
    """The Program with what its linear layers can take in folded into them.

    See :func:`fold_batch_norm` and :func:`rrm_extract.graph.padding.fold_padding`. The values that
    are left have the names they had; what nothing needs any more is not left.
    """
    return prune(fold_batch_norm(fold_padding(program)))


def fold_batch_norm(program: Program) -> Program:
    """Folds each batch-norm into the convolution whose only reader it is.

    ``gamma * (W x + b - mean) / sqrt(var + eps) + beta`` is again linear in x. The folded
    operation keeps the convolution's ``source`` and takes the batch-norm's name, since it makes
    that value. A batch-norm that follows anything else, or a convolution that others read too,
    stays as it is; so does one behind a fully-connected layer whose output may be (N, L, C), of
    which it normalises L.
    """
    readers = Counter(name for op in program.ops for name in set(op.inputs))
    readers.update(program.outputs)
    by_name = {op.name: op for op in program.ops}
    known = dimensions(program)
    folded: dict[str, Op] = {}  # batch-norm's name -> the operation that replaces it
    absorbed: set[str] = set()
    for op in program.ops:
        before = by_name.get(op.inputs[0]) if op.inputs else None
        if (
            op.kind == "norm"  # a subclass that does more than normalise is "other"
            and isinstance(op.call, _BATCH_NORMS)
            and op.args == (Ref(op.inputs[0]),)
            and before is not None
            and before.kind in LINEAR_KINDS
            and readers[before.name] == 1
            and op.call.running_mean is not None
            and (before.kind == "conv" or _over_features(before, op.call, known))
        ):
            folded[op.name] = _fold(before, op, op.call)
            absorbed.add(before.name)
    ops = tuple(folded.get(op.name, op) for op in program.ops if op.name not in absorbed)
    return replace(program, ops=ops)


def _over_features(linear: Op, batch_norm: Any, known: Mapping[str, int]) -> bool:
    """Whether a batch-norm behind a fully-connected layer normalises what that makes."""
    return isinstance(batch_norm, nn.BatchNorm1d) and known.get(linear.inputs[0]) == 2


def _fold(linear: Op, norm: Op, batch_norm: Any) -> Op:
    mean, variance = _exact(batch_norm.running_mean), _exact(batch_norm.running_var)
    scale = torch.rsqrt(variance + batch_norm.eps)
    if batch_norm.weight is not None:
        scale = scale * _exact(batch_norm.weight)
    shift = -mean * scale
    if batch_norm.bias is not None:
        shift = shift + _exact(batch_norm.bias)
    return replace(
        linear,
        name=norm.name,
        call=linear.linear_map.scaled(scale, shift),
        parameters=linear.parameters + norm.parameters,
    )


def _exact(values: Tensor) -> Tensor:
    """In float64, on the CPU: Apple's GPUs have none."""
    return values.detach().cpu().double()
