"""Accumulated-error control, the paper's scheme for the policy "paper" (Sec. 3.4). Needs no torch.

What is truncated is lost, and the losses of all layers and frames since the last key frame add up
(Eq. 7):

    A_T  =  sum over frames t <= T  of  sum over layers l  of  | truncated_(t, l) |_2

A polynomial of the fourth order predicts the feature's error from it (Eq. 8). When the prediction
passes a limit, the frame is computed densely, A is set to zero, and a new round begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrm_extract.errors import CalibrationError

__all__ = ["ORDER", "AccumulatedError", "Fit", "accumulated", "fit_accumulated_error"]

ORDER = 4
"""Of the polynomial (Eq. 8)."""

GRID = 1025
"""Places at which the polynomial is evaluated; the prediction is linear between them."""

Floats = NDArray[np.float64]


def accumulated(truncated: Floats, *, key_frame: NDArray[np.bool_], before: float = 0.0) -> Floats:
    """Accumulated truncation after each frame, since its key frame (Eq. 7).

    Args:
        truncated: (T, L) float64, sums of squares of what each layer has truncated in each frame.
        key_frame: (T,) bool, frames in which every layer was computed from nothing: what was
            truncated before them is without effect.
        before: what had accumulated before the first.

    Returns:
        (T,) float64.
    """
    steps = np.sqrt(truncated).sum(axis=1)
    sums = np.cumsum(steps)
    last = np.maximum.accumulate(np.where(key_frame, np.arange(len(steps)), -1))
    total: Floats = sums - np.where(last >= 0, (sums - steps)[last], -before)
    return total


@dataclass(frozen=True, kw_only=True)
class AccumulatedError:
    """The polynomial of Eq. 8, and how far its data reach.

    A key frame has no error, so the polynomial passes through the origin.

    Attributes:
        coefficients: of the powers 1 to 4 of A / reach.
        reach: the largest accumulated truncation among the data, above 0. Beyond it nothing is
            predicted: see :meth:`over`.
    """

    coefficients: tuple[float, ...]
    reach: float

    def predict(self, total: Floats) -> Floats:
        """Relative L2 errors (T,) of accumulated truncations (T,).

        Errors accumulate, so the prediction does not fall where the polynomial does.
        """
        grid = np.linspace(0.0, 1.0, GRID)
        error = (grid[:, None] ** np.arange(1, ORDER + 1)) @ np.asarray(self.coefficients)
        rising = np.maximum.accumulate(np.maximum(error, 0.0))
        return np.interp(np.asarray(total) / self.reach, grid, rising)

    def over(self, total: Floats, limit: float) -> NDArray[np.bool_]:
        """(T,) whether a round has to end: predicted to be over the limit, or beyond the data."""
        result: NDArray[np.bool_] = (self.predict(total) > limit) | (total > self.reach)
        return result

    def to_json(self) -> dict[str, Any]:
        """Plain values; ``AccumulatedError(**values)`` after ``tuple`` of the coefficients."""
        return {"coefficients": list(self.coefficients), "reach": self.reach}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A fitted polynomial and how good it is.

    Attributes:
        model: the polynomial.
        pairs: number of (accumulated truncation, error) pairs.
        r2: share of the errors' variance that it explains; where they do not vary, 1 if it is right
            and 0 if not.
        residual_rms, residual_max: of predicted minus true error.
    """

    model: AccumulatedError
    pairs: int
    r2: float
    residual_rms: float
    residual_max: float


def fit_accumulated_error(total: Floats, errors: Floats) -> Fit:
    """Least squares over pairs (Eq. 8).

    Args:
        total: (N,) float64, accumulated truncation.
        errors: (N,) float64, relative L2 error of the feature at that frame.

    Raises:
        CalibrationError: there are fewer than twice as many different pairs as coefficients.
    """
    use = np.isfinite(total) & np.isfinite(errors) & (total > 0)
    x, y = total[use], errors[use]
    if len(np.unique(x)) < 2 * ORDER:
        msg = (
            f"{len(np.unique(x))} frames have truncated something; expected {2 * ORDER} or more to "
            "fit a polynomial of the fourth order: take more video, or a larger --threshold"
        )
        raise CalibrationError(msg)
    reach = float(x.max())
    powers = (x / reach)[:, None] ** np.arange(1, ORDER + 1)
    coefficients, *_ = np.linalg.lstsq(powers, y, rcond=None)
    model = AccumulatedError(coefficients=tuple(map(float, coefficients)), reach=reach)
    return Fit(model=model, **quality(model.predict(x), y))


def quality(predicted: Floats, true: Floats) -> dict[str, Any]:
    """``pairs``, ``r2``, ``residual_rms`` and ``residual_max`` of some predictions."""
    residual = predicted - true
    lost = float(np.square(residual).sum())
    spread = float(np.square(true - true.mean()).sum())
    return {
        "pairs": len(true),
        "r2": 1 - lost / spread if spread else float(lost == 0),
        "residual_rms": float(np.sqrt(np.square(residual).mean())),
        "residual_max": float(np.abs(residual).max()),
    }
