"""A network whose layers share inputs, as `package.module:factory` names it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.tiny import Tiny

MODEL = "tests.jobs.branching:network"


class Branching(nn.Module):
    """Three layers that read one value, one of them by channel, as in blocks of ShuffleNet."""

    preprocess = Tiny.preprocess

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU())
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.point = nn.Conv2d(16, 16, 1)
        self.other = nn.Conv2d(16, 16, 1)
        self.fc = nn.Linear(48, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x), 2)
        branches = [self.depthwise(x), self.point(x), self.other(x)]
        return self.fc(torch.cat(branches, 1).relu().mean((2, 3)))


def network() -> nn.Module:
    """The same network at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Branching()
