"""Binary layers on the native engine: as bits, from what flips or in full, with equal results."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")

from rrm_extract.engine import forms
from rrm_extract.engine.compiled import CompiledNetwork
from rrm_extract.engine.parts import Part
from rrm_extract.engine.plan import ConvStep
from rrm_extract.graph import BinaryConv2d, BinaryLinear, Sign
from tests.coarse import CHANGES, clip, make_coarse
from tests.engine.running import (
    ISAS,
    assert_same_costs,
    assert_same_densities,
    forms_of,
    native,
    program_of,
    readable,
    tiles,
)
from tests.engine.test_kernels import SEEDS, Way, few, ways

SHARES = {"lists": 2.0, "full": -1.0, "either": 0.3}
"""Break-evens: no frame is above the first, all are above the second."""


@torch.no_grad()
def exact(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Weights, scales and statistics whose sums have no rounding."""
    make_coarse(module, generator)
    for part in module.modules():
        if isinstance(part, (BinaryConv2d, BinaryLinear)):
            positive = torch.rand(part.weight.shape, generator=generator) < 0.5
            part.weight.copy_(torch.where(positive, 0.5, -0.5))
    return module.eval()


def break_even(density: float) -> AbstractContextManager[object]:
    names = [name for name in forms.BREAK_EVEN if "xnor" in name]
    return mock.patch.dict(forms.BREAK_EVEN, dict.fromkeys(names, density))


def check(
    module: nn.Module,
    shape: Sequence[int],
    way: Way,
    *,
    seed: int,
    share: str,
    isa: str = "",
    precision: str = "fp32",
) -> None:
    """Against the readable engine in float64, to the bit; statistics too where all is in lists."""
    generator = torch.Generator().manual_seed(seed)
    module = exact(module, generator)
    frames = clip(shape, way.changes, generator=generator)
    # Ordinary layers truncate nothing where they run in full.
    threshold = way.threshold if share == "lists" else 0.0
    options = {"threshold": threshold, "policy": way.policy}
    expected, seen, costs = readable(module, frames, **options)
    with break_even(SHARES[share]):
        network = native(
            program_of(module), shape, isa=isa, batch=way.batch, precision=precision,
            adaptive=share != "lists", **options,
        )  # fmt: skip
    assert "xnor" in forms_of(network)
    split = min(way.split, len(frames))
    parts = [network.run(some) for some in (frames[:split], frames[split:]) if len(some)]
    for number, value in enumerate(expected):
        result = torch.cat([outputs[number] for outputs, _ in parts])
        assert torch.equal(result.double(), value)
    if share == "lists":
        assert_same_densities([part for _, part in parts], seen)
        assert_same_costs(network.stats(), costs)


@st.composite
def layers(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, int, int]]:
    """A sign and a binary convolution of any geometry."""
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    size = [
        draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), 14))
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    ]
    inputs = draw(st.one_of(st.integers(1, 140), st.sampled_from([64, 128, 192])))
    outputs = draw(st.one_of(st.integers(1, 140), st.sampled_from([16, 64, 128])))
    layer = BinaryConv2d(
        inputs, outputs, kernel, stride, padding, dilation, bias=draw(st.booleans())
    )
    after = draw(st.sampled_from([nn.Identity(), nn.ReLU(), nn.ReLU6()]))
    return nn.Sequential(Sign(), layer, after), (inputs, size[0], size[1])


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("isa", ISAS)
def test_any_geometry(isa: str, share: str) -> None:
    @few(10)
    @given(layers(), ways(), SEEDS)
    def holds(drawn: tuple[nn.Module, tuple[int, int, int]], way: Way, seed: int) -> None:
        module, shape = drawn
        check(module, shape, way, seed=seed, share=share, isa=isa)

    holds()


def test_bits_are_the_same_whatever_the_precision() -> None:
    @few(5)
    @given(layers(), ways(), SEEDS)
    def holds(drawn: tuple[nn.Module, tuple[int, int, int]], way: Way, seed: int) -> None:
        module, shape = drawn
        check(module, shape, way, seed=seed, share="either", precision="bf16")

    holds()


