"""Networks that take one frame at a time, or have no classifier, by `package.module:factory`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.tiny import Tiny

TOKEN = "tests.jobs.single:with_token"
HEADLESS = "tests.jobs.single:headless"
SQUEEZED = "tests.jobs.single:squeezed"
SCORE = "tests.jobs.single:score"
LOUD = "tests.jobs.single:loud"


class WithToken(Tiny):
    """Something of one row is put beside each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.ones(1, 16))
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        row = torch.flatten(self.pool(self.features(x)), 1)
        return self.head(torch.cat([row, self.token], 1))


class Squeezed(Tiny):
    """Of one frame the dimension of frames is lost."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.features(x)).squeeze())


class Headless(Tiny):
    """No classifier: an identity in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Identity()


class Score(Tiny):
    """One number for each frame, without a dimension of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(super().forward(x)).squeeze(1)


class Loud(Tiny):
    """Features that half precision has no room for."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(self.features(x)), 1) * 1e7)


def headless() -> nn.Module:
    """The same network at every call."""
    return _seeded(Headless)


def with_token() -> nn.Module:
    """The same network at every call."""
    return _seeded(WithToken)


def squeezed() -> nn.Module:
    """The same network at every call."""
    return _seeded(Squeezed)


def score() -> nn.Module:
    """The same network at every call."""
    return _seeded(Score)


def loud() -> nn.Module:
    """The same network at every call."""
    return _seeded(Loud)


def _seeded(kind: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind()
