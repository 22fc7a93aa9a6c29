"""What a job stores of raw outputs in their place: objects, or people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrm_extract.config import JobConfig
from rrm_extract.jobs.plan import TaskPlan
from rrm_extract.models import LoadedModel, coco_ids, coco_names
from rrm_extract.store import Found, TaskRows
from rrm_extract.tasks import Detections, Detector, PoseEstimator, Poses

__all__ = ["Reading", "make_reading"]

_NAMES = {"score_threshold": "threshold"}
"""What options are called in Python where a job has another meaning for the word."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """From raw outputs to what is stored; see :class:`rrm_extract.jobs.extractor.Reading`.

    Attributes:
        reader: of one frame's raw output.
        plan: what the process that leads the job has to know.
    """

    reader: Detector | PoseEstimator
    plan: TaskPlan

    def __call__(self, raw: NDArray[np.float32], sizes: Sequence[tuple[int, int]]) -> Found:
        """What is in T frames.

        Args:
            raw: (T, D), the network's raw output.
            sizes: height and width of each frame as it is shown, pixels.
        """
        frames: list[Detections | Poses] = []
        for (height, width), some in groupby(range(len(raw)), key=lambda i: sizes[i]):
            numbers = list(some)
            frames += self.reader(raw[numbers], height=height, width=width)
        rows = [_columns(frame) for frame in frames]
        return Found(
            counts=np.array([len(frame) for frame in frames], np.int64),
            frame_size=np.array(sizes, np.int32).reshape(-1, 2),
            columns={
                name: np.concatenate(
                    [np.empty((0, *tail), dtype), *(row[name] for row in rows)], dtype=dtype
                )
                for name, (tail, dtype) in self.plan.rows.columns.items()
            },
        )


def _columns(frame: Detections | Poses) -> dict[str, NDArray[Any]]:
    if isinstance(frame, Poses):
        keypoints = np.concatenate([frame.points, frame.part_scores[:, :, None]], axis=2)
        return {"keypoints": keypoints, "scores": frame.scores}
    return {"boxes": frame.pixels, "scores": frame.scores, "classes": frame.classes}


def make_reading(model: LoadedModel, config: JobConfig) -> Reading | None:
    """How a job reads the raw output of its network; None where it stores features.

    Raises:
        ConfigError: the network cannot do the task, or an option of it is out of range.
    """
    given = {
        _NAMES.get(name, name): value
        for name, value in config.task_options.items()
        if value is not None
    }
    if config.task == "detect":
        return _of_detector(Detector.of(model, **given), config)
    if config.task == "pose":
        return _of_estimator(PoseEstimator.of(model, **given), config)
    return None


def _of_detector(detector: Detector, config: JobConfig) -> Reading:
    about: dict[str, Any] = {"n_classes": detector.region.classes}
    if detector.names:
        about["class_names"] = np.array(detector.names, object)
    if detector.names == coco_names():
        about["category_ids"] = np.array(coco_ids(), np.int64)
    return Reading(
        reader=detector,
        plan=TaskPlan(
            rows=TaskRows(task=config.task), options=_options(detector, config), about=about
        ),
    )


def _of_estimator(estimator: PoseEstimator, config: JobConfig) -> Reading:
    skeleton = estimator.skeleton
    return Reading(
        reader=estimator,
        plan=TaskPlan(
            rows=TaskRows(task=config.task, parts=len(skeleton.parts)),
            options=_options(estimator, config),
            about={
                "keypoint_names": np.array(skeleton.parts, object),
                "limbs": np.array([(limb.begin, limb.end) for limb in skeleton.limbs], np.int64),
            },
        ),
    )


def _options(reader: Detector | PoseEstimator, config: JobConfig) -> dict[str, float | int]:
    """As they are used, with defaults filled in."""
    return {name: getattr(reader, _NAMES.get(name, name)) for name in config.task_options}
