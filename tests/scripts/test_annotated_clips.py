"""Annotated frames find the sampled frames that they are of."""

from __future__ import annotations

import pytest
from annotated_clips import in_pixels, match_frames
from annotations import AnnotatedFrame, MarkedBody, MarkedBox
from subjects import Shown


def sampled(count: int, *, fps: float = 24, source: float = 30) -> list[Shown]:
    """What a clip of ``source`` frames a second shows when ``fps`` of them are taken."""
    return [
        Shown(seconds=k / fps, number=int(k / fps * source + 1e-9), height=120, width=160)
        for k in range(count)
    ]


def test_a_number_is_that_very_frame() -> None:
    shown = sampled(12)
    assert [one.number for one in shown][:6] == [0, 1, 2, 3, 5, 6]
    matched = match_frames([AnnotatedFrame(number=n) for n in (5, 4, 0, 13, 14)], shown)
    assert [(place, frame.number) for place, frame in matched.pairs] == [(0, 0), (4, 5), (11, 13)]
    assert (matched.between, matched.beyond) == (1, 1)


def test_a_time_is_the_nearest_frame() -> None:
    times = (0.0, 0.03, 0.25, 0.49, 1.0)
    matched = match_frames([AnnotatedFrame(seconds=time) for time in times], sampled(12))
    assert [place for place, _ in matched.pairs] == [0, 1, 6]
    # 11 / 24 s is the last frame that is shown, and until half a step later.
    assert (matched.between, matched.beyond) == (0, 2)


def test_a_frame_has_one_annotation() -> None:
    matched = match_frames([AnnotatedFrame(seconds=0.0), AnnotatedFrame(seconds=0.01)], sampled(4))
    assert (len(matched.pairs), matched.between) == (1, 1)


def test_a_frame_shown_twice_counts_once() -> None:
    shown = sampled(12, fps=24, source=12)
    matched = match_frames([AnnotatedFrame(number=2)], shown)
    assert [place for place, _ in matched.pairs] == [4]


@pytest.mark.parametrize("marked", [0, 1])
def test_a_number_annotated_twice_keeps_its_marks(marked: int) -> None:
    shown = sampled(12, fps=24, source=12)
    frames = [AnnotatedFrame(number=0), AnnotatedFrame(number=0)]
    boxes = (MarkedBox(name="a", corners=(0, 0, 10, 10)),)
    frames[marked] = AnnotatedFrame(number=0, boxes=boxes)
    matched = match_frames(frames, shown)
    assert [(place, frame.boxes) for place, frame in matched.pairs] == [(0, boxes)]
    assert (matched.between, matched.beyond) == (0, 0)


def test_marks_are_put_into_pixels() -> None:
    (shown,) = sampled(1)
    marks = AnnotatedFrame(
        number=0,
        boxes=(MarkedBox(name="a", corners=(0.25, 0.5, 0.5, 1.0)),),
        bodies=(MarkedBody(points={"nose": (0.5, 0.5)}, area=0.25), MarkedBody(points={})),
        size=(1.0, 1.0),
    )
    placed = in_pixels(marks, shown)
    assert placed.boxes[0].corners == (40, 60, 80, 120)
    assert placed.bodies[0].points == {"nose": (80, 60)}
    assert placed.bodies[0].area == pytest.approx(0.25 * 160 * 120)
    assert placed.bodies[1].area is None
    assert in_pixels(placed, shown) == placed
    pixels = AnnotatedFrame(number=0, boxes=marks.boxes)
    assert in_pixels(pixels, shown) is pixels
