"""What the numbers of a detector's raw output are."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Region"]

_BOX_AND_OBJECTNESS = 5


@dataclass(frozen=True, kw_only=True)
class Region:
    """The output of YOLOv2 (arXiv 1612.08242, section 2) and what it takes to read it.

    A network's raw output is (N, A * (5 + C), H, W): for each of A anchors, in this order, the
    box's tx, ty, tw, th, the objectness to, and C classes; no activation has been applied.
    """

    anchors: tuple[tuple[float, float], ...]
    """(width, height) of each anchor, in cells of the H x W grid."""
    classes: int
    """C."""
    softmax: bool
    """Whether classes exclude each other (softmax); otherwise each has its own sigmoid."""

    @property
    def values(self) -> int:
        """Numbers for one anchor in one cell, 5 + C."""
        return _BOX_AND_OBJECTNESS + self.classes

    @property
    def channels(self) -> int:
        """Channels of the raw output, A * (5 + C)."""
        return len(self.anchors) * self.values
