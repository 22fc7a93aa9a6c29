"""The network as a module that torch.fx traces."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .layers import BRANCHES, STAGES, Convolution, Pool, all_layers, branch, trunk

__all__ = ["RtPose"]

_COLOURS = 3

_DEVIATION = 0.25
"""Of an image's values, about, at the network's input."""


class Concat(nn.Module):
    """Caffe's Concat, along channels."""

    def forward(self, *parts: Tensor) -> Tensor:
        """(N, C_i, H, W) each -> (N, sum of C_i, H, W)."""
        return torch.cat(parts, 1)


class RtPose(nn.Module):
    """OpenPose's COCO body network (arXiv 1611.08050).

    Every layer is a submodule under its name in Caffe ("conv4_4_CPM", "Mconv7_stage6_L2",
    "concat_stage2"), so the parameters are "conv1_1.weight" and so on.

    The weights are drawn anew: normal, with the deviation at which every layer's output is about
    1, and no bias. (With the published deviation of 0.01, which training starts
    from beside VGG's weights, hardly anything of the input would be left at the end.)
    """

    def __init__(self) -> None:
        super().__init__()
        for layer in all_layers():
            if isinstance(layer, Pool):
                self.add_module(layer.name, nn.MaxPool2d(2))
                continue
            conv = _convolution(layer)
            if layer.inputs == _COLOURS:
                conv.weight.data /= _DEVIATION
            self.add_module(layer.name, conv)
            if layer.activated:
                self.add_module(_relu(layer), nn.ReLU(inplace=True))
        for stage in range(1, STAGES + 1):
            self.add_module(_join(stage), Concat())

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, h, w) float32 -> (N, 57, h / 8, w / 8): 19 heat maps, then 38 of the fields."""
        features = value = self._run(trunk(), x)
        for stage in range(1, STAGES + 1):
            fields, heat = (self._run(branch(stage, number), value) for number in BRANCHES)
            # The last one has Caffe's order of outputs, which is not that of the stages.
            parts = (fields, heat, features) if stage < STAGES else (heat, fields)
            value = self.get_submodule(_join(stage))(*parts)
        return value

    def _run(self, layers: Iterable[Convolution | Pool], x: Tensor) -> Tensor:
        for layer in layers:
            x = self.get_submodule(layer.name)(x)
            if isinstance(layer, Convolution) and layer.activated:
                x = self.get_submodule(_relu(layer))(x)
        return x


def _join(stage: int) -> str:
    """The name of what puts a stage's branches together."""
    return f"concat_stage{stage + 1}" if stage < STAGES else "net_output"


def _relu(layer: Convolution) -> str:
    """The name of the ReLU behind a convolution."""
    return layer.name.replace("conv", "relu")


def _convolution(layer: Convolution) -> nn.Conv2d:
    conv = nn.Conv2d(layer.inputs, layer.outputs, layer.size, padding=layer.size // 2)
    # The mean square of what passes through ReLUs then stays as it is (arXiv 1502.01852, section
    # 2.2), but for maps of so few cells that most of what a layer reads is beyond the border.
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # it has one
    return conv
