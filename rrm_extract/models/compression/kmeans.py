"""Weight sharing: k-means in one dimension (section 3 of the paper).

Sorted once, a cluster is a run of values, and its mean the difference of two prefix sums: a step of
Lloyd's algorithm costs k binary searches, however many values there are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["share_weights"]

_MAX_STEPS = 1000
"""Steps after which clusters are taken as they are: a bound, for the last ones change nothing."""


def share_weights(
    values: NDArray[np.float32], n_clusters: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Replace values by the nearest of a few shared ones.

    The first centroids are spaced evenly from the smallest to the largest value, which keeps the
    rare large weights apart (the paper's "linear initialization"); those without values
    are put where the squared error is largest. The result depends on the values alone. Where no
    more different values than clusters exist they are shared exactly.

    Args:
        values: (n,) float32, finite, in any order.
        n_clusters: 1 to 255.

    Returns:
        The shared values, (k,) float32 ascending with k at most ``n_clusters``, and the number of
        each value's own, (n,) uint8. Every shared value is used.
    """
    ordered = np.sort(values)
    changes = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    if len(changes) < n_clusters:
        exact = ordered[np.concatenate(([0], changes))] if len(ordered) else ordered
        return exact, np.searchsorted(exact, values).astype(np.uint8)
    shared, limits = _cluster(ordered.astype(np.float64), n_clusters)
    return shared.astype(np.float32), np.searchsorted(limits, values, side="right").astype(np.uint8)


def _cluster(
    ordered: NDArray[np.float64], n_clusters: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of the clusters, and the first value of each but the first, ascending."""
    runs = _Runs(ordered)
    centroids = np.linspace(ordered[0], ordered[-1], n_clusters)
    before: NDArray[np.int64] | None = None
    for _ in range(_MAX_STEPS):
        limits = np.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2)
        edges = np.unique(np.concatenate(([0], limits, [len(ordered)])))
        if len(edges) <= n_clusters:
            centroids = _split(runs, edges, n_clusters)
            continue
        if before is not None and np.array_equal(edges, before):
            break
        centroids = runs.means(edges[:-1], edges[1:])
        before = edges
    return np.add.reduceat(ordered, edges[:-1]) / np.diff(edges), ordered[edges[1:-1]]


class _Runs:
    """Means and errors of runs of ascending values."""

    def __init__(self, ordered: NDArray[np.float64]) -> None:
        self.ordered = ordered
        self._sums = np.concatenate(([0.0], np.cumsum(ordered)))
        self._squares = np.concatenate(([0.0], np.cumsum(ordered**2)))

    def means(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of runs of one value or more."""
        means: NDArray[np.float64] = (self._sums[ends] - self._sums[starts]) / (ends - starts)
        # Values far smaller than others have no digits left in the sums.
        np.clip(means, self.ordered[starts], self.ordered[ends - 1], out=means)
        return means

    def errors(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.float64]:
        """Squared distance to the mean; minus infinity for a run of one value, again and again."""
        sums = self._sums[ends] - self._sums[starts]
        errors = self._squares[ends] - self._squares[starts] - sums * sums / (ends - starts)
        return np.where(self.ordered[starts] == self.ordered[ends - 1], -np.inf, errors)


def _split(runs: _Runs, edges: NDArray[np.int64], n_clusters: int) -> NDArray[np.float64]:
    """Centroids of the clusters between ``edges``, the worst of them made two.

    Pruning leaves no value around 0, so that centroids spaced evenly may be without any. They are
    put where the squared error is largest.
    """
    starts, ends = edges[:-1], edges[1:]
    means, errors = runs.means(starts, ends), runs.errors(starts, ends)
    worst = np.argsort(-errors, kind="stable")[: n_clusters - len(means)]
    worst = worst[errors[worst] > -np.inf]
    cuts = np.searchsorted(runs.ordered, means[worst], side="right")
    # The mean may be the last value itself, by rounding.
    cuts = np.clip(cuts, starts[worst] + 1, ends[worst] - 1)
    halves = [runs.means(starts[worst], cuts), runs.means(cuts, ends[worst])]
    return np.sort(np.concatenate([np.delete(means, worst), *halves]))
