"""Copies of a feature file in the layouts that other programs read."""

from __future__ import annotations

import csv
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from rrm_extract.errors import StoreWriteError, UsageError
from rrm_extract.signals import held_back
from rrm_extract.store.export_found import (
    COCO_FILES,
    CSV_FILES,
    export_coco,
    export_csv,
    export_npz,
    npz_name,
)
from rrm_extract.store.files import remove, remove_stale, replacing, temp_path, writing
from rrm_extract.store.layout import append_rows, create_rows, creating
from rrm_extract.store.reader import FeatureFile, VideoFeatures
from rrm_extract.store.schema import Array
from rrm_extract.store.taskrows import FINDS

Layout: TypeAlias = Literal["npy", "flat", "activitynet", "npz", "csv", "coco"]
LAYOUTS: Final[tuple[Layout, ...]] = ("npy", "flat", "activitynet", "npz", "csv", "coco")
TASK_LAYOUTS: Final[tuple[Layout, ...]] = ("npz", "csv", "coco")
"""Those of what a task found; the others are of features."""

ACTIVITYNET_FILE: Final = "activitynet.h5"
"""The file that the layout "activitynet" makes."""


LONGEST_NAME: Final = 255
"""Bytes of a file's name, on the file systems in use."""


@dataclass(frozen=True)
class ExportSummary:
    """What an export wrote."""

    layout: Layout
    out: Path
    """The folder."""
    n_videos: int
    n_frames: int
    files: tuple[Path, ...]
    """Everything written, in order."""


def export(
    path: str | Path, out: str | Path, *, layout: Layout, overwrite: bool = False
) -> ExportSummary:
    """Write the features of a file, or what a task found, in another layout.

    Features are copied a few MiB at a time.

    Args:
        path: The feature file.
        out: A folder, made when missing.
        layout: "npy": per video `<id>.npy` (T, D) and `<id>.timestamps.npy` (T,) float64.
            "flat": `features.npy` (N, D) of all videos after one another, `timestamps.npy` (N,),
            and `index.csv` with the stored id and the rows [start, stop) of each video; open the
            first with `numpy.load(..., mmap_mode="r")`. "activitynet": `activitynet.h5`, a group
            `v_<stem>` per video with `c3d_features` (T, D), as in the files ActivityNet published.
            Of objects or people: "npz": per video `<id>.npz` with the arrays of its group,
            `timestamps` and `frame_index`. "csv": `objects.csv` or `people.csv`, a row for each.
            "coco": `coco_results.json` as COCO's evaluation takes it, and `coco_images.json` with
            the frame that each image id stands for.
        overwrite: Replace files that are there.

    Raises:
        StoreFormatError: The feature file cannot be read.
        UsageError: Two videos would get the same name, or names that the file system of ``out``
            takes for one; the layout is not one of what the file has; or a copy would take the
            place of the feature file itself.
        StoreWriteError: A file is there already, or the system refuses.
    """
    folder = Path(out)
    with FeatureFile(path) as source:
        _check_layout(source, layout)
        targets = _targets(source, folder, layout)
        _check_targets(source.path, targets, folder, overwrite=overwrite)
        remove_stale(targets)
        _refuse_names_taken_for_one(targets)
        if layout == "npy":
            _export_npy(source, folder)
        elif layout == "flat":
            _export_flat(source, folder)
        elif layout == "activitynet":
            _export_activitynet(source, folder)
        else:
            writers = {"npz": export_npz, "csv": export_csv, "coco": export_coco}
            writers[layout](source, folder)
        return ExportSummary(
            layout=layout,
            out=folder,
            n_videos=len(source),
            n_frames=source.n_frames,
            files=tuple(targets),
        )


def _check_layout(source: FeatureFile, layout: str) -> None:
    if layout not in LAYOUTS:
        raise UsageError(f"no layout {layout!r}; expected one of {', '.join(LAYOUTS)}")
    if (layout in TASK_LAYOUTS) == (source.task is None):
        has = "features" if source.task is None else FINDS[source.task]
        fitting = [name for name in LAYOUTS if (name in TASK_LAYOUTS) != (source.task is None)]
        raise UsageError(
            f"{source.path} has {has}, for which there is no layout {layout!r}; expected one of "
            f"{', '.join(fitting)}"
        )


def _targets(source: FeatureFile, folder: Path, layout: Layout) -> list[Path]:
    if layout == "npy":
        names = [name for video in source for name in _npy_names(source.stored_id(video))]
        _refuse_collisions(names, [video for video in source for _ in range(2)])
        return [folder / name for name in names]
    if layout == "flat":
        return [folder / name for name in ("features.npy", "timestamps.npy", "index.csv")]
    if layout == "npz":
        names = [npz_name(source.stored_id(video)) for video in source]
        _refuse_collisions(names, source.videos)
        return [folder / name for name in names]
    if layout == "csv":
        return [folder / CSV_FILES[source.task or ""]]
    if layout == "coco":
        return [folder / name for name in COCO_FILES]
    names = [_activitynet_name(source.stored_id(video)) for video in source]
    _refuse_collisions(names, source.videos)
    return [folder / ACTIVITYNET_FILE]


