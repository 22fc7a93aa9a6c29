"""Copies of what a task found, in the layouts that other programs read."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np

from rrm_extract.store.files import replacing, writing
from rrm_extract.store.found import FrameDetections, FramePeople, StoredDetections, StoredPeople
from rrm_extract.store.reader import FeatureFile, VideoFeatures
from rrm_extract.store.taskrows import FRAME_SIZE, OFFSETS, TASK_COLUMNS

CSV_FILES: Final[Mapping[str, str]] = {"detect": "objects.csv", "pose": "people.csv"}
"""The file that the layout "csv" makes, by task."""

COCO_FILES: Final = ("coco_results.json", "coco_images.json")
"""The files that the layout "coco" makes."""

_COCO_KEYPOINTS: Final = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
    "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
"""In the order of COCO's annotations, which have no neck."""

_PERSON: Final = 1
"""COCO's category of people."""

_DIGITS: Final = 3
"""Of coordinates and scores as text; the layout "npz" has them whole."""


def npz_name(stored_id: str) -> str:
    """Where the layout "npz" puts a video."""
    # The escaped name: it cannot climb out of the folder.
    return f"{stored_id}.npz"


def export_npz(source: FeatureFile, folder: Path) -> None:
    """An archive for each video: everything its group has of the task, and the names."""
    about: dict[str, Any] = {
        "class_names": np.array(source.class_names, str),
        "keypoint_names": np.array(source.keypoint_names, str),
        "limbs": source.limbs,
    }
    about = {name: value for name, value in about.items() if len(value)}
    for video_id, video in source.items():
        path = folder / npz_name(source.stored_id(video_id))
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        found = video.found
        names = (*TASK_COLUMNS[source.task or ""], OFFSETS, FRAME_SIZE)
        arrays = {name: getattr(found, name) for name in names}
        with replacing(path) as temp, temp.open("wb") as file:
            np.savez(
                file,
                timestamps=video.timestamps,
                frame_index=video.frame_index,
                **arrays,
                **about,
            )


def export_csv(source: FeatureFile, folder: Path) -> None:
    """One table with a row for each object, or person."""
    path = folder / CSV_FILES[source.task or ""]
    with replacing(path) as temp, temp.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        where = ["video_id", "frame", "timestamp"]
        if source.task == "detect":
            box = ["left", "top", "right", "bottom"]
            rows.writerow([*where, "class", "class_name", "score", *box])
        else:
            points = [f"{name}_{axis}" for name in source.keypoint_names for axis in _POINT]
            rows.writerow([*where, "score", *points])
        names = source.class_names  # once: it is read from the file each time
        for frame in _frames(source):
            place = [source.stored_id(frame.video_id), frame.number, f"{frame.timestamp:.6f}"]
            if isinstance(frame.found, FrameDetections):
                rows.writerows([*place, *row] for row in _objects(frame.found, names))
            else:
                rows.writerows([*place, *row] for row in _people(frame.found))


_POINT: Final = ("x", "y", "score")


def _objects(found: FrameDetections, names: tuple[str, ...]) -> Iterator[list[Any]]:
    for box, score, kind in zip(found.boxes, found.scores, found.classes.tolist(), strict=True):
        yield [kind, names[kind] if names else "", _text(score), *map(_text, box)]


def _people(found: FramePeople) -> Iterator[list[Any]]:
    for points, score in zip(found.keypoints, found.scores, strict=True):
        yield [_text(score), *map(_text, points.reshape(-1))]


def _text(value: Any) -> str:
    return "" if np.isnan(value) else f"{value:.{_DIGITS}f}"


def export_coco(source: FeatureFile, folder: Path) -> None:
    """Results as COCO's evaluation takes them, and the images that their ids stand for."""
    results, images = (folder / name for name in COCO_FILES)
    parts = _coco_parts(source)
    ids = source.category_ids.tolist()
    with replacing(results) as temp, temp.open("w", encoding="utf-8") as file:
        _write_list(
            file,
            (
                {"image_id": frame.image_id, **result}
                for frame in _frames(source)
                for result in (
                    _coco_objects(frame.found, ids)
                    if isinstance(frame.found, FrameDetections)
                    else _coco_people(frame.found, parts)
                )
            ),
        )
    with replacing(images) as temp, temp.open("w", encoding="utf-8") as file:
        about = {"description": f"frames of {source.path.name}"}
        file.write(f'{{"info": {json.dumps(about)},\n')
        file.write(f'"categories": {json.dumps(_categories(source, parts))},\n')
        file.write('"annotations": [],\n"images": ')
        _write_list(
            file, (frame.image(source.stored_id(frame.video_id)) for frame in _frames(source))
        )
        file.write("}\n")


