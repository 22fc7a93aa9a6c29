"""Numbers that are moved inside of channels between native steps: no islands, the same values."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")

from rrm_extract.engine.compiled import CompiledNetwork
from rrm_extract.engine.parts import Assembly
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.engine.running import native, program_of
from tests.rrm.videos import moving_frames

SIDE = 16
FRAMES = 5


class Moving(nn.Module):
    """Two convolutions with a move of data between them."""

    moved = 8
    """Channels after the move."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.LeakyReLU(0.1))
        self.last = nn.Conv2d(self.moved, 5, 3)

    def move(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.move(self.first(x)))


class Crop(Moving):
    def move(self, x: Tensor) -> Tensor:
        return x[:, :, 1:, 2:-3]


class SpaceToDepth(Moving):
    moved = 32

    def move(self, x: Tensor) -> Tensor:
        x = x.reshape(-1, 8, SIDE // 2, 2, SIDE // 2, 2).permute(0, 3, 5, 1, 2, 4)
        return x.reshape(-1, 32, SIDE // 2, SIDE // 2)


class Twice(Moving):
    """The same value is read twice, and once with other channels after it."""

    moved = 4 + 8 + 8

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(8, 4, 1)

    def move(self, x: Tensor) -> Tensor:
        flipped = torch.stack([x[:, :, 8:], x[:, :, :8]], 2).flatten(2, 3)
        return torch.cat([self.other(flipped).relu(), flipped, x], 1)


class Quartered(Moving):
    """Moved values are pooled and added before they are read."""

    def move(self, x: Tensor) -> Tensor:
        return nn.functional.max_pool2d(x[:, :, 1:, 1:], 2) + x[:, :, 1:8, 1:8]


@pytest.mark.parametrize(
    ("kind", "moves"), [(Crop, 1), (SpaceToDepth, 1), (Twice, 2), (Quartered, 2)]
)
@pytest.mark.parametrize("batch", [1, 3])
def test_moved_inside_of_channels(kind: type[Moving], moves: int, batch: int) -> None:
    torch.manual_seed(0)
    frames = moving_frames(FRAMES, SIDE)
    module = kind().eval()
    with torch.inference_mode():
        expected = module(frames)
    network = native(program_of(module), (3, SIDE, SIDE), threshold=0, batch=batch)
    assert network.islands == ()
    assert sum(isinstance(item, Assembly) for item in network.sequence) == moves
    (result,), seen = network.run(frames)
    assert relative_l2(result, expected) < EXACT_RECURRENCE
    assert float(seen.density_delta[1:].max()) < 1
    plan = network.compiled()
    assert plan is not None
    (again,), _ = CompiledNetwork(pickle.loads(pickle.dumps(plan))).run(frames.numpy())
    np.testing.assert_array_equal(again, result.numpy())
