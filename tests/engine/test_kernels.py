"""Every kernel on every instruction set, against the readable engine in float64.

Most networks here compute with multiples of 1/16: their sums have no rounding, so that results
have to be equal to the bit, and selections to the last element.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")

from rrm_extract.engine import forms
from rrm_extract.graph import Sign
from rrm_extract.rrm import FrameDensities
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.coarse import CHANGES, clip, make_coarse
from tests.engine.running import (
    ISAS,
    assert_same_costs,
    assert_same_densities,
    every_frame,
    native,
    program_of,
    readable,
    tiles,
)


@pytest.fixture(autouse=True, scope="module")
def still_frames_are_computed() -> Iterator[None]:
    with every_frame():
        yield


THRESHOLD = 0.3
"""No multiple of 1/16, so that no difference equals it."""

SIZES = st.integers(1, 20)
CHANNELS = st.integers(1, 70)
SEEDS = st.integers(0, 1000)


def few(examples: int) -> Callable[[Any], Any]:
    return settings(deadline=None, derandomize=True, max_examples=examples, database=None)


@dataclass(frozen=True)
class Way:
    """How a clip is run."""

    changes: tuple[str, ...]
    batch: int
    policy: Any
    threshold: float
    adaptive: bool
    split: int
    tiles: bool = False
    """Whether dense layers run in Winograd's tiles."""


@st.composite
def ways(draw: st.DrawFn) -> Way:
    threshold = draw(st.sampled_from([0.0, THRESHOLD]))
    return Way(
        changes=tuple(draw(st.lists(st.sampled_from(CHANGES), max_size=9))),
        batch=draw(st.sampled_from([1, 2, 3, 8])),
        policy=draw(st.sampled_from(["bounded", "paper"])),
        threshold=threshold,
        # Layers that run dense truncate nothing: only without a threshold is that the same.
        adaptive=threshold == 0 and draw(st.booleans()),
        split=draw(st.integers(0, 9)),
        tiles=draw(st.booleans()),
    )


def check(
    module: nn.Module,
    shape: tuple[int, int, int],
    way: Way,
    *,
    seed: int,
    exact: bool = True,
    islands: int = 0,
) -> None:
    """Runs every instruction set in two calls, and the readable engine."""
    generator = torch.Generator().manual_seed(seed)
    if exact:
        make_coarse(module, generator)
    frames = clip(shape, way.changes, generator=generator, exact=exact)
    same = {"threshold": way.threshold, "policy": way.policy}
    expected, seen, costs = readable(module, frames, **same)
    program = program_of(module)
    for isa in ISAS:
        with tiles(way.tiles) as used:
            network = native(
                program, shape, isa=isa, adaptive=way.adaptive, batch=way.batch, **same
            )
        rounded = not exact or bool(used)
        assert network.isa == isa
        assert len(network.islands) == islands
        calls = [part for part in (frames[: way.split], frames[way.split :]) if len(part)]
        results = [network.run(part) for part in calls]
        for number, values in enumerate(expected):
            result = torch.cat([outputs[number] for outputs, _ in results])
            assert result.shape == values.shape
            if rounded:
                assert relative_l2(result.double(), values) < EXACT_RECURRENCE, isa
            else:
                assert torch.equal(result, values.float()), isa
        if way.adaptive or rounded:
            continue
        if len(calls) == 1:
            assert_same_densities([results[0][1]], seen)
        assert_same_costs(network.stats(), costs)


# --- linear layers


@dataclass(frozen=True)
class Kind:
    """Convolutions of one kind: arguments of Conv2d, and what may be chosen."""

    kernel: tuple[int, int]
    options: dict[str, Any] = field(default_factory=dict)
    paddings: tuple[Any, ...] = (0,)
    channels: Any = CHANNELS
    groups: int = 1
    """Inputs of a group when more than one is wanted; 1 for a plain convolution."""
    around: tuple[tuple[int, int, int, int], ...] = ()
    """Zeros put around the map before: left, right, above, below."""


KINDS = {
    "1x1": Kind((1, 1)),
    "1x1 stride 2": Kind((1, 1), {"stride": 2}),
    "3x3": Kind((3, 3), paddings=(0, 1, 2)),
    "3x3 stride 2": Kind((3, 3), {"stride": 2}, (0, 1)),
    "3x3 dilated": Kind((3, 3), {"dilation": 2}, (0, 2)),
    "3x3 padding beyond": Kind((3, 3), paddings=(3, (1, 2), (2, 0))),
    "5x5": Kind((5, 5), paddings=(0, 2)),
    "1x3": Kind((1, 3), paddings=((0, 1),)),
    "3x1": Kind((3, 1), paddings=((1, 0), "same")),
    "7x7 stride 2": Kind((7, 7), {"stride": 2}, (3,), st.integers(1, 8)),
    "11x11 stride 4": Kind((11, 11), {"stride": 4}, (2,), st.integers(1, 5)),
    "patches of 4": Kind((4, 4), {"stride": 4}, (0,), st.integers(1, 4)),
    "strides 2 and 1": Kind((3, 3), {"stride": (2, 1)}, (1,)),
    "few channels dilated": Kind((3, 3), {"dilation": (1, 2)}, (1,), st.integers(1, 4)),
    "4x4 same": Kind((4, 4), paddings=("same",)),
    "3x3 uneven": Kind((3, 3), around=((0, 1, 0, 1), (2, 0, 0, 1), (1, 3, 3, 0))),
    "3x3 stride 2 uneven": Kind((3, 3), {"stride": 2}, (0, 1), around=((0, 1, 0, 1), (1, 0, 0, 2))),
    "5x5 stride 2 uneven": Kind((5, 5), {"stride": 2}, around=((1, 2, 1, 2), (2, 1, 2, 2))),
    "few channels uneven": Kind(
        (3, 3), {"stride": 2}, (0,), st.integers(1, 4), around=((0, 1, 0, 1), (1, 0, 2, 1))
    ),
    "7x7 stride 2 uneven": Kind(
        (7, 7), {"stride": 2}, (0,), st.integers(1, 3), around=((2, 3, 2, 3),)
    ),
    "groups of 4 uneven": Kind((3, 3), {"stride": 2}, groups=4, around=((0, 1, 0, 1),)),
    "groups of 4": Kind((3, 3), {}, (1,), groups=4),
    "groups of 8": Kind((3, 3), {"stride": 2}, (1,), groups=8),
    "groups of 24": Kind((1, 1), groups=24),
    "groups of 5": Kind((3, 3), {}, (1,), groups=5),
}


