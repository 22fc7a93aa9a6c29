"""From a pose network's raw output, or what was stored of it, to the people in each frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rrm_extract.errors import ConfigError
from rrm_extract.models import Letterbox, LoadedModel, Skeleton
from rrm_extract.tasks.limbs import connect
from rrm_extract.tasks.peaks import Peaks, find_peaks
from rrm_extract.tasks.people import Person, assemble
from rrm_extract.tasks.raw import as_maps

__all__ = ["PoseEstimator", "Poses"]

THRESHOLD = 0.1
"""Smallest height of a heat map at a part."""

FIELD_THRESHOLD = 0.05
"""Smallest share of a field in a limb's direction."""

LEAST_PARTS = 4
"""Parts that make a person."""

LEAST_SCORE = 0.4
"""Smallest score of a person."""

_LENGTH = 0.5
"""Limbs longer than this share of the frame's height lose score."""

_BEYOND = 1e18
"""Numbers of this size, and those that are none, say nothing: sums of them would overflow."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Poses:
    """The P people of one frame, the highest score first, with J parts of the body each.

    Attributes:
        points: (P, J, 2) float32: x and y of each part in pixels of the frame, 0 at the left or
            top edge; NaN where a part was not found.
        part_scores: (P, J) float32: height of the heat map, about 1 for a certain part; 0 where
            it was not found.
        scores: (P,) float32: the sum of the scores of a person's parts and limbs, divided by the
            number of parts found; up to about 2.
        height, width: of the frame, pixels.
    """

    points: NDArray[np.float32]
    part_scores: NDArray[np.float32]
    scores: NDArray[np.float32]
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def found(self) -> NDArray[np.bool_]:
        """(P, J) bool: which parts of each person were found."""
        return ~np.isnan(self.points[:, :, 0])


@dataclass(frozen=True, kw_only=True)
class PoseEstimator:
    """Reads a pose network's output (arXiv 1611.08050, section 2).

    Attributes:
        skeleton: what the output's numbers are.
        letterbox: how frames came into the network, which is undone.
        threshold: parts are where a smoothed heat map is above this.
        field_threshold: limbs are where more than 80 % of the points along them go along with
            the field by more than this.
        least_parts: people with fewer parts are dropped.
        least_score: people with a lower score are dropped.

    Raises:
        ConfigError: a threshold is out of range, or the letterbox is no whole number of cells.
    """

    skeleton: Skeleton
    letterbox: Letterbox
    threshold: float = THRESHOLD
    field_threshold: float = FIELD_THRESHOLD
    least_parts: int = LEAST_PARTS
    least_score: float = LEAST_SCORE

    def __post_init__(self) -> None:
        for name in ("threshold", "field_threshold"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} of poses is {value!r}, expected a number in 0..1")
        parts = len(self.skeleton.parts)
        if not 2 <= self.least_parts <= parts:
            raise ConfigError(
                f"least_parts of poses is {self.least_parts!r}, expected a number in 2..{parts}"
            )
        if not 0 <= self.least_score < float("inf"):
            raise ConfigError(
                f"least_score of poses is {self.least_score!r}, expected a number from 0 on"
            )
        if any(side % self.skeleton.stride for side in self.letterbox.size):
            height, width = self.letterbox.size
            raise ConfigError(
                f"the input is {height}x{width}, expected multiples of {self.skeleton.stride}"
            )

    @classmethod
    def of(
        cls,
        model: LoadedModel,
        *,
        threshold: float = THRESHOLD,
        field_threshold: float = FIELD_THRESHOLD,
        least_parts: int = LEAST_PARTS,
        least_score: float = LEAST_SCORE,
    ) -> PoseEstimator:
        """The estimator whose network this is.

        Its raw output is the network's last value, ``model.trace().outputs[0]``.

        Raises:
            ConfigError: the network is none for poses, its transform is no letterbox, or a
                threshold is out of range.
        """
        if model.skeleton is None:
            raise ConfigError(f"{model.name} finds no poses; expected rtpose")
        if not isinstance(model.transform, Letterbox):
            raise ConfigError(
                f"{model.name} was given another transform than a letterbox, so key points cannot "
                "be placed in the frame; leave --preprocess away, or give one with letterbox="
            )
        return cls(
            skeleton=model.skeleton,
            letterbox=model.transform,
            threshold=threshold,
            field_threshold=field_threshold,
            least_parts=least_parts,
            least_score=least_score,
        )

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W) of the raw output."""
        height, width = self.letterbox.size
        return height // self.skeleton.stride, width // self.skeleton.stride

    @property
    def features(self) -> int:
        """Numbers of one frame's raw output, D = C * H * W."""
        return self.skeleton.channels * self.grid[0] * self.grid[1]

    def __call__(
        self, raw: Tensor | NDArray[np.floating], *, height: int, width: int
    ) -> list[Poses]:
        """The people of T frames.

        Args:
            raw: (T, C, H, W) as :class:`rrm_extract.models.Skeleton` says, or (T, D) as it is
                stored.
            height: of the frames before the letterbox, pixels.
            width: likewise.

        Returns:
            One for each frame.

        Raises:
            ConfigError: ``raw`` has another shape.
            PreprocessError: the frames have no pixels.
        """
        shape = (self.skeleton.channels, *self.grid)
        maps = as_maps(raw, shape, layer="pose network's last layer")
        # One by one: enlarged maps have 64 times as many numbers.
        return [self._frame(frame, height, width) for frame in maps]

    def _frame(self, raw: Tensor, height: int, width: int) -> Poses:
        """One frame: (C, H, W)."""
        maps = raw.detach().cpu().float()
        maps = torch.where(maps.abs() < _BEYOND, maps, 0.0)
        place = self.letterbox.place(height, width)
        stride = self.skeleton.stride
        heat = maps[: len(self.skeleton.parts)]
        peaks = find_peaks(heat, place, stride=stride, threshold=self.threshold)
        fields = maps[self.skeleton.heat_maps :]
        connections = [
            connect(
                fields,
                limb,
                peaks,
                stride=stride,
                threshold=self.field_threshold,
                length=_LENGTH * place.height,
            )
            for limb in self.skeleton.limbs
        ]
        people = [
            person
            for person in assemble(self.skeleton, peaks, connections)
            if len(person.peaks) >= self.least_parts and person.score >= self.least_score
        ]
        people.sort(key=lambda person: -person.score)
        return self._poses(people, peaks, height, width)

    def _poses(self, people: list[Person], peaks: Peaks, height: int, width: int) -> Poses:
        shape = (len(people), len(self.skeleton.parts))
        points = np.full((*shape, 2), np.nan, np.float32)
        part_scores = np.zeros(shape, np.float32)
        in_frame = self.letterbox.undo(peaks.points, height, width).numpy()
        for number, person in enumerate(people):
            parts, which = list(person.peaks), list(person.peaks.values())
            points[number, parts] = in_frame[which]
            part_scores[number, parts] = peaks.scores.numpy()[which]
        return Poses(
            points=points,
            part_scores=part_scores,
            scores=np.array([person.score for person in people], np.float32),
            height=height,
            width=width,
        )
