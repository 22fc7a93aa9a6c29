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
    rare large weights apart (the paper's "linear initialization"). The result depends on the values
    alone. Where no more different values than clusters exist they are shared exactly.

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
    """Means of the clusters that hold values, and the limits between them, ascending."""
    sums = np.concatenate(([0.0], np.cumsum(ordered)))
    centroids = np.linspace(ordered[0], ordered[-1], n_clusters)
    before: NDArray[np.int64] | None = None
    for _ in range(_MAX_STEPS):
        limits = (centroids[1:] + centroids[:-1]) / 2
        edges = np.concatenate(([0], np.searchsorted(ordered, limits), [len(ordered)]))
        if before is not None and np.array_equal(edges, before):
            break
        before = edges
        sizes = np.diff(edges)
        used = sizes > 0
        # A cluster without values stays where it is, and may get some in a later step.
        centroids[used] = np.diff(sums[edges])[used] / sizes[used]
    starts = edges[:-1][used]
    return centroids[used], ordered[starts[1:]]
