"""Which peaks belong together: line integrals over part-affinity fields (arXiv 1611.08050)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rrm_extract.models import Limb
from rrm_extract.tasks.peaks import Peaks

__all__ = ["Connection", "connect"]

_SAMPLES = 10
"""Points between two peaks at which the field is read."""

_SHARE = 0.8
"""More than this share of the points must go along with the field."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Two peaks that one limb joins."""

    begin: int
    """Which peak the limb leads from."""
    end: int
    """Which peak it leads to."""
    score: float
    """Mean of the field along the limb, with what is deducted of long ones."""


def connect(
    fields: Tensor, limb: Limb, peaks: Peaks, *, stride: int, threshold: float, length: float
) -> list[Connection]:
    """The best pairs of peaks for one limb (sections 2.3 and 2.4 of the paper).

    Between every peak p of the limb's first part and every peak q of its second one, the field v
    is read at 10 points, bicubic between cells, and its share in the limb's direction taken:
    ``s_i = v(p + i / 9 * (q - p)) . (q - p) / |q - p|``. A pair counts if more than 80 % of the
    s_i are above ``threshold`` and its score, ``mean(s_i) + min(length / |q - p| - 1, 0)``, is
    above 0. Of the pairs, the one with the highest score is taken, then the next one of which
    neither peak is taken, and so on.

    Args:
        fields: (2 * L, H, W) float: x and y of each limb's field.
        limb: which of them, and its parts.
        peaks: of all parts, in pixels of the network's input.
        stride: pixels for one cell of the fields.
        threshold: as above.
        length: pixels; longer limbs lose score.
    """
    begin, end = peaks.of_part(limb.begin), peaks.of_part(limb.end)
    if not len(begin) or not len(end):
        return []
    p, q = peaks.points[begin][:, None], peaks.points[end][None]  # (A, 1, 2), (1, B, 2)
    distance = (q - p).norm(dim=2)
    # Two peaks in one place have no direction: the zero vector goes along with nothing.
    direction = (q - p) / distance.clamp_min(1e-9)[..., None]
    steps = torch.linspace(0, 1, _SAMPLES, dtype=torch.float64, device="cpu")[:, None]
    points = p[:, :, None] + steps * (q - p)[:, :, None]  # (A, B, 10, 2)
    field = fields[2 * limb.field : 2 * limb.field + 2]
    along = (_read(field, points / stride) * direction[:, :, None]).sum(3)  # (A, B, 10)
    score = along.mean(2) + (length / distance.clamp_min(1e-9) - 1).clamp_max(0)
    counts = ((along > threshold).sum(2) > _SHARE * _SAMPLES) & (score > 0)
    found = []
    taken: tuple[set[int], set[int]] = (set(), set())
    first, second = counts.nonzero(as_tuple=True)
    scores = score[first, second]
    order = scores.argsort(descending=True, stable=True)
    for i, j, value in zip(
        begin[first[order]].tolist(), end[second[order]].tolist(), scores[order].tolist(),
        strict=True,
    ):  # fmt: skip
        if i not in taken[0] and j not in taken[1]:
            taken[0].add(i)
            taken[1].add(j)
            found.append(Connection(begin=i, end=j, score=value))
    return found


def _read(field: Tensor, points: Tensor) -> Tensor:
    """Bicubic: field (2, H, W), points (..., 2) in cells -> (..., 2) float64."""
    rows, columns = field.shape[1:]
    # grid_sample counts from -1 at the left and top edge to 1 at the other.
    grid = (2 * points / points.new_tensor([columns, rows]) - 1).reshape(1, 1, -1, 2)
    values = F.grid_sample(
        field[None].double(), grid, mode="bicubic", padding_mode="border", align_corners=False
    )
    return values[0, :, 0].T.reshape(points.shape)
