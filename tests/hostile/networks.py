"""Networks of one Python function that no engine knows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.tiny import Tiny

MODEL = "tests.hostile.networks:network"
NAN_MODEL = "tests.hostile.networks:not_a_number"


@torch.fx.wrap
def passing(x: Tensor) -> Tensor:
    return x


@torch.fx.wrap
def undefined(x: Tensor) -> Tensor:
    """0 / 0 for every feature that is below its mean."""
    return torch.where(x < x.mean(), torch.nan, x)


class WithAnIsland(Tiny):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(self.features(passing(x))), 1))


class NotANumber(Tiny):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(undefined(torch.flatten(self.pool(self.features(x)), 1)))


def _seeded(kind: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind()


def network() -> nn.Module:
    """Computes what tests.tiny does."""
    return _seeded(WithAnIsland)


def not_a_number() -> nn.Module:
    return _seeded(NotANumber)
