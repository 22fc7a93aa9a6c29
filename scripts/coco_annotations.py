"""Boxes and key points in COCO's form (cocodataset.org, "Data format"), of the frames of videos."""

from __future__ import annotations

import math
import reprlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annotations import (
    AnnotatedFrame,
    AnnotationError,
    Annotations,
    MarkedBody,
    MarkedBox,
    class_key,
    load_json,
    video_key,
)

__all__ = ["is_coco", "read_coco"]

_KEYS = ("images", "annotations", "categories")
_NUMBER_KEYS = ("frame_index", "frame_id")


@dataclass
class _Frame:
    """What the annotations of one picture say."""

    boxes: list[MarkedBox] = field(default_factory=list)
    bodies: list[MarkedBody] = field(default_factory=list)


@dataclass(frozen=True)
class _Category:
    name: str
    parts: tuple[str, ...]


def is_coco(content: Any) -> bool:
    """Whether what a JSON file holds is of COCO's form."""
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in _KEYS)


def read_coco(path: Path) -> Annotations:
    """Reads a JSON file with ``images``, ``annotations`` and ``categories``.

    COCO's pictures are no videos: each of the ``images`` says also in which video it is and when,
    with ``video`` or ``video_id`` (its file's name; the latter may also be the ``id`` of one of
    ``videos``, which have a ``name``), and ``frame_index`` or ``frame_id`` (from 0, in display
    order) or ``timestamp`` (seconds since the first frame). ``width`` and ``height`` are those that
    boxes and points are measured in, from the frame's left and top edge. The ``images`` that
    ``rrm-extract export --layout coco`` writes are of this form. All objects of the categories of
    the file count as marked in every picture of it. ``bbox`` and ``keypoints`` may both be there;
    key points with v = 0 are not.

    Raises:
        AnnotationError: the file cannot be read or is not of that form.
    """
    content = load_json(path)
    if not is_coco(content):
        msg = f"{path} lacks {', '.join(_KEYS)}; expected COCO's form"
        raise AnnotationError(msg)
    images = {_get(image, "id", path): image for image in content["images"]}
    categories = {_get(each, "id", path): _category(each, path) for each in content["categories"]}
    marked: dict[Any, _Frame] = defaultdict(_Frame)
    for number, annotation in enumerate(content["annotations"]):
        where = f"{path}, annotation {number}"
        image_id, kind = (_get(annotation, key, where) for key in ("image_id", "category_id"))
        if image_id not in images or kind not in categories:
            msg = f"{where}: image {image_id!r}, category {kind!r}; expected one of those listed"
            raise AnnotationError(msg)
        _add(marked[image_id], annotation, categories[kind], where)
    names = {
        _get(video, "id", path): video.get("name")
        for video in _list(content.get("videos"), f"{path}: videos")
    }
    looked_for = frozenset(category.name for category in categories.values())
    called: dict[str, str] = {}
    videos: dict[str, list[AnnotatedFrame]] = defaultdict(list)
    for image_id, image in images.items():
        where = f"{path}, image {image_id!r}"
        video = image.get("video", image.get("video_id"))
        if "video" not in image and not isinstance(video, (dict, list)):
            video = names.get(video, video)
        if not isinstance(video, str):
            msg = f"{where}: no video; expected its file's name as 'video', or a 'video_id'"
            raise AnnotationError(msg)
        seconds, number_in_video = _when(image, where)
        height, width = (_number(image.get(key), f"{where}: {key}") for key in ("height", "width"))
        if min(height, width) <= 0:
            msg = f"{where}: height and width are {height:g} and {width:g}; expected pixels"
            raise AnnotationError(msg)
        other = called.setdefault(video_key(video), video)
        if other != video:
            msg = (
                f"{where}: both {other!r} and {video!r} are called {video_key(video)!r} without "
                "folders and extension; expected each name once"
            )
            raise AnnotationError(msg)
        videos[video_key(video)].append(
            AnnotatedFrame(
                seconds=seconds,
                number=number_in_video,
                boxes=tuple(marked[image_id].boxes),
                bodies=tuple(marked[image_id].bodies),
                looked_for=looked_for,
                size=(height, width),
            )
        )
    if not videos:
        msg = f"{path}: it lists no image; expected at least one"
        raise AnnotationError(msg)
    parts = dict.fromkeys(part for category in categories.values() for part in category.parts)
    return Annotations(
        name=path.name,
        videos={video: tuple(frames) for video, frames in videos.items()},
        parts=tuple(parts),
    )


