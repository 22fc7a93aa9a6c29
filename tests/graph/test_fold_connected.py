"""Batch normalisation behind a fully-connected layer, over (N, C) and over (N, L, C)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rrm_extract.engine import NativeNetwork
from rrm_extract.graph import fold_batch_norm, trace
from rrm_extract.rrm import RecurrentNetwork
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.engines import AVAILABLE
from tests.rrm.videos import moving_frames

Path = Callable[[Any], Any]


class Head(nn.Module):
    """A convolution, a way to what a fully-connected layer reads, and a batch-norm behind it."""

    def __init__(self, way: Path, *, read: int, made: int, normalised: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.way = way
        self.hidden = nn.Linear(read, made)
        self.norm = nn.BatchNorm1d(normalised)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(self.hidden(self.way(self.conv(x))))
        return result


def head(way: Path, *, read: int, made: int, normalised: int) -> nn.Module:
    torch.manual_seed(0)
    net = Head(way, read=read, made=made, normalised=normalised)
    net.norm.running_mean.normal_()
    net.norm.running_var.uniform_(0.5, 2.0)
    nn.init.normal_(net.norm.weight)
    return net.eval()


def check(net: nn.Module) -> None:
    frames = moving_frames(3, 12)
    program = fold_batch_norm(trace(net))
    with torch.inference_mode():
        expected = net(frames)
    readable = RecurrentNetwork(program, threshold=0).run(frames)[0][0]
    assert relative_l2(readable, expected) < EXACT_RECURRENCE
    if "native" in AVAILABLE:
        native = NativeNetwork(program, input_shape=(3, 12, 12), threshold=0).run(frames)[0][0]
        assert relative_l2(native, expected) < EXACT_RECURRENCE


@pytest.mark.parametrize(
    ("way", "read", "made", "normalised"),
    [
        (lambda y: y.flatten(2), 144, 8, 8),  # as many features as places: the sizes fit
        (lambda y: y.flatten(2).transpose(1, 2), 8, 5, 144),
        (lambda y: y.mean(3), 12, 8, 8),
        (lambda y: y.reshape(-1, 8, 144), 144, 8, 8),
    ],
)
def test_a_batch_norm_over_places_is_not_folded(
    way: Path, read: int, made: int, normalised: int
) -> None:
    net = head(way, read=read, made=made, normalised=normalised)
    assert "norm" in {op.kind for op in fold_batch_norm(trace(net)).ops}
    check(net)


@pytest.mark.parametrize(
    ("way", "read"),
    [
        (lambda y: y.flatten(1), 1152),
        (lambda y: torch.flatten(y, start_dim=1), 1152),
        (lambda y: y.reshape(y.size(0), -1), 1152),
        (lambda y: y.relu().mean((2, 3)), 8),
        (lambda y: nn.functional.relu(y.mean(3).mean(-1)), 8),
    ],
)
def test_a_batch_norm_over_features_is_folded(way: Path, read: int) -> None:
    net = head(way, read=read, made=6, normalised=6)
    assert "norm" not in {op.kind for op in fold_batch_norm(trace(net)).ops}
    check(net)
