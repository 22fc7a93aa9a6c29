"""Learns the classes of a dataset from features, and says how many videos are recognised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from classifier import Training, TwoLayerClassifier
from labelled_features import LabelledFeatures
from labels import LabelError, Labels
from metrics import average_precisions, class_accuracies, top1
from numpy.typing import NDArray

__all__ = ["Accuracy", "Recogniser", "check_classes"]

_NAMED_CLASSES = 3
"""How many classes a message names."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How many videos were recognised.

    Attributes:
        videos: that were asked about.
        classes: that they were of, and that count.
        top1: share of the videos that were recognised; None where a video may be of many classes.
        mean_class: mean over classes of the share that was recognised; likewise None.
        mean_average_precision: where a video may be of many classes, else None.
        not_counted: classes without a video to learn from, or to ask about.
    """

    videos: int
    classes: int
    top1: float | None
    mean_class: float | None
    mean_average_precision: float | None
    not_counted: tuple[str, ...]

    @property
    def measure(self) -> str:
        """What is reported first: "top-1" or "mAP"."""
        return "mAP" if self.top1 is None else "top-1"

    @property
    def value(self) -> float:
        """Of that measure."""
        value = self.mean_average_precision if self.top1 is None else self.top1
        return float("nan") if value is None else value

    def to_json(self) -> dict[str, Any]:
        """All of it, and both names for what is reported first."""
        return {**vars(self), "measure": self.measure, "value": self.value}

    def to_text(self) -> str:
        """One line, and another for classes that do not count."""
        of = f"{self.videos} videos of {self.classes} classes"
        if self.top1 is None:
            text = f"mAP {self.value:.4f}, {of}"
        else:
            text = f"top-1 accuracy {self.value:.4f} (mean per class {self.mean_class:.4f}), {of}"
        if self.not_counted:
            text += f"\nclasses not counted, for want of videos: {_some(self.not_counted)}"
        return text


class Recogniser:
    """A classifier that has learnt a dataset's classes.

    Args:
        train: what to learn from.
        labels: of the dataset.
        training: how.

    Raises:
        LabelError: fewer than two classes have a video.
    """

    def __init__(self, train: LabelledFeatures, labels: Labels, training: Training) -> None:
        self._labels = labels
        self._learnt: NDArray[np.bool_] = np.any(train.targets, axis=0)
        self._width = train.features.shape[1]
        check_classes(labels, learnt=self._learnt, asked=np.zeros_like(self._learnt))
        self._classifier = TwoLayerClassifier(
            train.features, train.targets, multi_label=labels.multi_label, training=training
        )

    def accuracy(self, test: LabelledFeatures) -> Accuracy:
        """How many videos it recognises.

        Raises:
            LabelError: features of another length, or a video of a class that it has not learnt.
        """
        if test.features.shape[1] != self._width:
            msg = (
                f"features have {test.features.shape[1]} numbers, expected {self._width} as learnt"
            )
            raise LabelError(msg)
        asked: NDArray[np.bool_] = np.any(test.targets, axis=0)
        check_classes(self._labels, learnt=self._learnt, asked=asked)
        names = np.array(self._labels.classes)
        scores = self._classifier.scores(test.features)
        counted = asked & self._learnt
        common: dict[str, Any] = {
            "videos": len(test.targets),
            "classes": int(counted.sum()),
            "not_counted": tuple(str(name) for name in names[~counted]),
        }
        if self._labels.multi_label:
            if not counted.any():
                msg = f"{self._labels.name}: no class has videos both to learn from and to test"
                raise LabelError(msg)
            precisions = average_precisions(scores, test.targets)[counted]
            return Accuracy(
                top1=None,
                mean_class=None,
                mean_average_precision=float(precisions.mean()),
                **common,
            )
        return Accuracy(
            top1=top1(scores, test.targets),
            mean_class=float(np.nanmean(class_accuracies(scores, test.targets))),
            mean_average_precision=None,
            **common,
        )


def check_classes(labels: Labels, *, learnt: NDArray[np.bool_], asked: NDArray[np.bool_]) -> None:
    """Refuses videos from which nothing can be learnt, or not what is asked.

    Args:
        labels: of the dataset.
        learnt: (C,), the classes that there are videos of to learn from.
        asked: (C,), those that there are videos of to test.

    Raises:
        LabelError: fewer than two classes, or, where a video is of one class, a class that could
            never be the answer.
    """
    if learnt.sum() < 2:
        msg = (
            f"{labels.name}: {learnt.sum()} classes have a video to learn from, expected at least "
            "two"
        )
        raise LabelError(msg)
    unknown = asked & ~learnt
    if unknown.any() and not labels.multi_label:
        msg = (
            f"{labels.name}: no video to learn from for "
            f"{_some([labels.classes[number] for number in np.flatnonzero(unknown)])}, of which "
            "there are videos to test; extract its training videos too"
        )
        raise LabelError(msg)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_CLASSES
    return ", ".join(names[:_NAMED_CLASSES]) + (f" and {more} more" if more > 0 else "")
