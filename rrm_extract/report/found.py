"""How many objects or people a file has, in a line or two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrm_extract.store import FeatureFile, StoredDetections, VideoFeatures
from rrm_extract.store.taskrows import FINDS

__all__ = ["found_lines", "found_measures"]

_SHOWN_CLASSES = 8
"""Classes that are named in a line for a person, the most frequent ones."""


def found_measures(file: FeatureFile, videos: Iterable[VideoFeatures]) -> dict[str, Any] | None:
    """What a task found in some videos; None where the file has features.

    Returns:
        "task", "total", "frames", "frames_without", "per_frame" (the mean, None without frames),
        "per_frame_max", "score_median" (None where there is nothing), and for objects "classes":
        how many of each class there are, by name or number, of those that occur.
    """
    if file.task is None:
        return None
    counts: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    scores: list[NDArray[np.float32]] = [np.empty(0, np.float32)]
    classes: Counter[int] = Counter()
    for video in videos:
        found = video.found
        counts.append(found.counts)
        scores.append(found.scores)
        if isinstance(found, StoredDetections):
            classes.update(found.classes.tolist())
    per_frame, all_scores = np.concatenate(counts), np.concatenate(scores)
    measures: dict[str, Any] = {
        "task": file.task,
        "total": int(per_frame.sum()),
        "frames": len(per_frame),
        "frames_without": int((per_frame == 0).sum()),
        "per_frame": float(per_frame.mean()) if len(per_frame) else None,
        "per_frame_max": int(per_frame.max(initial=0)),
        "score_median": float(np.median(all_scores)) if len(all_scores) else None,
    }
    if file.task == "detect":
        names = file.class_names
        measures["classes"] = {
            names[number] if names else str(number): count
            for number, count in classes.most_common()
        }
    return measures


def found_lines(measures: Mapping[str, Any] | None) -> list[str]:
    """The same for a person; nothing where the file has features."""
    if measures is None:
        return []
    total, what = measures["total"], FINDS[measures["task"]]
    line = f"found {total:,} {what}"
    if measures["per_frame"] is not None:
        line += (
            f", {measures['per_frame']:.2f} per frame, {measures['per_frame_max']} at most; none "
            f"in {measures['frames_without']} of {measures['frames']} frames"
        )
    if measures["score_median"] is not None:
        line += f"; median score {measures['score_median']:.2f}"
    return [line, *_class_lines(list(measures.get("classes", {}).items()))]


def _class_lines(classes: Sequence[tuple[str, int]]) -> list[str]:
    if not classes:
        return []
    some = ", ".join(f"{name}: {count:,}" for name, count in classes[:_SHOWN_CLASSES])
    more = len(classes) - _SHOWN_CLASSES
    return [f"by class, {some}" + (f", and {more} classes more" if more > 0 else "")]
