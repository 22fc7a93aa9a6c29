"""The mean features of the videos that have a label, and what became of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from labels import LabelError, Labels
from numpy.typing import NDArray

from rrm_extract import FeatureFile
from rrm_extract.errors import InputError
from rrm_extract.store import VideoFeatures

__all__ = [
    "SAME_FEATURES",
    "Coverage",
    "LabelledFeatures",
    "all_ids",
    "check_same_features",
    "labelled_features",
    "unlabelled",
]

SAME_FEATURES = ("model", "weights_sha256", "layer", "pool", "preprocess")
"""Keys of a file's identity that say what its numbers mean, however they were computed."""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What became of the videos that have a label.

    Attributes:
        labelled: how many there are.
        used: of how many there is a feature.
        missing, failed, partial: keys of those that the file does not know, ids of those that could
            not be read, and of those that end early and were left out.
    """

    labelled: int
    used: int
    missing: tuple[str, ...]
    failed: tuple[str, ...]
    partial: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)

    def to_text(self) -> str:
        """One line."""
        left_out = "; ".join(
            f"{len(names)} {what} ({', '.join(map(_printable, names[:3]))}"
            f"{', ...' if len(names) > 3 else ''})"
            for what in ("missing", "failed", "partial")
            if (names := getattr(self, what))
        )
        return f"{self.used} of {self.labelled} labelled videos" + (left_out and f"; {left_out}")


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledFeatures:
    """The videos of one part of a dataset.

    Attributes:
        video_ids: of N videos, in the order of their keys.
        features: (N, D) float32, the mean over each video's frames.
        targets: (N, C) bool, the classes of each.
        coverage: how many of the part they are.
    """

    video_ids: tuple[str, ...]
    features: NDArray[np.float32]
    targets: NDArray[np.bool_]
    coverage: Coverage


def labelled_features(
    path: Path,
    labels: Labels,
    part: Mapping[str, tuple[int, ...]],
    *,
    keep_partial: bool = False,
) -> LabelledFeatures:
    """Reads the features of one part of a dataset.

    Args:
        path: a feature file.
        labels: of the dataset.
        part: ``labels.train`` or ``labels.test``.
        keep_partial: take videos that end early for what they have.

    Raises:
        StoreError: the file cannot be read.
        LabelError: it has no video of the part, or two of one name, or a feature is not finite.
    """
    missing: list[str] = []
    failed: list[str] = []
    partial: list[str] = []
    ids: list[str] = []
    means: list[NDArray[np.float32]] = []
    classes: list[tuple[int, ...]] = []
    with FeatureFile(path) as file:
        named = labels.by_key(_ids_of(file))
        rows = dict(zip(file.videos, file.index, strict=True))
        for key in sorted(part):
            video_id = named.get(key)
            if video_id is None:
                missing.append(key)
            elif video_id not in rows or rows[video_id].n_frames == 0:
                failed.append(video_id)
            elif rows[video_id].status != "ok" and not keep_partial:
                partial.append(video_id)
            else:
                ids.append(video_id)
                means.append(_mean_feature(path, file[video_id]))
                classes.append(part[key])
    coverage = Coverage(
        labelled=len(part),
        used=len(ids),
        missing=tuple(missing),
        failed=tuple(failed),
        partial=tuple(partial),
    )
    if not ids:
        some = min(part, default="none")
        msg = (
            f"{path}: nothing is left: {coverage.to_text()}; expected videos of {labels.name}, "
            f"such as {some!r}"
        )
        raise LabelError(msg)
    if len({len(mean) for mean in means}) > 1:
        msg = f"{path}: its features differ in length; expected one length for all videos"
        raise LabelError(msg)
    targets = np.zeros((len(ids), len(labels.classes)), np.bool_)
    for row, own in zip(targets, classes, strict=True):
        row[list(own)] = True
    return LabelledFeatures(
        video_ids=tuple(ids), features=np.stack(means), targets=targets, coverage=coverage
    )


def all_ids(*paths: Path) -> set[str]:
    """Every video that one of these feature files has, or has failed at."""
    found: set[str] = set()
    for path in paths:
        with FeatureFile(path) as file:
            found |= _ids_of(file)
    return found


def unlabelled(video_ids: set[str], labels: Labels) -> list[str]:
    """The videos that the labels do not know."""
    keys = {video_id: labels.key(video_id) for video_id in video_ids}
    return sorted(
        video_id
        for video_id, key in keys.items()
        if key not in labels.train and key not in labels.test
    )


def check_same_features(path: Path, other: Path) -> None:
    """Refuses two files whose features are not of the same network and layer.

    Raises:
        InputError: names what differs.
        StoreError: a file cannot be read.
    """
    with FeatureFile(path) as first, FeatureFile(other) as second:
        one, two = first.identity, second.identity
    differing = [
        f"{key} is {one.get(key)!r} and {two.get(key)!r}"
        for key in SAME_FEATURES
        if one.get(key) != two.get(key)
    ]
    if differing:
        msg = (
            f"{path} and {other} hold different features: {'; '.join(differing)}; expected files "
            "of the same model, weights, layer and preprocessing"
        )
        raise InputError(msg)


def _printable(name: str) -> str:
    """Bytes of a file's name that are no text cannot be printed."""
    return name.encode("utf-8", "backslashreplace").decode()


def _ids_of(file: FeatureFile) -> set[str]:
    return {*file, *(failure.video_id for failure in file.failures)}


def _mean_feature(path: Path, video: VideoFeatures) -> NDArray[np.float32]:
    total = sum(block.sum(axis=0, dtype=np.float64) for block in video.feature_blocks())
    mean: NDArray[np.float32] = (total / video.n_frames).astype(np.float32)
    if not np.isfinite(mean).all():
        msg = (
            f"{path}: the mean feature of {video.video_id!r} is not finite; expected numbers; "
            "extract it again, as float32"
        )
        raise LabelError(msg)
    return mean
