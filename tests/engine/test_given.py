"""What callers give a native network by mistake is told in the project's own words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")

from rrm_extract.engine import NativeNetwork
from rrm_extract.errors import ConfigError, EngineError, UsageError
from rrm_extract.graph import Program, trace
from rrm_extract.rrm import RecurrentNetwork
from tests.engine.running import native, program_of

SHAPE = (3, 9, 9)


def _program() -> Program:
    torch.manual_seed(0)
    return program_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)))


def _frames(count: int = 3) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def _one_line(error: UsageError) -> bool:
    return "\n" not in str(error)


@pytest.mark.parametrize(
    ("frames", "what"),
    [
        (_frames().numpy(), "ndarray"),
        (_frames().tolist(), "list"),
        (None, "NoneType"),
        (_frames().to("meta"), "float32 on meta"),
        (_frames().to_sparse(), "sparse_coo"),
        (torch.complex(_frames(), _frames()), "complex64"),
        (_frames()[:0], r"\(0, 3, 9, 9\)"),
        (_frames()[0, 0], r"\(.*9, 9\)"),
        (_frames()[None], r"\(.*3, 3, 9, 9\)"),
    ],
)
def test_frames_that_are_none(frames: Any, what: str) -> None:
    network = native(_program(), SHAPE)
    for use in (network.run, network.step):
        with pytest.raises(EngineError, match=f"{what}.*; expected") as caught:
            use(frames)
        assert _one_line(caught.value)


def test_frames_in_other_forms_are_the_same_frames() -> None:
    frames = _frames()
    expected = native(_program(), SHAPE).run(frames)[0][0]
    for same in (
        frames.clone().requires_grad_(),
        nn.Parameter(frames),
        torch._neg_view(-frames),
        frames.double(),
    ):
        assert torch.equal(native(_program(), SHAPE).run(same)[0][0], expected)
        assert torch.equal(native(_program(), SHAPE).step(same[0]), expected[0])
        assert torch.equal(native(_program(), SHAPE).step(same[:1]), expected[:1])


@pytest.mark.parametrize("batch", [0, -1, 10**6, 2**63, 1.5, "8", None])
def test_batches_that_are_none(batch: Any) -> None:
    with pytest.raises(ConfigError, match=r"batch .*; expected a whole number from 1 to"):
        native(_program(), SHAPE, batch=batch)


@pytest.mark.parametrize(
    "shape", [(3, 9), (3, 9, 9, 1), (3, 0, 9), (3, -1, 9), (3, 9.0, 9), "abc", None]
)
def test_shapes_that_are_none(shape: Any) -> None:
    with pytest.raises(ConfigError, match=r"input_shape .*; expected \(C, H, W\)"):
        NativeNetwork(_program(), input_shape=shape)


@pytest.mark.parametrize("shape", [(4, 9, 9), (3, 4, 4), (3, 1, 1)])
def test_shapes_that_do_not_fit_the_network(shape: tuple[int, int, int]) -> None:
    with pytest.raises(EngineError, match=r"cannot be computed .*; expected the \(C, H, W\)") as e:
        native(_program(), shape)
    assert _one_line(e.value)


def test_a_shape_may_be_a_list() -> None:
    shape: Any = list(SHAPE)
    NativeNetwork(_program(), input_shape=shape).step(_frames()[0])


@pytest.mark.parametrize("to", [torch.float16, torch.float64, "meta"])
def test_weights_that_the_kernels_do_not_take(to: Any) -> None:
    program = trace(nn.Sequential(nn.Conv2d(3, 4, 3)).to(to).eval())
    with pytest.raises(EngineError, match=r"weights of '0' are .*call .float\(\)"):
        native(program, SHAPE)


def test_a_module_is_no_program() -> None:
    module: Any = nn.Conv2d(3, 4, 3)
    with pytest.raises(EngineError, match="Conv2d; expected a Program"):
        NativeNetwork(module, input_shape=SHAPE)


@pytest.mark.parametrize("value", [None, "0.1", [0.1], 10**400, -1, float("nan")])
def test_thresholds_that_are_none(value: Any) -> None:
    for threshold in (value, {"0": value}):
        with pytest.raises(ConfigError, match=r"threshold .* expected a number of at least 0"):
            native(_program(), SHAPE, threshold=threshold)
        with pytest.raises(ConfigError, match=r"threshold .* expected a number of at least 0"):
            RecurrentNetwork(_program(), threshold=threshold)


@pytest.mark.parametrize("value", ["a", None, -1, float("nan"), float("inf"), [1.0]])
def test_factors_that_are_none(value: Any) -> None:
    frames = _frames()
    for network in (native(_program(), SHAPE), RecurrentNetwork(_program())):
        network.run(frames[:1])
        with pytest.raises(ConfigError, match=r"factor .* expected a finite number of at least 0"):
            network.scale_thresholds(value)
        network.run(frames)


def test_thresholds_are_scaled_for_all_lanes() -> None:
    frames = _frames(4)[:, None].expand(-1, 3, *SHAPE)
    network = native(_program(), SHAPE, threshold=0.1, adaptive=False)
    for factor, lanes in ((1.0, 2), (1e6, 2), (1e6, 3), (0.0, 3)):
        network.scale_thresholds(factor)
        if lanes == 3:
            network.key_frame()  # all of them begin with the same frame
        for same in frames:
            result = network.step(same[:lanes])
            assert torch.equal(result, result[:1].expand_as(result))