def _coco_objects(found: FrameDetections, ids: list[int]) -> Iterator[dict[str, Any]]:
    corner, other = found.boxes[:, :2], found.boxes[:, 2:]
    boxes = np.concatenate([corner, other - corner], axis=1).astype(np.float64)
    for box, score, kind in zip(boxes, found.scores, found.classes.tolist(), strict=True):
        yield {
            "category_id": ids[kind],
            "bbox": [round(value, _DIGITS) for value in box.tolist()],
            "score": round(float(score), _DIGITS),
        }


def _coco_people(found: FramePeople, parts: list[int]) -> Iterator[dict[str, Any]]:
    for points, score in zip(found.keypoints[:, parts], found.scores, strict=True):
        flat: list[float] = []
        for x, y, _ in points.astype(np.float64).tolist():
            is_found = not np.isnan(x)
            flat += [round(x, _DIGITS), round(y, _DIGITS), 1] if is_found else [0, 0, 0]
        yield {
            "category_id": _PERSON,
            "keypoints": flat,
            "score": round(float(score), _DIGITS),
        }


def _coco_parts(source: FeatureFile) -> list[int]:
    """Which key points are shown, in order: those of COCO, or all of another skeleton."""
    names = source.keypoint_names
    if set(_COCO_KEYPOINTS) <= set(names):
        return [names.index(name) for name in _COCO_KEYPOINTS]
    return list(range(len(names)))


def _categories(source: FeatureFile, parts: list[int]) -> list[dict[str, Any]]:
    if source.task == "pose":
        place = {part: number for number, part in enumerate(parts, 1)}  # COCO counts from 1
        limbs = [[place.get(part) for part in limb] for limb in source.limbs.tolist()]
        names = [source.keypoint_names[part] for part in parts]
        return [
            {
                "id": _PERSON,
                "name": "person",
                "keypoints": names,
                "skeleton": [limb for limb in limbs if None not in limb],
            }
        ]
    names = list(source.class_names)
    return [
        {"id": number, "name": names[kind] if names else f"class {kind}"}
        for kind, number in enumerate(source.category_ids.tolist())
    ]


@dataclass(frozen=True)
class _Frame:
    """One frame of a file."""

    image_id: int
    """From 1, over all videos in the order of the file."""
    video_id: str
    number: int
    """Among the sampled frames of its video, from 0."""
    frame_index: int
    timestamp: float
    found: FrameDetections | FramePeople

    def image(self, stored_id: str) -> dict[str, Any]:
        """As COCO describes it, with the video's own name and that in the file."""
        return {
            "id": self.image_id,
            "width": self.found.width,
            "height": self.found.height,
            "video": self.video_id,
            "video_id": stored_id,
            "frame": self.number,
            "frame_index": self.frame_index,
            "timestamp": round(self.timestamp, 6),
        }


def _frames(source: FeatureFile) -> Iterator[_Frame]:
    image_id = 0
    for video_id, video in source.items():
        for number, (index, timestamp, found) in enumerate(_rows(video)):
            image_id += 1
            yield _Frame(image_id, video_id, number, index, timestamp, found)


def _rows(video: VideoFeatures) -> Iterator[tuple[int, float, FrameDetections | FramePeople]]:
    found: StoredDetections | StoredPeople = video.found
    indices, times = video.frame_index.tolist(), video.timestamps.tolist()
    yield from zip(indices, times, found, strict=True)


def _write_list(file: TextIO, values: Iterable[Any]) -> None:
    """A JSON list, a line for each value, however many there are."""
    file.write("[")
    for number, value in enumerate(values):
        file.write(",\n" if number else "\n")
        file.write(json.dumps(value))
    file.write("\n]")
