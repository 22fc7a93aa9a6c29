"""In-place operations on tensors that have several names, or share memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rrm_extract
from rrm_extract.engine import NativeNetwork
from rrm_extract.errors import TraceError
from rrm_extract.graph import trace
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.engines import AVAILABLE
from tests.rrm.videos import moving_frames


class Net(nn.Module):
    """Two convolutions, and whatever ``path`` does with them."""

    def __init__(self, path: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.path = path
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.same = nn.Identity()
        self.drop = nn.Dropout()
        self.gain = nn.Parameter(torch.full((8, 1, 1), 2.0))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.path(self, self.first(x))
        return result


def identity_shortcut(net: Net, y: Tensor) -> Tensor:
    shortcut = net.same(y)
    return net.second(net.relu(y)) + shortcut


def dropout_shortcut(net: Net, y: Tensor) -> Tensor:
    shortcut = net.drop(y)
    return net.second(net.relu(y)) + shortcut


def functional_dropout_shortcut(net: Net, y: Tensor) -> Tensor:
    shortcut = F.dropout(y, 0.3, net.training)
    return net.second(net.relu(y)) + shortcut


def changed_through_the_identity(net: Net, y: Tensor) -> Tensor:
    net.same(y).mul_(2)
    return net.second(y)


def add_to_the_result_of_another(net: Net, y: Tensor) -> Tensor:
    z = net.relu(y)
    z += 0.5
    return net.second(y)


def every_assignment(net: Net, y: Tensor) -> Tensor:
    z = y
    z -= 0.1
    z *= 0.5
    z /= 0.3
    return net.second(y) + z


def by_keyword(net: Net, y: Tensor) -> Tensor:
    net.relu(input=y)
    F.hardtanh(input=y, min_val=-1, max_val=0.5, inplace=True)
    return net.second(y)


def functions_with_an_underscore(net: Net, y: Tensor) -> Tensor:
    F.leaky_relu_(y, 0.1)
    torch.sigmoid_(y)
    return net.second(y)


def sum_of_zeros(net: Net, y: Tensor) -> Tensor:
    total = torch.zeros(1)
    total = total + y
    total += net.second(y)
    return total


def both_halves(net: Net, y: Tensor) -> Tensor:
    halves = y.chunk(2, 1)
    halves[0].relu_()
    halves[1].mul_(2)
    return net.second(torch.cat([halves[1], halves[0]], 1))


def slices_side_by_side(net: Net, y: Tensor) -> Tensor:
    left = y[..., :5].relu_()
    return torch.cat([y[..., 5:], left], 3)


def a_view_alone(net: Net, y: Tensor) -> Tensor:
    return y.flatten(2).mul_(2)


def size_of_what_changed(net: Net, y: Tensor) -> Tensor:
    height = y.shape[2]
    larger = height
    larger += 3
    net.relu(y.flatten(1))
    return F.interpolate(torch.ones(1, 1, height, larger), size=(height, larger)) + y.size(1)


def an_element_anew(net: Net, y: Tensor) -> Tensor:
    before = y[:, 0].shape[1]
    net.relu(y)
    return y[:, 0] * before


@pytest.mark.parametrize(
    "path",
    [
        identity_shortcut,
        dropout_shortcut,
        functional_dropout_shortcut,
        changed_through_the_identity,
        add_to_the_result_of_another,
        every_assignment,
        by_keyword,
        functions_with_an_underscore,
        sum_of_zeros,
        both_halves,
        slices_side_by_side,
        a_view_alone,
        an_element_anew,
    ],
)
def test_whoever_reads_the_tensor_afterwards_reads_the_change(
    path: Callable[[Any, Any], Any],
) -> None:
    torch.manual_seed(0)
    net = Net(path).eval()
    frames = moving_frames(3, 12)
    with torch.inference_mode():
        expected = net(frames.clone())
    assert relative_l2(trace(net)(frames)[0], expected) < 1e-6
    recurrent = rrm_extract.accelerate(net, threshold=0)
    result = torch.stack([recurrent.step(frame) for frame in frames])
    assert relative_l2(result, expected) < EXACT_RECURRENCE


def test_a_number_is_not_changed_in_place() -> None:
    (result,) = trace(Net(size_of_what_changed))(torch.zeros(1, 3, 4, 4))
    assert result.shape == (1, 1, 4, 7)


class Normalising(nn.Module):
    """Statistics in double precision, as NumPy makes them, and a convolution behind."""

    def __init__(
        self, path: Callable[[Any, Any], Any], statistics: torch.dtype = torch.float64
    ) -> None:
        super().__init__()
        self.path = path
        self.register_buffer("mean", torch.linspace(0.1, 0.7, 3, dtype=statistics)[:, None, None])
        self.register_buffer("std", torch.linspace(1.3, 1.7, 3, dtype=statistics)[:, None, None])
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(self.path(self, x.clone()))
        return result


def normalised(net: Normalising, x: Tensor) -> Tensor:
    x -= net.mean
    x /= net.std
    return x


def normalised_by_methods(net: Normalising, x: Tensor) -> Tensor:
    return x.sub_(net.mean).mul_(net.std)


def added_in_double(net: Normalising, x: Tensor) -> Tensor:
    wide = (x.double() - net.mean) * net.std
    x += wide
    return x


def added_to_half(net: Normalising, x: Tensor) -> Tensor:
    half = x.bfloat16()
    half += x
    return half.to(x.dtype)


PATHS = [normalised, normalised_by_methods, added_in_double, added_to_half]


@pytest.mark.parametrize("path", PATHS)
def test_a_tensor_that_is_changed_keeps_its_type(path: Callable[[Any, Any], Any]) -> None:
    torch.manual_seed(0)
    net = Normalising(path).eval()
    frames = moving_frames(3, 12)
    with torch.inference_mode():
        expected = net(frames)
    program = trace(net)
    (result,) = program(frames)
    assert result.dtype == torch.float32
    assert relative_l2(result, expected) < 1e-6
    recurrent = rrm_extract.accelerate(net, threshold=0)
    steps = torch.stack([recurrent.step(frame) for frame in frames])
    assert relative_l2(steps, expected) < EXACT_RECURRENCE
    if "native" in AVAILABLE:
        native = NativeNetwork(program, input_shape=(3, 12, 12), threshold=0)
        assert relative_l2(native.run(frames)[0][0], expected) < EXACT_RECURRENCE


@pytest.mark.parametrize("path", PATHS[:2])
@pytest.mark.parametrize("types", [torch.float32, torch.float64])
def test_operands_of_one_type_are_left_alone(
    path: Callable[[Any, Any], Any], types: torch.dtype
) -> None:
    program = trace(Normalising(path, types).to(types))
    assert not [op.name for op in program.ops if op.name.endswith(".wide")]


def on_a_slice(net: Net, y: Tensor) -> Tensor:
    net.relu(y[:, :4])
    return net.second(y)


def on_a_chunk(net: Net, y: Tensor) -> Tensor:
    left, _ = y.chunk(2, 1)
    left.relu_()
    return net.second(y)


def on_a_view(net: Net, y: Tensor) -> Tensor:
    y.view(y.size(0), -1).mul_(2)
    return net.second(y)


def view_from_before(net: Net, y: Tensor) -> Tensor:
    flat = y.flatten(1)
    net.relu(y)
    return flat


def slices_that_overlap(net: Net, y: Tensor) -> Tensor:
    y[:, 3].relu_()
    return y[:, 2:5]


def on_the_transposed(net: Net, y: Tensor) -> Tensor:
    y.mT.mul_(2)
    return net.second(y)


@pytest.mark.parametrize(
    ("path", "writer"),
    [
        (on_a_slice, "relu"),
        (on_a_chunk, "relu_"),
        (on_a_view, "mul_"),
        (view_from_before, "relu"),
        (slices_that_overlap, "relu_"),
        (on_the_transposed, "mul_"),
    ],
)
def test_memory_that_is_read_by_another_view_is_refused(
    path: Callable[[Any, Any], Any], writer: str
) -> None:
    with pytest.raises(TraceError, match=f"'{writer}' writes in place into memory"):
        trace(Net(path))


class Returner(nn.Module):
    """A leaf that returns its input, as nobody can know."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_a_leaf_may_return_its_input() -> None:
    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.leaf = Returner()

        def forward(self, x: Tensor) -> Tensor:
            return self.leaf(x).relu_() + x

    with pytest.raises(TraceError, match="'relu_' writes in place into memory"):
        trace(Shortcut(), leaf_modules=[Returner])


def doubled_(x: Tensor) -> Tensor:
    return x * 2


def test_a_leaf_function_may_be_named_as_it_likes() -> None:
    net = Net(lambda net, y: doubled_(y)).eval()
    image = torch.randn(1, 3, 8, 8)
    program = trace(net, leaf_functions=[doubled_])
    assert program.op("doubled_").call is doubled_
    with torch.inference_mode():
        assert relative_l2(program(image)[0], net(image)) < 1e-6


def changes_a_parameter(net: Net, y: Tensor) -> Tensor:
    return y * net.gain.mul_(2)


def writes_out(net: Net, y: Tensor) -> Tensor:
    torch.add(y, 1, out=y)
    return y


def has_no_ordinary_form(net: Net, y: Tensor) -> Tensor:
    y.zero_()
    return y


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (changes_a_parameter, "changes its 'gain' in place"),
        (writes_out, r"add\(out=...\)"),
        (has_no_ordinary_form, "zero_"),
    ],
)
def test_what_has_no_ordinary_form_is_refused(path: Callable[[Any, Any], Any], said: str) -> None:
    with pytest.raises(TraceError, match=said):
        trace(Net(path))
