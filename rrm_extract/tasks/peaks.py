"""From heat maps to the places where a part of the body may be."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["MOST_PEAKS", "Peaks", "enlarge", "find_peaks"]

MOST_PEAKS = 127
"""Of one part in a frame, the best ones, as OpenPose has it. Untrained networks have thousands."""

_SIGMA = 3.0
"""Standard deviation of the smoothing, pixels of the enlarged map."""

_REACH = math.ceil(4 * _SIGMA)
"""Pixels to each side that the smoothing looks at; what lies beyond weighs under 1e-4."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Peaks:
    """K places where a part may be: sorted by part, the highest score of a part first.

    Attributes:
        parts: (K,) int64: number of the part.
        points: (K, 2) float64: x and y in pixels of the enlarged maps; the middle of the first
            pixel is at 0.5.
        scores: (K,) float64: height of the heat map.
    """

    parts: Tensor
    points: Tensor
    scores: Tensor

    def of_part(self, part: int) -> Tensor:
        """(K_part,) int64: which of the K are this part."""
        return (self.parts == part).nonzero()[:, 0]


def enlarge(maps: Tensor, factor: int) -> Tensor:
    """(C, H, W) -> (C, H * factor, W * factor), bicubic, the middles of cells staying in place."""
    enlarged: Tensor = F.interpolate(
        maps[None], scale_factor=factor, mode="bicubic", align_corners=False
    )[0]
    return enlarged


def find_peaks(maps: Tensor, *, threshold: float) -> Peaks:
    """The highest points of each map.

    A point counts when, after smoothing with a Gaussian, it is above ``threshold`` and no lower
    than the 8 points around it; where several are equally high the first counts. Its place is
    refined by a parabola through it and its neighbours, its score is the map's, unsmoothed.

    Args:
        maps: (J, H, W) float, finite; one map for each part.
        threshold: smallest height of a smoothed peak.
    """
    smooth = _smoothed(maps)
    part, row, column = (_is_highest(smooth) & (smooth > threshold)).nonzero(as_tuple=True)
    height = smooth[part, row, column]
    order = _best(part, height)
    part, row, column = part[order], row[order], column[order]
    return Peaks(
        parts=part,
        points=torch.stack(
            [
                column + 0.5 + _offset(smooth, part, row, column, across=True),
                row + 0.5 + _offset(smooth, part, row, column, across=False),
            ],
            dim=1,
        ),
        scores=maps[part, row, column].double(),
    )


def _smoothed(maps: Tensor) -> Tensor:
    """Each map with a Gaussian, its border repeated outside."""
    steps = torch.arange(-_REACH, _REACH + 1, dtype=maps.dtype)
    weights = torch.exp(-0.5 * (steps / _SIGMA) ** 2)
    weights = (weights / weights.sum()).reshape(1, 1, 1, -1)
    x = maps[:, None]
    x = F.conv2d(F.pad(x, (_REACH, _REACH, 0, 0), mode="replicate"), weights)
    x = F.conv2d(F.pad(x, (0, 0, _REACH, _REACH), mode="replicate"), weights.transpose(2, 3))
    return x[:, 0]


def _is_highest(maps: Tensor) -> Tensor:
    """(J, H, W) bool: higher than the neighbours read before, no lower than those after."""
    rows, columns = maps.shape[1:]
    around = F.pad(maps, (1, 1, 1, 1), value=-math.inf)
    highest = torch.ones_like(maps, dtype=torch.bool)
    for place in range(9):
        if place == 4:
            continue  # the point itself
        top, left = divmod(place, 3)
        neighbour = around[:, top : top + rows, left : left + columns]
        highest &= maps > neighbour if place < 4 else maps >= neighbour
    return highest


def _best(part: Tensor, height: Tensor) -> Tensor:
    """An order by part, the highest first, without those beyond ``MOST_PEAKS`` of a part."""
    order = height.argsort(descending=True, stable=True)
    order = order[part[order].argsort(stable=True)]
    ordered = part[order]
    rank = torch.arange(len(ordered)) - torch.searchsorted(ordered, ordered)
    return order[rank < MOST_PEAKS]


def _offset(maps: Tensor, part: Tensor, row: Tensor, column: Tensor, *, across: bool) -> Tensor:
    """(K,) float64 in -0.5..0.5: where a parabola has its top; 0 on the border."""
    place = column if across else row
    last = maps.shape[2 if across else 1] - 1

    def beside(step: int) -> Tensor:
        moved = (place + step).clamp(0, last)
        at = (part, row, moved) if across else (part, moved, column)
        return maps[at].double()

    before, here, behind = beside(-1), beside(0), beside(1)
    bend = before - 2 * here + behind
    inside = (place > 0) & (place < last) & (bend < 0)
    top = (before - behind) / torch.where(inside, 2 * bend, 1.0)
    return torch.where(inside, top, 0.0).clamp(-0.5, 0.5)
