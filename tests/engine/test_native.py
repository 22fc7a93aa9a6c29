"""Whole networks on the native engine, beside the readable one and plain PyTorch."""

from __future__ import annotations

import copy
import inspect
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")

from rrm_extract.engine import NativeNetwork
from rrm_extract.engine import native as native_engine
from rrm_extract.errors import ConfigError, EngineError, LayerError
from rrm_extract.graph import Program, select
from rrm_extract.rrm import RecurrentNetwork
from rrm_extract.rrm.truncate import POLICIES
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.coarse import clip, coarse, make_coarse
from tests.engine.running import (
    ISAS,
    assert_same_costs,
    assert_same_densities,
    assert_same_selection,
    every_frame,
    native,
    program_of,
    tiles,
)
from tests.graph import nets
from tests.rrm.lively import FAMILIES, Lively, lively
from tests.rrm.videos import moving_frames

FRAMES = 5
NETWORKS = {**FAMILIES, "resnet50": 64, "wide_resnet50_2": 64}
# With its batch-norms folded it has the layers of vgg11, and drawing them takes seconds.
del NETWORKS["vgg11_bn"]
SLOW = {"inception_v3", "resnet50", "wide_resnet50_2"}
"""They take longest. Inception's long kernels have their threshold in test_kernels."""
NO_KERNEL = {
    "alexnet": {"AdaptiveAvgPool2d with these arguments"},  # small inputs leave it too little
    "convnext_tiny": {"GELU", "LayerNorm", "layer_norm with a constant"},
    "vgg11": {"AdaptiveAvgPool2d with these arguments"},
}
"""What is left to PyTorch."""


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> tuple[str, Lively]:
    return request.param, lively(request.param, frames=FRAMES, size=NETWORKS[request.param])


@pytest.fixture(scope="module")
def exact(network: tuple[str, Lively]) -> NativeNetwork:
    """The same at threshold 0, before its first frame."""
    _, drawn = network
    options: dict[str, Any] = {"threshold": 0, "adaptive": False, "batch": 3}
    return native(drawn.program, drawn.inputs.shape[1:], **options)


def test_family(network: tuple[str, Lively], exact: NativeNetwork) -> None:
    name, drawn = network
    reasons = {f"no kernel for {operation}" for operation in NO_KERNEL.get(name, ())}
    islands = dict(exact.islands)
    assert set(islands.values()) == reasons
    assert {op.name for op in drawn.program.linear_ops}.isdisjoint(islands)
    mine = exact.fork()
    results, seen = mine.run(drawn.inputs)
    assert len(results) == 2, "the penultimate feature and the logits"
    for values, result in zip(drawn.expected, results, strict=True):
        assert result.shape == values.shape
        assert relative_l2(result, values) < EXACT_RECURRENCE
    other = RecurrentNetwork(drawn.program, threshold=0)
    expected, densities = other.run(drawn.inputs)
    for values, result in zip(expected, results, strict=True):
        assert relative_l2(result, values) < EXACT_RECURRENCE
    # What rounding makes of a zero is another number, and so is its difference: 1e-2 of them.
    assert torch.equal(seen.key_frame, densities.key_frame)
    torch.testing.assert_close(seen.density, densities.density, rtol=0, atol=1e-3)
    torch.testing.assert_close(seen.work[:1], densities.work[:1])
    costs = [
        (cost.name, cost.macs, cost.input_elements, cost.output_elements) for cost in mine.stats()
    ]
    assert costs == [
        (cost.name, cost.macs, cost.input_elements, cost.output_elements) for cost in other.stats()
    ]


def test_a_threshold_selects_as_the_readable_engine_does(
    network: tuple[str, Lively], exact: NativeNetwork
) -> None:
    name, drawn = network
    if name in SLOW:
        pytest.skip("one of the slow networks")
    shape, packed = drawn.inputs.shape[1:], exact.packed
    mine = native(drawn.program, shape, threshold=1e-2, adaptive=False, packed=packed)
    other = RecurrentNetwork(drawn.program, threshold=1e-2)
    results, seen = mine.run(drawn.inputs)
    expected, densities = other.run(drawn.inputs)
    for values, result in zip(expected, results, strict=True):
        assert relative_l2(result, values) < 1e-2
    assert_same_selection([seen], [densities], other.stats())
    assert_same_costs(mine.stats(), other.stats(), within=3e-2)
    assert 0 < float(seen.work[1:].mean()) < 1


