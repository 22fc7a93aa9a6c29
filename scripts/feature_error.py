"""How far features are from those of the dense network, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rrm_extract import FeatureFile
from rrm_extract.errors import InputError
from rrm_extract.jobs.control import relative_errors

__all__ = ["FeatureError", "compare_features"]


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureError:
    """Relative L2 distances of frames' features, ||y - dense|| / ||dense||.

    Attributes:
        frames: that count.
        frames_of_zeros: that do not, for their dense feature is zero.
        frames_not_finite: of those that count, with NaN or other infinities in one of the two:
            their error is infinite, as docs/format.md has it.
        mean, worst: over frames; NaN where there are none.
        by_age: (A,) mean over frames that are 0, 1, ... frames behind the last key frame; NaN
            where none is.
    """

    frames: int
    frames_of_zeros: int
    frames_not_finite: int
    mean: float
    worst: float
    by_age: NDArray[np.float64]


def compare_features(path: Path, dense: Path, video_ids: Iterable[str]) -> FeatureError:
    """Compares the same frames of some videos.

    Args:
        path: a feature file, which says what its key frames are.
        dense: another one of the same videos and frames.
        video_ids: in both.

    Raises:
        InputError: the two do not hold the same frames.
        StoreError: a file cannot be read.
    """
    errors: list[NDArray[np.float64]] = []
    ages: list[NDArray[np.int64]] = []
    with FeatureFile(path) as file, FeatureFile(dense) as reference:
        for video_id in video_ids:
            video, other = file[video_id], reference[video_id]
            if not np.array_equal(video.pts, other.pts):
                msg = (
                    f"{path} and {dense} do not hold the same frames of {video_id!r}; expected "
                    "files of the same videos, --fps and --chunk"
                )
                raise InputError(msg)
            dense_features = other.features
            relative = relative_errors(video.features, dense_features)
            errors.append(np.where((dense_features == 0).all(axis=1), np.nan, relative))
            ages.append(_ages(video.key_frame))
    error = np.concatenate([np.empty(0), *errors])
    age = np.concatenate([np.empty(0, np.int64), *ages])
    counts = ~np.isnan(error)
    error, age = error[counts], age[counts]
    members = np.bincount(age)
    with np.errstate(invalid="ignore"):
        by_age = np.bincount(age, weights=error) / members
    return FeatureError(
        frames=len(error),
        frames_of_zeros=int((~counts).sum()),
        frames_not_finite=int(np.isinf(error).sum()),
        mean=float(error.mean()) if len(error) else float("nan"),
        worst=float(error.max()) if len(error) else float("nan"),
        by_age=by_age,
    )


def _ages(key_frame: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Frames since the last key frame; the first frame of a video is one."""
    number = np.arange(len(key_frame))
    ages: NDArray[np.int64] = number - np.maximum.accumulate(np.where(key_frame, number, 0))
    return ages
