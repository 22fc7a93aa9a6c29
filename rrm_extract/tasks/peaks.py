"""From heat maps to the places where a part of the body may be."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rrm_extract.models import Placement
from rrm_extract.tasks.enlarge import enlarging, smoothing

__all__ = ["MOST_PEAKS", "Peaks", "find_peaks"]

MOST_PEAKS = 127
"""Of one part in a frame, the best; OpenPose takes as many. Untrained networks have thousands."""

_SIGMA = 3.0
"""Standard deviation of the smoothing, pixels of the network's input."""

_NEIGHBOURS = tuple((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1))
_ITSELF = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Peaks:
    """K places where a part may be: sorted by part, the highest of a part first.

    Attributes:
        parts: (K,) int64: number of the part.
        points: (K, 2) float64: x and y in pixels of the network's input; the middle of the first
            pixel is at 0.5.
        scores: (K,) float64: height of the heat map.
    """

    parts: Tensor
    points: Tensor
    scores: Tensor

    def of_part(self, part: int) -> Tensor:
        """(K_part,) int64: which of the K are this part."""
        return (self.parts == part).nonzero()[:, 0]


def find_peaks(heat: Tensor, place: Placement, *, stride: int, threshold: float) -> Peaks:
    """The highest points of each map, where the frame is: nobody stands beside it.

    The maps are enlarged to the network's input (bicubic), cut off around the frame and smoothed
    with a Gaussian. A point counts when it is above ``threshold`` and no lower than the 8 points
    around it; where several are equally high the first counts. Its place is refined by a parabola
    through it and its neighbours, its score is the enlarged map's, unsmoothed.

    Args:
        heat: (J, H, W) float32, finite; one map for each part.
        place: of the frame in the network's input.
        stride: pixels of the input, in each direction, for one cell.
        threshold: smallest height of a smoothed peak.
    """
    rows = enlarging(heat.shape[1], stride, place.top, place.height)
    columns = enlarging(heat.shape[2], stride, place.left, place.width)
    smooth = (smoothing(place.height, _SIGMA) @ rows) @ heat
    smooth = smooth @ (smoothing(place.width, _SIGMA) @ columns).T
    part, row, column = _highest(smooth, threshold)
    order = _best(part, smooth[part, row, column])
    part, row, column = part[order], row[order], column[order]
    points = torch.stack(
        [
            place.left + column + 0.5 + _offset(smooth, part, row, column, across=True),
            place.top + row + 0.5 + _offset(smooth, part, row, column, across=False),
        ],
        dim=1,
    )
    scores = torch.einsum("kh,khw,kw->k", rows[row], heat[part], columns[column])
    return Peaks(parts=part, points=points, scores=scores.double())


def _highest(maps: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Map, row and column of what is higher than the neighbours before, no lower than those after.

    Few points are above the threshold, and with each neighbour fewer are left to look at.
    """
    around = F.pad(maps, (1, 1, 1, 1), value=-math.inf)
    part, row, column = (maps > threshold).nonzero(as_tuple=True)
    for place, (down, right) in enumerate(_NEIGHBOURS):
        if place == _ITSELF:
            continue
        here = maps[part, row, column]
        neighbour = around[part, row + 1 + down, column + 1 + right]
        kept = here > neighbour if place < _ITSELF else here >= neighbour
        part, row, column = part[kept], row[kept], column[kept]
    return part, row, column


def _best(part: Tensor, height: Tensor) -> Tensor:
    """An order by part, the highest first, without those beyond ``MOST_PEAKS`` of a part."""
    order = height.argsort(descending=True, stable=True)
    order = order[part[order].argsort(stable=True)]
    ordered = part[order]
    rank = torch.arange(len(ordered), device=part.device) - torch.searchsorted(ordered, ordered)
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
