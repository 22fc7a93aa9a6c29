"""Pruning by magnitude: which weights of a layer are kept (section 2 of the paper)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["kept_count", "largest_weights"]


def kept_count(n_weights: int, density: float) -> int:
    """How many of ``n_weights`` a density keeps: the nearest number, and at least one."""
    return max(1, round(density * n_weights))


def largest_weights(weights: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Positions of the largest weights by magnitude.

    Args:
        weights: (n,) float32, finite.
        count: how many to keep, 1 to n. Of equally large ones the first are kept.

    Returns:
        (kept,) int64, ascending. Fewer than ``count`` where fewer weights are not 0: a zero is
        pruned already.
    """
    magnitudes = np.abs(weights)
    limit = np.partition(magnitudes, len(weights) - count)[len(weights) - count]
    if limit == 0:
        return np.flatnonzero(magnitudes)
    kept = magnitudes > limit
    ties = np.flatnonzero(magnitudes == limit)
    kept[ties[: count - np.count_nonzero(kept)]] = True
    return np.flatnonzero(kept)
