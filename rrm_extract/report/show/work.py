"""How much was computed, frame after frame."""

from __future__ import annotations

import math

__all__ = ["WINDOW", "WorkSoFar"]

WINDOW = 240
"""Frames that the graph shows: 10 seconds at 24 a second."""


class WorkSoFar:
    """Shares of the dense MACs that were done, from a clip's first frame on.

    Attributes:
        shares: of each frame; above 1 where frames were computed twice.
        key_frames: which of them were computed densely by every layer.
    """

    def __init__(self) -> None:
        self.shares: list[float] = []
        self.key_frames: list[bool] = []
        self._total = 0.0

    def add(self, share: float, *, is_key_frame: bool) -> None:
        """One more frame."""
        self.shares.append(share)
        self.key_frames.append(is_key_frame)
        self._total += share

    @property
    def recent(self) -> list[tuple[float, bool]]:
        """Share and key frame of the last frames, the oldest first."""
        return list(zip(self.shares[-WINDOW:], self.key_frames[-WINDOW:], strict=True))

    @property
    def speedup(self) -> float:
        """Theoretical: dense MACs over the MACs done, key frames included; NaN at first."""
        if not self.shares:
            return math.nan
        return len(self.shares) / self._total if self._total else math.inf
