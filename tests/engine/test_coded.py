"""Fully-connected layers whose weights are read as codes, and which layers these are."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")

from rrm_extract.config import JobConfig
from rrm_extract.engine import NativeNetwork, forms
from rrm_extract.engine.compiled import CompiledNetwork
from rrm_extract.engine.mapped import load_mapped, save_mapped
from rrm_extract.jobs import make_recipe
from rrm_extract.jobs.compress import compress_network
from rrm_extract.models import load_model
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.coarse import CHANGES, clip, coarse, make_coarse
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
from tests.memory import assert_mapped_not_copied
from tests.tiny import MODEL

SHARES = {"lists": 2.0, "full": -1.0, "either": 0.3}
"""Break-evens: no frame is above the first, all are above the second."""


@torch.no_grad()
def pruned(
    module: nn.Module, *, values: int, density: float, generator: torch.Generator
) -> nn.Module:
    """``module`` with fully-connected layers of few weights and at most ``values`` different ones.

    These are multiples of an eighth, of which sums have no rounding.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            codebook = (torch.randperm(2 * values, generator=generator)[:values] - values) / 8
            codes = torch.randint(values, layer.weight.shape, generator=generator)
            kept = torch.rand(layer.weight.shape, generator=generator) < density
            layer.weight.copy_(codebook[codes] * kept)
    return module.eval()


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, int, int]]:
    """A fully-connected layer over a map, and one behind it."""
    shape = (draw(st.integers(1, 70)), draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    middle, outputs = draw(st.integers(1, 140)), draw(st.integers(1, 140))
    inputs = shape[0] * shape[1] * shape[2]
    bias = draw(st.booleans())
    between = draw(st.sampled_from([nn.Identity(), nn.ReLU(), nn.ReLU6()]))
    layers = [nn.Flatten(), nn.Linear(inputs, middle, bias=bias), between]
    if draw(st.booleans()):
        layers.insert(0, nn.Conv2d(shape[0], shape[0], 3, padding=1))
    return nn.Sequential(*layers, nn.Linear(middle, outputs)), shape


def check(
    module: nn.Module,
    shape: tuple[int, int, int],
    way: Way,
    *,
    seed: int,
    share: str,
    values: int,
    isa: str = "",
    precision: str = "fp32",
) -> None:
    """Against the readable engine in float64, to the bit where there are few values.

    Statistics too where all is in lists.
    """
    generator = torch.Generator().manual_seed(seed)
    make_coarse(module, generator)
    pruned(module, values=values, density=0.2, generator=generator)
    frames = clip(shape, way.changes, generator=generator)
    threshold = way.threshold if share == "lists" else 0.0  # full layers truncate nothing
    options = {"threshold": threshold, "policy": way.policy}
    expected, seen, costs = readable(module, frames, **options)
    with tiles(False), mock.patch.dict(forms.BREAK_EVEN, {"codes": SHARES[share]}):
        network = native(
            program_of(module), shape, isa=isa, batch=way.batch, precision=precision,
            adaptive=share != "lists", **options,
        )  # fmt: skip
    split = min(way.split, len(frames))
    parts = [network.run(some) for some in (frames[:split], frames[split:]) if len(some)]
    result = torch.cat([outputs[0] for outputs, _ in parts])
    if values > 31:  # sums of large numbers are rounded
        assert relative_l2(result.double(), expected[0]) < EXACT_RECURRENCE
    else:
        assert torch.equal(result.double(), expected[0])
    if share == "lists":
        assert_same_densities([part for _, part in parts], seen)
        assert_same_costs(network.stats(), costs)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("isa", ISAS)
def test_any_size(isa: str, share: str) -> None:
    @few(5)
    @given(networks(), ways(), SEEDS, st.sampled_from([1, 2, 15, 31, 200]))
    def holds(
        drawn: tuple[nn.Module, tuple[int, int, int]], way: Way, seed: int, values: int
    ) -> None:
        module, shape = drawn
        check(module, shape, way, seed=seed, share=share, values=values, isa=isa)

    holds()


@pytest.mark.parametrize("share", SHARES)
def test_with_deltas_of_bfloat16(share: str) -> None:
    @few(5)
    @given(st.integers(1, 70), st.integers(1, 4), st.integers(1, 140), ways(), SEEDS)
    def holds(channels: int, height: int, outputs: int, way: Way, seed: int) -> None:
        # One layer: what lies between two would be rounded.
        module = nn.Sequential(nn.Flatten(), nn.Linear(channels * height * 2, outputs))
        shape = (channels, height, 2)
        check(module, shape, way, seed=seed, share=share, values=15, precision="bf16")

    holds()


class Residual(nn.Module):
    """A sum behind a fully-connected layer, which it takes part in."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(60, 40)
        self.second = nn.Linear(40, 40)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(torch.flatten(x, 1))
        return torch.relu(self.second(torch.relu(x)) + x)


def test_a_sum_behind_the_layer() -> None:
    @few(5)
    @given(ways(), SEEDS)
    def holds(way: Way, seed: int) -> None:
        for share in SHARES:
            check(Residual(), (15, 2, 2), way, seed=seed, share=share, values=31)

    holds()


def real_network(*, values: int = 31, density: float = 0.1) -> nn.Module:
    """Weights and inputs of which sums are rounded; more outputs than a segment has."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 20, 3), nn.ReLU(), nn.Flatten(), nn.Linear(980, 1100), nn.ReLU(),
        nn.Linear(1100, 30),
    )  # fmt: skip
    with torch.no_grad():
        for layer in (module[3], module[5]):
            kept = torch.rand(layer.weight.shape) < density
            codes = torch.randint(values, layer.weight.shape)
            layer.weight.copy_(torch.randn(values)[codes] * kept)
    return module.eval()


