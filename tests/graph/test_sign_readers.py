"""Which layers read signs and nothing else."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rrm_extract.graph import BinaryConv2d, BinaryLinear, Sign, sign_readers, trace
from rrm_extract.rrm import layer_thresholds


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.sign = Sign()
        self.drop = nn.Dropout()
        self.plain = BinaryConv2d(4, 4, 1)
        self.joined = nn.Conv2d(8, 4, 1)
        self.mixed = BinaryConv2d(8, 4, 1)
        self.pooled = BinaryConv2d(4, 4, 1)
        self.pool = nn.AvgPool2d(2)
        self.flat = BinaryLinear(4 * 16, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.first(x)
        signs = self.sign(x)
        return (
            self.plain(self.drop(signs)),
            self.joined(torch.cat([signs, self.sign(-x)], 1)),
            self.mixed(torch.cat([signs, x], 1)),
            self.pooled(self.pool(signs)),
            self.flat(torch.flatten(signs, 1)),
        )


def test_signs_may_be_moved_but_not_mixed() -> None:
    program = trace(Net().eval())
    assert sign_readers(program) == {"plain.sums", "joined", "flat.sums"}


def test_their_threshold_is_0_whatever_is_asked_for() -> None:
    program = trace(Net().eval())
    thresholds = layer_thresholds(program, {"default": 0.5, "plain": 3.0, "mixed": 0.25})
    assert thresholds == {
        "first": 0.5, "plain.sums": 0.0, "joined": 0.0, "mixed.sums": 0.25, "pooled.sums": 0.5,
        "flat.sums": 0.0,
    }  # fmt: skip
