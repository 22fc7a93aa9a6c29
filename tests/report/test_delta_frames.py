"""Figures of deltas say how few frames they are of."""

from __future__ import annotations

import pytest

from rrm_extract.report.delta_frames import delta_frame_lines


def test_a_few_of_many_are_named() -> None:
    (line,) = delta_frame_lines(40, 1)
    assert line.startswith("figures of deltas are of 1 of 40 frames: the others are key frames")


@pytest.mark.parametrize(("frames", "delta_frames"), [(40, 39), (40, 20), (1, 0), (0, 0)])
def test_nothing_is_said_otherwise(frames: int, delta_frames: int) -> None:
    assert delta_frame_lines(frames, delta_frames) == []
