"""YouTube-BoundingBoxes (arXiv 1702.00824): its tables of boxes.

research.google.com/youtube-bb/download.html says what the columns are.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from annotations import AnnotatedFrame, AnnotationError, Annotations, MarkedBox, class_key

__all__ = ["COLUMNS", "read_youtube_bb"]

COLUMNS = (
    "youtube_id", "timestamp_ms", "class_id", "class_name", "object_id", "object_presence",
    "xmin", "xmax", "ymin", "ymax",
)  # fmt: skip

_PRESENCES = ("present", "absent", "uncertain")
_MILLISECONDS = 1000


@dataclass
class _Moment:
    """What the rows of one video and one time say."""

    boxes: list[MarkedBox] = field(default_factory=list)
    looked_for: set[str] = field(default_factory=set)


def read_youtube_bb(path: Path, *, wanted: Collection[str] | None = None) -> Annotations:
    """Reads ``yt_bb_detection_train.csv`` or ``yt_bb_detection_validation.csv``, or either as .gz.

    Ten columns without a heading (one is passed over), one row for an object at a time. The box
    counts in shares of the frame. In a frame only the class that the row names was looked for, and
    of it, the object that is tracked. Rows whose object is "absent" say that the class was looked
    for; "uncertain" ones say nothing.

    Args:
        path: the file.
        wanted: YouTube ids; rows of others, of which there are millions, are not kept. None keeps
            all.

    Raises:
        AnnotationError: the file cannot be read or is not of that form.
    """
    moments: dict[str, dict[int, _Moment]] = defaultdict(lambda: defaultdict(_Moment))
    rows = 0
    is_packed = path.suffix.lower() == ".gz"
    try:
        with (gzip.open if is_packed else open)(
            path, "rt", encoding="utf-8-sig", newline=""
        ) as file:
            for number, row in enumerate(csv.reader(file), 1):
                if row and not (number == 1 and row[0] == COLUMNS[0]):
                    rows += 1
                    if wanted is None or row[0] in wanted:
                        _read_row(row, f"{path}:{number}", moments)
    except (UnicodeDecodeError, csv.Error, gzip.BadGzipFile, EOFError, zlib.error) as error:
        msg = f"{path} is no table ({error}); expected the file as published"
        raise AnnotationError(msg) from error
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}; expected the file as published"
        raise AnnotationError(msg) from error
    if not rows:
        msg = f"{path}: it names no object; expected rows of {', '.join(COLUMNS)}"
        raise AnnotationError(msg)
    return Annotations(
        name="YouTube-BoundingBoxes",
        videos={
            video: tuple(
                AnnotatedFrame(
                    seconds=time / _MILLISECONDS,
                    boxes=tuple(moment.boxes),
                    looked_for=frozenset(moment.looked_for),
                    size=(1.0, 1.0),
                )
                for time, moment in sorted(frames.items())
            )
            for video, frames in moments.items()
        },
    )


def _read_row(row: Sequence[str], where: str, moments: dict[str, dict[int, _Moment]]) -> None:
    if len(row) != len(COLUMNS):
        msg = f"{where}: {len(row)} columns, expected {len(COLUMNS)}: {', '.join(COLUMNS)}"
        raise AnnotationError(msg)
    video, time, _, name, _, presence = row[:6]
    if not video or not time.isdecimal() or not name:
        msg = (
            f"{where}: {video!r}, {time!r}, class {name!r}; expected a YouTube id, a time in "
            "milliseconds and a class's name"
        )
        raise AnnotationError(msg)
    if presence not in _PRESENCES:
        msg = f"{where}: object_presence is {presence!r}, expected {', '.join(_PRESENCES)}"
        raise AnnotationError(msg)
    if presence == "uncertain":
        return
    moment = moments[video][int(time)]
    moment.looked_for.add(class_key(name))
    if presence == "present":
        moment.boxes.append(MarkedBox(name=class_key(name), corners=_corners(row[6:], where)))


def _corners(values: Sequence[str], where: str) -> tuple[float, float, float, float]:
    try:
        left, right, top, bottom = map(float, values)
    except ValueError:
        left = right = top = bottom = math.nan
    if not (0 <= left <= right <= 1 and 0 <= top <= bottom <= 1):
        msg = f"{where}: xmin, xmax, ymin, ymax are {', '.join(values)}; expected shares of 0..1"
        raise AnnotationError(msg)
    return left, top, right, bottom
