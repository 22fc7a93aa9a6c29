"""Cuts and flashes, seen in the differences of consecutive inputs. Needs no torch.

Where a scene ends nothing of the last frame is of use: a key frame is quicker than a list of
everything, and its error is zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["CutDetector"]

STEP = 4
"""Every so many rows and columns are looked at: a cut shows anywhere."""

UNRELATED = 0.5
"""Share of the two pictures' variance that their difference has from which on they have little in
common: 1 for two unrelated pictures, about 0.1 for a hand-held camera at 24 frames/s."""

SUDDEN = 3.0
"""Times the usual share: where everything always changes, as in noise, that is no cut."""

MOST = 2.0
"""What a share counts for at most: two flat pictures have no variance at all."""

MEMORY = 0.8
"""What the usual share keeps of itself from frame to frame."""

REPEATS = 8
"""Frames in a row that may be the one before once more, as where a clip has fewer a second than are
sampled; they say nothing of what is usual. More, and the picture stands still."""


class CutDetector:
    """Tells where a new scene begins, frame after frame of one clip."""

    def __init__(self) -> None:
        self._last: Any = None
        self._usual = 0.0
        self._repeats = 0

    def reset(self) -> None:
        """Forgets the past: the next frame begins a clip, which is no cut."""
        self._last = None
        self._usual = 0.0
        self._repeats = 0

    def cuts(self, frames: Any) -> list[int]:
        """Positions of the frames that begin a scene.

        Args:
            frames: (T, C, H, W) float, consecutive network inputs, as an array or a tensor.
        """
        found = []
        some = frames[:, :, ::STEP, ::STEP]
        pixels = np.asarray(some.cpu() if hasattr(some, "cpu") else some)
        for position, frame in enumerate(pixels):
            here = frame.astype(np.float64)  # a copy: the frames may be overwritten
            if self._last is not None:
                change = _share(here, self._last)
                if change > UNRELATED and change > SUDDEN * self._usual:
                    found.append(position)
                self._repeats = 0 if change > 0 else self._repeats + 1
                if change > 0 or self._repeats > REPEATS:
                    self._usual = MEMORY * self._usual + (1 - MEMORY) * change
            self._last = here
        return found


def _share(a: Any, b: Any) -> float:
    """Mean square of the difference over the sum of the variances; 0 for two equal pictures."""
    difference = float(np.square(a - b).mean())
    if not difference > 0:  # equal, or with a NaN, which the engines see to
        return 0.0
    spread = float(a.var() + b.var())
    return min(difference / spread, MOST) if spread > 0 else MOST
