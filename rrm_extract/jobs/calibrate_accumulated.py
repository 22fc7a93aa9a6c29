"""The paper's accumulated-error control, fitted to real clips (Sec. 3.4, Eq. 7 and 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrm_extract.errors import CalibrationError
from rrm_extract.jobs.calibration import AccumulatedCalibration, Subject
from rrm_extract.jobs.control import relative_errors
from rrm_extract.jobs.recipe import Recipe, RecipeNetwork
from rrm_extract.jobs.samples import Sample, portions
from rrm_extract.rrm.aecs import accumulated, fit_accumulated_error, quality

__all__ = ["Round", "calibrate_accumulated", "rounds_of"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Round:
    """One clip from a key frame on, nothing controlled.

    Attributes:
        name: of the clip.
        total: (T,) float64, accumulated truncation (Eq. 7).
        errors: (T,) float64, relative L2 error of the feature.
    """

    name: str
    total: Floats
    errors: Floats


def rounds_of(recipe: Recipe, samples: Sequence[Sample]) -> list[Round]:
    """Pairs of accumulated truncation and error, frame by frame."""
    core = RecipeNetwork(recipe)
    core.track()
    rounds = []
    for sample in samples:
        core.reset()
        features, truncated, key_frame = [], [], []
        for part in portions(sample.x, recipe.time_batch):
            (output, *_), seen = core.run(part)
            features.append(output)
            truncated.append(seen.truncated)
            key_frame.append(seen.key_frame)
        errors = relative_errors(np.concatenate(features), sample.exact)
        total = accumulated(
            np.concatenate([part for part in truncated if part is not None]),
            key_frame=np.concatenate(key_frame),
        )
        rounds.append(Round(name=sample.name, total=total, errors=errors))
    return rounds


def calibrate_accumulated(
    recipe: Recipe,
    samples: Sequence[Sample],
    *,
    subject: Subject,
    threshold: float | dict[str, float],
) -> tuple[AccumulatedCalibration, list[Round]]:
    """Fits the polynomial of Eq. 8.

    Args:
        recipe: the network, with the policy "paper".
        samples: to learn from; each is one round.
        subject: what the calibration is for.
        threshold: of the job.

    Returns:
        The calibration, whose report says how good the fit is on its data and on clips that it has
        not seen (each in turn left out), and the data.

    Raises:
        CalibrationError: too few frames truncate anything.
    """
    rounds = rounds_of(recipe, samples)
    fit = fit_accumulated_error(
        np.concatenate([each.total for each in rounds]),
        np.concatenate([each.errors for each in rounds]),
    )
    report: dict[str, Any] = {
        "pairs": fit.pairs,
        "r2": fit.r2,
        "residual_rms": fit.residual_rms,
        "residual_max": fit.residual_max,
        "reach": fit.model.reach,
        "held_out": _held_out(rounds),
        "clips": [each.name for each in rounds],
    }
    calibration = AccumulatedCalibration(
        threshold=threshold, model=fit.model, subject=subject, report=report
    )
    return calibration, rounds


def _held_out(rounds: Sequence[Round]) -> dict[str, Any] | None:
    """How far predictions are off on clips that the fit has not seen; None for too few clips.

    Frames beyond the data of the other clips are not predicted, and are counted.
    """
    if len(rounds) < 2:
        return None
    predicted: list[Floats] = []
    true: list[Floats] = []
    beyond = 0
    for left_out in range(len(rounds)):
        others = [each for number, each in enumerate(rounds) if number != left_out]
        try:
            model = fit_accumulated_error(
                np.concatenate([each.total for each in others]),
                np.concatenate([each.errors for each in others]),
            ).model
        except CalibrationError:
            return None  # it takes all clips to fit at all
        here = rounds[left_out]
        known = np.isfinite(here.errors) & (here.total > 0)
        inside = known & (here.total <= model.reach)
        beyond += int((known & (here.total > model.reach)).sum())
        predicted.append(model.predict(here.total[inside]))
        true.append(here.errors[inside])
    if not any(len(part) for part in true):
        return {"beyond_data": beyond}
    return {**quality(np.concatenate(predicted), np.concatenate(true)), "beyond_data": beyond}
