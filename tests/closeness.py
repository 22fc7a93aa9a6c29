"""The one place that says how close two results have to be."""

from __future__ import annotations

from torch import Tensor

EXACT_RECURRENCE = 1e-5
"""Relative L2 that rounding may leave at threshold 0: sums are taken in another order."""


def relative_l2(result: Tensor, reference: Tensor) -> float:
    """The largest relative L2 distance over the first dimension (frames)."""
    difference = (result - reference).flatten(1).norm(dim=1)
    return float((difference / reference.flatten(1).norm(dim=1).clamp_min(1e-30)).max())
