"""How far the feature is off, told from what the layers hold back. Needs no torch.

With the policy "bounded" a layer's input is off by exactly what was not propagated. The error that
this makes in the feature is nearly linear in it, and what different layers hold back is nearly
uncorrelated; so the squares add up:

    |feature - dense feature|^2 / |dense feature|^2  =  floor + sum over layers of gain * held back

where "held back" is the sum of squares of the differences that a layer has not propagated, which
the engines count as they go. The gains are a property of the network; they are measured on frames
of which the dense feature is known as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ErrorEstimate"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ErrorEstimate:
    """Predicts the relative L2 error of the feature, frame by frame.

    Attributes:
        gains: (L,) float64, squared relative error for one unit held back at each layer's input.
        floor: squared relative error that is there without truncation, as that of bfloat16.
    """

    gains: Floats
    floor: float = 0.0

    def of(self, truncated: Floats, *, correction: float = 1.0) -> Floats:
        """The error of each frame.

        Args:
            truncated: (T, L) float64, sums of squares of what each layer holds back.
            correction: factor for the part of the error that comes of it; not for the floor's.

        Returns:
            (T,) float64, relative L2 errors.
        """
        error: Floats = np.sqrt(self.floor + correction**2 * (truncated @ self.gains))
        return error

    def beside_floor(self, error: float) -> float:
        """The part of an error that comes of truncation; 0 for one below the floor."""
        return float(np.sqrt(max(error**2 - self.floor, 0.0)))
