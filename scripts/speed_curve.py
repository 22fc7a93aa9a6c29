"""Speed against error: a curve over thresholds, read at somebody else's error."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["ROUNDING", "Point", "SpeedCurve"]

ROUNDING = 1e-5
"""Errors below it are what the order of a sum does: all of them count as this one."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One way of computing the feature.

    Attributes:
        error: relative L2 distance to the exact feature.
        rate: frames/s.
    """

    error: float
    rate: float


class SpeedCurve:
    """The most frames/s that can be had at an error, between measured points.

    Points that are slower than one of no larger error are left out. Between two neighbours the
    logarithm of the rate is linear in the logarithm of the error.

    Args:
        points: at least one.
    """

    def __init__(self, points: Iterable[Point]) -> None:
        self.points: list[Point] = []
        for point in sorted(points, key=lambda p: (max(p.error, ROUNDING), -p.rate)):
            if not self.points or point.rate > self.points[-1].rate:
                self.points.append(point)
        if not self.points:
            msg = "a curve needs at least one point, got none"
            raise ValueError(msg)
        self._errors = [math.log(max(point.error, ROUNDING)) for point in self.points]
        self._rates = [math.log(point.rate) for point in self.points]

    def rate_at(self, error: float) -> float | None:
        """Frames/s at an error of at most ``error``.

        Beyond the last point the curve is flat: nothing faster was measured. Before the first
        point there is nothing as exact, and the answer is None.
        """
        x = math.log(max(error, ROUNDING))
        right = bisect_right(self._errors, x)
        if right == 0:
            return None
        if right == len(self._errors):
            return math.exp(self._rates[-1])
        share = (x - self._errors[right - 1]) / (self._errors[right] - self._errors[right - 1])
        low, high = self._rates[right - 1], self._rates[right]
        return math.exp(low + share * (high - low))

    def factor_over(self, point: Point) -> float | None:
        """How many times as fast the curve is as ``point``, at its error; None if never as exact.

        More than 1 means that the curve lies above the point.
        """
        rate = self.rate_at(point.error)
        return None if rate is None else rate / point.rate
