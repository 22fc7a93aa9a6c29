"""Average precision of boxes and of bodies, by COCO's own evaluation (pycocotools)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from annotations import Corners, MarkedBody, MarkedBox, class_key
from benchmarking import require
from numpy.typing import NDArray

from rrm_extract.tasks import Detections, Poses

__all__ = [
    "MOST_BOXES",
    "MOST_PEOPLE",
    "OKS_PARTS",
    "BodyFrame",
    "BoxFrame",
    "Precision",
    "body_precision",
    "box_precision",
    "marked_bodies",
    "marked_boxes",
]

MOST_BOXES = 100
"""Objects of a frame that count, the highest scores first; as in COCO's evaluation."""

MOST_PEOPLE = 20
"""People of a frame that count; as in COCO's evaluation."""

OKS_PARTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
    "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
"""Those for which COCO has measured how far people's marks differ, in its order."""

BODY_AREA = 0.53
"""Share of the box around all its marked parts that a body fills, where its area is not known.

COCO's own areas are of outlines. The number alone is CrowdPose's (arXiv 1812.00324), which takes
that share of boxes that people have marked.
"""

THINNEST = 1.0
"""Pixels: no body is thinner, though the parts that are marked may be in one row."""

_PERSON = 1
_NOWHERE = (-1e6, -1e6)


@dataclass(frozen=True, kw_only=True)
class BoxFrame:
    """A frame with what is true and what was found of it.

    Attributes:
        truths: in pixels.
        found: by a detector.
        names: of the detector's classes, any spelling.
        looked_for: classes of which all objects are among the truths; None: all classes.
    """

    truths: Sequence[MarkedBox]
    found: Detections
    names: Sequence[str]
    looked_for: frozenset[str] | None = None


@dataclass(frozen=True, kw_only=True)
class BodyFrame:
    """The same of people.

    Attributes:
        truths: in pixels.
        found: by a pose network.
        parts: names of the parts that it finds, in its order.
    """

    truths: Sequence[MarkedBody]
    found: Poses
    parts: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Precision:
    """How well what was found is what is true.

    Attributes:
        ap: mean over classes and over thresholds .50, .55, ... .95 of the overlap (of boxes) or of
            the object keypoint similarity (of bodies); None where nothing is true.
        ap50: the same at the threshold .50 alone.
        truths: how many objects, or people, there are.
        found: how many were found.
        frames: how many were looked at.
    """

    ap: float | None
    ap50: float | None
    truths: int
    found: int
    frames: int

    def to_json(self) -> dict[str, Any]:
        """Everything."""
        return asdict(self)


def marked_boxes(found: Detections, names: Sequence[str]) -> list[MarkedBox]:
    """What a detector found, taken as true: the objects that count."""
    return [
        MarkedBox(name=class_key(names[kind]), corners=corners)
        for corners, _, kind in _counting(found)
    ]


def marked_bodies(found: Poses, parts: Sequence[str]) -> list[MarkedBody]:
    """What a pose network found, taken as true: the people that count."""
    people = zip(found.points[:MOST_PEOPLE].tolist(), found.found[:MOST_PEOPLE], strict=True)
    return [
        MarkedBody(
            points={
                name: (x, y)
                for name, (x, y), seen in zip(parts, points, visible, strict=True)
                if seen
            }
        )
        for points, visible in people
    ]


def box_precision(frames: Sequence[BoxFrame]) -> Precision:
    """Average precision of boxes (COCO's AP and AP50).

    A class that no object is of has no precision, whatever was found of it. Objects of a class that
    the detector has no name for do not count: it cannot find them.
    """
    known = {class_key(name) for frame in frames for name in frame.names}
    names = sorted(known & {box.name for frame in frames for box in frame.truths})
    numbers = {name: number for number, name in enumerate(names, 1)}
    truths: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    all_found = 0
    for image, frame in enumerate(frames, 1):
        truths += [
            _box(image, numbers[box.name], box.corners) | {"iscrowd": int(box.is_crowd)}
            for box in frame.truths
            if box.name in numbers
        ]
        keys = [class_key(name) for name in frame.names]
        for corners, score, kind in _counting(frame.found):
            if frame.looked_for is not None and keys[kind] not in frame.looked_for:
                continue
            all_found += 1
            if keys[kind] in numbers:
                found.append(_box(image, numbers[keys[kind]], corners) | {"score": score})
    return _evaluated(
        "bbox", len(frames), list(numbers.values()), truths, found,
        most=MOST_BOXES, all_found=all_found,
    )  # fmt: skip


