"""What all lanes of a native network have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rrm_extract.engine.build import NativePart
from rrm_extract.engine.parts import Between, Island, Lowered
from rrm_extract.engine.seen import CountedLayer
from rrm_extract.graph import Program

__all__ = ["Shared"]


@dataclass(frozen=True, eq=False)
class Shared:
    """What all lanes of a native network have in common.

    Attributes:
        program: the network, as it was given but for operations that would mix frames.
        lowered: the same as native steps and islands.
        parts: what runs, in order.
        macs: of each linear operation, for one frame.
        elements: of each linear operation's input and output, for one frame.
        isa: instruction set of the kernels.
        precision: "fp32" or "bf16".
        batch: most frames that pass a layer together.
        alone: the island for which that is one, None if none is.
        loses: whether what is truncated is lost, with the policy "paper".
    """

    program: Program
    lowered: Lowered
    parts: tuple[NativePart | Island | Between, ...]
    macs: Mapping[str, int]
    elements: Mapping[str, tuple[int, int]]
    isa: str
    precision: str
    batch: int
    alone: str | None
    loses: bool

    def counted_layers(self) -> tuple[CountedLayer, ...]:
        """The linear operations, in order, as the accounting needs them."""
        return tuple(
            CountedLayer(
                macs=self.macs[name],
                elements=0 if delta is None else delta.elements,
            )
            for name, delta in self.lowered.layers.items()
        )