@st.composite
def convolutions(draw: st.DrawFn, kind: Kind) -> tuple[nn.Module, tuple[int, int, int]]:
    inputs, outputs = draw(kind.channels), draw(CHANNELS)
    options = dict(kind.options)
    if kind.groups > 1:
        groups = draw(st.integers(2, max(2, 72 // kind.groups)))
        inputs = groups * kind.groups
        outputs = groups * draw(st.integers(1, 12))
        options["groups"] = groups
    padding = draw(st.sampled_from(kind.paddings))
    dilation = options.get("dilation", 1)
    around = 0 if padding == "same" else padding
    least = [
        max(1, (d * (k - 1) + 1) - 2 * p + (k // 2 if padding == "same" else 0))
        for k, d, p in zip(kind.kernel, pair(dilation), pair(around), strict=True)
    ]
    height, width = (draw(st.integers(size, max(size, 20))) for size in least)
    bias = draw(st.booleans())
    layer: nn.Module = nn.Conv2d(
        inputs, outputs, kind.kernel, padding=padding, bias=bias, **options
    )
    if kind.around:
        layer = nn.Sequential(nn.ZeroPad2d(draw(st.sampled_from(kind.around))), layer)
    return layer, (inputs, height, width)


def pair(value: Any) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


@pytest.mark.parametrize("name", KINDS)
def test_convolution(name: str) -> None:
    @few(10)
    @given(convolutions(KINDS[name]), ways(), SEEDS)
    def holds(layer: tuple[nn.Module, tuple[int, int, int]], way: Way, seed: int) -> None:
        check(layer[0], layer[1], way, seed=seed)

    holds()


@pytest.mark.parametrize("name", KINDS)
def test_convolution_behind_a_convolution(name: str) -> None:
    # Here not all of the input is looked at: only pixels that the first one may have changed.
    @few(6)
    @given(convolutions(KINDS[name]), ways(), SEEDS)
    def holds(layer: tuple[nn.Module, tuple[int, int, int]], way: Way, seed: int) -> None:
        inputs, height, width = layer[1]
        before = nn.Conv2d(3, inputs, 1)
        check(nn.Sequential(before, nn.ReLU(), layer[0]), (3, height, width), way, seed=seed)

    holds()


@pytest.mark.parametrize("size", [3, 5, (3, 5)], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise(size: Any, stride: int) -> None:
    @few(8)
    @given(st.integers(2, 150), SIZES, SIZES, st.booleans(), st.integers(1, 2), ways(), SEEDS)
    def holds(
        channels: int, height: int, width: int, bias: bool, dilation: int, way: Way, seed: int
    ) -> None:
        padding = tuple(dilation * (k // 2) for k in pair(size))
        layer = nn.Conv2d(
            channels, channels, size, stride=stride, padding=padding, dilation=dilation,
            groups=channels, bias=bias,
        )  # fmt: skip
        mix = nn.Conv2d(channels, 4, 1)
        check(nn.Sequential(layer, nn.ReLU6(), mix), (channels, height, width), way, seed=seed)
        before = nn.Conv2d(2, channels, 1)
        check(nn.Sequential(before, nn.ReLU(), layer, mix), (2, height, width), way, seed=seed)

    holds()


@pytest.mark.parametrize(("size", "stride"), [(1, 21), (2, 11), (2, 12), (3, 21), (4, 11), (4, 12)])
def test_depthwise_with_a_stride_beyond_its_kernel(size: int, stride: int) -> None:
    way = Way(("few", "half", "pixel"), 8, "bounded", THRESHOLD, False, 0)
    check(nn.Conv2d(20, 20, size, stride=stride, groups=20), (20, 30, 47), way, seed=0)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_with_uneven_padding(size: int, stride: int) -> None:
    @few(6)
    @given(st.tuples(*[st.integers(0, 3)] * 4), SIZES, SIZES, ways(), SEEDS)
    def holds(
        around: tuple[int, int, int, int], height: int, width: int, way: Way, seed: int
    ) -> None:
        layer = nn.Conv2d(20, 20, size, stride=stride, groups=20)
        module = nn.Sequential(
            nn.Conv2d(2, 20, 1), nn.ReLU(), nn.ZeroPad2d(around), layer, nn.Conv2d(20, 4, 1)
        )
        check(module, (2, height + size, width + size), way, seed=seed)

    holds()


def test_depthwise_with_the_policy_of_the_paper() -> None:
    way = Way(("few", "half", "pixel"), 8, "paper", THRESHOLD, False, 0)
    check(nn.Conv2d(20, 20, 3, groups=20), (20, 6, 6), way, seed=0)


def test_columns_behind_a_layer_count_what_they_read() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 5, 4, stride=4))
    way = Way(("few", "pixel", "few", "pixel"), 1, "bounded", THRESHOLD, False, 0)
    check(module, (3, 8, 8), way, seed=2)


@few(15)
@given(CHANNELS, st.integers(1, 7), st.integers(1, 7), CHANNELS, ways(), SEEDS)
def test_fully_connected(
    channels: int, height: int, width: int, outputs: int, way: Way, seed: int
) -> None:
    module = nn.Sequential(
        nn.Flatten(), nn.Linear(channels * height * width, outputs), nn.ReLU(),
        nn.Dropout(), nn.Linear(outputs, 7),
    )  # fmt: skip
    check(module, (channels, height, width), way, seed=seed)


class _OverChannelsLast(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Linear(channels, 9)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@few(8)
@given(CHANNELS, SIZES, SIZES, ways(), SEEDS)
def test_fully_connected_over_channels_last(
    channels: int, height: int, width: int, way: Way, seed: int
) -> None:
    check(_OverChannelsLast(channels), (channels, height, width), way, seed=seed)


@pytest.mark.parametrize("batch", [2, 8])
def test_groups_wider_than_a_stage(batch: int) -> None:
    # Nine blocks of outputs in a group: their sets do not end where eight blocks do.
    way = Way(("half", "few", "all", "pixel"), batch, "bounded", 0.0, False, 0)
    check(nn.Conv2d(32, 288, 1, groups=2), (32, 3, 4), way, seed=0)


def test_groups_of_seven_blocks() -> None:
    # As in regnet_y_16gf: groups of 112 channels, stride 2.
    way = Way(("half", "few", "all", "pixel"), 8, "bounded", 0.0, False, 0)
    layer = nn.Conv2d(224, 224, 3, stride=2, padding=1, groups=2)
    check(layer, (224, 5, 4), way, seed=0)


@few(12)
@given(st.integers(2, 3), st.integers(60, 130), ways(), SEEDS)
def test_wide_layers(blocks: int, outputs: int, way: Way, seed: int) -> None:
    # More than a stage of outputs, more than a group of inputs.
    inputs = blocks * 60
    module = nn.Sequential(
        nn.Conv2d(inputs, outputs, 1), nn.ReLU(), nn.Conv2d(outputs, 150, 3, padding=1)
    )
    check(module, (inputs, 3, 5), way, seed=seed)


# --- what lies between linear layers


class Between(nn.Module):
    """Two convolutions, and something between them."""

    def __init__(self, inputs: int, channels: int, middle: nn.Module) -> None:
        super().__init__()
        self.before = nn.Conv2d(inputs, channels, 3, padding=1)
        self.middle = middle
        self.after = nn.Conv2d(channels, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.middle(self.before(x)))


EXACT_ACTIVATIONS = {
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "hardtanh": nn.Hardtanh(-1.0, 2.0),
    "leaky_relu": nn.LeakyReLU(0.25),
    "sign": Sign(),
    "nothing": nn.Identity(),
}
ROUNDED_ACTIVATIONS = {
    "leaky_relu 0.01": nn.LeakyReLU(),
    "sigmoid": nn.Sigmoid(),
    "silu": nn.SiLU(),
    "hardsigmoid": nn.Hardsigmoid(),
    "hardswish": nn.Hardswish(),
    "tanh": nn.Tanh(),
}


@pytest.mark.parametrize("name", EXACT_ACTIVATIONS)
def test_exact_activation(name: str) -> None:
    @few(6)
    @given(CHANNELS, SIZES, SIZES, ways(), SEEDS)
    def holds(channels: int, height: int, width: int, way: Way, seed: int) -> None:
        module = Between(3, channels, EXACT_ACTIVATIONS[name])
        # The sign of what is 0 but for rounding may be either.
        used = replace(way, tiles=way.tiles and name != "sign")
        check(module, (3, height, width), used, seed=seed)

    holds()


def exactly_0(way: Way) -> Way:
    return replace(way, threshold=0.0)


@pytest.mark.parametrize("name", ROUNDED_ACTIVATIONS)
def test_rounded_activation(name: str) -> None:
    @few(6)
    @given(CHANNELS, SIZES, SIZES, ways(), SEEDS)
    def holds(channels: int, height: int, width: int, way: Way, seed: int) -> None:
        torch.manual_seed(seed)
        module = Between(3, channels, ROUNDED_ACTIVATIONS[name])
        check(module, (3, height, width), exactly_0(way), seed=seed, exact=False)
        depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        module = nn.Sequential(nn.Conv2d(3, channels, 1), depthwise, ROUNDED_ACTIVATIONS[name])
        check(module, (3, height, width), exactly_0(way), seed=seed, exact=False)

    holds()


@pytest.mark.parametrize("name", [*EXACT_ACTIVATIONS, *ROUNDED_ACTIVATIONS])
@pytest.mark.parametrize("isa", ISAS)
def test_activation_over_all_its_range(name: str, isa: str) -> None:
    values = torch.cat(
        [torch.linspace(-20, 20, 4001), torch.tensor([-1e30, -500.0, -89.0, 89.0, 1e30, 0.0])]
    ).reshape(1, 1, 1, -1)
    activation = nn.Sequential({**EXACT_ACTIVATIONS, **ROUNDED_ACTIVATIONS}[name])
    network = native(program_of(activation), values.shape[1:], isa=isa)
    (result,), _ = network.run(values)
    assert not network.islands
    torch.testing.assert_close(result, activation(values), rtol=2e-6, atol=2e-7)


def test_tanh_of_small_numbers() -> None:
    values = torch.tensor([1e-6, -3e-5, 1e-4, 1e-3]).reshape(1, 1, 1, 4)
    (result,), _ = native(program_of(nn.Sequential(nn.Tanh())), (1, 1, 4)).run(values)
    torch.testing.assert_close(result, values.tanh(), rtol=1e-5, atol=0)


POOLS: dict[str, tuple[nn.Module, bool]] = {
    # and whether an average is one of a power of two
    "max 2": (nn.MaxPool2d(2), True),
    "max 3 stride 2": (nn.MaxPool2d(3, 2), True),
    "max 3 padded": (nn.MaxPool2d(3, 2, padding=1), True),
    "max 3 stride 1": (nn.MaxPool2d(3, 1, padding=1), True),
    "max ceil": (nn.MaxPool2d(3, 2, ceil_mode=True), True),
    "max ceil padded": (nn.MaxPool2d((2, 3), (2, 3), padding=(1, 1), ceil_mode=True), True),
    "max dilated": (nn.MaxPool2d(2, 1, dilation=2), True),
    "average 2": (nn.AvgPool2d(2), True),
    "average 2 padded": (nn.AvgPool2d(2, padding=1), True),
    "average 2 ceil": (nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False), True),
    "average 3": (nn.AvgPool2d(3, 1, padding=1), False),
    "average 3 without padding": (nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), False),
    "average 3 ceil": (nn.AvgPool2d(3, 2, padding=1, ceil_mode=True), False),
    "average 3 ceil without padding": (
        nn.AvgPool2d((3, 2), 2, padding=1, ceil_mode=True, count_include_pad=False), False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", POOLS)
def test_pool(name: str) -> None:
    pool, exact = POOLS[name]

    @few(6)
    @given(CHANNELS, st.integers(3, 20), st.integers(3, 20), st.booleans(), ways(), SEEDS)
    def holds(channels: int, height: int, width: int, relu: bool, way: Way, seed: int) -> None:
        torch.manual_seed(seed)
        middle = nn.Sequential(nn.ReLU(), pool) if relu else pool
        module = Between(3, channels, middle)
        way = way if exact else exactly_0(way)
        check(module, (3, height, width), way, seed=seed, exact=exact)
        module = nn.Sequential(pool, nn.Conv2d(3, 20, 3, padding=1))  # of the input itself
        check(module, (3, height, width), way, seed=seed, exact=exact)

    holds()


class Residual(nn.Module):
    """Sums in both orders, of layers and of what a layer read, before and after activations."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, channels, 1)
        self.a = nn.Conv2d(channels, channels, 3, padding=1)
        self.b = nn.Conv2d(channels, channels, 1)
        self.c = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.after = nn.Conv2d(channels, 5, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.before(x))
        y = F.relu(self.a(x) + x)
        z = F.relu6(y + self.b(y))
        z = z + self.c(z)
        w = self.b(z)
        return self.after(F.relu(w + w) + y), z + 0.5


@few(12)
@given(CHANNELS, SIZES, SIZES, ways(), SEEDS)
def test_residual(channels: int, height: int, width: int, way: Way, seed: int) -> None:
    check(Residual(channels), (3, height, width), way, seed=seed)


class PreActivation(nn.Module):
    """As in DenseNet: batch norm and ReLU come first; concatenations grow."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels + i * growth) for i in range(3))
        self.layers = nn.ModuleList(
            nn.Conv2d(channels + i * growth, growth, 3, padding=1) for i in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        features = [self.before(x)]
        for norm, layer in zip(self.norms, self.layers, strict=True):
            features.append(layer(F.relu(norm(torch.cat(features, 1)))))
        return torch.cat(features, 1)


@few(10)
@given(
    st.sampled_from([16, 32, 7, 20]), st.sampled_from([16, 32, 5, 12]), SIZES, SIZES, ways(), SEEDS
)
def test_batch_norm_and_concatenation(
    channels: int, growth: int, height: int, width: int, way: Way, seed: int
) -> None:
    module = PreActivation(channels, growth)
    # Three layers deep, numbers are too long for sums without rounding.
    check(module, (3, height, width), exactly_0(way), seed=seed, exact=False)


class Concatenation(nn.Module):
    def __init__(self, one: int, two: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(6, one, 1)
        self.two = nn.Conv2d(6, two, 3, padding=1)
        self.after = nn.Conv2d(one + two + 6, 5, 3, padding=1)
        self.beside = nn.Conv2d(one + two, one + two, 3, padding=1, groups=one + two)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        one, two = F.relu(self.one(x)), F.relu(self.two(x))
        both = torch.cat([one, two], 1)
        return self.after(F.max_pool2d(torch.cat([both, x], 1), 3, 1, 1)), self.beside(both)


@few(12)
@given(
    st.sampled_from([16, 32, 48, 1, 24]), st.sampled_from([16, 32, 3, 20]), SIZES, SIZES, ways(),
    SEEDS,
)  # fmt: skip
def test_concatenation(one: int, two: int, height: int, width: int, way: Way, seed: int) -> None:
    check(Concatenation(one, two), (6, height, width), way, seed=seed)


def _shuffle(x: Tensor) -> Tensor:
    n, channels, height, width = x.size()
    x = x.view(n, 2, channels // 2, height, width).transpose(1, 2)
    return x.reshape(n, channels, height, width)


def _halves(x: Tensor) -> Tensor:
    one, two = x.chunk(2, dim=1)
    return torch.cat([two, F.relu(one)], 1)


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "shuffle": _shuffle,
    "shuffle of torch": nn.ChannelShuffle(2),
    "halves": _halves,
    "a slice": lambda x: torch.cat([x[:, 1:3], x[:, :2]], 1),
    "pixels": lambda x: x[:, :, ::2, 1:],
    "reversed": lambda x: x.transpose(2, 3),
}


class Moved(nn.Module):
    def __init__(self, move: Callable[[Tensor], Tensor], channels: int, after: int) -> None:
        super().__init__()
        self.before = nn.Conv2d(2, channels, 1)
        self.move = move
        self.after = nn.Conv2d(after, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.move(F.relu(self.before(x))))


@pytest.mark.parametrize("name", MOVES)
def test_moves(name: str) -> None:
    @few(6)
    @given(st.integers(2, 30), st.integers(2, 20), st.integers(2, 20), ways(), SEEDS)
    def holds(half: int, height: int, width: int, way: Way, seed: int) -> None:
        channels = 2 * half
        after = 4 if name == "a slice" else channels
        module = Moved(MOVES[name], channels, after)
        check(module, (2, height, width), way, seed=seed)

    holds()


def check_islands(module: nn.Module, shape: tuple[int, int, int], way: Way, *, seed: int) -> None:
    """The same with operations that only PyTorch has; nobody counts what those see."""
    way = replace(way, threshold=0.0, adaptive=True)
    check(module, shape, way, seed=seed, islands=1)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, channels, 3, padding=1)
        self.one = nn.Conv2d(channels, 4, 1)
        self.two = nn.Conv2d(4, channels, 1)
        self.after = nn.Conv2d(channels, 7, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.before(x))
        scale = F.adaptive_avg_pool2d(x, 1)
        scale = torch.sigmoid(self.two(F.relu(self.one(scale))))
        x = self.after(scale * x)
        return x.mean([2, 3])


@few(12)
@given(CHANNELS, SIZES, SIZES, ways(), SEEDS)
def test_squeeze_excite(channels: int, height: int, width: int, way: Way, seed: int) -> None:
    torch.manual_seed(seed)
    module = SqueezeExcite(channels)
    check(module, (3, height, width), exactly_0(way), seed=seed, exact=False)


@few(10)
@given(CHANNELS, st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8]), ways(), SEEDS)
def test_global_average(channels: int, height: int, width: int, way: Way, seed: int) -> None:
    module = nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(channels, 3),
    )  # fmt: skip
    check(module, (3, height, width), way, seed=seed)


class _Constants(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 20, 1)
        self.register_buffer("scale", torch.arange(20).reshape(1, 20, 1, 1) / 4)
        self.after = nn.Conv2d(20, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(2 * F.relu(self.before(x + 0.25) * self.scale) + 1)


@few(6)
@given(SIZES, SIZES, ways(), SEEDS)
def test_constants(height: int, width: int, way: Way, seed: int) -> None:
    check(_Constants(), (3, height, width), exactly_0(way), seed=seed)


class _Functions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.layer(x), 0.25)
        return torch.tanh(x) + F.tanh(x) + x.tanh() + F.sigmoid(x) + F.hardtanh(x)


def test_activations_as_functions_are_no_islands() -> None:
    network = native(program_of(_Functions()), (3, 6, 6))
    assert network.islands == ()


class _Shape(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        return x.reshape(x.shape[0], -1)


def test_reading_a_shape_is_no_island() -> None:
    network = native(program_of(_Shape()), (3, 6, 6))
    assert network.islands == ()


class _IntegerConstant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 3)
        self.register_buffer("scale", torch.arange(8).reshape(1, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.scale


def test_integer_constants() -> None:
    network = native(program_of(_IntegerConstant()), (3, 6, 6))
    assert network.islands == ()


# --- the form that layers run in


@pytest.mark.parametrize("isa", ISAS)
def test_layers_run_dense_while_everything_changes(isa: str) -> None:
    generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 20, 5, padding=2), nn.Conv2d(20, 40, 3, padding=1),
        nn.Conv2d(40, 200, 1), nn.Conv2d(200, 9, 3, padding=1, stride=2),
    )  # fmt: skip
    make_coarse(module, generator)
    frames = clip((3, 11, 9), ["all"] * 11 + ["same"] * 24, generator=generator)
    frames[:12] += torch.arange(12)[:, None, None, None] * 8  # not one element stays
    frames[12:] = frames[11]
    expected, _, _ = readable(module, frames, threshold=0)
    network = native(program_of(module), (3, 11, 9), isa=isa, threshold=0, batch=4)
    (result,), seen = network.run(frames)
    assert relative_l2(result.double(), expected[0]) < 3e-6
    # The first two frames tell that lists do not pay. Eight frames later it is still so; sixteen
    # later it is not, nor in the next batch, and from the one after that on accumulators are made,
    # which nobody kept.
    assert seen.key_frame.tolist() == [True, False, *[True] * 31, *[False] * 3]
    assert seen.work[2:33].eq(1).all()
    assert seen.work[33:].eq(0).all()
    lists = native(program_of(module), (3, 11, 9), isa=isa, threshold=0, batch=4, adaptive=False)
    assert lists.run(frames)[1].key_frame.tolist() == [True, *[False] * 35]


@pytest.mark.parametrize("first", [0, 1])
def test_pictures_in_pairs_do_not_look_like_rest(first: int) -> None:
    """Whichever of a pair is compared: with the other one, much has changed."""
    generator = torch.Generator().manual_seed(0)
    module = nn.Conv2d(8, 16, 1)
    make_coarse(module, generator)
    pairs = torch.randn(40, 8, 9, 9, generator=generator).repeat_interleave(2, dim=0)
    network = native(program_of(module), (8, 9, 9), threshold=0, batch=4)
    _, seen = network.run(pairs[first:])
    assert seen.work[4:].eq(1).all()


@pytest.mark.parametrize("before", range(4, 25, 4))
def test_another_scene_ends_the_doubt_about_rest(before: int) -> None:
    """Little changes in the frame that is compared, then one frame of another scene comes alone."""
    generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Conv2d(16, 8, 3, padding=1))
    make_coarse(module, generator)
    frames = torch.randn(before + 12, 8, 9, 9, generator=generator)
    for rest in (frames[max(before - 4, 4) : before], frames[before:]):
        rest[1:] = rest[:1]
        rest[:, 0, 0, 0] += torch.arange(len(rest))
    network = native(program_of(module), (8, 9, 9), threshold=0, batch=4)
    parts = [network.run(frames[:before])]
    for some in (frames[before : before + 1], frames[before + 1 :]):
        network.key_frame()
        parts.append(network.run(some))
    (expected,), _, _ = readable(module, frames, threshold=0)
    result = torch.cat([outputs[0] for outputs, _ in parts])
    assert relative_l2(result.double(), expected) < 3e-6


@pytest.mark.parametrize("every", [4, 8, 11])
@pytest.mark.parametrize("batch", [1, 8])
def test_a_picture_comes_to_rest_between_key_frames(batch: int, every: int) -> None:
    """However often they come: each is compared with a picture that says nothing of the next."""
    generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 20, 3, padding=1), nn.ReLU(), nn.Conv2d(20, 40, 1))
    frames = torch.randn(24, 3, 12, 12, generator=generator)
    rest = frames[-1:].repeat(66, 1, 1, 1)
    rest[:, 0, 0, 0] += torch.arange(66)
    network = native(program_of(module), (3, 12, 12), threshold=0, batch=batch)
    assert network.run(frames)[1].work[4:].eq(1).all()
    parts = []
    for some in rest.split(every):
        network.key_frame()
        parts.append(network.run(some))
    works = torch.cat([seen.work[1:] for _, seen in parts])
    assert bool((works[-24:] < 0.1).all())
    result = torch.cat([outputs[0] for outputs, _ in parts])
    with torch.inference_mode():
        assert relative_l2(result, module(rest)) < 3e-6


@pytest.mark.parametrize("batch", [1, 8])
def test_pictures_in_pairs_do_not_look_like_rest_between_key_frames(batch: int) -> None:
    generator = torch.Generator().manual_seed(0)
    module = nn.Conv2d(8, 16, 1)
    pairs = torch.randn(40, 8, 9, 9, generator=generator).repeat_interleave(2, dim=0)
    network = native(program_of(module), (8, 9, 9), threshold=0, batch=batch)
    works = []
    for some in pairs.split(8):  # each begins with a pair
        network.key_frame()
        works.append(network.run(some)[1].work)
    assert torch.cat(works)[8:].eq(1).all()


@pytest.mark.parametrize("batch", [1, 16])
def test_densities_after_another_scene_are_its_own(batch: int) -> None:
    """Where few frames are compared, the last one before is of the scene that ended."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 20, 1), nn.ReLU(), nn.Conv2d(20, 40, 1), nn.Conv2d(40, 8, 1)]
    module = nn.Sequential(*layers)
    frames = torch.randn(24, 3, 12, 20)
    frames[:, :, :, 14:] = frames[:1, :, :, 14:]
    with mock.patch.dict(forms.BREAK_EVEN, dict.fromkeys(forms.BREAK_EVEN, 0.1)):
        network = native(program_of(module), (3, 12, 20), batch=batch, threshold=0)
    network.run(torch.randn(40, 3, 12, 20))
    network.key_frame()
    _, seen = network.run(frames)
    assert seen.work[1:].eq(1).all()
    _, wanted, _ = readable(module, frames, threshold=0.0)
    torch.testing.assert_close(seen.density_delta[1:], wanted.density_delta[1:], rtol=0, atol=0.04)


class _Everywhere(nn.Module):
    """Every kind of layer that takes its input whole, with one reader or several, or a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 20, 3, padding=1)
        self.inner = nn.Conv2d(20, 20, 1)
        self.window = nn.Conv2d(20, 150, 3, padding=1)
        self.wide = nn.Conv2d(150, 40, 1)
        self.spread = nn.Conv2d(40, 40, 3, padding=1, groups=40)
        self.narrow = nn.Conv2d(40, 40, 3, padding=1, stride=2, groups=40)
        self.across = nn.Conv2d(40, 30, 1, stride=2)
        self.last = nn.Conv2d(70, 9, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = x + self.inner(x).relu()
        x = self.wide(F.relu(self.window(x)))
        y = F.hardswish(self.spread(F.relu6(x))) + x
        both = torch.cat([self.narrow(y), self.across(y)], 1)
        return self.last(F.avg_pool2d(both, 2))


def _everywhere() -> tuple[nn.Module, Tensor]:
    """The network, and 48 frames that change everywhere and 72 that nearly rest."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    changes = ["all"] * 47 + ["few", "same", "corner", "pixel"] * 18
    frames = clip((3, 25, 19), changes, generator=generator, exact=False)
    frames += 0.1 * torch.arange(120)[:, None, None, None].clamp(max=47)
    return _Everywhere().eval(), frames


@functools.cache
def _everywhere_readable() -> tuple[Tensor, FrameDensities]:
    """Of those, once for all cases: it takes a second."""
    module, frames = _everywhere()
    (expected,), seen, _ = readable(module, frames, threshold=0.0)
    return expected, seen


# What is decided about batches is the same for all, and scalar code takes its time.
@pytest.mark.parametrize(
    ("isa", "batch"),
    [(isa, batch) for isa in ISAS for batch in (1, 5, 16) if isa != "reference" or batch == 5],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_where_everything_changes(isa: str, precision: str, batch: int) -> None:
    """Layers keep nothing then, compare few frames, and begin again when the picture rests."""
    module, frames = _everywhere()
    expected, wanted = _everywhere_readable()
    with mock.patch.dict(forms.BREAK_EVEN, dict.fromkeys(forms.BREAK_EVEN, 0.3)):
        network = native(
            program_of(module), (3, 25, 19), isa=isa, precision=precision, batch=batch, threshold=0
        )
    (result,), seen = network.run(frames)
    assert relative_l2(result.double(), expected) < (3e-6 if precision == "fp32" else 2e-2)
    dense = seen.key_frame[2 * batch + 2 : 48]
    assert dense.all()
    assert not seen.key_frame[-16:].any()
    if precision == "bf16":
        return
    # Where the picture rests, what is left of a delta is rounding, which differs.
    compared = _assert_few_are_compared(seen.density_delta[:48], wanted.density_delta[:48])
    assert compared[2 * batch + 2 :].sum(0).max() <= 4


class _Residual(nn.Module):
    """What is added to a layer whose input rests, and to layers that do nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 40, 1)
        self.off, self.rests = nn.Conv2d(40, 8, 1), nn.Conv2d(8, 40, 1)
        nn.init.constant_(self.off.bias, -1e4)  # type: ignore[arg-type]
        self.nothing = nn.ModuleList(nn.Conv2d(40, 40, size, padding=size // 2) for size in (1, 3))
        for layer in self.nothing:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = F.relu(x + self.rests(self.off(x).relu()))
        for layer in self.nothing:
            x = F.relu(x + layer(x))
        return x


class _Projected(nn.Module):
    """What is added is read by nobody else."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 40, 1)
        self.added = nn.ModuleList(nn.Conv2d(40, 48, 1) for _ in range(2))
        for layer in self.added:
            nn.init.zeros_(layer.weight)
            nn.init.uniform_(layer.bias, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return F.relu(self.added[0](x) + self.added[1](x))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("batch", [1, 5, 16])
@pytest.mark.parametrize(("kind", "least"), [(_Residual, 5e-4), (_Projected, 3e-4)])
def test_residuals_are_read_rounded_while_everything_changes(
    isa: str, kind: type[nn.Module], least: float, batch: int
) -> None:
    """Networks in bf16 then store what is added only once, as their layers read it.

    Where frames pass one at a time, what rests must be there when it is stored in fp32 again.
    """
    size = (25, 19)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    moving, rest = 2 * batch + 4, 2 * batch + 18
    changes = ["all"] * (moving - 1) + ["few", "same", "corner", "pixel"] * rest
    frames = clip((3, *size), changes[: moving + rest - 1], generator=generator, exact=False)
    frames += 0.1 * torch.arange(len(frames))[:, None, None, None].clamp(max=moving - 1)
    module = kind().eval()
    (expected,), _, _ = readable(module, frames, threshold=0.0)
    network = native(
        program_of(module), (3, *size), isa=isa, precision="bf16", batch=batch, threshold=0.0
    )
    (result,), _ = network.run(frames)
    errors = [relative_l2(r.double(), e) for r, e in zip(result, expected, strict=True)]
    assert max(errors[:2]) < 1e-6
    assert all(least < error < 1e-2 for error in errors[batch + 2 : moving])
    assert max(errors[-4:]) < 1e-6


def _assert_few_are_compared(ours: Tensor, wanted: Tensor) -> Tensor:
    """Densities are new where a frame is compared, and then right; else those of the one before.

    Returns:
        (frames, layers) bools: where they are new.
    """
    compared = torch.ones(ours.shape, dtype=torch.bool)
    compared[1:] = ours[1:] != ours[:-1]
    atol = 2e-3  # some sums are rounded to zero here, and not there
    torch.testing.assert_close(ours[compared], wanted[compared], rtol=0, atol=atol)
    return compared


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_layers_hand_on_rows(isa: str, precision: str) -> None:
    """Blocks of mobile networks, with wide maps larger than the rows that are made at a time."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU6(),
        nn.Conv2d(8, 90, 1), nn.ReLU6(),
        nn.Conv2d(90, 90, 5, stride=2, padding=2, groups=90), nn.ReLU6(),
        nn.Conv2d(90, 24, 1),
        nn.Conv2d(24, 200, 1), nn.ReLU(),
        nn.Conv2d(200, 200, 3, padding=4, dilation=2, groups=200), nn.Hardswish(),
        nn.Conv2d(200, 20, 1, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(20, 7, (3, 2), padding=(3, 0), stride=(4, 1)),
    ).eval()  # fmt: skip
    for parameter in module.parameters():  # so that an error in one layer reaches the end
        nn.init.kaiming_normal_(parameter) if parameter.dim() > 1 else nn.init.zeros_(parameter)
    frames = torch.randn(30, 3, 44, 37)
    expected, _, _ = readable(module, frames, threshold=0)
    with mock.patch.dict(forms.BREAK_EVEN, dict.fromkeys(forms.BREAK_EVEN, 0.1)):
        network = native(
            program_of(module), (3, 44, 37), isa=isa, precision=precision, batch=7, threshold=0
        )
    (result,), _ = network.run(frames)
    assert relative_l2(result.double(), expected[0]) < (3e-6 if precision == "fp32" else 2e-2)
    assert network.frames_by_rows() > 10
    whole = native(
        program_of(module), (3, 44, 37), isa=isa, precision=precision, batch=7, adaptive=False
    )
    whole.run(frames)
    assert whole.frames_by_rows() == 0


@pytest.mark.parametrize(("changed", "compared"), [(3, True), (6, False)])
def test_where_more_than_a_fifth_changes(changed: int, compared: bool) -> None:
    """Layers that compute all pixels anyway, of whose 20 columns some are new in each frame."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 20, 1), nn.ReLU(), nn.Conv2d(20, 40, 1), nn.Conv2d(40, 8, 1)]
    module = nn.Sequential(*layers)
    frames = torch.randn(1, 3, 12, 20).repeat(48, 1, 1, 1)
    frames[..., :changed] = torch.randn(48, 3, 12, changed)
    expected, wanted, _ = readable(module, frames, threshold=0.0)
    with mock.patch.dict(forms.BREAK_EVEN, dict.fromkeys(forms.BREAK_EVEN, 0.05)):
        network = native(program_of(module), (3, 12, 20), batch=16, threshold=0)
    (result,), seen = network.run(frames)
    assert relative_l2(result.double(), expected[0]) < EXACT_RECURRENCE
    ours, theirs = seen.density_delta[:, 1:], wanted.density_delta[:, 1:]
    assert torch.allclose(ours, theirs) is compared
    if not compared:
        assert _assert_few_are_compared(ours, theirs)[18:].sum(0).max() <= 3


@pytest.mark.parametrize("frame", [9, 25, 37])
def test_what_overflows_unseen(frame: int) -> None:
    """In a frame that is compared, and in one that is not."""
    module, frames = _everywhere()
    with torch.no_grad():
        module.wide.weight *= 1e20  # type: ignore[operator]
        module.spread.weight *= 1e-20  # type: ignore[operator]
    frames[frame] *= 1e25
    with torch.inference_mode():
        expected = module(frames)
    assert not expected[frame].isfinite().all()
    (result,), _ = native(program_of(module), (3, 25, 19), batch=16, threshold=0).run(frames)
    assert torch.equal(result.isfinite(), expected.isfinite())
    fine = torch.arange(120) != frame
    assert relative_l2(result[fine], expected[fine]) < 1e-4


@pytest.mark.parametrize("policy", ["bounded", "paper"])
def test_real_numbers_select_alike(policy: Any) -> None:
    # Numbers of full length: sums are rounded, and few selections are at the very threshold.
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1, groups=6),
        nn.Hardswish(), nn.Conv2d(24, 70, 1), nn.MaxPool2d(2), nn.Conv2d(70, 10, 3),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    frames = clip((3, 16, 16), CHANGES * 2, generator=generator, exact=False)
    frames += 0.01 * torch.randn(frames.shape, generator=generator)
    expected, seen, costs = readable(module, frames, threshold=1e-2, policy=policy)
    for isa in ISAS:
        network = native(
            program_of(module), (3, 16, 16), isa=isa, threshold=1e-2, policy=policy, adaptive=False
        )
        (result,), mine = network.run(frames)
        assert relative_l2(result.double(), expected[0]) < 1e-4
        torch.testing.assert_close(mine.density, seen.density, rtol=0, atol=1e-3)
        torch.testing.assert_close(mine.density_delta, seen.density_delta, rtol=0, atol=1e-3)
        assert_same_costs(network.stats(), costs, within=1e-3)


# --- a first layer and the maximum of its windows


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "pool", [(3, 2, 1, False), (2, 2, 0, False), (3, 1, 1, True), (4, 3, 2, True)]
)
def test_maximum_behind_a_first_layer(isa: str, pool: tuple[int, int, int, bool]) -> None:
    """Maps of several strips, so that windows reach over their borders."""
    size, stride, padding, rounded_up = pool
    generator = torch.Generator().manual_seed(size)
    module = nn.Sequential(
        nn.Conv2d(3, 70, 3, padding=1),
        nn.Hardtanh(0, 6) if rounded_up else nn.ReLU(),
        nn.MaxPool2d(size, stride, padding, ceil_mode=rounded_up),
        nn.Conv2d(70, 5, 1),
    )
    make_coarse(module, generator)
    changes = ("pixel", "few", "same", "corner", "all", "pixel", "few")
    shape = (3, 31 if isa == "reference" else 61, 83)
    frames = clip(shape, changes, generator=generator)
    expected, _, costs = readable(module, frames, threshold=0.0)
    network = native(program_of(module), shape, isa=isa, batch=3, adaptive=False)
    (result,), _ = network.run(frames)
    assert torch.equal(result, expected[0].float())
    assert_same_costs(network.stats(), costs)


# --- dense layers in Winograd's tiles

INT16_TILES = (2e-5, 3e-3)
"""What is left of the difference between tiles and direct sums in bf16: the tiles' whole numbers of
16 bits are as far from exact as this, and no nearer."""


def assert_near_direct_sums(
    result: Tensor, module: nn.Module, frames: Tensor, *, precision: str, batch: int, fp32: float
) -> None:
    """In fp32 beside the readable engine, in bf16 beside the same network without tiles."""
    if precision == "fp32":
        expected, _, _ = readable(module, frames, threshold=0.0)
        assert relative_l2(result.double(), expected[0]) < fp32
        return
    with tiles(False):
        network = native(program_of(module), frames.shape[1:], precision="bf16", batch=batch)
    (direct,), _ = network.run(frames)
    least, most = INT16_TILES
    assert least < relative_l2(result.double(), direct.double()) < most


# How frames are grouped is the same for all, and scalar code takes its time.
@pytest.mark.parametrize(
    ("isa", "batch", "precision"),
    [
        (isa, batch, precision)
        for isa in ISAS
        for batch, precision in ((1, "fp32"), (3, "fp32"), (8, "fp32"), (3, "bf16"))
        if isa != "reference" or batch == 3
    ],
)
@pytest.mark.parametrize(
    ("size", "height", "width", "padding"),
    [(3, 7, 7, 1), (3, 9, 14, 1), (3, 12, 5, 2), (3, 13, 5, 0), (5, 8, 11, 2), (7, 9, 9, 3)],
)
def test_tiles_equal_the_direct_sum(
    isa: str, batch: int, precision: str, size: int, height: int, width: int, padding: int
) -> None:
    """Layers that always run dense, of several stages, with groups, and a residual."""

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(20, 150, size, padding=padding)
            self.grouped = nn.Conv2d(150, 150, size, padding=size // 2, groups=2)
            self.last = nn.Conv2d(150, 17, 3, padding=0)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x).relu()
            return self.last((x + self.grouped(x)).relu())

    torch.manual_seed(0)
    module = Wide()
    generator = torch.Generator().manual_seed(1)
    changes = ("all", "pixel", "corner", "same", "few", "pixel", "all", "all", "corner")
    if isa == "reference":  # which takes its time
        changes = changes[: batch + 1]
    frames = clip((20, height, width), changes, generator=generator, exact=False)
    options: dict[str, Any] = {"precision": precision, "batch": batch}
    with mock.patch.dict(forms.BREAK_EVEN, dict.fromkeys(forms.BREAK_EVEN, -1.0)):
        with tiles(True) as used:
            network = native(program_of(module), (20, height, width), isa=isa, **options)
        assert len(used) >= 2
        (result,), seen = network.run(frames)
        assert seen.work.tolist() == [1.0] * len(frames)
        assert_near_direct_sums(result, module, frames, fp32=3e-6, **options)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize(
    ("size", "stride", "padding", "channels", "outputs"),
    [(7, 2, 3, 3, 40), (11, 4, 2, 3, 20), (6, 2, 0, 4, 16), (10, 3, (4, 1), 2, 150)],
)
def test_tiles_of_a_first_layer_equal_the_direct_sum(
    isa: str, pooled: bool, precision: str, size: int, stride: int, padding: Any, channels: int,
    outputs: int,
) -> None:  # fmt: skip
    """All its pixels, a few of them, and dense frames between lists."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(channels, outputs, size, stride, padding), nn.ReLU()]
    module = nn.Sequential(*layers, *[nn.MaxPool2d(3, 2, 1)] * pooled, nn.Conv2d(outputs, 8, 1))
    generator = torch.Generator().manual_seed(1)
    shape = (channels, 38, 53)
    changes = ("all", "pixel", "corner", "same", "few", "pixel", "all", "all", "pixel", "corner")
    frames = clip(shape, changes, generator=generator, exact=False)
    options: dict[str, Any] = {"precision": precision, "batch": 3}
    for density in (-1.0, 0.02):
        with mock.patch.dict(forms.BREAK_EVEN, {"columns": density}):
            with tiles(True) as used:
                network = native(program_of(module), shape, isa=isa, **options)
            assert len(used) == 1
            (result,), _ = network.run(frames)
            assert_near_direct_sums(result, module, frames, fp32=EXACT_RECURRENCE, **options)


# --- bf16


@few(12)
@given(st.integers(5, 140), CHANNELS, SIZES, SIZES, st.booleans(), ways(), SEEDS)
def test_bf16_is_exact_on_short_numbers(
    inputs: int, outputs: int, height: int, width: int, large: bool, way: Way, seed: int
) -> None:
    # Multiples of a quarter up to four have no more digits than bf16.
    generator = torch.Generator().manual_seed(seed)
    kernel = 3 if large else 1
    module = make_coarse(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, stride=1 + seed % 2), generator
    )
    frames = clip((inputs, height, width), way.changes, generator=generator)
    options = {"threshold": way.threshold, "policy": way.policy}
    expected, seen, _ = readable(module, frames, **options)
    for isa in ISAS:
        with tiles(False):
            network = native(
                program_of(module), frames.shape[1:], isa=isa, precision="bf16",
                batch=way.batch, adaptive=way.adaptive, **options,
            )  # fmt: skip
        (result,), mine = network.run(frames)
        assert torch.equal(result, expected[0].float()), isa
        if not way.adaptive:
            assert_same_densities([mine], seen)


def emulated(layer: nn.Conv2d, frames: Tensor, *, threshold: float, policy: str) -> Tensor:
    """One layer with weights and deltas of bf16 and sums of float64."""

    def rounded(value: Tensor) -> Tensor:
        return value.float().bfloat16().double()

    bias = layer.bias
    assert bias is not None

    def respond(delta: Tensor) -> Tensor:
        return F.conv2d(
            delta[None], rounded(layer.weight), None, layer.stride, layer.padding, 1, layer.groups
        )[0]

    snapshot = rounded(frames[0])
    y = respond(snapshot) + bias.double()[:, None, None]
    outputs = [y]
    for frame in frames[1:]:
        difference = (frame - snapshot.float()).double()
        delta = rounded(difference) * (difference.abs() > threshold)
        y = y + respond(delta)
        # Rounding is kept back for later, what was truncated only with "bounded".
        lost = (policy == "paper") & (difference.abs() <= threshold)
        snapshot = torch.where(lost, frame.double(), snapshot + delta)
        outputs.append(y)
    return torch.stack(outputs)


def test_what_rests_is_no_delta_of_dense_layers_in_bf16() -> None:
    """Its input is kept rounded there, which is as far from it as many thresholds."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 1), nn.ReLU(), nn.Conv2d(32, 8, 1)]
    program = program_of(nn.Sequential(*layers))
    frames = torch.randn(24, 3, 24, 24)
    rest = frames[-1:].repeat(80, 1, 1, 1)
    rest[:, :, 9:13, 9:13] = torch.randn(80, 3, 4, 4)
    seen = {}
    for precision in ("fp32", "bf16"):
        network = native(program, (3, 24, 24), precision=precision, threshold=1e-4)
        assert network.run(frames)[1].work[-1] == 1
        seen[precision] = network.run(rest)[1]
    deltas = [one.density_delta[-1] for one in seen.values()]
    torch.testing.assert_close(*deltas, rtol=0, atol=0.01)
    assert seen["bf16"].work[-1] < 0.1


@pytest.mark.parametrize("policy", ["bounded", "paper"])
@pytest.mark.parametrize("threshold", [0.0, 0.05])
@pytest.mark.parametrize("isa", ISAS)
def test_bf16_equals_its_emulation(isa: str, threshold: float, policy: Any) -> None:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(40, 30, 3, padding=1), nn.Conv2d(5, 17, 1), nn.Conv2d(70, 150, 3, stride=2),
        nn.Conv2d(48, 32, 3, padding=1, groups=4),
    ]  # fmt: skip
    for layer in layers:
        generator = torch.Generator().manual_seed(1)
        frames = clip((layer.in_channels, 7, 8), CHANGES * 2, generator=generator, exact=False)
        with torch.no_grad():
            expected = emulated(layer, frames, threshold=threshold, policy=policy)
        with tiles(False):
            network = native(
                program_of(layer), frames.shape[1:], isa=isa, precision="bf16",
                threshold=threshold, policy=policy, adaptive=False,
            )  # fmt: skip
        (result,), _ = network.run(frames)
        assert relative_l2(result.double(), expected) < 5e-6
        (full,) = readable(layer, frames, threshold=threshold, policy=policy)[0]
        assert 1e-4 < relative_l2(result.double(), full) < 1e-2, "the weights are rounded"


@pytest.mark.parametrize("policy", ["bounded", "paper"])
@pytest.mark.parametrize("isa", ISAS)
def test_what_blinks_does_not_drift_in_bf16(isa: str, policy: Any) -> None:
    """Up by what is rounded and down by what is not: 0.004 in three frames, if that were added."""
    same, layer = nn.Conv2d(8, 8, 1, bias=False), nn.Conv2d(8, 4, 1)  # the first one is in fp32
    with torch.no_grad():
        same.weight.copy_(torch.eye(8)[:, :, None, None])
    make_coarse(layer, torch.Generator().manual_seed(0))
    blinking = torch.tensor([0.0, 1.003, 0.5]).repeat(60)
    frames = blinking[:, None, None, None].repeat(1, 8, 3, 3)
    network = native(
        program_of(nn.Sequential(same, layer)), (8, 3, 3), isa=isa, precision="bf16",
        policy=policy, threshold=0, adaptive=False,
    )  # fmt: skip
    (result,), _ = network.run(frames)
    with torch.inference_mode():
        expected = layer(frames)
    assert relative_l2(result[-2:], expected[-2:]) < 5e-3


@pytest.mark.parametrize("adaptive", [False, True])
def test_bf16_does_not_drift(adaptive: bool) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1, stride=2),
        nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 40, 1),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    some = clip((3, 12, 12), ["few", "half", "pixel", "same", "few"] * 4, generator=generator)
    frames = some.repeat(10, 1, 1, 1)[:200]
    with torch.inference_mode():
        expected = module(frames)
    results = {}
    for isa in (ISAS[-1], "portable"):
        network = native(
            program_of(module), (3, 12, 12), isa=isa, precision="bf16", threshold=0,
            adaptive=adaptive,
        )  # fmt: skip
        (results[isa],), _ = network.run(frames)
        parts = zip(results[isa].split(20), expected.split(20), strict=True)
        errors = [relative_l2(a, b) for a, b in parts]
        assert max(errors) < 1e-2
        assert max(errors[5:]) < 1.2 * max(errors[:5])
    assert relative_l2(results["portable"], results[ISAS[-1]]) < 5e-3
