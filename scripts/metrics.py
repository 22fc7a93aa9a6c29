"""How right a classifier is."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["average_precisions", "class_accuracies", "top1"]

Scores = NDArray[np.float32]
Targets = NDArray[np.bool_]


def top1(scores: Scores, targets: Targets) -> float:
    """Share of the videos whose highest score is that of their class.

    Args:
        scores: (N, C); N at least 1.
        targets: (N, C), one True in each row.
    """
    return float(_right(scores, targets).mean())


def class_accuracies(scores: Scores, targets: Targets) -> NDArray[np.float64]:
    """The same for each class by itself, (C,); NaN where no video is of it."""
    right = _right(scores, targets)
    return np.array(
        [right[members].mean() if members.any() else math.nan for members in targets.T], np.float64
    )


def average_precisions(scores: Scores, targets: Targets) -> NDArray[np.float64]:
    """Mean of the precisions at each video that is of the class, (C,); NaN where none is.

    As Charades' own evaluation has it, videos of no class at all come last, whatever their scores.

    Args:
        scores: (N, C).
        targets: (N, C).
    """
    ranked = np.where(targets.any(axis=1, keepdims=True), scores, -np.inf)
    precisions = np.full(targets.shape[1], math.nan)
    for number, members in enumerate(targets.T):
        if members.any():
            found = members[np.argsort(-ranked[:, number], kind="stable")]
            places = np.flatnonzero(found) + 1
            precisions[number] = (np.arange(1, len(places) + 1) / places).mean()
    return precisions


def _right(scores: Scores, targets: Targets) -> NDArray[np.bool_]:
    right: NDArray[np.bool_] = targets[np.arange(len(targets)), scores.argmax(axis=1)]
    return right
