"""AlexNet as an XNOR-Net.

Blocks are batch normalisation, sign, binary convolution, ReLU, and behind some a maximum. Layers
and names are those of the PyTorch port (github.com/jiecaoyu/XNOR-Net-PyTorch), for files of weights
are in its form; the authors' own code, in Lua, has no ReLU in its blocks and pads conv1 instead of
taking 227 pixels.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from ...graph import BinaryConv2d, BinaryLinear, Sign
from .blocks import norm1d, norm2d

__all__ = ["XnorAlexNet", "xnor_alexnet"]

_EPSILON = 1e-4
_LAST_EPSILON = 1e-3

# Of untrained layers: a sum of n signs times weights that are evenly spread up to 1 / sqrt(n) has
# a deviation of 0.5 and is rectified; the mean of that, and of the largest of nine.
_RECTIFIED = 0.2
_LARGEST = 0.7
_CONV1_VARIANCE = 1600.0
"""Of conv1's untrained output, for pixels with a deviation of 70 of 255."""


class XnorAlexNet(nn.Module):
    """``features`` and ``classifier``; conv1 and the last layer have full precision."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 11, stride=4),
            norm2d(96, variance=_CONV1_VARIANCE, eps=_EPSILON),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            _convolution(96, 256, 5, mean=_LARGEST),
            nn.MaxPool2d(3, stride=2),
            _convolution(256, 384, 3, mean=_LARGEST),
            _convolution(384, 384, 3, mean=_RECTIFIED),
            _convolution(384, 256, 3, mean=_RECTIFIED),
            nn.MaxPool2d(3, stride=2),
        )
        self.classifier = nn.Sequential(
            _connected(256 * 6 * 6, 4096, mean=_LARGEST),
            _connected(4096, 4096, mean=_RECTIFIED),
            norm1d(4096, mean=_RECTIFIED, eps=_LAST_EPSILON),
            nn.Dropout(0.5),
            nn.Linear(4096, 1000),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 227, 227) -> (N, 1000) scores."""
        y: Tensor = self.classifier(torch.flatten(self.features(x), 1))
        return y


def xnor_alexnet() -> nn.Module:
    """The network, with random weights."""
    return XnorAlexNet()


def _convolution(inputs: int, outputs: int, size: int, *, mean: float) -> nn.Module:
    parts: list[tuple[str, nn.Module]] = [
        ("bn", norm2d(inputs, mean=mean, eps=_EPSILON)),
        ("sign", Sign()),
        ("conv", BinaryConv2d(inputs, outputs, size, padding=size // 2)),
        ("relu", nn.ReLU(inplace=True)),
    ]
    return nn.Sequential(OrderedDict(parts))


def _connected(inputs: int, outputs: int, *, mean: float) -> nn.Module:
    parts: list[tuple[str, nn.Module]] = [
        ("bn", norm1d(inputs, mean=mean, eps=_EPSILON)),
        ("sign", Sign()),
        ("linear", BinaryLinear(inputs, outputs)),
        ("relu", nn.ReLU(inplace=True)),
    ]
    return nn.Sequential(OrderedDict(parts))
