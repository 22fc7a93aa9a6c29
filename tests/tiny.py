"""A network small enough for jobs of a second, as `package.module:factory` names it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MODEL = "tests.tiny:network"


class Tiny(nn.Module):
    """Three convolutions, pooling and a classifier of five classes; 32 x 32 pixels."""

    preprocess = {  # noqa: RUF012 - as users write it
        "resize": 32,
        "crop": 32,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(self.features(x)), 1))


def network() -> nn.Module:
    """The same network at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Tiny()
