"""What people have marked in the frames of a dataset: boxes of objects, and joints of bodies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from rrm_extract.errors import UsageError

__all__ = [
    "AnnotatedFrame",
    "AnnotationError",
    "Annotations",
    "Corners",
    "MarkedBody",
    "MarkedBox",
    "class_key",
    "load_json",
    "video_key",
]

_SYNONYMS = {
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "couch": "sofa",
    "tv": "tvmonitor",
}
"""COCO's and YouTube-BB's names of classes to the Darknet project's."""


Corners = tuple[float, float, float, float]
"""Left, top, right, bottom."""


class AnnotationError(UsageError):
    """Annotations are missing, unreadable, or not of the form in which they are published."""


@dataclass(frozen=True, kw_only=True)
class MarkedBox:
    """An object.

    Attributes:
        name: of its class, as :func:`class_key` has it.
        corners: left, top, right, bottom, in the units of its frame; 0 is the left or top edge.
        is_crowd: it is several objects that nobody has told apart: what is found in it counts
            neither for nor against.
    """

    name: str
    corners: Corners
    is_crowd: bool = False


@dataclass(frozen=True, kw_only=True)
class MarkedBody:
    """A person.

    Attributes:
        points: x and y of each part that was marked, by its name such as "left_elbow"; the middle
            of a pixel is at a half.
        area: of the person in square pixels; None where nobody has measured it.
        corners: of the box around the person, as those of :class:`MarkedBox`; None where nobody has
            marked one.
        is_crowd: as of :class:`MarkedBox`.
    """

    points: Mapping[str, tuple[float, float]]
    area: float | None = None
    corners: Corners | None = None
    is_crowd: bool = False


@dataclass(frozen=True, kw_only=True)
class AnnotatedFrame:
    """One frame that people have looked at.

    Attributes:
        seconds: when it is shown, since the first frame; None where its number is known.
        number: which frame it is in display order, from 0; None where its time is known.
        boxes: the objects in it.
        bodies: the people in it.
        looked_for: classes of which all objects are marked, as :func:`class_key` has them; of
            others there may be more.
        size: (height, width) of the frame in the units of boxes and points; None: pixels.
    """

    seconds: float | None = None
    number: int | None = None
    boxes: tuple[MarkedBox, ...] = ()
    bodies: tuple[MarkedBody, ...] = ()
    looked_for: frozenset[str] = frozenset()
    size: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """Those of a dataset.

    Attributes:
        name: of the dataset, for people.
        videos: the frames of each video, by :func:`video_key`.
        parts: of a body, those that were looked for; empty where there are only boxes.
    """

    name: str
    videos: Mapping[str, tuple[AnnotatedFrame, ...]]
    parts: tuple[str, ...] = field(default=())

    def of(self, video_id: str) -> tuple[AnnotatedFrame, ...]:
        """The frames of a video; none where nobody has looked at it."""
        return self.videos.get(video_key(video_id), ())


def video_key(video_id: str) -> str:
    """A video's name without folders and extension."""
    return PurePosixPath(video_id).stem


def class_key(name: str) -> str:
    """One spelling of a class's name for all datasets and detectors: the Darknet project's.

    "Potted plant" and "pottedplant" are one, and so are "motorcycle" and "motorbike".
    """
    key = "".join(name.lower().replace("_", " ").split())
    return _SYNONYMS.get(key, key)


def load_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        AnnotationError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}; expected a file of annotations"
        raise AnnotationError(msg) from error
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        msg = f"{path} is no JSON ({str(error).splitlines()[0]}); expected a file of annotations"
        raise AnnotationError(msg) from error
