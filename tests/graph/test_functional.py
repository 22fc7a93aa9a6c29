"""Layers that are written in one of PyTorch's less usual ways."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")

from rrm_extract.graph import Program, fold_batch_norm, trace
from rrm_extract.graph.digest import digest_of
from rrm_extract.rrm import RecurrentNetwork
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.engine.running import native
from tests.rrm.videos import moving_frames

SIDE = 12


class Net(nn.Module):
    """A convolution, and whatever ``path`` makes of it."""

    def __init__(self, path: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.path = path
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 4, 3)
        self.kernel = nn.Parameter(torch.randn(4, 8, 3, 3) / 8)
        self.vector = nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.path(self, self.first(x))


def check(module: nn.Module) -> Program:
    """That both engines compute what the module does."""
    frames = moving_frames(4, SIDE)
    with torch.inference_mode():
        expected = module(frames)
    program = fold_batch_norm(trace(module.eval()))
    for network in (
        RecurrentNetwork(program, threshold=0),
        native(program, (3, SIDE, SIDE), threshold=0),
    ):
        assert relative_l2(network.run(frames)[0][0], expected) < EXACT_RECURRENCE
    return program


@pytest.mark.parametrize(
    "options",
    [{"stride": (2,)}, {"padding": (2,)}, {"dilation": (2,)}, {"stride": [2], "padding": (1,)}],
    ids=str,
)
def test_one_number_for_rows_and_columns(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    module = Net(lambda net, y: net.last(y))
    module.last = nn.Conv2d(8, 4, 3, **options)
    check(module)
    program = check(Net(lambda net, y: F.conv2d(y, net.kernel, None, **options)))
    assert len(program.linear_ops) == 2


def test_a_vector_of_weights() -> None:
    torch.manual_seed(0)
    program = check(
        Net(lambda net, y: F.linear(F.adaptive_avg_pool2d(y, 1).flatten(1), net.vector)[:, None])
    )
    assert [op.name for op in program.linear_ops] == ["first"]


@pytest.mark.parametrize("name", ["max_pool2d", "adaptive_max_pool2d"])
def test_a_program_with_a_function_that_chooses_is_pickled(name: str) -> None:
    program = trace(Net(lambda net, y: getattr(F, name)(y, 2)).eval())
    again = pickle.loads(pickle.dumps(program))
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(again(x)[0], program(x)[0])


def test_functions_that_choose_are_told_apart() -> None:
    torch.manual_seed(0)
    weights = Net(lambda net, y: y).state_dict()

    def digest(name: str) -> str:
        module = Net(lambda net, y: getattr(F, name)(y, 2))
        module.load_state_dict(weights)
        return digest_of(trace(module.eval()))

    assert digest("max_pool2d") == digest("max_pool2d") != digest("adaptive_max_pool2d")
