"""Joins steps: a sum, an activation or a maximum becomes the end of the step before it."""

from __future__ import annotations

from collections import Counter

import numpy as np

from rrm_extract.engine.parts import Lowered, Part
from rrm_extract.engine.plan import (
    NO_ACTIVATION,
    ConvStep,
    PlanTensor,
    PointwiseStep,
    PoolStep,
    Step,
    readers_of,
)

__all__ = ["fuse"]

NEVER_FALLING = ("none", "relu", "clamp")

MOST_POOLED_ROWS = 4
"""As many rows at a time does a first layer compute at least."""


def fuse(lowered: Lowered, kept: set[PlanTensor]) -> None:
    """Fuses inside every native part, in place.

    Args:
        lowered: the network.
        kept: tensors that are read outside of their part, and so have to stay.
    """
    for item in lowered.sequence:
        if isinstance(item, Part):
            item.steps = _fused(item.steps, kept)


def _fused(steps: list[Step], kept: set[PlanTensor]) -> list[Step]:
    readers = readers_of(steps)
    maker: dict[PlanTensor, Step] = {}
    order: dict[PlanTensor, int] = {}
    result: list[Step] = []
    for step in steps:
        target = _target(step, maker, order, readers, kept)
        if target is None:
            maker[step.out] = step
            order[step.out] = len(result)
            result.append(step)
            continue
        position = order[target.out]
        target.out = step.out
        maker[step.out] = target
        order[step.out] = position
    return result


def _target(
    step: Step,
    maker: dict[PlanTensor, Step],
    order: dict[PlanTensor, int],
    readers: Counter[PlanTensor],
    kept: set[PlanTensor],
) -> Step | None:
    """The earlier step that does this one's work as well, if there is one; it is changed."""
    if isinstance(step, PoolStep):
        return _pooled(step, maker, readers, kept)
    if not isinstance(step, PointwiseStep):
        return None
    # The tensor disappears: nobody else may read it.
    own = [t for t in step.inputs if readers[t] == 1 and t not in kept and t in maker]
    if len(step.inputs) == 1:
        if not own:
            return None
        before = maker[own[0]]
        if isinstance(before, ConvStep):
            if before.activation != NO_ACTIVATION:
                return None
            if step.scale is not None:
                if before.form != "xnor" or before.residual is not None:
                    return None
                _rescale(before, step)
            before.activation = step.activation
            return before
        if isinstance(before, PointwiseStep) and before.activation == NO_ACTIVATION:
            if step.scale is not None and before.scale is not None:
                return None
            if step.scale is not None:
                before.scale, before.shift = step.scale, step.shift
            before.activation = step.activation
            return before
        return None
    if step.multiply or step.scale is not None or len(step.inputs) != 2:
        return None
    for tensor in sorted(own, key=lambda t: -order[t]):
        before = maker[tensor]
        (other,) = [t for t in step.inputs if t is not tensor] or [tensor]
        fits = (other.channels, other.height, other.width) == (
            tensor.channels,
            tensor.height,
            tensor.width,
        )
        # What is added has to exist already, in blocks that lie side by side.
        there = other in maker and order[other] < order[tensor] and not other.planes
        if (
            isinstance(before, ConvStep)
            and before.form != "depthwise"
            and before.residual is None
            and before.pool is None
            and before.activation == NO_ACTIVATION
            and fits
            and there
            and other is not tensor
        ):
            before.residual = other
            before.activation = step.activation
            return before
    return None


def _rescale(layer: ConvStep, step: PointwiseStep) -> None:
    """Has a binary layer scale its sums as the step would scale what comes of them."""
    if layer.scale is None or layer.shift is None or step.scale is None or step.shift is None:
        layer.scale, layer.shift = step.scale, step.shift
        return
    scale = step.scale.astype(np.float64)
    layer.shift = (layer.shift * scale + step.shift).astype(np.float32)
    layer.scale = (layer.scale * scale).astype(np.float32)


def _pooled(
    step: PoolStep,
    maker: dict[PlanTensor, Step],
    readers: Counter[PlanTensor],
    kept: set[PlanTensor],
) -> Step | None:
    """The first layer in front of a maximum, whose large map then never leaves the cache."""
    before = maker.get(step.source)
    if (
        not isinstance(before, ConvStep)
        or before.form != "columns"
        or before.residual is not None
        or before.pool is not None
        or readers[step.source] != 1
        or step.source in kept
        # The maximum is taken first, then the activation: the same where this never falls.
        or before.activation.kind not in NEVER_FALLING
        or not step.maximum
        or step.window.dilation != (1, 1)
        or step.window.kernel[0] > MOST_POOLED_ROWS
    ):
        return None
    before.pool = step.window
    return before
