"""Frames that the readable engine cannot take are told in the project's own words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from rrm_extract.errors import EngineError
from rrm_extract.graph import trace
from rrm_extract.rrm import RecurrentNetwork

FRAMES = torch.linspace(-1, 1, 3 * 3 * 9 * 9).reshape(3, 3, 9, 9)


def _network() -> RecurrentNetwork:
    torch.manual_seed(0)
    return RecurrentNetwork(trace(nn.Conv2d(3, 4, 3).eval()))


@pytest.mark.parametrize(
    ("frames", "what"),
    [
        (FRAMES.numpy(), "ndarray"),
        (FRAMES.tolist(), "list"),
        (None, "NoneType"),
        (FRAMES.to("meta"), "float32 on meta"),
        (FRAMES.to_sparse(), "sparse_coo"),
        (torch.complex(FRAMES, FRAMES), "complex64"),
        (FRAMES[:0], r"\(0, 3, 9, 9\)"),
        (FRAMES[0, 0], r"\(.*9, 9\)"),
        (FRAMES[None], r"\(.*3, 3, 9, 9\)"),
    ],
)
def test_frames_that_are_none(frames: Any, what: str) -> None:
    network = _network()
    for use in (network.run, network.step):
        with pytest.raises(EngineError, match=f"{what}.*; expected") as caught:
            use(frames)
        assert "\n" not in str(caught.value)


def test_a_frame_is_not_a_run() -> None:
    with pytest.raises(EngineError, match=r"\(3, 9, 9\); expected \(T, C, H, W\)"):
        _network().run(FRAMES[0])


@pytest.mark.parametrize("lanes", [1, 3])
def test_lanes_stay_as_many_as_they_are(lanes: int) -> None:
    network = _network()
    network.step(FRAMES[:2])
    with pytest.raises(EngineError, match=f"frames of {lanes} lanes after frames of 2"):
        network.step(FRAMES[:lanes])
    with pytest.raises(EngineError, match=r"reset\(\) before"):
        network.run(FRAMES)
    network.reset()
    assert len(network.step(FRAMES[:lanes])) == lanes


def test_frames_that_could_not_be_computed_were_not_taken() -> None:
    network = _network()
    with pytest.raises(RuntimeError, match="channels"):
        network.step(FRAMES.movedim(1, -1))
    assert len(network.step(FRAMES[:2])) == 2
    with pytest.raises(RuntimeError, match="must match"):
        network.step(FRAMES[:2].movedim(1, -1))
    with pytest.raises(EngineError, match="frames of 3 lanes after frames of 2"):
        network.step(FRAMES)
