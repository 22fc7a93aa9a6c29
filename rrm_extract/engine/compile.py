"""A native network made plain data, which runs without PyTorch: see compiled.py."""

from __future__ import annotations

import torch
from torch import Tensor

from rrm_extract.engine.compiled import (
    Assembled,
    CompiledOutput,
    CompiledPart,
    CompiledPlan,
    Reordered,
)
from rrm_extract.engine.parts import Assembly, Island, Rearrangement
from rrm_extract.engine.plan import PlanTensor
from rrm_extract.engine.shared import Shared

__all__ = ["compiled_plan"]


def compiled_plan(shared: Shared) -> CompiledPlan | None:
    """The network as plain data; None if an operation or an output of it needs PyTorch."""
    lowered = shared.lowered
    numbers: dict[PlanTensor, int] = {}

    def number(tensor: PlanTensor) -> int:
        return numbers.setdefault(tensor, len(numbers))

    parts: list[CompiledPart | Reordered | Assembled] = []
    counts: dict[int, tuple[int, int]] = {}
    for part in shared.parts:
        if isinstance(part, Island):
            return None
        if isinstance(part, Rearrangement):
            source, out = number(part.source), number(part.out)
            parts.append(Reordered(source=source, order=part.order, out=out))
            continue
        if isinstance(part, Assembly):
            made_of = CompiledOutput(
                sources=tuple(number(tensor) for tensor in part.sources),
                index=part.index,
                shape=(part.out.channels, part.out.height, part.out.width),
            )
            parts.append(Assembled(whole=made_of, out=number(part.out)))
            continue
        counts.update({id(delta): (len(parts), place) for place, delta in enumerate(part.deltas)})
        parts.append(
            CompiledPart(
                calls=part.calls,
                inputs=tuple(number(tensor) for tensor in part.inputs),
                exports=tuple(number(tensor) for tensor in part.exports),
                deltas=len(part.deltas),
            )
        )
    outputs = []
    for value in lowered.outputs:
        if not isinstance(value, Tensor) or value.dtype != torch.int64:
            return None
        sources = lowered.places.sources(value)
        whole = lowered.places.in_order(value) is not None
        index = None if whole else lowered.places.index(value, sources).flatten().numpy()
        outputs.append(
            CompiledOutput(
                sources=tuple(number(tensor) for tensor in sources),
                index=index,
                shape=tuple(value.shape[1:]),
            )
        )
    return CompiledPlan(
        parts=tuple(parts),
        frames=number(lowered.frames),
        outputs=tuple(outputs),
        layers=shared.counted_layers(),
        counts=tuple(counts[id(delta)] for delta in lowered.layers.values()),
        isa=shared.isa,
        precision=shared.precision,
        batch=shared.batch,
        loses=shared.loses,
    )