@pytest.mark.parametrize("isa", ISAS)
def test_equals_the_readable_engine(isa: str) -> None:
    module = real_network()
    frames = clip((3, 9, 9), CHANGES * 3, generator=torch.Generator().manual_seed(0), exact=False)
    expected, _, _ = readable(module, frames, threshold=0.0)
    network = native(program_of(module), (3, 9, 9), isa=isa, threshold=0.0)
    assert forms_of(network)[1:] == ["codes", "codes"]
    (result,), _ = network.run(frames)
    assert relative_l2(result.double(), expected[0]) < EXACT_RECURRENCE


def test_results_do_not_depend_on_how_frames_come() -> None:
    module = real_network()
    frames = clip((3, 9, 9), CHANGES * 3, generator=torch.Generator().manual_seed(1), exact=False)
    network = native(program_of(module), (3, 9, 9), threshold=0.05, adaptive=False)
    (together,), _ = network.run(frames)
    network.reset()
    one_by_one = torch.cat([network.run(frame[None])[0][0] for frame in frames])
    assert torch.equal(together, one_by_one)


def some_weights(values: int, *, density: float = 0.3) -> torch.Tensor:
    """(40, 50): exactly ``values`` different ones beside 0."""
    weight = torch.zeros(2000)
    count = max(values, int(density * 2000))
    weight[torch.randperm(2000, generator=torch.Generator().manual_seed(0))[:count]] = (
        1.0 + torch.arange(count) % values
    )
    return weight.reshape(40, 50)


def test_which_layers_run_on_codes() -> None:
    for values in (1, 2, 3, 255, 256):
        assert forms_of(one_layer(some_weights(values))) == ["codes"]
    assert forms_of(one_layer(torch.zeros(40, 50))) == ["codes"]
    for weight in (
        some_weights(257),
        some_weights(5, density=0.5),
        torch.where(some_weights(5) == 1, torch.inf, some_weights(5)),
        torch.where(some_weights(5) == 1, torch.nan, some_weights(5)),
    ):
        assert forms_of(one_layer(weight)) == ["taps"]


def one_layer(weight: torch.Tensor) -> NativeNetwork:
    """A layer over whole pictures of (50, 1, 1)."""
    layer = nn.Linear(50, 40, bias=False)
    layer.weight.data = weight
    module = nn.Sequential(nn.Flatten(), layer)
    network = native(program_of(module), (50, 1, 1), threshold=0.0)
    if bool(torch.isfinite(weight).all()):
        frames = coarse(3, 50, 1, 1, generator=torch.Generator().manual_seed(0), steps=4, most=2)
        with torch.no_grad():
            assert torch.equal(network.run(frames)[0][0], module(frames))
    return network


