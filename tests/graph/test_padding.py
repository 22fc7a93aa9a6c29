"""Zeros around a map, and weights that are made from parameters: parts of the layer behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrm_extract import accelerate
from rrm_extract.graph import Convolution, Program, dense_module, fold, select, trace
from rrm_extract.graph.digest import _parts
from rrm_extract.rrm import RecurrentNetwork
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.rrm.videos import moving_frames

SIDE = 13


class Net(nn.Module):
    """A convolution, and whatever ``path`` makes of it."""

    def __init__(self, path: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.path = path
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 4, 3, stride=2)
        self.zeros = nn.ZeroPad2d((0, 1, 0, 1))
        self.constants = nn.ConstantPad2d(1, 0)
        self.kernel = nn.Parameter(torch.randn(4, 8, 3, 3) / 8)
        self.gain = nn.Parameter(torch.rand(4, 1, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.path(self, self.first(x))


def program_of(module: nn.Module) -> Program:
    """Folded, after a comparison of both ways to run it with the module."""
    frames = moving_frames(4, SIDE)
    with torch.inference_mode():
        expected = module.eval()(frames)
    program = fold(select(whole := trace(module), whole.outputs))
    recurrent = RecurrentNetwork(program, threshold=0)
    for result in (recurrent.run(frames)[0][0], dense_module(program, in_place=True)(frames)):
        assert relative_l2(result, expected) < EXACT_RECURRENCE
    return program


def padding_of(program: Program) -> tuple[tuple[int, int], ...]:
    """Of the last layer over a map of SIDE rows and columns."""
    convolution = program.linear_ops[-1].call
    assert isinstance(convolution, Convolution)
    return convolution.zeros((SIDE, SIDE))


FOLDED: dict[str, tuple[Callable[[Any, Tensor], Tensor], tuple[tuple[int, int], ...]]] = {
    "F.pad": (lambda net, y: net.last(F.pad(y, (0, 1, 2, 3))), ((2, 3), (0, 1))),
    "of the channels, none": (lambda net, y: net.last(F.pad(y, (1, 0, 1, 0, 0, 0))), ((1, 0),) * 2),
    "of the rows alone": (lambda net, y: net.last(F.pad(y, (2, 1))), ((0, 0), (2, 1))),
    "by name": (
        lambda net, y: net.last(F.pad(y, pad=[1, 2, 0, 0], mode="constant", value=0.0)),
        ((0, 0), (1, 2)),
    ),
    "a module": (lambda net, y: net.last(net.zeros(y)), ((0, 1),) * 2),
    "constants that are zeros": (lambda net, y: net.last(net.constants(y)), ((1, 1),) * 2),
    "and its own": (
        lambda net, y: F.conv2d(F.pad(y, (0, 1, 1, 0)), net.kernel, padding=2),
        ((3, 2), (2, 3)),
    ),
    "read twice": (
        lambda net, y: (padded := F.pad(y, (0, 1, 0, 1)), net.last(padded) + net.last(padded))[1],
        ((0, 1),) * 2,
    ),
}


@pytest.mark.parametrize("name", FOLDED)
def test_zeros_become_padding(name: str) -> None:
    torch.manual_seed(0)
    path, expected = FOLDED[name]
    program = program_of(Net(path))
    assert padding_of(program) == expected
    assert len(program.ops) <= 4  # two or three layers, and their sum


LEFT: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "ones": lambda net, y: net.last(F.pad(y, (0, 1, 0, 1), value=1.0)),
    "mirrored": lambda net, y: net.last(F.pad(y, (0, 1, 0, 1), mode="reflect")),
    "cut": lambda net, y: net.last(F.pad(y, (0, -1, 0, -1))),
    "of the channels": lambda net, y: F.conv2d(
        F.pad(y, (0, 0, 0, 0, 0, 8)), torch.cat([net.kernel, net.kernel], 1)
    ),
    "by a pooling, too": lambda net, y: net.last(
        F.max_pool2d(padded := F.pad(y, (0, 1, 0, 1)), 1)
    ) + net.last(padded),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
def test_what_is_no_padding_of_zeros_stays(name: str) -> None:
    torch.manual_seed(0)
    program = program_of(Net(LEFT[name]))
    assert any("pad" in op.name for op in program.ops)


def test_padding_that_was_asked_for_stays() -> None:
    module = Net(lambda net, y: net.last(F.pad(y, (0, 1, 0, 1)))).eval()
    whole = trace(module)
    (name,) = (op.name for op in whole.ops if "pad" in op.name)
    program = fold(select(whole, (name, whole.outputs[0])))
    assert name in [op.name for op in program.ops]
    assert padding_of(program) == ((0, 1), (0, 1))


class Uneven(nn.Conv2d):
    """As layers are written that pad as they go."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)


