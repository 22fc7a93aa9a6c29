"""Networks that find objects or people, up to their raw output, and what reads it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from subjects import Shown, Subject, make_subject
from torch import Tensor

from rrm_extract.config import JobConfig
from rrm_extract.errors import ModelError
from rrm_extract.models import LoadedModel, load_model
from rrm_extract.models.registry import is_model_file
from rrm_extract.tasks import Detections, Detector, PoseEstimator, Poses
from rrm_extract.tasks.detect import THRESHOLD as SCORE
from rrm_extract.tasks.pose import THRESHOLD as PART_SCORE

__all__ = ["INPUT_HELP", "Task", "TaskNetwork", "load_task_network"]

INPUT_HELP = "another input for all networks: letterbox=SIDE, or letterbox=ROWS/COLUMNS"
"""Of the option --preprocess."""

Task = Literal["detect", "pose"]

_EXPECTED = {
    "detect": "yolov2, tiny_yolov2, or darknet:FILE.cfg with a [region] section",
    "pose": "rtpose",
}


@dataclass(frozen=True, kw_only=True)
class TaskNetwork:
    """A network and the reader of its raw output.

    Attributes:
        subject: the network; its feature is the raw output, not pooled.
        reader: makes objects or people of it.
    """

    subject: Subject
    reader: Detector | PoseEstimator

    @property
    def task(self) -> Task:
        """What it finds."""
        return "detect" if isinstance(self.reader, Detector) else "pose"

    def read(self, raw: Tensor, shown: Sequence[Shown]) -> list[Detections] | list[Poses]:
        """What is in T frames.

        Args:
            raw: (T, D).
            shown: what the frames show, T of them.
        """
        found: list[Detections | Poses] = []
        for output, one in zip(raw, shown, strict=True):
            found += self.reader(output[None], height=one.height, width=one.width)
        return found  # type: ignore[return-value]


def load_task_network(
    spec: str,
    options: argparse.Namespace,
    *,
    fps: str,
    task: Task | None = None,
    score: float = SCORE,
    part_score: float = PART_SCORE,
) -> TaskNetwork:
    """Loads a network of the command line.

    Args:
        spec: NAME or NAME=WEIGHTS.
        options: ``weights``, ``preprocess`` (a letterbox), ``chunk``, ``policy`` and ``engine``.
        fps: frames per second that are sampled.
        task: what it has to find; None takes either.
        score: smallest score of an object.
        part_score: smallest height of a heat map at a part.

    Raises:
        UsageError: there is no such network, it does not find that, or it cannot be used.
    """
    name, _, own_weights = spec.partition("=")
    config = JobConfig(
        model=name,
        weights=own_weights or ("default" if is_model_file(name) else options.weights),
        preprocess=options.preprocess,
        fps=fps,
        chunk=options.chunk,
        policy=options.policy,
        engine=options.engine,
        pool="none",
    )
    model = load_model(config.model, weights=config.weights, preprocess=config.preprocess)
    reader = _reader(model, task, score, part_score)
    subject = make_subject(
        model,
        config.replace(layer=model.trace().outputs[0]),
        name=Path(name).name if is_model_file(name) else name,
    )
    return TaskNetwork(subject=subject, reader=reader)


def _reader(
    model: LoadedModel, task: Task | None, score: float, part_score: float
) -> Detector | PoseEstimator:
    if model.region is not None and task != "pose":
        return Detector.of(model, threshold=score)
    if model.skeleton is not None and task != "detect":
        return PoseEstimator.of(model, threshold=part_score)
    expected = _EXPECTED.values() if task is None else [_EXPECTED[task]]
    what = {"detect": "objects", "pose": "people", None: "neither objects nor people"}[task]
    finds = "finds" if task is None else "does not find"
    msg = f"{model.name} {finds} {what}; expected {', or '.join(expected)}"
    raise ModelError(msg)
