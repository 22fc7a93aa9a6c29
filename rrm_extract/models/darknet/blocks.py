"""Darknet's layers as modules that torch.fx traces: ordinary ones, and moves of data."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

__all__ = [
    "ACTIVATIONS",
    "Reorg",
    "Route",
    "Shortcut",
    "Upsample",
    "activation",
    "convolution",
    "max_pool",
]

ACTIVATIONS = ("leaky", "linear", "relu", "logistic")

_LEAKY_SLOPE = 0.1

_NORM_EPSILON = 1e-6
"""As OpenCV has it. Darknet adds 1e-6 to the standard deviation instead of the variance, and on
GPUs 1e-5; the difference shows only where a variance is as small as that."""


def activation(name: str) -> nn.Module | None:
    """One of ``ACTIVATIONS``; None for "linear"."""
    if name == "leaky":
        return nn.LeakyReLU(_LEAKY_SLOPE)
    return {"relu": nn.ReLU, "logistic": nn.Sigmoid}[name]() if name != "linear" else None


def convolution(
    inputs: int,
    outputs: int,
    *,
    size: int,
    stride: int,
    padding: int,
    groups: int,
    normalise: bool,
    act: str,
) -> nn.Sequential:
    """``conv``, ``norm`` where asked for (the convolution then has no bias), ``activation``."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["conv"] = nn.Conv2d(
        inputs, outputs, size, stride, padding, groups=groups, bias=not normalise
    )
    if normalise:
        parts["norm"] = nn.BatchNorm2d(outputs, eps=_NORM_EPSILON)
    function = activation(act)
    if function is not None:
        parts["activation"] = function
    return nn.Sequential(parts)


def max_pool(height: int, width: int, *, size: int, stride: int, padding: int) -> nn.Module:
    """The maximum over windows, of which ``padding`` in all lies outside of each side's length.

    Half of it, rounded down, is in front; so a window of 2 with stride 1, in tiny YOLO, looks
    beyond the last row and column only. PyTorch pads both ends alike.
    """
    front = padding // 2
    wanted = tuple(
        pooled(side, size=size, stride=stride, padding=padding) for side in (height, width)
    )
    if 2 * front <= size:
        for ceil_mode in (False, True):
            sizes = tuple(_torch_pooled(n, size, stride, front, ceil_mode) for n in (height, width))
            if sizes == wanted:
                return nn.MaxPool2d(size, stride, front, ceil_mode=ceil_mode)
    if stride == 1 and 2 * (front + 1) <= size and padding == 2 * front + 1:
        return ShiftedMaxPool(size, front + 1, wanted)
    rest = [
        max(0, (n - 1) * stride + size - front - side)
        for n, side in zip(wanted, (height, width), strict=True)
    ]
    # The lowest number, as Darknet has it: with infinity the sums of a network become NaN.
    lowest = torch.finfo(torch.float32).min
    return nn.Sequential(
        nn.ConstantPad2d((front, rest[1], front, rest[0]), lowest), nn.MaxPool2d(size, stride)
    )


def pooled(side: int, *, size: int, stride: int, padding: int) -> int:
    """Windows along a side of that many pixels, as Darknet counts them."""
    return (side + padding - size) // stride + 1


def _torch_pooled(side: int, size: int, stride: int, padding: int, ceil_mode: bool) -> int:
    """Windows along a side, as PyTorch counts them."""
    last = side + 2 * padding - size
    count = (last + stride - 1 if ceil_mode else last) // stride + 1
    if ceil_mode and (count - 1) * stride >= side + padding:
        count -= 1  # a window must not begin in the padding behind
    return count


class ShiftedMaxPool(nn.Module):
    """Padding one pixel larger behind than in front: padded alike, and the first output dropped."""

    def __init__(self, size: int, padding: int, wanted: tuple[int, ...]) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(size, 1, padding)
        self.wanted = wanted

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, *wanted)."""
        rows, columns = self.wanted
        y: Tensor = self.pool(x)[:, :, 1 : rows + 1, 1 : columns + 1]
        return y


class Reorg(nn.Module):
    """Darknet's [reorg], by which YOLOv2 passes a fine map on to a coarse one.

    Not space-to-depth: Darknet's ``reorg_cpu``, called in the reverse direction for the forward
    pass, reads the map's memory as (C / s^2, H * s, W * s), moves each s x s square of that to s^2
    maps, and writes these as if they were (C * s^2, H / s, W / s). Trained weights expect it, and
    OpenCV does the same.
    """

    def __init__(self, channels: int, height: int, width: int, stride: int) -> None:
        super().__init__()
        self.shape = (channels, height, width)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C * s^2, H / s, W / s)."""
        (channels, height, width), s = self.shape, self.stride
        x = x.reshape(-1, channels // (s * s), height, s, width, s).permute(0, 3, 5, 1, 2, 4)
        return x.reshape(-1, channels * s * s, height // s, width // s)


class Route(nn.Module):
    """The channels of earlier layers, one after the other."""

    def forward(self, *x: Tensor) -> Tensor:
        """(N, C1, H, W), (N, C2, H, W), ... -> (N, C1 + C2 + ..., H, W)."""
        return torch.cat(x, 1)


class Shortcut(nn.Module):
    """``alpha * x + beta * y`` on the channels that both have; x's others stay as they are.

    Of a map y that is larger every ``stride``-th row and column is added, as Darknet has it.
    """

    def __init__(
        self, channels: int, others: int, *, stride: int, alpha: float, beta: float, act: str
    ) -> None:
        super().__init__()
        self.stride = stride
        self.channels, self.others = channels, others
        self.alpha, self.beta = alpha, beta
        self.activation = activation(act)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, channels, H, W), (N, others, H * stride, W * stride) -> (N, channels, H, W)."""
        if self.stride > 1:
            y = y[:, :, :: self.stride, :: self.stride]
        common = min(self.channels, self.others)
        part = x if common == self.channels else x[:, :common]
        if common < self.others:
            y = y[:, :common]
        total = _scaled(part, self.alpha) + _scaled(y, self.beta)
        if common < self.channels:
            total = torch.cat([total, x[:, common:]], 1)
        return total if self.activation is None else self.activation(total)


class Upsample(nn.Module):
    """Every pixel as a square of s x s, times ``scale``."""

    def __init__(self, stride: int, scale: float) -> None:
        super().__init__()
        self.stride = stride
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H * s, W * s)."""
        # Copies rather than nn.Upsample: the native engine knows where each of them comes from.
        x = torch.stack([x] * self.stride, dim=4).flatten(3)
        x = torch.stack([x] * self.stride, dim=3).flatten(2, 3)
        return _scaled(x, self.scale)


def _scaled(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else x * factor