class Residual(nn.Module):
    """A pre-activation block of a binary ResNet, behind and in front of ordinary layers."""

    def __init__(self, channels: int, middle: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.sign1 = Sign()
        self.conv1 = BinaryConv2d(channels, middle, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.sign2 = Sign()
        self.conv2 = BinaryConv2d(middle, channels, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(channels, 7, 1, 2)
        self.down = BinaryConv2d(channels, 7, 3, 2, 1)
        self.pool = nn.MaxPool2d(3, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(x)
        y = self.conv2(self.sign2(self.bn2(self.conv1(self.sign1(self.bn1(x))))))
        total = y + x
        last = torch.relu(self.down(self.sign1(total)) + self.shortcut(total))
        return self.pool(total), last


@pytest.mark.parametrize("share", SHARES)
def test_residual_blocks(share: str) -> None:
    @few(10)
    @given(st.integers(1, 70), st.integers(1, 70), st.integers(3, 17), ways(), SEEDS)
    def holds(channels: int, middle: int, size: int, way: Way, seed: int) -> None:
        module = Residual(channels, middle)
        check(module, (3, size, size + 2), way, seed=seed, share=share)

    holds()


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("isa", ISAS)
def test_a_fully_connected_layer(isa: str, share: str) -> None:
    @few(5)
    @given(st.integers(1, 40), st.integers(1, 90), st.integers(1, 5), ways(), SEEDS)
    def holds(channels: int, outputs: int, size: int, way: Way, seed: int) -> None:
        module = nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1),
            nn.Flatten(),
            nn.BatchNorm1d(channels * size * size),
            Sign(),
            nn.Dropout(),
            BinaryLinear(channels * size * size, outputs),
            nn.ReLU(),
            nn.BatchNorm1d(outputs),
            Sign(),
            BinaryLinear(outputs, 11, bias=False),
        )
        check(module, (3, size, size), way, seed=seed, share=share, isa=isa)

    holds()


@pytest.mark.parametrize("isa", ISAS)
def test_all_engines_agree_at_the_border(isa: str) -> None:
    """Padding is zeros: neither sign."""
    layer = BinaryConv2d(3, 2, 3, padding=2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.ones_like(layer.weight))
    module = nn.Sequential(Sign(), layer).eval()
    x = torch.ones(1, 3, 3, 3)
    (result,), _ = native(program_of(module), (3, 3, 3), isa=isa).run(x)
    assert torch.equal(result, module(x))
    assert result[0, 0, :, 0].tolist() == [3, 6, 9, 6, 3]


def test_the_layer_is_named_in_the_plan_and_takes_the_scale() -> None:
    module = nn.Sequential(Sign(), BinaryConv2d(16, 16, 3), nn.ReLU()).eval()
    network = native(program_of(module), (16, 8, 8))
    (part,) = network.sequence
    assert isinstance(part, Part)
    _, convolution = part.steps
    assert isinstance(convolution, ConvStep)
    assert (convolution.form, convolution.activation.kind) == ("xnor", "relu")
    assert convolution.scale is not None
    assert convolution.shift is not None
    assert convolution.delta.threshold == 0.0


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(BinaryConv2d(8, 4, 3)),  # whose input is no sign
        nn.Sequential(Sign(), nn.Conv2d(8, 4, 3)),  # whose weights are none
        nn.Sequential(Sign(), BinaryConv2d(8, 4, 3, groups=2)),
        nn.Sequential(Sign(), nn.ConstantPad2d(1, 0.5), BinaryConv2d(8, 4, 3)),  # no signs around
        nn.Sequential(Sign(), nn.AvgPool2d(2), BinaryConv2d(8, 4, 3)),
    ],
)
def test_others_run_on_numbers(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    exact(module, generator)
    frames = clip((8, 9, 10), ["few", "half", "all"], generator=generator)
    expected, _, _ = readable(module, frames, threshold=0.0)
    with tiles(False):
        network = native(program_of(module), (8, 9, 10), threshold=0.0)
    assert "xnor" not in forms_of(network)
    assert torch.equal(network.run(frames)[0][0].double(), expected[0])


def test_zeros_around_signs_are_padding_of_bits() -> None:
    module = nn.Sequential(Sign(), nn.ZeroPad2d((0, 1, 2, 1)), BinaryConv2d(8, 4, 3, stride=2))
    generator = torch.Generator().manual_seed(0)
    exact(module, generator)
    frames = clip((8, 9, 10), ["few", "half", "all", "pixel"], generator=generator)
    expected, _, _ = readable(module, frames, threshold=0.0)
    network = native(program_of(module), (8, 9, 10), threshold=0.0)
    assert "xnor" in forms_of(network)
    assert torch.equal(network.run(frames)[0][0].double(), expected[0])


def test_sums_beyond_16_bits_run_on_numbers() -> None:
    module = nn.Sequential(Sign(), nn.Flatten(), BinaryLinear(2**15, 3)).eval()
    network = native(program_of(module), (2**9, 8, 8))
    assert "xnor" not in forms_of(network)
    x = torch.ones(1, 2**9, 8, 8)
    torch.testing.assert_close(network.run(x)[0][0], module(x))


def test_the_largest_sum_fits() -> None:
    module = nn.Sequential(Sign(), nn.Flatten(), BinaryLinear(2**15 - 1, 3, bias=False)).eval()
    with torch.no_grad():
        module[2].weight.fill_(1.0)
    network = native(program_of(module), (2**15 - 1, 1, 1), adaptive=False)
    assert forms_of(network) == ["xnor"]
    x = torch.ones(3, 2**15 - 1, 1, 1)
    x[1] = -1
    assert network.run(x)[0][0][:, 0].tolist() == [2**15 - 1, 1 - 2**15, 2**15 - 1]


@pytest.mark.parametrize("threshold", [0.0, 0.5, 3.0])
def test_flips_are_never_truncated(threshold: float) -> None:
    module = nn.Sequential(Sign(), BinaryConv2d(20, 9, 3, padding=1))
    frames = ["few"] * 5
    generator = torch.Generator().manual_seed(0)
    exact(module, generator)
    x = clip((20, 8, 8), frames, generator=generator)
    (expected,), seen, _ = readable(module, x, threshold=threshold)
    network = native(program_of(module), (20, 8, 8), threshold=threshold)
    network.track()
    network.scale_thresholds(64.0)
    (result,), found = network.run(x)
    assert torch.equal(expected, module.double()(x.double()))
    assert torch.equal(result.double(), expected)
    assert found.truncated is not None
    assert not found.truncated.any()
    torch.testing.assert_close(found.density_delta, seen.density_delta, rtol=0, atol=1e-7)


def test_a_frame_counts_in_full_where_it_was_computed_so() -> None:
    module = nn.Sequential(Sign(), BinaryConv2d(64, 64, 3, padding=1))
    x = clip((64, 8, 8), ["few", "all", "few"], generator=torch.Generator().manual_seed(0))
    exact(module, torch.Generator().manual_seed(0))
    with break_even(0.2):
        network = native(program_of(module), (64, 8, 8), threshold=0.0)
    _, seen = network.run(x)
    assert [bool(work == 1) for work in seen.work] == [True, False, True, False]
    assert seen.density_delta[2, 0] < 1
    assert torch.equal(seen.key_frame, seen.work == 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_gone_with_its_frame(value: float) -> None:
    module = exact(
        nn.Sequential(nn.Conv2d(3, 8, 3), Sign(), BinaryConv2d(8, 5, 3)),
        torch.Generator().manual_seed(0),
    )
    x = clip((3, 9, 9), ["few"] * 5, generator=torch.Generator().manual_seed(1))
    x[2, 0, 4, 4] = value
    network = native(program_of(module), (3, 9, 9), threshold=0.0)
    (result,), _ = network.run(x)
    with torch.inference_mode():
        expected = module(x)
    assert torch.equal(result.nan_to_num(7.0), expected.nan_to_num(7.0))
    assert expected[2].isnan().any()


@pytest.mark.parametrize("channels", [20, 160, 300])
def test_after_a_reset_and_in_another_lane_nothing_is_left(channels: int) -> None:
    """More than 128 outputs come in several stages, each for all frames."""
    module = nn.Sequential(nn.Conv2d(3, channels, 3), Sign(), BinaryConv2d(channels, 33, 3))
    exact(module, torch.Generator().manual_seed(0))
    network = native(program_of(module), (3, 9, 9), threshold=0.0)
    for seed in range(3):
        x = clip((3, 9, 9), CHANGES, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            expected = module(x)
        assert torch.equal(network.run(x)[0][0], expected)
        assert torch.equal(network.fork().run(x)[0][0], expected)
        network.reset()


def test_without_pytorch_too() -> None:
    module = nn.Sequential(nn.Conv2d(3, 20, 3), Sign(), BinaryConv2d(20, 33, 3), nn.ReLU())
    exact(module, torch.Generator().manual_seed(0))
    x = clip((3, 9, 9), CHANGES, generator=torch.Generator().manual_seed(0))
    network = native(program_of(module), (3, 9, 9), threshold=0.0)
    plan = network.compiled()
    assert plan is not None
    (result,), _ = CompiledNetwork(plan).run(x.numpy())
    assert torch.equal(torch.from_numpy(result), network.run(x)[0][0])


class _OverPixels(nn.Module):
    """A binary fully-connected layer over the last dimension of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.sign = nn.Conv2d(3, 16, 3, padding=1), Sign()
        self.fc = BinaryLinear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.sign(self.conv(x)).permute(0, 2, 3, 1))


@pytest.mark.parametrize("side", [12, 16])
def test_a_binary_layer_over_the_last_dimension(side: int) -> None:
    module = _OverPixels()
    exact(module, torch.Generator().manual_seed(0))
    x = clip((3, side, side), CHANGES, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = module(x)
    (result,), _ = native(program_of(module), (3, side, side), threshold=0.0).run(x)
    assert torch.equal(result, expected)
