"""The frames of one call do not see each other."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrm_extract.graph import fold_batch_norm, trace
from rrm_extract.rrm import RecurrentNetwork, by_frame
from tests.closeness import EXACT_RECURRENCE, relative_l2


class _OfItsOwn(nn.Module):
    """Normalised by the statistics of what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6, track_running_stats=False)
        self.second = nn.Conv2d(6, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.norm(self.first(x))))


class _ByAFunction(_OfItsOwn):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("variance", torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        y = F.batch_norm(self.first(x), self.mean, self.variance, training=True)
        return self.second(F.relu(y))


class _Squeezed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 6, 3)
        self.register_buffer("shift", torch.linspace(-1, 1, 6).reshape(1, 6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).mean((2, 3), keepdim=True).squeeze() + self.shift.squeeze()


@pytest.mark.parametrize("net", [_OfItsOwn, _ByAFunction, _Squeezed])
def test_a_run_gives_what_steps_give(net: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = net().eval()
    program = fold_batch_norm(trace(module))
    frames = torch.randn(5, 3, 9, 9)
    (together,), _ = RecurrentNetwork(program, threshold=0).run(frames)
    one, lanes = (RecurrentNetwork(program, threshold=0) for _ in range(2))
    steps = torch.stack([one.step(frame) for frame in frames])
    with torch.inference_mode():
        alone = torch.stack([module(frame[None]).reshape(steps.shape[1:]) for frame in frames])
    for result in (together, steps, lanes.step(frames)):
        assert relative_l2(result, alone) < EXACT_RECURRENCE


def test_the_running_statistics_stay_as_they_are() -> None:
    module = _ByAFunction().eval()
    RecurrentNetwork(trace(module)).run(torch.randn(3, 3, 9, 9))
    assert torch.equal(module.mean, torch.zeros(6))


def test_twice_is_once() -> None:
    for net in (_OfItsOwn, _ByAFunction, _Squeezed):
        once = by_frame(trace(net().eval()))
        assert by_frame(once).ops == once.ops
