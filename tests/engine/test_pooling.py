"""Pooling to the size that a map already has: nothing is done, whatever the map consists of."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")

from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.engine.running import native, program_of
from tests.rrm.videos import moving_frames

SIDE = 8
READERS: dict[str, Callable[[Tensor], Tensor]] = {
    "output": lambda x: x,
    "island": F.gelu,
    "permuted": lambda x: x.permute(0, 2, 3, 1),
    "cropped": lambda x: x[:, :, 1:, 1:].relu(),
    "joined again": lambda x: torch.cat([x, x], 1).relu(),
}


class Inception(nn.Module):
    """Two branches side by side, then adaptive pooling, as where an input is small."""

    def __init__(self, reader: Callable[[Tensor], Tensor], channels: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, channels, 1)
        self.b = nn.Conv2d(3, channels, 1)
        self.pool = nn.AdaptiveAvgPool2d((SIDE, SIDE))
        self.reader = reader

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(self.pool(torch.cat([self.a(x), self.b(x)], 1)))


@pytest.mark.parametrize("channels", [16, 10])
@pytest.mark.parametrize("reader", READERS)
def test_pooling_that_changes_nothing(reader: str, channels: int) -> None:
    torch.manual_seed(0)
    module = Inception(READERS[reader], channels).eval()
    frames = moving_frames(4, SIDE)
    network = native(program_of(module), (3, SIDE, SIDE), threshold=0)
    with torch.inference_mode():
        assert relative_l2(network.run(frames)[0][0], module(frames)) < EXACT_RECURRENCE
    assert (network.compiled() is None) == (reader == "island")
