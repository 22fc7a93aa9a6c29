"""A network as the native engine runs it: tensors, inputs of linear layers, and steps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rrm_extract.graph import Convolution

__all__ = [
    "BLOCK",
    "NO_ACTIVATION",
    "Activation",
    "ConvStep",
    "DeltaInput",
    "GatherStep",
    "GlobalAverageStep",
    "PlanTensor",
    "PointwiseStep",
    "PoolStep",
    "Step",
    "Window",
    "readers_of",
]

BLOCK = 16
"""Channels that lie side by side."""


@dataclass(eq=False)
class PlanTensor:
    """A value between steps.

    Attributes:
        channels, height, width: its shape for one frame.
        name: of the operation that makes it.
        planes: for a concatenation without a copy: the tensor and the block of each of its blocks.
    """

    channels: int
    height: int
    width: int
    name: str
    planes: tuple[tuple[PlanTensor, int], ...] = ()

    @property
    def blocks(self) -> int:
        """Blocks of 16 channels, the last one perhaps partly padding."""
        return -(-self.channels // BLOCK)

    @property
    def elements(self) -> int:
        """Numbers in one frame."""
        return self.channels * self.height * self.width


@dataclass(frozen=True)
class Activation:
    """A function of one number; ``low`` and ``high`` are its limits, ``low`` a slope."""

    kind: str = "none"
    low: float = 0.0
    high: float = 0.0


NO_ACTIVATION = Activation()


@dataclass(frozen=True)
class Window:
    """The geometry of a convolution or pooling: rows, columns of each.

    Attributes:
        padding: above and to the left.
        behind: padding below and to the right; None: as ``padding``.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    behind: tuple[int, int] | None = None

    @property
    def around(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Padding above and below, left and right."""
        below, right = self.padding if self.behind is None else self.behind
        return (self.padding[0], below), (self.padding[1], right)

    @property
    def most_padding(self) -> int:
        """Of all sides."""
        return max(map(max, self.around))

    def numbers(self) -> list[int]:
        """In the order in which the native module takes them."""
        (_, below), (_, right) = self.around
        return [*self.kernel, *self.stride, *self.padding, *self.dilation, below, right]

    def output(self, height: int, width: int) -> tuple[int, int]:
        """Size of a convolution's output."""
        rows, columns = (
            (size + sum(p) - d * (k - 1) - 1) // s + 1
            for size, k, s, p, d in zip(
                (height, width), self.kernel, self.stride, self.around, self.dilation, strict=True
            )
        )
        return rows, columns


@dataclass(eq=False)
class DeltaInput:
    """The input of linear layers with the same source and threshold: one snapshot, one list.

    Attributes:
        source: None for the network's input itself.
        form: "list", "columns", "select" (dense, for depthwise layers) or "bits" (of signs).
        halo: zeros around the dense form, in pixels.
        group_blocks: blocks of channels in a list's group.
        break_even: density from which on the layers run dense.
    """

    source: PlanTensor | None
    shape: tuple[int, int, int]
    form: str
    threshold: float
    group_blocks: int
    break_even: float = math.inf
    halo: int = 0

    @property
    def elements(self) -> int:
        """Numbers in one frame."""
        channels, height, width = self.shape
        return channels * height * width


@dataclass(eq=False)
class Step:
    """One native operation: what it is called, and the tensor it makes."""

    name: str
    out: PlanTensor

    def sources(self) -> list[PlanTensor]:
        """The tensors that it reads as values, not as deltas."""
        return []


@dataclass(eq=False)
class ConvStep(Step):
    """A convolution or fully-connected layer, and what is fused to its end.

    Attributes:
        delta: its input.
        form: "window", "taps", "columns", "depthwise", "xnor" or "codes": which kernel.
        linear: the layer; a fully-connected one as a convolution over its whole input.
        tile: rows and columns of the tiles in which it runs dense; 0 for direct sums.
        residual: tensor that is added before the activation.
        pool: window of the maximum that follows, only for "columns"; ``out`` is what that makes.
        scale, shift: of each output before all that, [blocks * 16], only for "xnor"; None for 1
            and 0.
        codebook: (2^bits,) the weights that are not 0, only for "codes".
    """

    delta: DeltaInput
    form: str
    linear: Convolution
    window: Window
    tile: int = 0
    residual: PlanTensor | None = None
    activation: Activation = NO_ACTIVATION
    pool: Window | None = None
    scale: NDArray[np.float32] | None = None
    shift: NDArray[np.float32] | None = None
    codebook: NDArray[np.float32] | None = None

    def sources(self) -> list[PlanTensor]:
        """See :meth:`Step.sources`."""
        return [] if self.residual is None else [self.residual]


@dataclass(eq=False)
class PoolStep(Step):
    """Maximum or average pooling."""

    source: PlanTensor
    window: Window
    maximum: bool
    count_padding: bool = True

    def sources(self) -> list[PlanTensor]:
        """See :meth:`Step.sources`."""
        return [self.source]


@dataclass(eq=False)
class GlobalAverageStep(Step):
    """The mean over all pixels."""

    source: PlanTensor

    def sources(self) -> list[PlanTensor]:
        """See :meth:`Step.sources`."""
        return [self.source]


@dataclass(eq=False)
class PointwiseStep(Step):
    """Sum or product of tensors, then scale and shift by channel, then an activation."""

    inputs: list[PlanTensor]
    multiply: bool = False
    scale: NDArray[np.float32] | None = None
    shift: NDArray[np.float32] | None = None
    activation: Activation = NO_ACTIVATION

    def sources(self) -> list[PlanTensor]:
        """See :meth:`Step.sources`."""
        return self.inputs


@dataclass(eq=False)
class GatherStep(Step):
    """Channels of several tensors in any order."""

    channels: list[tuple[PlanTensor, int]] = field(default_factory=list)

    def sources(self) -> list[PlanTensor]:
        """See :meth:`Step.sources`."""
        return list(dict.fromkeys(tensor for tensor, _ in self.channels))


def readers_of(steps: Iterable[Step]) -> Counter[PlanTensor]:
    """How many read each tensor, as values or, one reader, as the input of linear layers."""
    readers: Counter[PlanTensor] = Counter()
    deltas = {}
    for step in steps:
        for tensor in step.sources():
            _count(tensor, readers)
        if isinstance(step, ConvStep):
            deltas[id(step.delta)] = step.delta
    for delta in deltas.values():
        if delta.source is not None:
            _count(delta.source, readers)
    return readers


def _count(tensor: PlanTensor, readers: Counter[PlanTensor]) -> None:
    readers[tensor] += 1
    for source, _ in tensor.planes:
        _count(source, readers)
