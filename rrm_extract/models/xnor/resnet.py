"""ResNet-18 as an XNOR-Net.

No code of the authors' is published. As in the paper, the order inside a block is batch
normalisation, sign, binary convolution, so the residual is added to what has not been normalised;
conv1 and the last layer have full precision, and so have the 1x1 convolutions of the shortcuts, as
in the binary ResNet-18 of Open Model Zoo. Names are torchvision's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...graph import BinaryConv2d, Sign
from .blocks import norm2d

__all__ = ["XnorResNet18", "xnor_resnet18"]

_EPSILON = 1e-4

_LARGEST = 0.35
"""The mean that the stem of an untrained network hands to the first blocks."""


class XnorBlock(nn.Module):
    """Two binary 3x3 convolutions, each behind its normalisation and sign, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, mean: float) -> None:
        super().__init__()
        self.bn1 = norm2d(inputs, mean=mean, eps=_EPSILON)
        self.sign1 = Sign()
        self.conv1 = BinaryConv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = norm2d(outputs, eps=_EPSILON)
        self.sign2 = Sign()
        self.conv2 = BinaryConv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm2d(outputs, eps=_EPSILON)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        y = self.conv1(self.sign1(self.bn1(x)))
        y = self.conv2(self.sign2(self.bn2(y)))
        shortcut = x if self.downsample is None else self.downsample(x)
        total: Tensor = y + shortcut
        return total


class XnorResNet18(nn.Module):
    """torchvision's ResNet-18 with such blocks, and a normalisation ``bn`` behind the last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = norm2d(64, eps=_EPSILON)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(64, 64, stride=1, means=(_LARGEST, _LARGEST))
        self.layer2 = _stage(64, 128, stride=2, means=(_LARGEST, 0.0))
        self.layer3 = _stage(128, 256, stride=2, means=(0.0, 0.0))
        self.layer4 = _stage(256, 512, stride=2, means=(0.0, 0.0))
        self.bn = norm2d(512, eps=_EPSILON)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 224, 224) -> (N, 1000) scores."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = self.avgpool(self.relu(self.bn(x)))
        y: Tensor = self.fc(torch.flatten(x, 1))
        return y


def xnor_resnet18() -> nn.Module:
    """The network, with random weights."""
    return XnorResNet18()


def _stage(inputs: int, outputs: int, *, stride: int, means: tuple[float, float]) -> nn.Module:
    first, second = means
    return nn.Sequential(
        XnorBlock(inputs, outputs, stride=stride, mean=first),
        XnorBlock(outputs, outputs, stride=1, mean=second),
    )