def body_precision(
    frames: Sequence[BodyFrame], *, looked_for: Iterable[str] | None = None
) -> Precision:
    """Average precision of bodies by their parts (COCO's OKS-AP and OKS-AP50).

    Args:
        frames: at least one.
        looked_for: parts that were marked wherever they are; by default all. Of these, the ones
            count that the network finds too, and of which ``OKS_PARTS`` knows how exact marks are.
    """
    wanted = set(OKS_PARTS if looked_for is None else looked_for)
    for frame in frames:
        wanted &= set(frame.parts)
    parts = [part for part in OKS_PARTS if part in wanted]
    sigmas = require("pycocotools.cocoeval").Params("keypoints").kpt_oks_sigmas
    sigma = dict(zip(OKS_PARTS, sigmas.tolist(), strict=True))
    truths: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image, frame in enumerate(frames, 1):
        truths += [_body(image, parts, body) for body in frame.truths]
        bodies = marked_bodies(frame.found, frame.parts)
        found += [
            _body(image, parts, body) | {"score": score}
            for body, score in zip(bodies, frame.found.scores.tolist(), strict=False)
        ]
    return _evaluated(
        "keypoints", len(frames), [_PERSON], truths, found,
        most=MOST_PEOPLE, all_found=len(found), sigmas=[sigma[part] for part in parts],
    )  # fmt: skip


def _counting(found: Detections) -> list[tuple[Corners, float, int]]:
    """Corners in pixels, score and class of the objects that count.

    A box that lies in what the letterbox leaves free is nothing in the frame.
    """
    pixels = found.pixels
    inside = np.flatnonzero((pixels[:, 2:] > pixels[:, :2]).all(axis=1))[:MOST_BOXES]
    return [
        ((left, top, right, bottom), score, kind)
        for (left, top, right, bottom), score, kind in zip(
            pixels[inside].tolist(),
            found.scores[inside].tolist(),
            found.classes[inside].tolist(),
            strict=True,
        )
    ]


def _box(image: int, category: int, corners: Sequence[float]) -> dict[str, Any]:
    left, top, right, bottom = corners
    width, height = right - left, bottom - top
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [left, top, width, height],
        "area": width * height,
        "iscrowd": 0,
    }


def _body(image: int, parts: Sequence[str], body: MarkedBody) -> dict[str, Any]:
    points = body.points
    there = [points[part] for part in parts if part in points]
    whole = _around(points.values())
    # Without a part that counts, whoever is found in the box counts neither for nor against.
    corners = _around(there) or body.corners or whole or (0.0, 0.0, 0.0, 0.0)
    left, top, right, bottom = whole or corners
    # A part that was not found is far from any mark, and one that is not marked does not count.
    triples = [(*points[part], 2) if part in points else (*_NOWHERE, 0) for part in parts]
    width, height = max(right - left, THINNEST), max(bottom - top, THINNEST)
    return _box(image, _PERSON, corners) | {
        "area": BODY_AREA * width * height if body.area is None else body.area,
        "iscrowd": int(body.is_crowd),
        "keypoints": [number for triple in triples for number in triple],
        "num_keypoints": len(there),
    }


def _around(points: Collection[tuple[float, float]]) -> Corners | None:
    """The box around some points; None where there are none."""
    if not points:
        return None
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _evaluated(
    kind: str,
    frames: int,
    categories: Sequence[int],
    truths: Sequence[dict[str, Any]],
    found: Sequence[dict[str, Any]],
    *,
    most: int,
    all_found: int,
    sigmas: Sequence[float] | None = None,
) -> Precision:
    counts: Any = [
        truth for truth in truths if not truth["iscrowd"] and truth.get("num_keypoints", 1)
    ]
    ap = ap50 = None
    if counts and (sigmas is None or sigmas):
        with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress
            evaluation = require("pycocotools.cocoeval").COCOeval(
                _coco(frames, categories, truths), _coco(frames, categories, found), iouType=kind
            )
            evaluation.params.maxDets = [most]
            if sigmas is not None:
                evaluation.params.kpt_oks_sigmas = np.array(sigmas)
            evaluation.evaluate()
            evaluation.accumulate()
        # (thresholds, recalls, classes, sizes, most); the first of the sizes is all of them.
        precision: NDArray[np.float64] = evaluation.eval["precision"][:, :, :, 0, -1]
        ap, ap50 = _mean(precision), _mean(precision[0])
    return Precision(ap=ap, ap50=ap50, truths=len(counts), found=all_found, frames=frames)


def _mean(precision: NDArray[np.float64]) -> float | None:
    """Over the classes that something is of; COCO marks the others with -1."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None


def _coco(frames: int, categories: Sequence[int], entries: Iterable[dict[str, Any]]) -> Any:
    coco = require("pycocotools.coco").COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": image} for image in range(1, frames + 1)],
        "categories": [{"id": category, "name": str(category)} for category in categories],
        # An id of 0 would stand for "matches nothing".
        "annotations": [{"id": number, **entry} for number, entry in enumerate(entries, 1)],
    }
    coco.createIndex()
    return coco