class Narrowing(nn.Module):
    """Maps of 64 x 64, 32 x 32 and 4 x 4 pixels, which pass their layers by 2, 4 and 8 frames."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 64, 3, padding=1)
        self.wide = nn.ModuleList(nn.Conv2d(64, 64, 3, padding=1) for _ in range(3))
        self.strided = nn.Conv2d(64, 64, 3, stride=2, padding=1)
        self.side = nn.Conv2d(64, 64, 1, stride=2)
        self.middle = nn.ModuleList(nn.Conv2d(64, 64, 3, padding=1) for _ in range(2))
        self.eighth = nn.Conv2d(64, 64, 9, stride=8, padding=4)
        self.last = nn.ModuleList(nn.Conv2d(64, 64, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        for layer in self.wide:
            x = F.relu(layer(x))
        x = F.relu(self.strided(x)) + self.side(x)
        for layer in self.middle:
            x = x + F.relu(layer(x))
        x = F.relu(self.eighth(x))
        for layer in self.last:
            x = x + F.relu(layer(x))
        return x.mean((2, 3))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_lists_share_memory(precision: str) -> None:
    """Lists lie where others were as soon as those are read, and never before."""
    network = Narrowing().eval()
    for parameter in network.parameters():  # so that an error in one layer reaches the end
        nn.init.kaiming_normal_(parameter) if parameter.dim() > 1 else nn.init.zeros_(parameter)
    frames = moving_frames(17, size=64)
    program = program_of(network)
    shape = frames.shape[1:]
    mine = native(program, shape, threshold=0, precision=precision, adaptive=False, batch=8)
    (result,), _ = mine.run(frames)
    with torch.no_grad():
        expected = network(frames)
    assert relative_l2(result, expected) < (EXACT_RECURRENCE if precision == "fp32" else 2e-2)
    # A place of their own for the lists of each layer would take 11 MB more.
    assert mine.state_bytes() < 47e6


def test_the_state_is_counted_in_full() -> None:
    """The paper's policy also keeps each depthwise layer's input before."""
    program = program_of(nn.Conv2d(64, 64, 3, padding=1, groups=64))
    sizes = [native(program, (64, 32, 32), policy=policy).state_bytes() for policy in POLICIES]
    assert sizes[1] - sizes[0] == 64 * 32 * 32 * 4


@pytest.mark.parametrize("net", nets.ALL)
def test_small_networks(net: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = nets.randomised(net()).eval()
    frames = moving_frames(6, 16)
    with torch.inference_mode():
        expected = module(frames.clone())
    for batch in (1, 4):
        (result,), _ = native(program_of(module), (3, 16, 16), threshold=0, batch=batch).run(frames)
        assert relative_l2(result, expected) < EXACT_RECURRENCE


class _ChannelsLast(nn.Module):
    """As networks of other frameworks take their frames."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.layer(x.permute(0, 3, 1, 2)))
        return x.permute(0, 2, 3, 1), self.head(x.mean((2, 3)))


def test_channels_last() -> None:
    torch.manual_seed(0)
    module = _ChannelsLast().eval()
    frames = moving_frames(5, 16).permute(0, 2, 3, 1)
    network = native(program_of(module), (16, 16, 3), threshold=0, batch=2)
    assert network.islands == ()
    with torch.inference_mode():
        expected = module(frames)
    for layout in (frames, frames.contiguous()):  # both kinds of memory
        network.reset()
        results, _ = network.run(layout)
        for values, result in zip(expected, results, strict=True):
            assert result.shape == values.shape
            assert relative_l2(result, values) < EXACT_RECURRENCE