def test_a_layer_over_every_pixel_keeps_its_weights() -> None:
    layer = nn.Conv2d(50, 40, 1)
    layer.weight.data = some_weights(5).reshape(40, 50, 1, 1)
    assert forms_of(native(program_of(layer), (50, 3, 3), threshold=0.0)) == ["taps"]


def test_infinities_are_computed_as_pytorch_does() -> None:
    module = real_network()
    frames = clip((3, 9, 9), ("few", "few", "few"), generator=torch.Generator().manual_seed(0))
    frames[1, 0, 4, 4] = torch.inf
    (result,), _ = native(program_of(module), (3, 9, 9), threshold=0.0).run(frames)
    with torch.no_grad():
        expected = module(frames)
    torch.testing.assert_close(result, expected, equal_nan=True, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("density", [0.2, 1.0])
def test_weights_of_a_compressed_file(density: float, tmp_path: Path) -> None:
    path = tmp_path / "tiny.dcz"
    compress_network(MODEL, path, densities={None: density})
    network = make_recipe(
        load_model(MODEL, weights=str(path)),
        JobConfig.from_mapping(
            {"model": MODEL, "weights": str(path), "layer": "fc", "threshold": 0}
        ),
    ).network()
    assert isinstance(network, NativeNetwork)
    assert forms_of(network)[-1] == ("codes" if density < 1 else "taps")
    x = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = torch.cat([network.program(frame[None])[0] for frame in x])
    assert relative_l2(network.run(x)[0][0], expected) < EXACT_RECURRENCE


def test_without_torch() -> None:
    module = real_network()
    frames = clip((3, 9, 9), CHANGES, generator=torch.Generator().manual_seed(0), exact=False)
    network = native(program_of(module), (3, 9, 9), threshold=0.0)
    plan = network.compiled()
    assert plan is not None
    (result,), _ = CompiledNetwork(plan).run(frames.numpy())
    assert torch.equal(torch.from_numpy(result), network.run(frames)[0][0])


def test_packed_weights_are_used_again() -> None:
    module = real_network()
    first = native(program_of(module), (3, 9, 9), threshold=0.0)
    second = native(program_of(module), (3, 9, 9), threshold=0.0, packed=first.packed)
    for name, packed in first.packed.items():
        assert second.packed[name] is packed
    frames = clip((3, 9, 9), CHANGES, generator=torch.Generator().manual_seed(0), exact=False)
    assert torch.equal(first.run(frames)[0][0], second.run(frames)[0][0])


def test_a_weight_takes_two_bytes() -> None:
    weight = some_weights(5)
    packed = one_layer(weight).packed
    entries = next(value for name, value in packed.items() if name.endswith(".codes"))
    assert 4 * entries.elements.numel() == 2 * int((weight != 0).sum())
    # Inputs are filled up to whole blocks of 16; there is one segment of outputs.
    starts = next(value for name, value in packed.items() if name.endswith(".starts"))
    assert starts.elements.numel() == 64 + 1


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc")
def test_codes_are_mapped_not_copied(tmp_path: Path) -> None:
    layer = nn.Linear(2000, 3000)
    module = pruned(
        nn.Sequential(nn.Flatten(), layer),
        values=31, density=0.2, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    save_mapped(native(program_of(module), (2000, 1, 1)).compiled(), tmp_path / "plan")
    network = CompiledNetwork(load_mapped(tmp_path / "plan"))
    network.run(np.ones((2, 2000, 1, 1), np.float32))
    assert_mapped_not_copied(tmp_path / "plan")


@pytest.mark.parametrize("where", SHARES)
def test_an_infinity_meets_weights_of_0(where: str) -> None:
    """They have no code, and 0 times infinity is none all the same."""
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 8), nn.Sigmoid())
    generator = torch.Generator().manual_seed(0)
    pruned(module, values=2, density=0.0, generator=generator)
    frames = torch.randn(4, 16, 2, 2, generator=generator)
    frames[2, 5, 1, 1] = float("inf")
    with mock.patch.dict(forms.BREAK_EVEN, {"codes": SHARES[where]}):
        network = native(program_of(module.eval()), (16, 2, 2), threshold=0, adaptive=True)
    assert forms_of(network) == ["codes"]
    with torch.inference_mode():
        expected = module(frames)
        assert expected[2].isnan().all()
        torch.testing.assert_close(network.run(frames)[0][0], expected, equal_nan=True)
