"""MPII Video Pose (ArtTrack, arXiv 1612.01465): its list of annotated pictures."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from annotations import (
    AnnotatedFrame,
    AnnotationError,
    Annotations,
    MarkedBody,
    load_json,
)
from matlab_file import MATLAB_EXTENSION, load_matlab, many

__all__ = ["JOINTS", "is_annotation_list", "read_mpii_pose"]

JOINTS = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis",
    "thorax", "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder",
    "left_shoulder", "left_elbow", "left_wrist",
)  # fmt: skip
"""By the id that a point has; right is the person's. Pelvis and thorax are not marked in videos."""

_VARIABLE = "annolist"
_RELEASE = "RELEASE"
_FIRST_PIXEL = 0.5
"""MATLAB counts pixels from 1; here the middle of the first one is at 0.5."""


def is_annotation_list(content: Any) -> bool:
    """Whether a .mat file's variables, or what a JSON file holds, are such a list."""
    if isinstance(content, dict):
        return _VARIABLE in content or _RELEASE in content
    return isinstance(content, list) and any(True for _ in _pictures(content))


def read_mpii_pose(path: Path) -> Annotations:
    """Reads the ``annolist`` of MPII's datasets, a .mat file or the same as JSON.

    A struct array with one element for a picture: ``image.name``, ``<sequence>/<number>.jpg``, and
    ``annorect``, one element for a person, whose ``annopoints.point`` has ``id``, ``x`` and ``y``
    of each joint that is marked. In JSON the pictures of a sequence may be a list of their own. The
    picture with the smallest number of a sequence is its first frame. Pictures without
    ``annorect`` are passed over, and so are people of whom only the head is marked.

    Raises:
        AnnotationError: the file cannot be read or is not of that form.
    """
    content = load_matlab(path) if path.suffix.lower() == MATLAB_EXTENSION else load_json(path)
    if not is_annotation_list(content):
        msg = f"{path} has no {_VARIABLE}, pictures with image and annorect; expected MPII's file"
        raise AnnotationError(msg)
    if isinstance(content, dict):
        content = content.get(_VARIABLE, content.get(_RELEASE))
        if isinstance(content, dict) and _VARIABLE in content:
            content = content[_VARIABLE]
    numbered: dict[str, dict[int, list[MarkedBody]]] = defaultdict(dict)
    smallest: dict[str, int] = {}
    for picture in _pictures(many(content)):
        sequence, number = _name(picture, path)
        smallest[sequence] = min(number, smallest.get(sequence, number))
        if number in numbered[sequence]:
            msg = f"{path}: picture {number} of {sequence} is there twice; expected each once"
            raise AnnotationError(msg)
        if people := many(picture.get("annorect")):
            where = f"{path}, picture {number} of {sequence}"
            bodies = [_body(person, where) for person in people]
            numbered[sequence][number] = [body for body in bodies if body.points]
    videos = {
        sequence: tuple(
            AnnotatedFrame(number=number - smallest[sequence], bodies=tuple(bodies))
            for number, bodies in sorted(frames.items())
        )
        for sequence, frames in numbered.items()
        if frames
    }
    if not videos:
        msg = f"{path}: no picture has people with joints; expected MPII's file as published"
        raise AnnotationError(msg)
    return Annotations(name="MPII Video Pose", videos=videos, parts=JOINTS)


def _pictures(content: list[Any]) -> Iterator[dict[str, Any]]:
    for item in content:
        if isinstance(item, list):
            yield from _pictures(item)
        elif isinstance(item, dict) and "image" in item:
            yield item


def _name(picture: dict[str, Any], path: Path) -> tuple[str, int]:
    """Sequence and number of a picture."""
    image = (many(picture["image"]) or [None])[0]
    name = image.get("name") if isinstance(image, dict) else image
    where = PurePosixPath(name) if isinstance(name, str) else PurePosixPath()
    digits = where.stem[len(where.stem.rstrip("0123456789")) :]
    if not digits or not where.parent.name:
        msg = f"{path}: a picture is called {name!r}; expected <sequence>/<number>.jpg"
        raise AnnotationError(msg)
    return where.parent.name, int(digits)


def _body(person: Any, where: str) -> MarkedBody:
    try:
        groups = many(person.get("annopoints"))
        marks = [mark for group in groups for mark in many(group["point"])]
        points = {
            JOINTS[int(mark["id"])]: (float(mark["x"]), float(mark["y"]))
            for mark in marks
            if int(mark["id"]) >= 0
        }
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        msg = (
            f"{where}: a person's joints cannot be read ({type(error).__name__}: {error}); "
            f"expected annopoints.point with id (0 to {len(JOINTS) - 1}), x and y"
        )
        raise AnnotationError(msg) from error
    return MarkedBody(
        points={
            name: (x - _FIRST_PIXEL, y - _FIRST_PIXEL)
            for name, (x, y) in points.items()
            if math.isfinite(x) and math.isfinite(y)
        }
    )