class _OfConstants(nn.Module):
    """A layer that reads parameters only, as position biases are made."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 6, 3)
        self.table = nn.Parameter(torch.randn(1, 5, 5, 2))
        self.mix = nn.Linear(2, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.mix(self.table).mean((1, 2))[:, :, None, None]


class _OfIndices(nn.Module):
    """An operation without native form that is given indices."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 6, 3)
        self.register_buffer("order", torch.tensor([5, 3, 1, 0, 2, 4]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.index_select(F.gelu(self.layer(x)), 1, self.order)


@pytest.mark.parametrize("net", [_OfConstants, _OfIndices])
def test_constants_in_islands(net: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = net().eval()
    frames = moving_frames(3, 16)
    with torch.inference_mode():
        expected = module(frames)
    (result,), _ = native(program_of(module), (3, 16, 16), threshold=0).run(frames)
    assert relative_l2(result, expected) < EXACT_RECURRENCE


class _WithToken(nn.Module):
    """A token for each frame, as vision transformers have it: the batch's size is an argument."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 6, 3)
        self.token = nn.Parameter(torch.ones(1, 1, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        n = x.shape[0]
        x = x.reshape(n, 6, -1).permute(0, 2, 1)
        return torch.cat([self.token.expand(n, -1, -1), x], 1).softmax(1)


@pytest.mark.parametrize("batch", [2, 8])
def test_islands_that_are_given_the_size_of_a_batch(batch: int) -> None:
    torch.manual_seed(0)
    module = _WithToken().eval()
    frames = moving_frames(3, 16)
    with torch.inference_mode():
        expected = module(frames)
    (result,), _ = native(program_of(module), (3, 16, 16), threshold=0, batch=batch).run(frames)
    assert result.shape == expected.shape
    assert relative_l2(result, expected) < EXACT_RECURRENCE


def test_the_engines_have_the_same_methods() -> None:
    """But ``observe``; the native engine may have more."""

    def methods(kind: type) -> dict[str, inspect.Signature]:
        members = inspect.getmembers(kind, inspect.isfunction)
        return {name: inspect.signature(one) for name, one in members if name[0] != "_"}

    wanted = methods(RecurrentNetwork)
    del wanted["observe"]
    found = methods(NativeNetwork)
    assert {name: found.get(name) for name in wanted} == wanted
    assert "observe" not in found


# --- states


@cache
def small(name: str = "resnet18") -> Program:
    """Two outputs of a network with drawn weights; drawn once."""
    return lively(name, frames=2, size=64).program


def opened(name: str = "resnet18", **options: Any) -> NativeNetwork:
    return native(small(name), (3, 64, 64), **options)


def outputs_of(network: NativeNetwork, frames: Tensor) -> Tensor:
    return torch.cat([output.flatten(1) for output in network.run(frames)[0]], 1)


def test_steps_of_one_lane() -> None:
    frames = moving_frames(4, 64)
    network = opened(threshold=1e-3, adaptive=False)
    expected, _ = opened(threshold=1e-3, adaptive=False).run(frames)
    for number, frame in enumerate(frames):
        result = network.step(frame)
        assert isinstance(result, tuple)
        for value, whole in zip(result, expected, strict=True):
            assert value.shape == whole.shape[1:]
            assert relative_l2(value[None], whole[number][None]) < 1e-3
    program = select(small(), small().outputs[1:])
    single = native(program, (3, 64, 64)).step(frames[0])
    assert single.shape == (1000,), "one output is a tensor"


def test_lanes_are_independent() -> None:
    videos = torch.stack([moving_frames(4, 64, seed=seed) for seed in (1, 2, 3)], dim=1)
    network = opened("mobilenet_v3_small", threshold=1e-3)
    together = [network.step(lanes) for lanes in videos]
    for lane in range(3):
        alone = opened("mobilenet_v3_small", threshold=1e-3)
        for time, frame in enumerate(videos[:, lane]):
            for value, expected in zip(together[time], alone.step(frame), strict=True):
                assert torch.equal(value[lane], expected)
    network.reset()
    again = [network.step(lanes) for lanes in videos]
    for before, after in zip(together, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_statistics_are_of_all_lanes() -> None:
    videos = torch.stack([moving_frames(3, 64), torch.zeros(3, 3, 64, 64)], dim=1)
    network = opened("squeezenet1_1", threshold=1e-3, adaptive=False)
    other = RecurrentNetwork(small("squeezenet1_1"), threshold=1e-3)
    for lanes in videos:
        network.step(lanes)
        other.step(lanes)
    assert_same_costs(network.stats(), other.stats(), within=1e-3)


@pytest.mark.parametrize("net", [nets.RowsOfTokens, nets.RowsInFront])
def test_costs_are_of_a_frame_where_a_layer_reads_several_rows_of_it(net: type[nn.Module]) -> None:
    program = program_of(net())
    frames = moving_frames(2, 8)
    one, other = native(program, (3, 8, 8)), RecurrentNetwork(program)
    networks: list[NativeNetwork | RecurrentNetwork] = [one, other]
    for network in networks:
        network.run(frames)
    if net is nets.RowsOfTokens:  # the other would mix lanes
        networks.append(RecurrentNetwork(program))
        networks[-1].step(frames)
    sizes = [
        [(cost.macs, cost.input_elements, cost.output_elements) for cost in network.stats()]
        for network in networks
    ]
    assert all(found == sizes[0] for found in sizes)


def test_reset_starts_over() -> None:
    frames = moving_frames(5, 64)
    network = opened("mobilenet_v2", threshold=0.1, batch=2)
    first, seen = network.run(frames)
    assert seen.key_frame.tolist() == [True, *[False] * 4]
    frames_before = network.stats()[0]
    network.reset()
    again, seen = network.run(frames)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert seen.key_frame[0]
    assert network.stats()[0] == frames_before, "the accounting goes on: the mean of both"
    network.run(frames)
    assert network.stats()[0] != frames_before


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_1"])
@pytest.mark.parametrize("threshold", [0, 1e-2])
def test_a_key_frame_is_computed_from_nothing(name: str, threshold: float) -> None:
    frames = moving_frames(12, 64)
    noise = torch.rand(12, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    network, alone = opened(name, threshold=threshold), opened(name, threshold=0)
    for clip_, begin in ((frames, 5), (noise, 0), (noise, 11), (frames, 6)):
        outputs_of(network, clip_)
        network.key_frame()
        outputs, seen = network.run(clip_[begin:])
        result = torch.cat([output.flatten(1) for output in outputs], 1)
        assert seen.key_frame[0]
        alone.reset()
        expected = outputs_of(alone, clip_[begin:])
        assert relative_l2(result[:1], expected[:1]) < EXACT_RECURRENCE
        assert relative_l2(result, expected) < (EXACT_RECURRENCE if threshold == 0 else 0.2)


def test_forks_share_weights_and_nothing_else() -> None:
    frames = moving_frames(4, 64)
    network = opened(threshold=1e-2)
    expected = outputs_of(opened(threshold=1e-2), frames)
    network.run(moving_frames(3, 64, seed=7))
    other = network.fork()
    assert all(math_is_nan(cost.density) for cost in other.stats())
    assert torch.equal(outputs_of(other, frames), expected)
    mine, theirs = network.packed, other.packed
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert mine[name].elements.data_ptr() == theirs[name].elements.data_ptr()
    assert other.state_bytes() > 1e6


def math_is_nan(value: float) -> bool:
    return value != value


def test_packed_weights_make_the_same_network() -> None:
    frames = moving_frames(3, 64)
    for precision in ("fp32", "bf16"):
        first = opened("mobilenet_v2", threshold=1e-3, precision=precision)
        second = opened("mobilenet_v2", threshold=1e-3, precision=precision, packed=first.packed)
        assert torch.equal(outputs_of(first, frames), outputs_of(second, frames))
        for name, packed in first.packed.items():
            assert second.packed[name] is packed


@pytest.mark.parametrize("threshold", [0, 1e-2])
def test_networks_live_side_by_side(threshold: float) -> None:
    names = ("resnet18", "mobilenet_v2", "resnet18", "mobilenet_v2")
    clips = [moving_frames(6, 64, seed=seed) for seed in range(4)]
    parts = [video.split(size) for video, size in zip(clips, (1, 2, 3, 2), strict=True)]
    alone = []
    for name, video in zip(names, parts, strict=True):
        network = opened(name, threshold=threshold)
        alone.append([outputs_of(network, part) for part in video])
    first, second = (opened(name, threshold=threshold) for name in names[:2])
    networks = [first, second, first.fork(), second.fork()]
    for turn in range(6):
        for network, video, expected in zip(networks, parts, alone, strict=True):
            if turn < len(video):
                assert torch.equal(outputs_of(network, video[turn]), expected[turn])


def test_threads_do_not_disturb_each_other() -> None:
    network = opened(threshold=1e-2, batch=2)
    clips = [moving_frames(8, 64, seed=seed) for seed in range(2)]
    alone = [outputs_of(opened(threshold=1e-2, batch=2), video) for video in clips]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            forks = [network.fork() for _ in clips]
            for result, expected in zip(pool.map(outputs_of, forks, clips), alone, strict=True):
                assert torch.equal(result, expected)


@pytest.mark.parametrize(("name", "batch"), [("resnet18", 3), ("mobilenet_v2", 1)])
def test_frames_in_any_portions(name: str, batch: int) -> None:
    frames = moving_frames(9, 64)
    expected = outputs_of(opened(name, threshold=0, adaptive=False), frames)
    for sizes in ([1] * 9, [2, 7], [5, 1, 3]):
        network = opened(name, batch=batch, threshold=0, adaptive=False)
        result = torch.cat([outputs_of(network, part) for part in frames.split(sizes)])
        assert relative_l2(result, expected) < EXACT_RECURRENCE


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121"])
@pytest.mark.parametrize("threshold", [0, 1e-2])
def test_portions_do_not_change_a_bit(name: str, threshold: float) -> None:
    frames = moving_frames(9, 64)
    options: dict[str, Any] = {"threshold": threshold, "adaptive": False}
    expected = outputs_of(opened(name, **options), frames)
    for sizes in ([1] * 9, [2, 7], [5, 1, 3]):
        network = opened(name, **options)
        result = torch.cat([outputs_of(network, part) for part in frames.split(sizes)])
        assert torch.equal(result, expected)


# --- numbers that are none


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_1"])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_bad_frame_does_not_spoil_the_next(name: str, bad: float, batch: int) -> None:
    frames = moving_frames(9, 64)
    frames[2, 0, 5, 5] = bad
    program = small(name)
    expected = program(frames)
    if name != "mobilenet_v2":  # whose activations end at 6
        assert not torch.isfinite(expected[1][2]).all()
    network = opened(name, threshold=0, batch=batch)
    results, seen = network.run(frames)
    fine = [number for number in range(9) if number != 2]
    for values, result in zip(expected, results, strict=True):
        assert relative_l2(result[fine], values[fine]) < EXACT_RECURRENCE
        torch.testing.assert_close(result[2], values[2], rtol=1e-3, atol=1e-3, equal_nan=True)
    assert seen.key_frame[2]
    assert bool(torch.isfinite(seen.work).all())
    later, seen = network.run(frames[5:])
    assert not seen.key_frame.any()
    for values, result in zip(expected, later, strict=True):
        assert relative_l2(result, values[5:]) < EXACT_RECURRENCE


def test_the_frame_after_track_is_a_key_frame_each_time() -> None:
    frames = moving_frames(4, 64)
    network = opened("resnet18", threshold=0.1, adaptive=False)
    for part in (frames[:2], frames[2:]):
        network.track()
        seen = network.run(part)[1]
        assert seen.key_frame.tolist() == [True, False]


@pytest.mark.parametrize("batch", [1, 4])
def test_what_is_truncated_is_counted_around_a_bad_frame(batch: int) -> None:
    frames = moving_frames(9, 64)
    frames[2, 0, 5, 5] = float("nan")
    network = opened("resnet18", threshold=0.1, batch=batch)
    network.track()
    truncated = network.run(frames)[1].truncated
    assert truncated is not None
    assert truncated.shape == (9, len(network.program.linear_ops))
    assert not truncated[2].any(), "computed densely"
    assert truncated[-1].any()


class Expansion(nn.Module):
    """1x1 layers with a sum before the activation."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Sequential(nn.Conv2d(24, 40, 1), nn.ReLU(), nn.Conv2d(40, 24, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.inside(x))


class Bottleneck(nn.Module):
    """A sum of what a 1x1 layer made with what another one read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.inside = nn.Sequential(nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Conv2d(16, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1)
        return self.inside(x) + x


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("isa", ISAS)
def test_a_sum_in_bf16_where_little_and_much_changes_in_turn(isa: str, batch: int) -> None:
    """What a sum reads is bfloat16 in one frame and floats in another, of which little is new."""
    torch.manual_seed(0)
    module = Bottleneck().eval()
    generator = torch.Generator().manual_seed(0)
    frames = [torch.randn(3, 48, 48, generator=generator)]
    for change in ("few", "box", "few", "all", "box", "all", "box"):
        new = torch.randn(3, 48, 48, generator=generator)
        frame = new if change == "all" else frames[-1].clone()
        if change == "box":
            frame[:, 5:11, 5:11] = new[:, 5:11, 5:11]
        if change == "few":
            where = torch.rand(3, 48, 48, generator=generator) < 0.02
            frame[where] = new[where]
        frames.append(frame)
    clip_of_them = torch.stack(frames)
    network = native(
        program_of(module), (3, 48, 48), threshold=0, batch=batch, isa=isa, precision="bf16"
    )
    (result,), seen = network.run(clip_of_them)
    assert len(set(seen.work.tolist())) > 2, "lists and dense frames take turns"
    with torch.inference_mode():
        assert relative_l2(result, module(clip_of_them)) < 0.02


@pytest.mark.parametrize("bad", [float("nan"), -float("inf")])
@pytest.mark.parametrize("isa", ISAS)
def test_a_bad_frame_where_everything_changes(isa: str, bad: float) -> None:
    """Dense kernels then finish what they compute, and most frames are not compared."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1),
        nn.ReLU6(),
        Expansion(),
        nn.Conv2d(24, 24, 3, padding=1, groups=24),
        nn.ReLU6(),
        nn.Conv2d(24, 9, 1),
    ).eval()
    frames = torch.randn(24, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    network = native(program_of(module), (3, 12, 12), threshold=0, batch=8, isa=isa)
    with torch.inference_mode():
        torch.testing.assert_close(network.run(frames)[0][0], module(frames), rtol=1e-4, atol=1e-5)
        frames[13, 1, 4, 7] = bad
        torch.testing.assert_close(
            network.run(frames)[0][0], module(frames), rtol=1e-4, atol=1e-5, equal_nan=True
        )


@pytest.mark.parametrize("isa", ISAS)
def test_silu_far_below_zero(isa: str) -> None:
    values = [
        [-80.0, -88.0, -104.0, -1e30, -3e38, 0.0, 3e38],
        [-1e36, -float("inf"), 1.0] + 4 * [2.0],
    ]
    module = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.SiLU())
    with torch.no_grad():
        module[0].weight.fill_(1.0)
    frames = torch.tensor(values).reshape(2, 1, 1, 7)
    (result,), _ = native(program_of(module), (1, 1, 7), threshold=0, isa=isa).run(frames)
    with torch.inference_mode():
        torch.testing.assert_close(result, module(frames), equal_nan=True, rtol=1e-5, atol=0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("isa", ISAS)
def test_an_output_that_sees_nothing_but_padding(isa: str, precision: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(33, 50, 3, stride=4, padding=3, dilation=2)).eval()
    frames = torch.randn(5, 33, 2, 1, generator=torch.Generator().manual_seed(0))
    network = native(program_of(module), (33, 2, 1), threshold=0, isa=isa, precision=precision)
    with torch.inference_mode():
        torch.testing.assert_close(network.run(frames)[0][0], module(frames))


def test_an_infinity_stays_one() -> None:
    module = nn.Sequential(nn.Conv2d(1, 5, 1, bias=False), nn.ReLU(), nn.Conv2d(5, 2, 1))
    with torch.no_grad():
        for part in module.parameters():
            part.fill_(1.0)
    frames = torch.ones(3, 1, 2, 2)
    frames[1, 0, 0, 0] = float("inf")
    (result,), _ = native(program_of(module), (1, 2, 2), threshold=0).run(frames)
    with torch.inference_mode():
        torch.testing.assert_close(result, module(frames), equal_nan=True)


def test_a_nan_stays_in_its_group() -> None:
    module = nn.Sequential(
        nn.Conv2d(2, 32, 1, groups=2, bias=False), nn.Conv2d(32, 32, 1, groups=4, bias=False)
    )
    frames = torch.ones(3, 2, 2, 2)
    frames[1, 0, 0, 0] = float("nan")
    (result,), _ = native(program_of(module), (2, 2, 2), threshold=0).run(frames)
    with torch.inference_mode():
        torch.testing.assert_close(result, module(frames), equal_nan=True)


def filled(inputs: int, weight: float, size: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, 4, size, padding=size // 2)
    nn.init.constant_(layer.weight, weight)
    nn.init.constant_(layer.bias, 0.5)  # type: ignore[arg-type]
    return layer


OVERFLOWS = {  # in the middle frame below, in the last layer but one where there are several
    "nobody reads": [filled(3, 2)],
    "relu": [filled(3, -2), nn.ReLU(), filled(4, 1)],
    "relu6": [filled(3, 2), nn.ReLU6(), filled(4, 1)],
    "sigmoid": [filled(3, 2), nn.Sigmoid(), filled(4, 1)],
    "maximum": [filled(3, -2), nn.ReLU(), nn.MaxPool2d(2), filled(4, 1)],
    "window": [filled(3, 1), nn.ReLU(), filled(4, -2, 3), nn.ReLU(), filled(4, 1)],
    "taps": [filled(3, 1), nn.ReLU(), filled(4, 2, 5), nn.ReLU6(), filled(4, 1)],
    "tiles": [filled(3, 2, 7), nn.ReLU6(), filled(4, 1)],
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("kind", OVERFLOWS)
def test_a_sum_that_overflows_is_gone_with_its_frame(isa: str, batch: int, kind: str) -> None:
    """Also where what becomes of it is finite, or read by no layer."""
    module = nn.Sequential(*OVERFLOWS[kind])
    frames = torch.zeros(5, 3, 12, 12)
    frames[2] = 1e38
    frames[4, :, 3, 4] = 1
    network = native(
        program_of(module), (3, 12, 12), threshold=0, batch=batch, isa=isa, adaptive=False
    )
    (result,), _ = network.run(frames)
    with torch.inference_mode():
        torch.testing.assert_close(result, module(frames), rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_bad_frame_of_a_first_layer_where_everything_changes(
    isa: str, layers: int, bad: float
) -> None:
    """Nobody else looks at the image then, nor at what is the feature."""
    torch.manual_seed(0)
    first = nn.Conv2d(3, 64, 7, 2, 3)
    module = nn.Sequential(*[first, nn.ReLU(), nn.MaxPool2d(3, 2, 1)][:layers]).eval()
    frames = torch.randn(24, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    network = native(program_of(module), (3, 40, 40), threshold=0, batch=8, isa=isa)
    assert network.run(frames)[1].key_frame[8:].all()
    frames[13, 1, 20, 20] = bad
    with torch.inference_mode():
        torch.testing.assert_close(
            network.run(frames)[0][0], module(frames), rtol=1e-4, atol=1e-5, equal_nan=True
        )


# --- drift


@pytest.mark.parametrize("policy", ["bounded", "paper"])
def test_many_frames_do_not_drift(policy: Any) -> None:
    frames = 10_000
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1, groups=24),
        nn.ReLU(), nn.Conv2d(24, 48, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(48, 40, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 10),
    ).eval()  # fmt: skip
    changes = ["few", "half", "pixel", "same", "all", "few", "corner"]
    generator = torch.Generator().manual_seed(0)
    loop = clip((3, 16, 16), changes, generator=generator, exact=False)
    with torch.inference_mode():
        expected = module(loop)
    network = native(program_of(module), (3, 16, 16), threshold=0, policy=policy, adaptive=False)
    key_frames = 0
    for _ in range(frames // len(loop)):
        with every_frame():
            (result,), seen = network.run(loop)
        assert relative_l2(result, expected) < EXACT_RECURRENCE / 2
        key_frames += int(seen.key_frame.sum())
    assert key_frames == 1 + (frames - 1) // 1000  # accumulators are made anew now and then


SUMMED = {  # the kernels on lists, and the smallest layers on which they add many deltas at once
    "window": (nn.Conv2d(256, 64, 3, padding=1), (256, 6, 6)),
    "tap": (nn.Conv2d(1024, 64, 1), (1024, 6, 6)),
    "tap with a stride": (nn.Conv2d(128, 64, 3, stride=2), (128, 9, 9)),
    "column": (nn.Conv2d(3, 64, 7, stride=2, padding=3), (3, 32, 32)),
}


@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa != "reference"])
@pytest.mark.parametrize("kernel", SUMMED)
def test_small_changes_of_everything_hardly_drift(kernel: str, isa: str) -> None:
    """A frame's deltas are summed before they meet the outputs, which are larger.

    Each added to its output at once, as the reference does, the errors of these frames come to more
    than 3e-6, of all but the first layer to more than 7e-6.
    """
    module, shape = SUMMED[kernel]
    with torch.no_grad():
        for part in module.parameters():
            values = torch.randn(part.shape, generator=torch.Generator().manual_seed(0))
            part.copy_(values / part[0].numel() ** 0.5)
    frames = 1 + 0.1 * torch.randn(160, *shape, generator=torch.Generator().manual_seed(1))
    network = native(program_of(module.eval()), shape, threshold=0, adaptive=False, isa=isa)
    (result,), seen = network.run(frames)
    assert seen.key_frame.sum() == 1
    with torch.inference_mode():
        expected = F.conv2d(
            frames[-1:].double(), module.weight.double(), module.bias.double(),
            module.stride, module.padding,
        )  # fmt: skip
    assert relative_l2(result[-1:].double(), expected) < 2e-6


# --- wrong use


def test_wrong_options_fail() -> None:
    program, shape = program_of(nn.Conv2d(3, 3, 1)), (3, 8, 8)
    with pytest.raises(ConfigError, match="-1"):
        native(program, shape, threshold=-1)
    with pytest.raises(ConfigError, match="nan"):
        native(program, shape, threshold=float("nan"))
    with pytest.raises(ConfigError, match="precision 'fp16'"):
        native(program, shape, precision="fp16")
    with pytest.raises(LayerError, match="nowhere"):
        native(program, shape, threshold={"nowhere": 1.0})


def test_an_unknown_policy_fails() -> None:
    with pytest.raises(ConfigError, match="magic"):
        native(program_of(nn.Conv2d(3, 3, 1)), (3, 8, 8), policy="magic")


@pytest.mark.parametrize("shape", [(3, 8, 9), (4, 8, 8), (3, 8)])
def test_frames_of_another_shape_fail(shape: tuple[int, ...]) -> None:
    network = native(program_of(nn.Conv2d(3, 3, 1)), (3, 8, 8))
    with pytest.raises((ValueError, TypeError)):
        network.run(torch.zeros(2, *shape))


def test_thresholds_by_layer() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1))
    generator = torch.Generator().manual_seed(0)
    frames = clip((3, 8, 8), ["few", "half", "all"], generator=generator, exact=False)
    thresholds = {"default": 0.2, "2": 1e9, "3": 0.0}
    mine = native(program_of(module), (3, 8, 8), threshold=thresholds, adaptive=False)
    other = RecurrentNetwork(program_of(module), threshold=thresholds)
    assert relative_l2(mine.run(frames)[0][0], other.run(frames)[0][0]) < EXACT_RECURRENCE
    assert_same_costs(mine.stats(), other.stats(), within=1e-2)
    assert mine.stats()[1].density_delta == 0


@pytest.mark.parametrize("policy", ["bounded", "paper"])
@pytest.mark.parametrize("isa", ISAS)
def test_what_is_truncated_is_counted(isa: str, policy: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (3, 9, 11)
    module = nn.Sequential(  # lists by column, by row, a depthwise layer, several groups
        nn.Conv2d(3, 20, 3, padding=1), nn.ReLU(), nn.Conv2d(20, 20, 3, padding=1, groups=20),
        nn.ReLU(), nn.Conv2d(20, 90, 1), nn.ReLU(), nn.Conv2d(90, 4, 3, padding=1),
    )  # fmt: skip
    make_coarse(module, generator)
    changes = ["few", "same", "pixel", "half", "few", "all", "few"]
    frames = clip(shape, changes, generator=generator)
    options: dict[str, Any] = {"threshold": 0.6, "policy": policy}
    mine = native(program_of(module), shape, isa=isa, adaptive=False, batch=3, **options)
    other = RecurrentNetwork(program_of(module), **options)
    mine.track()
    other.track()
    for scale in (1.0, 0.5, 2.0, 0.0):
        for network in (mine, other):
            network.scale_thresholds(scale)
        found, expected = mine.run(frames)[1].truncated, other.run(frames)[1].truncated
        assert found is not None
        assert expected is not None
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
        assert bool((expected > 0).any()) == (scale > 0)


def test_thresholds_are_scaled_from_the_next_frame_on() -> None:
    program = program_of(nn.Sequential(nn.Conv2d(3, 4, 1)))
    frames = clip((3, 4, 4), ["all"] * 3, generator=torch.Generator().manual_seed(0))
    network = native(program, (3, 4, 4), threshold=1.0, adaptive=False)
    network.scale_thresholds(1e9)
    outputs, seen = network.run(frames[:2])
    assert torch.equal(outputs[0][0], outputs[0][1]), "nothing passes"
    assert seen.truncated is None, "nobody asked"
    network.scale_thresholds(0.0)
    torch.testing.assert_close(network.run(frames[2:])[0][0], program(frames[2:])[0])


READERS = {  # of what a first layer makes, each of which holds something back
    "lists": [nn.Conv2d(24, 4, 3, padding=1)],
    "depthwise": [nn.Conv2d(24, 24, 3, groups=24), nn.ReLU6(), nn.Conv2d(24, 4, 1)],
    "maximum": [nn.MaxPool2d(2), nn.Conv2d(24, 4, 1)],
    "sum": [Expansion(), nn.Conv2d(24, 4, 1)],
    "connected": [nn.Flatten(), nn.Linear(24 * 64, 4)],
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kind", READERS)
def test_a_smaller_threshold_reaches_what_rests(isa: str, batch: int, kind: str) -> None:
    """What was held back passes, though nothing has changed there since."""
    generator = torch.Generator().manual_seed(0)
    module = make_coarse(
        nn.Sequential(nn.Conv2d(3, 24, 1), nn.ReLU(), *copy.deepcopy(READERS[kind])), generator
    )
    frames = coarse(1, 3, 8, 8, generator=generator, steps=4, most=2).repeat(4, 1, 1, 1)
    frames[1:, :, :, :4] += 0.25
    frames[2:, :, 5, 6] += 1
    frames[3:, :, 1, 7] += 1
    options: Any = {"threshold": {"0": 0.0, "default": 60.1}}
    with tiles(False):
        mine = native(
            program_of(module), (3, 8, 8), isa=isa, batch=batch, adaptive=False, **options
        )
    other = RecurrentNetwork(program_of(copy.deepcopy(module).double()), **options)
    (before,), held = mine.run(frames[:2])
    (expected,), _ = other.run(frames[:2].double())
    assert torch.equal(before, expected.float())
    assert not held.density_delta[1, 1:].any(), "all is held back"
    for network in (mine, other):
        network.scale_thresholds(0.01)
    (result,), seen = mine.run(frames[2:])
    (wanted,), expected_seen = other.run(frames[2:].double())
    assert torch.equal(result, wanted.float())
    assert_same_densities([seen], expected_seen)
    assert not seen.key_frame.any()


def several_layers(kind: str) -> nn.Sequential:
    """Layers one after the other that share the engine's scratch memory."""
    torch.manual_seed(0)
    whole: list[nn.Module] = [nn.Conv2d(16, 32, 3, padding=1), nn.LeakyReLU(0.1)]
    if kind == "connected":
        whole += [nn.Flatten(), nn.Linear(2048, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU()]
        return nn.Sequential(*whole, nn.Linear(32, 16))
    # Weights that are too many to stay in the cache from one frame to the next.
    whole += [nn.Conv2d(32, 2048, 1), nn.LeakyReLU(0.1), nn.Conv2d(2048, 64, 1), nn.ReLU()]
    stride = 2 if kind == "wide" else 1
    return nn.Sequential(*whole, nn.Conv2d(64, 512, 3, stride, 1), nn.ReLU(), nn.Conv2d(512, 8, 3))


@settings(max_examples=20, deadline=None)
@given(
    kind=st.sampled_from(["connected", "wide", "winograd"]),
    batch=st.integers(2, 8),
    shares=st.lists(st.sampled_from([0, 0, 0.02, 0.1, 0.5, 1]), min_size=16, max_size=32),
    seed=st.integers(0, 99),
)
def test_layers_that_turn_dense_and_back_leave_nothing_behind(
    kind: str, batch: int, shares: list[float], seed: int
) -> None:
    """Frames that repeat the one before reach nothing, also where a layer runs dense."""
    program = program_of(several_layers(kind))
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(16, 8, 8, generator=generator)
    frames = [x]
    for share in shares:  # of the numbers that move a little
        where = torch.rand(x.shape, generator=generator) < share
        x = torch.where(where, x + 0.05 * torch.randn(x.shape, generator=generator), x)
        frames.append(x)
    clip = torch.stack(frames)
    network = native(program, (16, 8, 8), threshold=0.01, batch=batch)
    expected = program(clip)[0]
    truth = RecurrentNetwork(program, threshold=0.01).run(clip)[0][0]
    # A layer that runs dense truncates nothing, so the error can only be less.
    allowed = 1.5 * relative_l2(truth, expected) + 1e-4
    assert relative_l2(network.run(clip)[0][0], expected) < allowed


def test_dense_layers_truncate_nothing() -> None:
    program = program_of(nn.Sequential(nn.Conv2d(16, 32, 1), nn.ReLU(), nn.Conv2d(32, 16, 1)))
    generator = torch.Generator().manual_seed(0)
    noise = clip((16, 8, 8), ["all"] * 7, generator=generator, exact=False)
    still = noise[-1:].expand(24, -1, -1, -1) + 1e-3 * torch.arange(24.0)[:, None, None, None]
    network = native(program, (16, 8, 8), threshold=0.5, batch=4)
    network.track()
    truncated = network.run(torch.cat([noise, noise, still]))[1].truncated
    assert truncated is not None
    assert not truncated[4:16, 0].any(), "dense: the snapshot is the input"
    assert (truncated[-3:, 0] > 0).all(), "back on lists"


def test_the_profile_has_a_time_for_each_layer() -> None:
    network = opened("mobilenet_v2")
    network.run(moving_frames(2, 64))
    seconds = network.profile()
    assert all(value >= 0 for value in seconds.values())
    assert sum(seconds.values()) > 0
    assert len(seconds) >= len(network.program.linear_ops)


def test_the_profile_tells_apart_what_a_step_does_while_asked() -> None:
    network = opened("resnet18", threshold=0)
    frames = moving_frames(4, 64)
    expected = network.run(frames[:2])[0]
    assert not any(value for split in network.profile_split().values() for value in split.values())
    network.reset()
    network.split_times()
    assert torch.equal(network.run(frames[:2])[0][0], expected[0])
    split = network.profile_split()
    assert set(split) == set(network.profile())
    for op in network.program.linear_ops:
        assert set(split[op.name]) == {"own", "finish", "lists"}
        assert all(value > 0 for value in split[op.name].values())
    network.split_times(False)
    network.run(frames[2:])
    assert network.profile_split() == split


def test_two_instruction_sets_in_one_process() -> None:
    frames = moving_frames(3, 64)
    networks = [opened("mobilenet_v2", isa=isa, threshold=0) for isa in ISAS]
    alone = [outputs_of(network, frames) for network in networks]
    for network, isa, expected in zip(networks, ISAS, alone, strict=True):
        assert network.isa == isa
        network.reset()
        result = torch.cat([outputs_of(network, frame[None]) for frame in frames])
        assert relative_l2(result, expected) < EXACT_RECURRENCE
        assert relative_l2(expected, alone[0]) < EXACT_RECURRENCE


@pytest.mark.parametrize("shape", [(0, 3, 9, 9), (2, 3, 9, 8), (2, 4, 9, 9), (3, 9, 9)])
def test_frames_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    network = native(program_of(nn.Conv2d(3, 4, 3)), (3, 9, 9))
    with pytest.raises(EngineError, match=r"expected \(T, 3, 9, 9\)"):
        network.run(torch.zeros(shape))


@pytest.mark.parametrize(
    ("batch", "words"), [(1, "or workers"), (8, "or workers, or a smaller batch than 8 frames")]
)
def test_a_state_without_memory_says_what_helps(
    batch: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = native(program_of(nn.Conv2d(3, 4, 3)), (3, 9, 9), batch=batch)
    without = SimpleNamespace(Lane=Mock(side_effect=MemoryError("std::bad_alloc")))
    monkeypatch.setattr(native_engine, "native_module", lambda: without)
    with pytest.raises(EngineError, match=f"memory; expected fewer networks {words}$"):
        network.fork()


def test_a_network_that_does_nothing_is_refused() -> None:
    with pytest.raises(EngineError, match="no operations"):
        native(program_of(nn.Identity()), (3, 9, 9))
