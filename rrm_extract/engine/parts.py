"""A network cut into native parts and what lies between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrm_extract.engine.places import Places
from rrm_extract.engine.plan import DeltaInput, PlanTensor, Step
from rrm_extract.graph import Op
from rrm_extract.graph.program import mapped

__all__ = [
    "Assembly",
    "Between",
    "Island",
    "Known",
    "Lowered",
    "Opaque",
    "Part",
    "Rearrangement",
    "leaves",
    "mapped",
    "unwrapped",
]


@dataclass(eq=False)
class Opaque:
    """A value that only PyTorch can work with."""

    name: str


@dataclass(eq=False)
class Known:
    """A value that is the same for all frames: a parameter, a buffer, or made of such."""

    value: Any


@dataclass(eq=False)
class Island:
    """One operation that runs as plain PyTorch, for all frames of a batch together.

    Where one of a network's islands would mix frames, its batches are of one frame.

    Attributes:
        op: the operation.
        args, kwargs: its arguments; tensors are given as places (int64), :class:`Opaque` or
            :class:`Known`.
        out: the tensor of its result, if native steps can read it.
        reason: why it is no native step.
    """

    op: Op
    args: Any
    kwargs: Any
    reason: str
    out: PlanTensor | None = None


@dataclass(eq=False)
class Rearrangement:
    """A tensor with its dimensions in another order, such as frames with the channels last.

    Attributes:
        order: of the dimensions (T, C, H, W), as for ``torch.permute``.
    """

    source: PlanTensor
    order: tuple[int, ...]
    out: PlanTensor


@dataclass(eq=False)
class Assembly:
    """A tensor whose elements lie anywhere in earlier ones: moved inside of channels, or cropped.

    Attributes:
        sources: the tensors.
        index: for each element its place in the flattened sources one after the other.
    """

    sources: list[PlanTensor]
    index: NDArray[np.int64]
    out: PlanTensor


Between = Rearrangement | Assembly
"""What moves numbers between native parts."""


@dataclass(eq=False)
class Part:
    """Native steps between two islands.

    Attributes:
        inputs: tensors that come from outside.
        exports: tensors that are read outside.
    """

    steps: list[Step] = field(default_factory=list)
    inputs: list[PlanTensor] = field(default_factory=list)
    exports: list[PlanTensor] = field(default_factory=list)


@dataclass(eq=False)
class Lowered:
    """A Program in the order in which the engine runs it.

    Attributes:
        sequence: native parts, islands, and what moves numbers between them.
        frames: the network's input.
        outputs: the Program's outputs, as places, :class:`Opaque` or :class:`Known`.
        layers: for each linear operation its input, None where it is an island.
        shapes: of each operation's result for one frame.
    """

    sequence: list[Part | Island | Between]
    frames: PlanTensor
    outputs: list[Any]
    layers: dict[str, DeltaInput | None]
    places: Places
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def islands(self) -> list[Island]:
        """The operations without a native step, in order."""
        return [item for item in self.sequence if isinstance(item, Island)]


def leaves(tree: Any) -> list[Any]:
    """What :func:`mapped` would hand to ``change``, in order."""
    found: list[Any] = []
    mapped(tree, found.append)
    return found


def unwrapped(tree: Any) -> Any:
    """The same nesting with every :class:`Known` replaced by its value."""
    return mapped(tree, lambda leaf: leaf.value if isinstance(leaf, Known) else leaf)
