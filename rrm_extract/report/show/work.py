"""How much was computed, frame after frame."""

from __future__ import annotations

import math
from collections import deque

__all__ = ["WorkSoFar"]

WINDOW = 240
"""Frames that the graph shows: 10 seconds at 24 a second."""


class WorkSoFar:
    """Shares of the dense MACs that were done, from a clip's first frame on.

    Attributes:
        recent: share and whether it was a key frame, of the last frames, the oldest first.
        frames: number of frames.
        total: sum of their shares.
    """

    def __init__(self) -> None:
        self.recent: deque[tuple[float, bool]] = deque(maxlen=WINDOW)
        self.frames = 0
        self.total = 0.0

    def add(self, share: float, *, is_key_frame: bool) -> None:
        """One more frame.

        Args:
            share: of the dense MACs; above 1 where frames were computed twice.
            is_key_frame: every layer was computed densely.
        """
        self.recent.append((share, is_key_frame))
        self.frames += 1
        self.total += share

    @property
    def speedup(self) -> float:
        """Theoretical: dense MACs over the MACs done, key frames included; NaN at first."""
        if not self.frames:
            return math.nan
        return self.frames / self.total if self.total else math.inf
