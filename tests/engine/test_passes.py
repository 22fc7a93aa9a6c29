"""How batches are divided, and that a picture that begins to move is seen at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from rrm_extract.engine import NativeNetwork
from rrm_extract.engine.passes import Passes
from rrm_extract.graph import trace
from tests.closeness import EXACT_RECURRENCE, relative_l2

Frames = NDArray[np.float32]


def clip(moves: str) -> Frames:
    """A frame for each letter: "." changes a little from the one before, "#" altogether."""
    random = np.random.default_rng(0)
    frame = random.standard_normal((3, 30, 40), dtype=np.float32)
    frames = []
    for number, move in enumerate(moves):
        frame = frame.copy()
        if move == "#":
            frame[:] = random.standard_normal(frame.shape, dtype=np.float32)
        else:
            frame[:, number % 30, ::10] += 1
        frames.append(frame)
    return np.stack(frames)


def divided(passes: Passes, moves: str, batch: int = 8) -> list[list[int]]:
    """How many frames are in each pass, by batch."""
    frames = clip(moves)
    batches = []
    for begin in range(0, len(frames), batch):
        some = frames[begin : begin + batch]
        slices = passes.divide(some)
        numbers = [number for one in slices for number in range(len(some))[one]]
        assert numbers == list(range(len(some)))
        batches.append([one.stop - one.start for one in slices])
    return batches


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        ("." * 16, [[2, 6], [8]]),
        ("#" * 16, [[2, 6], [8]]),
        (".", [[1]]),
        ("..", [[2]]),
        # A lane learns from two frames, and from one where movement begins.
        ("...........#####", [[2, 6], [3, 1, 4]]),
        ("........########", [[2, 6], [1, 7]]),
        ("....####........", [[2, 2, 1, 3], [8]]),
        # The second of two is in the next batch, which then begins with what is new.
        (".......#########", [[2, 6], [1, 7]]),
        # A flash is no movement.
        (".....#....#.....", [[2, 6], [8]]),
        ("################........########", [[2, 6], [8], [8], [1, 7]]),
    ],
)
def test_passes(moves: str, expected: list[list[int]]) -> None:
    assert divided(Passes(), moves) == expected


def test_movement_after_a_single_frame_is_new() -> None:
    """Of one frame the engine learns nothing of what changes: a short pass comes next as well."""
    for moves, expected in (("#########", [1, 7]), (".........", [8]), (".#.......", [8])):
        frames, passes = clip(moves), Passes()
        assert len(passes.divide(frames[:1])) == 1
        assert [one.stop - one.start for one in passes.divide(frames[1:])] == expected


def test_after_a_reset_nothing_is_known() -> None:
    passes = Passes()
    divided(passes, "." * 8)
    passes.reset()
    assert divided(passes, "#" * 16) == [[2, 6], [8]]


def test_a_key_frame_is_compared_with_none() -> None:
    passes = Passes()
    divided(passes, "." * 8)
    passes.forget_frame()
    # Another clip: its first frame differs in everything, which says nothing of movement.
    assert divided(passes, "." * 8) == [[8]]
    passes.forget_frame()
    assert divided(passes, ".#######") == [[1, 1, 6]]


def test_numbers_that_are_none_count_as_changes() -> None:
    passes = Passes()
    frames = clip("." * 8)
    frames[3:] = np.nan
    assert [one.stop for one in passes.divide(frames)] == [2, 3, 4, 8]


def test_layers_run_dense_from_the_second_frame_of_a_movement_on() -> None:
    pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)]
    program = trace(nn.Sequential(*layers).eval())
    network = NativeNetwork(program, input_shape=(3, 30, 40), threshold=0, batch=8)
    frames = torch.from_numpy(clip("." * 11 + "#" * 13))
    outputs, seen = network.run(frames)
    assert seen.key_frame.tolist() == [True, *[False] * 11, *[True] * 12]
    with torch.inference_mode():
        assert relative_l2(outputs[0], program(frames)[0]) < EXACT_RECURRENCE
