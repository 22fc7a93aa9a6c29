"""Which sampled frames of a clip people have looked at, and where their marks are in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from annotations import AnnotatedFrame, Corners, MarkedBody, MarkedBox
from subjects import Shown

__all__ = ["Matched", "in_pixels", "match_frames"]


@dataclass(frozen=True, kw_only=True)
class Matched:
    """The annotated frames of a clip.

    Attributes:
        pairs: position of a sampled frame, and what people say of it, in pixels of that frame.
        between: annotated frames that lie between sampled ones.
        beyond: annotated frames after the last sampled one.
    """

    pairs: tuple[tuple[int, AnnotatedFrame], ...]
    between: int
    beyond: int


def match_frames(annotated: Sequence[AnnotatedFrame], shown: Sequence[Shown]) -> Matched:
    """Finds the sampled frame of each annotated one.

    A frame that is annotated by its number has to be the very frame; one that is annotated by its
    time is the nearest one in time, less than half the distance of two sampled frames away. Of two
    annotations of one number the first that has marks counts: a frame that is shown for two samples
    is exported for each.

    Args:
        annotated: of one clip, in any order.
        shown: its sampled frames, at least one.
    """
    numbers = {one.number: position for position, one in reversed([*enumerate(shown)])}
    seconds = np.array([one.seconds for one in shown])
    reach = float(np.median(np.diff(seconds))) / 2 if len(seconds) > 1 else 0.0
    taken: dict[int, AnnotatedFrame] = {}
    between = beyond = 0
    for frame in annotated:
        if frame.number is not None:
            place = numbers.get(frame.number)
            is_beyond = frame.number > shown[-1].number
        else:
            time = frame.seconds or 0.0
            nearest = int(np.abs(seconds - time).argmin())
            place = nearest if abs(seconds[nearest] - time) <= reach else None
            is_beyond = time > seconds[-1]
        if place is not None and place not in taken:
            taken[place] = in_pixels(frame, shown[place])
        elif place is not None and frame.number is not None:
            if not _has_marks(taken[place]):
                taken[place] = in_pixels(frame, shown[place])
        elif is_beyond:
            beyond += 1
        else:
            between += 1
    return Matched(pairs=tuple(sorted(taken.items(), key=_place)), between=between, beyond=beyond)


def in_pixels(frame: AnnotatedFrame, shown: Shown) -> AnnotatedFrame:
    """The same marks in pixels of the frame as it was decoded."""
    if frame.size is None:
        return frame
    height, width = frame.size
    x, y = shown.width / width, shown.height / height

    def scaled(corners: Corners) -> Corners:
        left, top, right, bottom = corners
        return left * x, top * y, right * x, bottom * y

    def box(mark: MarkedBox) -> MarkedBox:
        return replace(mark, corners=scaled(mark.corners))

    def body(mark: MarkedBody) -> MarkedBody:
        return replace(
            mark,
            points={part: (across * x, down * y) for part, (across, down) in mark.points.items()},
            area=None if mark.area is None else mark.area * x * y,
            corners=None if mark.corners is None else scaled(mark.corners),
        )

    return replace(
        frame,
        boxes=tuple(map(box, frame.boxes)),
        bodies=tuple(map(body, frame.bodies)),
        size=(float(shown.height), float(shown.width)),
    )


def _has_marks(frame: AnnotatedFrame) -> bool:
    return bool(frame.boxes or frame.bodies)


def _place(pair: tuple[int, AnnotatedFrame]) -> int:
    return pair[0]
