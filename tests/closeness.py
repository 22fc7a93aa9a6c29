"""The one place that says how close two results have to be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rrm_extract.tasks import Detections

EXACT_RECURRENCE = 1e-5
"""Relative L2 that rounding may leave at threshold 0: sums are taken in another order."""


def relative_l2(result: Tensor, reference: Tensor) -> float:
    """The largest relative L2 distance over the first dimension (frames)."""
    difference = (result - reference).flatten(1).norm(dim=1)
    return float((difference / reference.flatten(1).norm(dim=1).clamp_min(1e-30)).max())


def assert_same_objects(
    pixels: NDArray[np.float32],
    scores: NDArray[np.float32],
    classes: NDArray[np.int64],
    expected: Detections,
) -> None:
    """Boxes to 0.01 pixels, scores to 1e-4; what has nearly the same score has no certain order."""
    assert len(pixels) == len(expected)
    assert (np.diff(scores) <= 0).all()
    if len(expected) == 0:
        return
    apart = np.abs(pixels[:, None] - expected.pixels[None]).max(axis=2)
    apart = np.maximum(apart, 100 * np.abs(scores[:, None] - expected.scores[None]))
    apart[classes[:, None] != expected.classes[None]] = np.inf
    partner = apart.argmin(axis=1)
    assert sorted(partner) == list(range(len(expected))), "each has one of its own"
    assert apart.min(axis=1).max() < 1e-2