def test_a_layer_that_pads_as_it_goes_keeps_its_name() -> None:
    module = nn.Sequential()
    module.add_module("conv", Uneven(3, 8, 3, stride=2))
    module.add_module("norm", nn.BatchNorm2d(8))
    program = program_of(module)
    assert [op.name for op in program.ops] == ["norm"]
    assert program.linear_names() == {"norm": "conv"}
    accelerate(module, threshold={"conv": 0, "default": 1e-3})


class Tied(nn.Module):
    """What is decoded is decoded by the weights that encode."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(3 * SIDE * SIDE, 8)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.encode(x.flatten(1)), self.encode.weight.t())


def test_a_layer_with_another_ones_weights_has_no_name_of_its() -> None:
    assert program_of(Tied()).linear_names() == {"encode": "encode", "linear": "linear"}


def test_padding_with_a_hook_is_called() -> None:
    class Zeros(nn.ZeroPad2d):
        pass

    zeros = Zeros(1)
    zeros.register_forward_hook(lambda *_: 2 * _[-1])
    module = nn.Sequential(zeros, nn.Conv2d(3, 4, 3))
    assert len(program_of(module).ops) == 2


def test_even_padding_has_the_digest_that_it_had() -> None:
    """Files know networks by it."""
    even, uneven = (
        trace(nn.Sequential(nn.ZeroPad2d((0, more, 0, more)), nn.Conv2d(3, 4, 3)).eval())
        for more in (0, 1)
    )
    assert "behind" not in _parts_of(even)
    assert "behind" in _parts_of(fold(uneven))


def _parts_of(program: Program) -> list[str]:
    return list(_parts([op.call for op in program.ops]))


def test_same_padding_depends_on_the_size() -> None:
    torch.manual_seed(0)
    convolution = Convolution(
        weight=torch.randn(4, 3, 3, 3), bias=None, stride=(2, 2), padding="same",
        dilation=(1, 1), groups=1,
    )  # fmt: skip
    assert convolution.zeros((12, 13)) == ((0, 1), (1, 1))
    for rows, columns in ((12, 13), (13, 12), (1, 2)):
        x = torch.randn(2, 3, rows, columns)
        (above, below), (left, right) = convolution.zeros((rows, columns))
        expected = F.conv2d(F.pad(x, (left, right, above, below)), convolution.weight, stride=2)
        assert torch.equal(convolution.apply(x), expected)
        assert expected.shape[2:] == (-(-rows // 2), -(-columns // 2))


def standardised(net: Any, y: Tensor) -> Tensor:
    """As in networks whose weights are normalised in place of their maps."""
    flat = net.kernel.reshape(1, 4, -1)
    weight = F.batch_norm(flat, None, None, training=True, momentum=0.0).reshape_as(net.kernel)
    return F.conv2d(y, weight * net.gain, stride=2)


def test_weights_made_from_parameters() -> None:
    torch.manual_seed(0)
    program = program_of(Net(standardised))
    assert len(program.linear_ops) == 2
    assert set(program.linear_ops[1].parameters) == {"kernel", "gain"}
    assert [op.name for op in program.ops] == [op.name for op in program.linear_ops]


@pytest.mark.parametrize(
    "path",
    [
        lambda net, y: F.conv2d(y, F.dropout(net.kernel, 0.5, training=True)),
        lambda net, y: F.conv2d(y, net.kernel * y.mean()),
        lambda net, y: F.conv2d(y, net.kernel * y.shape[-1]),
    ],
    ids=["drawn", "of the frame", "of its size"],
)
def test_weights_that_may_be_others_are_not_kept(path: Callable[[Any, Tensor], Tensor]) -> None:
    program = trace(Net(path).eval())
    assert [op.name for op in program.linear_ops] == ["first"]


def test_looking_for_weights_draws_nothing_from_the_callers_numbers() -> None:
    module = Net(lambda net, y: F.conv2d(y, F.dropout(net.kernel, 0.5, training=True))).eval()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    trace(module)
    assert torch.equal(torch.rand(3), expected)
