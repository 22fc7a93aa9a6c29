"""The linear maps of a network: convolution and fully-connected layers without their bias."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["UNTOLD", "Convolution", "FullyConnected", "LinearMap", "with_zeros"]

UNTOLD = MappingProxyType({"untold": None})
"""Of a field that is no part of a digest where it is None: files know networks by those."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearMap(ABC):
    """``y = W * x + b``, with the two terms apart.

    Attributes:
        weight: the parameters W.
        bias: (C_out,) or None.
    """

    weight: Tensor
    bias: Tensor | None

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """``W * x``, without the bias."""

    @abstractmethod
    def bias_like(self, y: Tensor) -> Tensor | None:
        """The bias shaped so that it adds to an output ``y``; None without a bias."""

    @abstractmethod
    def macs_per_output(self) -> int:
        """Multiply-accumulates for one element of the output."""

    @abstractmethod
    def channels(self) -> tuple[int, int, int]:
        """Channels, or features, of the input and of the output, and the number of groups."""

    @abstractmethod
    def scaled(self, scale: Tensor, shift: Tensor) -> LinearMap:
        """The map ``scale * (W x + b) + shift``, with (C_out,) float64 scale and shift.

        They are on the CPU, and the result is where this map's weight is, in its type.
        """

    def to(self, device: torch.device) -> LinearMap:
        """The same map with its parameters on ``device``."""
        bias = None if self.bias is None else self.bias.to(device)
        return replace(self, weight=self.weight.to(device), bias=bias)

    def __call__(self, x: Tensor) -> Tensor:
        """``W * x + b``."""
        y = self.apply(x)
        bias = self.bias_like(y)
        return y if bias is None else y + bias


@dataclass(frozen=True, kw_only=True, eq=False)
class Convolution(LinearMap):
    """A convolution of any dimension, stride, dilation and number of groups.

    Attributes:
        weight: (C_out, C_in / groups, *kernel).
        bias: (C_out,) or None.
        padding: of each spatial dimension, before it and, unless ``behind`` says otherwise, behind
            it; "valid" for none, or "same" for as much as makes ceil(size / stride) outputs, of
            which the odd one is behind (ONNX: SAME_UPPER).
        behind: padding behind each spatial dimension where that is not as before it, or None.
        padding_mode: "zeros", or a mode of ``torch.nn.functional.pad``.
        pad: the amounts for ``pad``, last dimension first, when the mode is not "zeros".
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int
    behind: tuple[int, ...] | None = field(default=None, metadata=UNTOLD)
    padding_mode: str = "zeros"
    pad: tuple[int, ...] = ()

    def zeros(self, sizes: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Padding before and behind each dimension of a map of ``sizes``, with mode "zeros"."""
        if self.padding == "same":
            kernel = self.weight.shape[2:]
            around = []
            for size, k, s, d in zip(sizes, kernel, self.stride, self.dilation, strict=True):
                amount = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
                around.append((amount // 2, amount - amount // 2))
            return tuple(around)
        if isinstance(self.padding, str):
            return ((0, 0),) * len(self.stride)
        behind = self.padding if self.behind is None else self.behind
        return tuple(zip(self.padding, behind, strict=True))

    def apply(self, x: Tensor) -> Tensor:
        """``W * x`` for x (N, C_in, *spatial)."""
        convolve: Any = (F.conv1d, F.conv2d, F.conv3d)[self.weight.dim() - 3]
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            x = F.pad(x, self.pad, mode=self.padding_mode)
            padding = 0
        elif self.behind is not None or padding == "same":
            around = self.zeros(x.shape[-len(self.stride) :])
            padding = tuple(before for before, _ in around)
            if any(before != behind for before, behind in around):
                x, padding = with_zeros(x, around), 0
        y: Tensor = convolve(x, self.weight, None, self.stride, padding, self.dilation, self.groups)
        return y

    def bias_like(self, y: Tensor) -> Tensor | None:
        """(C_out, 1, ...): adds to y (N, C_out, *spatial)."""
        if self.bias is None:
            return None
        return self.bias.reshape(-1, *[1] * (self.weight.dim() - 2))

    def macs_per_output(self) -> int:
        """C_in / groups times the kernel's size; padding counts, as in the dense network."""
        return self.weight[0].numel()

    def channels(self) -> tuple[int, int, int]:
        """C_in, C_out, groups."""
        return self.weight.shape[1] * self.groups, self.weight.shape[0], self.groups

    def scaled(self, scale: Tensor, shift: Tensor) -> Convolution:
        """See :meth:`LinearMap.scaled`."""
        weight, bias = _scaled(self, scale, shift)
        return replace(self, weight=weight, bias=bias)


@dataclass(frozen=True, kw_only=True, eq=False)
class FullyConnected(LinearMap):
    """A fully-connected layer: weight (C_out, C_in), over the last dimension."""

    def apply(self, x: Tensor) -> Tensor:
        """``W x`` for x (N, ..., C_in)."""
        return F.linear(x, self.weight)

    def bias_like(self, y: Tensor) -> Tensor | None:
        """(C_out,): adds to y (N, ..., C_out)."""
        return self.bias

    def macs_per_output(self) -> int:
        """C_in."""
        return self.weight.shape[1]

    def channels(self) -> tuple[int, int, int]:
        """C_in, C_out, 1."""
        return self.weight.shape[1], self.weight.shape[0], 1

    def scaled(self, scale: Tensor, shift: Tensor) -> FullyConnected:
        """See :meth:`LinearMap.scaled`."""
        weight, bias = _scaled(self, scale, shift)
        return replace(self, weight=weight, bias=bias)


def with_zeros(x: Tensor, around: Sequence[tuple[int, int]]) -> Tensor:
    """``x`` (..., *spatial) with zeros around, as :meth:`Convolution.zeros` gives them."""
    return F.pad(x, [amount for pair in reversed(around) for amount in pair])


def _scaled(linear: LinearMap, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    # In float64: folding must not add an error of its own to the network's. And on the CPU:
    # Apple's GPUs have no float64.
    weight = linear.weight.cpu().double() * scale.reshape(-1, *[1] * (linear.weight.dim() - 1))
    bias = shift if linear.bias is None else linear.bias.cpu().double() * scale + shift
    return weight.to(linear.weight), bias.to(linear.weight)
