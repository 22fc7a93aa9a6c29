"""A network whose frames cannot be taken together, as `package.module:factory` names it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.tiny import Tiny

MIXING = "tests.report.mixing:network"


class Mixing(nn.Module):
    """Divides by the largest number of all it is given; two convolutions on maps of two sizes."""

    preprocess = Tiny.preprocess

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, stride=2)
        self.second = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x / x.abs().max()))


def network() -> nn.Module:
    """The same network at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Mixing().eval()