def _npy_names(stored_id: str) -> tuple[str, str]:
    # The escaped name: it cannot climb out of the folder.
    return f"{stored_id}.npy", f"{stored_id}.timestamps.npy"


def _activitynet_name(stored_id: str) -> str:
    stem = PurePosixPath(stored_id).stem
    return stem if stem.startswith("v_") else f"v_{stem}"


def _refuse_collisions(names: Sequence[str], videos: Sequence[str]) -> None:
    owner: dict[str, str] = {}
    for name, video in zip(names, videos, strict=True):
        if name in owner:
            raise UsageError(
                f"{owner[name]!r} and {video!r} would both be {name!r} in this layout; "
                "use another --layout"
            )
        owner[name] = video
    for name, video in owner.items():
        for parent in PurePosixPath(name).parents:
            if str(parent) in owner:
                raise UsageError(
                    f"{owner[str(parent)]!r} would be a file where {video!r} needs a folder; "
                    "use another --layout"
                )


def _check_targets(source: Path, targets: Sequence[Path], folder: Path, *, overwrite: bool) -> None:
    for path in targets:
        if len(os.fsencode(temp_path(path).name)) > LONGEST_NAME:
            raise UsageError(
                f"{path.name} is too long a name for a file; use a layout with names of its own, "
                f"such as --layout {'csv' if path.suffix == '.npz' else 'flat'}"
            )
    with writing(folder):
        there = [path for path in targets if path.exists()]
        itself = [path for path in there if path.samefile(source)]
    if itself:
        raise UsageError(f"{itself[0]} is the feature file itself; choose another folder for -o")
    if there and not overwrite:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise StoreWriteError(
            f"{there[0]}{more} would be written over; use --overwrite or another -o"
        )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _refuse_names_taken_for_one(targets: Sequence[Path]) -> None:
    """Refuses files that would replace each other where the file system ignores case, say."""
    alike: defaultdict[str, list[Path]] = defaultdict(list)
    for path in targets:
        group = alike[unicodedata.normalize("NFD", str(path)).casefold()]
        for other in group:
            if _is_taken_for(path, other):
                raise UsageError(
                    f"{path} and {other} are one file to the file system there; use another "
                    "--layout, or choose a folder on another disk for -o"
                )
        group.append(path)


def _is_taken_for(path: Path, other: Path) -> bool:
    """Asks the file system with temporary files: those of the names themselves may be there."""
    temp = temp_path(path)
    with writing(path):
        temp.parent.mkdir(parents=True, exist_ok=True)
        try:
            temp.touch()
            return temp_path(other).exists()
        finally:
            remove(temp)


def _export_npy(source: FeatureFile, folder: Path) -> None:
    for video_id, video in source.items():
        features, timestamps = (folder / name for name in _npy_names(source.stored_id(video_id)))
        with writing(features):
            features.parent.mkdir(parents=True, exist_ok=True)
        _write_npy(features, video.feature_blocks(), _shape(video), video.dtype)
        times = video.timestamps
        _write_npy(timestamps, [times], times.shape, times.dtype)


def _export_flat(source: FeatureFile, folder: Path) -> None:
    shapes = {(video.dtype, _shape(video)[1:]) for video in source.values()}
    if len(shapes) > 1:
        raise UsageError(f"{source.path} has features of several shapes or types; use --layout npy")
    dtype, width = shapes.pop() if shapes else (np.dtype(np.float32), (0,))
    n_frames = source.n_frames
    blocks = (block for video in source.values() for block in video.feature_blocks())
    _write_npy(folder / "features.npy", blocks, (n_frames, *width), dtype)
    times = (video.timestamps for video in source.values())
    _write_npy(folder / "timestamps.npy", times, (n_frames,), np.dtype(np.float64))
    index = folder / "index.csv"
    with replacing(index) as temp, temp.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["video_id", "start", "stop"])
        start = 0
        for row in source.index:
            rows.writerow([row.stored_id, start, start + row.n_frames])
            start += row.n_frames


def _export_activitynet(source: FeatureFile, folder: Path) -> None:
    # HDF5 does not survive an interrupt while it writes, and it may write whenever something of it
    # is no longer needed: interrupts are heard between blocks alone.
    with (
        replacing(folder / ACTIVITYNET_FILE) as temp,
        held_back() as let_through,
        creating(temp) as (file, check),
    ):
        for video_id, video in source.items():
            rows = create_rows(
                file.create_group(_activitynet_name(source.stored_id(video_id))),
                "c3d_features",
                tail=_shape(video)[1:],
                dtype=video.dtype.name,
            )
            for block in video.feature_blocks():
                append_rows(rows, block)
                check()
                let_through()


def _shape(video: VideoFeatures) -> tuple[int, int]:
    width = 1
    for extent in video.feature_shape:
        width *= extent
    return video.n_frames, width


def _write_npy(
    path: Path, blocks: Iterable[Array], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    """An npy file written in order: a memory map would die of a full disk, this raises."""
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    with replacing(path) as temp, temp.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block).data)
