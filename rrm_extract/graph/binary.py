"""Layers of XNOR-Net (arXiv 1603.05279): signs of activations, and of weights times a scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["BINARY_MODULES", "BinaryConv2d", "BinaryLinear", "ChannelScale", "Sign", "sign"]


def sign(x: Tensor) -> Tensor:
    """1 where x is at least 0, -1 below, NaN for NaN; ``torch.sign`` has a third value, 0."""
    return torch.where(x < 0, -1.0, torch.where(x >= 0, 1.0, x))


class Sign(nn.Module):
    """:func:`sign` of every element: activations of one bit (Sec. 3.2)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, float -> the same."""
        return sign(x)


class ChannelScale(nn.Module):
    """``scale * x + shift`` by channel: what follows a binary layer's sums.

    Args:
        scale: (C,).
        shift: (C,) or None.
        spatial: dimensions behind the channels.
    """

    def __init__(self, scale: Tensor, shift: Tensor | None, *, spatial: int) -> None:
        super().__init__()
        shape = (-1, *[1] * spatial)
        self.scale: Tensor
        self.shift: Tensor | None
        self.register_buffer("scale", scale.reshape(shape))
        self.register_buffer("shift", None if shift is None else shift.reshape(shape))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> the same."""
        y = x * self.scale
        return y if self.shift is None else y + self.shift


class BinaryConv2d(nn.Conv2d):
    """A convolution whose filters are their signs times the mean of their magnitudes (Eq. 6).

    ``y = scale * (sign(W) * x) + b``, in this order: where x holds signs, the sum in brackets is a
    whole number, exact in float32. Padding is with zeros, as in the published code: at the border
    x has three values.
    """

    def signs(self) -> Tensor:
        """sign(W), in the shape of the weight."""
        return sign(self.weight.detach())

    def channel_scale(self) -> ChannelScale:
        """What comes after the sum."""
        return ChannelScale(_magnitudes(self.weight), _detached(self.bias), spatial=2)

    def binarise(self) -> None:
        """Replaces W, in place, by what it stands for; doing it again changes nothing."""
        _binarise(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H', W')."""
        y: Tensor = self.channel_scale()(self._conv_forward(x, self.signs(), None))
        return y


class BinaryLinear(nn.Linear):
    """A fully-connected layer with such weights; see :class:`BinaryConv2d`."""

    def signs(self) -> Tensor:
        """sign(W), in the shape of the weight."""
        return sign(self.weight.detach())

    def channel_scale(self) -> ChannelScale:
        """What comes after the sum."""
        return ChannelScale(_magnitudes(self.weight), _detached(self.bias), spatial=0)

    def binarise(self) -> None:
        """Replaces W, in place, by what it stands for; doing it again changes nothing."""
        _binarise(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in) -> (N, C_out)."""
        y: Tensor = self.channel_scale()(nn.functional.linear(x, self.signs()))
        return y


BINARY_MODULES = (BinaryConv2d, BinaryLinear)
"""Layers that a Program has as two operations: their sums, and the scale."""


def _magnitudes(weight: Tensor) -> Tensor:
    # In float64 the mean of equal float32 numbers is that number; Apple's GPUs have none.
    return weight.detach().cpu().double().abs().flatten(1).mean(1).to(weight)


@torch.no_grad()
def _binarise(weight: Tensor) -> None:
    scale = _magnitudes(weight).reshape(-1, *[1] * (weight.dim() - 1))
    weight.copy_(sign(weight) * scale)


def _detached(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach()
