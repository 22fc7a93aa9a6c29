"""Reading a feature file."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from rrm_extract.errors import InputError, StoreError, StoreFormatError
from rrm_extract.store.found import StoredDetections, StoredPeople
from rrm_extract.store.layout import (
    READ_ERRORS,
    check_video,
    damage_named,
    read_attr,
    read_attrs,
    read_column,
    reading,
    refuse_to_blame,
    row_blocks,
    row_members,
    task_of,
)
from rrm_extract.store.names import unescape
from rrm_extract.store.part import DoneVideo
from rrm_extract.store.schema import (
    AUDIT,
    AUDIT_ROWS,
    FAILURES,
    FORMAT_MAJOR,
    FORMAT_NAME,
    INDEX,
    LAYERS,
    VIDEOS,
    Array,
    FailureRecord,
    file_behind,
    parts_dir_of,
    sha256_of,
)
from rrm_extract.store.taskrows import TASK_ATTRS

Default = TypeVar("Default")

_READ_AS = {"detect": "detections", "pose": "people"}
"""What a video's attribute is called, by task."""


class VideoFeatures:
    """One video of an open FeatureFile. Arrays are read when asked for, every time."""

    def __init__(self, video_id: str, group: Any, file: FeatureFile) -> None:
        self.video_id = video_id
        """Path relative to the input root."""
        self._group = group
        self._file = file  # open as long as somebody has one of its videos

    def __repr__(self) -> str:
        if not self._group:
            return f"<VideoFeatures {self.video_id!r} of a closed file>"
        return f"<VideoFeatures {self.video_id!r}: {self.status}, {self.n_frames} frames>"

    @property
    def features(self) -> Array:
        """(T, D) float32 or float16; `feature_shape` tells how D was flattened.

        Raises:
            InputError: The file is of a task, and has no features.
        """
        with damage_named(self._group):
            return np.asarray(self._features()[...])

    @property
    def task(self) -> str | None:
        """What took the place of features, "detect" or "pose"; None where there are features."""
        with damage_named(self._group):
            return task_of(self._group.file)

    @property
    def detections(self) -> StoredDetections:
        """The objects, by frame and all together.

        Raises:
            InputError: The file is not of the task "detect".
        """
        return StoredDetections(self._found("detect"), self)

    @property
    def people(self) -> StoredPeople:
        """The people, by frame and all together.

        Raises:
            InputError: The file is not of the task "pose".
        """
        return StoredPeople(self._found("pose"), self)

    @property
    def found(self) -> StoredDetections | StoredPeople:
        """What was found, whatever the task is.

        Raises:
            InputError: The file has features.
        """
        return self.people if self.task == "pose" else self.detections

    @property
    def timestamps(self) -> npt.NDArray[np.float64]:
        """(T,) float64, seconds from the stream's start."""
        return self._rows("timestamps")

    @property
    def pts(self) -> npt.NDArray[np.int64]:
        """(T,) int64, in units of `time_base`."""
        return self._rows("pts")

    @property
    def frame_index(self) -> npt.NDArray[np.int64]:
        """(T,) int64, ordinal of the decoded frame shown at that time."""
        return self._rows("frame_index")

    @property
    def key_frame(self) -> npt.NDArray[np.bool_]:
        """(T,) bool, computed densely."""
        return self._rows("key_frame")

    @property
    def work(self) -> npt.NDArray[np.float32]:
        """(T,) float32, share of the dense MACs done."""
        return self._rows("work")

    @property
    def audit(self) -> dict[str, npt.NDArray[np.float32]]:
        """What is known of the features' errors; empty if nothing is.

        "error" (T,) has the relative L2 error beside the dense network, NaN where it was not
        measured, "estimate" (T,) the predicted one, NaN where nothing predicts it.
        """
        with damage_named(self._group):
            if AUDIT not in self._group:
                return {}
            rows = row_members(self._group)
            found = {
                name: rows[f"{AUDIT}/{name}"] for name in AUDIT_ROWS if f"{AUDIT}/{name}" in rows
            }
            return {name: np.asarray(data[...], np.float32) for name, data in found.items()}

    @property
    def layers(self) -> dict[str, Array]:
        """Columns by name: (L,) each, strings as objects; `density_t`, `density_delta_t` (T, L)."""
        with damage_named(self._group):
            columns = self._group[LAYERS]
            return {name: read_column(columns[name]) for name in columns}

    def layer_column(self, name: str) -> Array:
        """One column of `layers`, without reading the others.

        Raises:
            KeyError: There is no such column.
        """
        with damage_named(self._group):
            columns = self._group[LAYERS]
            if name in columns:
                return read_column(columns[name])
        raise KeyError(f"{self.video_id} has no column {name!r} of layers")

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes of the video's group."""
        with damage_named(self._group):
            return read_attrs(self._group)

    def attr(self, name: str, default: Any = None) -> Any:
        """One attribute of the video's group, without reading the others; `default` without it."""
        with damage_named(self._group):
            return read_attr(self._group, name) if name in self._group.attrs else default

    @property
    def status(self) -> str:
        """Either "ok" or "partial"."""
        return str(self.attrs["status"])

    @property
    def n_frames(self) -> int:
        """T."""
        return int(self.attrs["n_frames"])

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one frame's feature before flattening."""
        with damage_named(self._group):
            return tuple(int(n) for n in self._features().attrs["feature_shape"])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type the features are stored in."""
        with damage_named(self._group):
            stored: np.dtype[Any] = self._features().dtype
            return stored

    @property
    def time_base(self) -> Fraction | None:
        """Seconds per unit of `pts`; None when unknown."""
        with damage_named(self._group):
            stored = self._group["pts"].attrs.get("time_base")
            return None if stored is None else Fraction(str(stored))

    def feature_blocks(self) -> Iterator[Array]:
        """The features in order, a few MiB at a time, (t, D) each: for videos of any length."""
        with damage_named(self._group):
            rows = self._features()
            blocks = list(row_blocks(rows))
        for block in blocks:
            with damage_named(self._group):  # which may be closed since
                features = np.asarray(rows[block])
            yield features

    def check(self) -> None:
        """Read everything and check its checksums. Raises StoreFormatError."""
        check_video(self._group, deep=True)

    def _features(self) -> Any:
        """The dataset; damage is for the caller to name."""
        if (task := self.task) is not None:
            raise InputError(
                f"{self._group.file.filename} has no features, for it was made with --task {task}; "
                f"read {_READ_AS[task]}, or extract features into another file"
            )
        return self._group["features"]

    def _found(self, task: str) -> Any:
        """The group of a task."""
        if self.task != task:
            others = "features" if self.task is None else _READ_AS[self.task]
            raise InputError(
                f"{self._group.file.filename} has {others}, not {_READ_AS[task]}; expected a file "
                f"that was made with --task {task}"
            )
        with damage_named(self._group):
            return self._group[task]

    def _rows(self, name: str) -> Array:
        with damage_named(self._group):
            return np.asarray(self._group[name][...])


class FeatureFile(Mapping[str, VideoFeatures]):
    """A finished feature file, as a mapping from video to features.

        with FeatureFile("feats.h5") as f:
            for video_id, video in f.items():
                print(video_id, video.features.shape)

    While it is open, plain h5py of the same process has to say `locking=False` to open it too.

    Raises:
        StoreFormatError: There is no such file, it is unfinished, damaged, of another kind, or of a
            newer version than this one reads.
        StoreError: The system does not let it be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        """The file."""
        with ExitStack() as stack:
            self._file = self._open(stack)
            with damage_named(self._file):
                self._check_format()
                index = self._columns(INDEX)
                self.index = tuple(
                    DoneVideo(
                        stored_id=str(stored_id),
                        status=str(status),
                        n_frames=int(n_frames),
                        source_size=int(size),
                        source_mtime_ns=int(mtime),
                    )
                    for stored_id, status, n_frames, size, mtime in zip(
                        index["video_id"],
                        index["status"],
                        index["n_frames"],
                        index["source_size"],
                        index["source_mtime_ns"],
                        strict=True,
                    )
                )
                """One row per video, in the order of the file."""
                self.videos = [unescape(row.stored_id) for row in self.index]
                """The videos' ids, in the order of the file."""
            for row in self.index:
                # They become file names, too, and no writer makes such ones (docs/format.md).
                if {"", ".", ".."} & {*row.stored_id.split("/")}:
                    msg = f"{self.path} is damaged: {row.stored_id!r} is no name of a video in it"
                    raise StoreFormatError(msg)
            # Not escaped anew: each version of the format has names of its own to escape.
            self._stored = {unescape(row.stored_id): row.stored_id for row in self.index}
            self._stack = stack.pop_all()

    def __enter__(self) -> FeatureFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; its videos can no longer be read."""
        self._stack.close()

    # A mapping is equal to another if its items are; a video's are arrays, read anew each time.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __getitem__(self, video_id: str) -> VideoFeatures:
        if video_id not in self._stored:
            near = difflib.get_close_matches(str(video_id), self.videos, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise KeyError(f"{self.path} has no video {video_id!r}{hint}")
        with damage_named(self._file):
            return VideoFeatures(video_id, self._file[VIDEOS][self._stored[video_id]], self)

    # Mapping's own of these two would look for names that are near.

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._stored

    @overload
    def get(self, video_id: str, /) -> VideoFeatures | None: ...

    @overload
    def get(self, video_id: str, /, default: Default) -> VideoFeatures | Default: ...

    def get(self, video_id: str, /, default: Any = None) -> Any:
        """The video, or `default` when there is none of that name."""
        return self[video_id] if video_id in self._stored else default

    def stored_id(self, video_id: str) -> str:
        """The name that a video has in the file (docs/format.md, section 4).

        Raises:
            KeyError: there is no such video.
        """
        return self._stored[video_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.videos)

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes of the file."""
        with damage_named(self._file):
            return read_attrs(self._file)

    @property
    def task(self) -> str | None:
        """What took the place of features, "detect" or "pose"; None where there are features."""
        with damage_named(self._file):
            return task_of(self._file)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that objects have, from 0; empty where they are not known."""
        return tuple(map(str, self.attrs.get("class_names", ())))

    @property
    def n_classes(self) -> int:
        """How many classes objects may have; 0 without objects."""
        return int(self.attrs.get("n_classes", 0))

    @property
    def category_ids(self) -> npt.NDArray[np.int64]:
        """(C,) int64, each class's id in its data set; from 1 on where none is known."""
        numbers = np.arange(1, self.n_classes + 1)
        return np.asarray(self.attrs.get("category_ids", numbers), np.int64)

    @property
    def keypoint_names(self) -> tuple[str, ...]:
        """Names of the parts of a body, in the order of keypoints; empty without people."""
        return tuple(map(str, self.attrs.get("keypoint_names", ())))

    @property
    def limbs(self) -> npt.NDArray[np.int64]:
        """(L, 2) int64, which two parts each limb joins; (0, 2) without people."""
        return np.asarray(self.attrs.get("limbs", np.empty((0, 2))), np.int64)

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that decide the numbers in the file."""
        with damage_named(self._file):
            return dict(json.loads(self._file.attrs["identity_json"]))

    @property
    def config(self) -> dict[str, Any]:
        """The whole configuration of the last run; `identity` when it is not recorded."""
        with damage_named(self._file):
            stored = self._file.attrs.get("config_json")
            return self.identity if stored is None else dict(json.loads(stored))

    @property
    def complete(self) -> bool:
        """Whether every input of the run that wrote the file is in it or in `failures`."""
        return bool(self.attrs["complete"])

    @cached_property
    def failures(self) -> list[FailureRecord]:
        """The videos that failed, or are partial, with the reason."""
        with damage_named(self._file):
            columns = self._columns(FAILURES)
            return [
                FailureRecord(
                    video_id=unescape(str(columns["video_id"][i])),
                    stage=str(columns["stage"][i]),
                    error_type=str(columns["error_type"][i]),
                    message=str(columns["message"][i]),
                    attempts=int(columns["attempts"][i]),
                    source_size=int(columns["source_size"][i]),
                    source_mtime_ns=int(columns["source_mtime_ns"][i]),
                )
                for i in range(len(columns["video_id"]))
            ]

    @property
    def n_frames(self) -> int:
        """Frames of all videos together."""
        return sum(row.n_frames for row in self.index)

    @property
    def version(self) -> tuple[int, int]:
        """The file's format version."""
        major, minor = str(self.attrs["format_version"]).split(".")
        return int(major), int(minor)

    def _open(self, stack: ExitStack) -> Any:
        try:
            if not self.path.exists():
                raise StoreFormatError(_why_missing(self.path))
            if self.path.is_dir():
                raise StoreFormatError(f"{self.path} is a folder; expected a feature file")
            return stack.enter_context(reading(self.path))
        except StoreError:
            raise
        except READ_ERRORS as error:
            refuse_to_blame(self.path, error)
            raise StoreFormatError(
                f"{self.path} is no HDF5 file, or a damaged one; expected a feature file "
                "that rrm-extract wrote"
            ) from error

    def _check_format(self) -> None:
        found = self._file.attrs.get("format")
        if found != FORMAT_NAME:
            raise StoreFormatError(
                f"{self.path} is an HDF5 file of another kind (format {found!r}); "
                "expected a feature file that rrm-extract wrote"
            )
        if self.version[0] > FORMAT_MAJOR:
            raise StoreFormatError(
                f"{self.path} has format version {self._file.attrs['format_version']}, "
                f"this rrm-extract reads up to {FORMAT_MAJOR}.x; install a newer rrm-extract"
            )

        stored = self._file.attrs
        task = task_of(self._file)
        missing = [name for name in TASK_ATTRS.get(task or "", ()) if name not in stored]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        if sha256_of(stored["identity_json"]) != stored["config_sha256"]:
            raise ValueError("config_sha256 does not fit identity_json")

    def _columns(self, name: str) -> dict[str, Array]:
        return {column: read_column(data) for column, data in self._file[name].items()}


def _why_missing(path: Path) -> str:
    parts = parts_dir_of(file_behind(path))
    if parts.is_dir():
        done = sum(1 for part in parts.glob("*.h5") if not part.name.startswith("."))
        videos = "1 video is" if done == 1 else f"{done} videos are"
        return (
            f"{path} is not there yet but {parts.name} is: {videos} done; "
            "run the same command again to finish"
        )
    return f"{path} does not exist; expected a feature file that rrm-extract wrote"
