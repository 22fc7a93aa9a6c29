"""A network that no worker can load: one raises, or dies, as soon as this module is imported."""

from __future__ import annotations

import multiprocessing
import os
import signal

import torch
from torch import Tensor, nn

from tests.tiny import Tiny

MODEL = "tests.hostile.unloadable:network"
DEADLY = "TESTS_WORKER_DIES"

if multiprocessing.parent_process() is not None:
    if os.environ.get(DEADLY):
        os.kill(os.getpid(), signal.SIGSEGV)
    raise ImportError("the network needs what\nis not here")


@torch.fx.wrap
def here(x: Tensor) -> Tensor:
    return x


class Unloadable(Tiny):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(self.features(here(x))), 1))


def network() -> nn.Module:
    return Unloadable()
