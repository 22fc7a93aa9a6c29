"""Which tensors pass between a network's native parts and what lies between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rrm_extract.engine.fuse import fuse
from rrm_extract.engine.parts import Assembly, Island, Lowered, Part, Rearrangement, leaves
from rrm_extract.engine.plan import ConvStep, PlanTensor

__all__ = ["connect"]


def connect(lowered: Lowered) -> None:
    """Which tensors pass from part to part, then fuses what stays inside."""
    needed: list[set[PlanTensor]] = [set() for _ in lowered.sequence]
    kept: set[PlanTensor] = set()

    def read(value: Any) -> set[PlanTensor]:
        if isinstance(value, Tensor) and value.dtype == torch.int64:
            return set(lowered.places.sources(value))
        return set()

    made: dict[PlanTensor, int] = {}
    for number, item in enumerate(lowered.sequence):
        if isinstance(item, Island):
            for leaf in leaves((item.args, item.kwargs)):
                needed[number] |= _bases(read(leaf))
            if item.out is not None:
                made[item.out] = number
            continue
        if isinstance(item, Rearrangement):
            needed[number] |= _bases({item.source})
            made[item.out] = number
            continue
        if isinstance(item, Assembly):
            needed[number] |= _bases(set(item.sources))
            made[item.out] = number
            continue
        for step in item.steps:
            made[step.out] = number
            sources = set(step.sources())
            if isinstance(step, ConvStep) and step.delta.source is not None:
                sources.add(step.delta.source)
            needed[number] |= _bases(sources)
    for output in lowered.outputs:
        kept |= _bases(read(output))
    for number, item in enumerate(lowered.sequence):
        outside = {tensor for tensor in needed[number] if made.get(tensor) != number}
        kept |= outside
        if isinstance(item, Part):
            item.inputs = sorted(outside, key=lambda t: (made.get(t, -1), t.name))
    fuse(lowered, kept)
    for number, item in enumerate(lowered.sequence):
        if isinstance(item, Part):
            item.exports = [
                step.out for step in item.steps if step.out in kept and made[step.out] == number
            ]


def _bases(tensors: set[PlanTensor]) -> set[PlanTensor]:
    """The tensors themselves, or those that a view consists of."""
    bases: set[PlanTensor] = set()
    for tensor in tensors:
        if tensor.planes:
            bases |= _bases({source for source, _ in tensor.planes})
        else:
            bases.add(tensor)
    return bases
