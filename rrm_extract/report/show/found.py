"""Boxes and skeletons, drawn where a network found something."""

from __future__ import annotations

import colorsys
import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rrm_extract.errors import ConfigError
from rrm_extract.models import LoadedModel
from rrm_extract.report.show.unit import unit_of
from rrm_extract.tasks import Detector, PoseEstimator, detect, pose

__all__ = ["Found", "FoundObjects", "FoundPeople", "class_label", "found_by"]

_GOLDEN = 0.618034
"""Of a turn of the colour circle from one class to the next: neighbours differ most."""


class Found(Protocol):
    """What a network's raw output says of a frame, as a drawing."""

    @property
    def caption(self) -> str:
        """What is drawn, in a few words."""

    def draw(
        self, picture: Image.Image, raw: NDArray[np.float32], *, height: int, width: int
    ) -> None:
        """Draws on a picture of the frame, which may be larger than the frame.

        Args:
            picture: RGB.
            raw: (D,) output of the network.
            height: of the frame, pixels.
            width: likewise.
        """


def found_by(model: LoadedModel, min_score: float | None) -> Found | None:
    """What can be drawn of a network's output; None for one that finds nothing.

    Args:
        model: the network.
        min_score: smallest score of what is drawn; None for the task's own.

    Raises:
        ConfigError: the score is out of range or has no use, or the network's transform does not
            let boxes or people be placed.
    """
    if model.region is not None:
        least = detect.THRESHOLD if min_score is None else min_score
        if not 0 <= least <= 1:
            raise ConfigError(f"--min-score is {least:g}, expected a number in 0..1 for boxes")
        return FoundObjects(Detector.of(model, threshold=least))
    if model.skeleton is not None:
        least = pose.LEAST_SCORE if min_score is None else min_score
        return FoundPeople(PoseEstimator.of(model, least_score=least))
    if min_score is not None:
        raise ConfigError(
            f"--min-score was given, but {model.name} finds neither objects nor people; leave it "
            "away, or take a network such as yolov2 or rtpose"
        )
    return None


def class_label(detector: Detector, kind: int) -> str:
    """What a class is called: its name where it is known."""
    return detector.names[kind] if detector.names else f"class {kind}"


class FoundObjects:
    """Boxes with their classes and scores."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    @property
    def caption(self) -> str:
        """See :class:`Found`."""
        return f"boxes with a score above {self._detector.threshold:g}"

    def draw(
        self, picture: Image.Image, raw: NDArray[np.float32], *, height: int, width: int
    ) -> None:
        """See :class:`Found`."""
        (objects,) = self._detector(raw[None], height=height, width=width)
        draw, unit = ImageDraw.Draw(picture), unit_of(picture.width)
        scale = np.array([picture.width / width, picture.height / height] * 2)
        # The best last, over the others.
        for box, score, kind in reversed(
            list(zip(objects.pixels * scale, objects.scores, objects.classes, strict=True))
        ):
            colour = _colour(int(kind))
            left, top, right, bottom = (float(side) for side in box)
            draw.rectangle((left, top, right, bottom), outline=colour, width=round(2 * unit))
            text = f"{class_label(self._detector, int(kind))} {score:.2f}"
            _tag(picture, (left, top), text, colour=colour)


class FoundPeople:
    """Skeletons: parts as dots, limbs as lines."""

    def __init__(self, estimator: PoseEstimator) -> None:
        self._estimator = estimator

    @property
    def caption(self) -> str:
        """See :class:`Found`."""
        return f"people with a score from {self._estimator.least_score:g} on"

    def draw(
        self, picture: Image.Image, raw: NDArray[np.float32], *, height: int, width: int
    ) -> None:
        """See :class:`Found`."""
        (poses,) = self._estimator(raw[None], height=height, width=width)
        draw, unit = ImageDraw.Draw(picture), unit_of(picture.width)
        scale = np.array([picture.width / width, picture.height / height])
        limbs = [limb for limb in self._estimator.skeleton.limbs if not limb.is_extra]
        for person, score in zip(poses.points[::-1], poses.scores[::-1], strict=True):
            points = [(float(x), float(y)) for x, y in person * scale]
            for number, limb in enumerate(limbs):
                ends = [points[limb.begin], points[limb.end]]
                if not any(math.isnan(x) for x, _ in ends):
                    draw.line(ends, fill=_colour(number), width=round(3 * unit))
            seen = [point for point in points if not math.isnan(point[0])]
            dot = 3 * unit
            for x, y in seen:
                draw.ellipse(
                    (x - dot, y - dot, x + dot, y + dot), fill=(255, 255, 255), outline=(0, 0, 0)
                )
            corner = (min(x for x, _ in seen), min(y for _, y in seen) - 4 * unit)
            _tag(picture, corner, f"{score:.2f}", colour=(255, 255, 255))


def _tag(
    picture: Image.Image, corner: tuple[float, float], text: str, *, colour: tuple[int, int, int]
) -> None:
    """Text on a plate, above a corner if there is room, and else below it."""
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(12 * unit_of(picture.width))
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    wide, high = right - left + 6, bottom - top + 6
    x = min(max(corner[0], 0), max(picture.width - wide, 0))
    y = corner[1] - high if corner[1] >= high else max(corner[1], 0)
    draw.rectangle((x, y, x + wide, y + high), fill=colour)
    draw.text((x + 3 - left, y + 3 - top), text, font=font, fill=(0, 0, 0))


def _colour(number: int) -> tuple[int, int, int]:
    """A bright colour, another one for each number."""
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.7, 1)
    return round(255 * red), round(255 * green), round(255 * blue)