def _category(given: Mapping[str, Any], path: Path) -> _Category:
    name = _get(given, "name", path)
    parts = _list(given.get("keypoints"), f"{path}, category {name!r}: keypoints")
    if not isinstance(name, str) or not all(isinstance(part, str) for part in parts):
        msg = f"{path}: category {name!r}, key points {parts!r}; expected names"
        raise AnnotationError(msg)
    return _Category(class_key(name), tuple("_".join(part.lower().split()) for part in parts))


def _add(frame: _Frame, annotation: Mapping[str, Any], category: _Category, where: str) -> None:
    if "bbox" in annotation:
        left, top, width, height = _numbers(annotation["bbox"], 4, f"{where}: bbox")
        if min(width, height) < 0:
            msg = f"{where}: bbox is {width:g} wide and {height:g} high; expected 0 or more"
            raise AnnotationError(msg)
        corners = (left, top, left + width, top + height)
        is_crowd = bool(annotation.get("iscrowd", 0))
        frame.boxes.append(MarkedBox(name=category.name, corners=corners, is_crowd=is_crowd))
    if "keypoints" in annotation:
        count = len(category.parts)
        values = _numbers(annotation["keypoints"], 3 * count, f"{where}: keypoints")
        points = {
            part: (x, y)
            for part, x, y, visible in zip(
                category.parts, values[0::3], values[1::3], values[2::3], strict=True
            )
            if visible > 0
        }
        area = annotation.get("area")
        if area is not None:
            area = _number(area, f"{where}: area")
        around = frame.boxes[-1].corners if "bbox" in annotation else None
        if points or around is not None:
            is_crowd = bool(annotation.get("iscrowd", 0))
            body = MarkedBody(points=points, area=area, corners=around, is_crowd=is_crowd)
            frame.bodies.append(body)


def _when(image: Mapping[str, Any], where: str) -> tuple[float | None, int | None]:
    """Seconds or number of a picture."""
    for key in _NUMBER_KEYS:
        if key in image:
            number = _number(image[key], f"{where}: {key}")
            if number < 0 or number != int(number):
                msg = f"{where}: {key} is {number:g}; expected a whole number from 0 on"
                raise AnnotationError(msg)
            return None, int(number)
    if "timestamp" not in image:
        msg = f"{where}: no time; expected 'frame_index', 'frame_id' or 'timestamp'"
        raise AnnotationError(msg)
    return _number(image["timestamp"], f"{where}: timestamp"), None


def _get(given: Any, key: str, where: object) -> Any:
    if not isinstance(given, dict) or key not in given or isinstance(given[key], (dict, list)):
        msg = f"{where}: an entry lacks {key!r}; expected COCO's form"
        raise AnnotationError(msg)
    return given[key]


def _list(value: Any, what: str) -> list[Any]:
    """A list that may be left out, or be null."""
    if value is not None and not isinstance(value, list):
        msg = f"{what}: {value!r}; expected a list"
        raise AnnotationError(msg)
    return value or []


def _numbers(values: Any, count: int, what: str) -> Sequence[float]:
    is_list = isinstance(values, list) and len(values) == count
    if not is_list or not all(_is_number(value) for value in values):
        msg = f"{what}: {values!r}; expected {count} numbers"
        raise AnnotationError(msg)
    return [float(value) for value in values]


def _number(value: Any, what: str) -> float:
    if not _is_number(value):
        msg = f"{what}: {reprlib.repr(value)}; expected a number"
        raise AnnotationError(msg)
    return float(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float reaches
        return False
