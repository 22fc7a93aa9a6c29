"""The finished features of one video, in a file of its own until all videos are done."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from rrm_extract.errors import (
    FeatureRangeError,
    StoreError,
    StoreFormatError,
    StoreWriteError,
)
from rrm_extract.store.files import commit, remove, temp_path, writing
from rrm_extract.store.layout import (
    READ_ERRORS,
    append_rows,
    check_video,
    create_rows,
    creating,
    damage_named,
    read_attrs,
    reading,
    refuse_to_blame,
    write_attrs,
    write_column,
)
from rrm_extract.store.names import escape
from rrm_extract.store.schema import (
    AUDIT,
    AUDIT_ROWS,
    FEATURE_TYPES,
    LAYER_ROWS,
    LAYERS,
    OWN_ATTRS,
    PART_FORMAT_NAME,
    PART_VIDEO,
    ROW_TYPES,
    STATUSES,
    Array,
    Attr,
    ChunkResult,
    Source,
    version_of,
)
from rrm_extract.store.taskrows import FRAME_SIZE, OFFSETS, Found, TaskRows


@dataclass(frozen=True)
class DoneVideo:
    """What the store knows about a video that is done."""

    stored_id: str
    status: str
    n_frames: int
    source_size: int
    source_mtime_ns: int

    def is_of(self, source: Source) -> bool:
        """Whether it was made from exactly this source."""
        return self.source_size == source.size and self.source_mtime_ns == source.mtime_ns


class PartWriter:
    """Writes one video chunk by chunk; nothing is visible before `finish` returns.

        with store.part(source, feature_shape=(512,)) as part:
            for chunk in chunks:
                part.append(chunk)
            part.finish(layers={"name": names, "macs": macs}, attrs={"n_decoded": 240})

    Memory is that of one chunk. Leaving the block without `finish` discards what was written.
    """

    def __init__(
        self,
        path: Path,
        source: Source,
        *,
        config_sha256: str,
        feature_shape: Sequence[int],
        dtype: str,
        task: TaskRows | None,
        on_done: Callable[[DoneVideo], None],
    ) -> None:
        if dtype not in FEATURE_TYPES:
            raise ValueError(f"features are stored as {' or '.join(FEATURE_TYPES)}, not {dtype!r}")
        self.n_frames = 0
        """Frames appended so far."""
        self._path = path
        self._temp = temp_path(path)
        self._source = source
        self._rows = task
        self._task = None if task is None else task.task
        self._stored_id = escape(source.video_id, task=self._task)
        self._config_sha256 = config_sha256
        self._feature_shape = tuple(int(n) for n in feature_shape) or (1,)
        self._dtype = dtype
        self._on_done = on_done
        self._n_layers: int | None = None
        self._n_found = 0
        self._audit: dict[str, list[Array]] = {name: [] for name in AUDIT_ROWS}
        self._stack = ExitStack()
        self._file: Any = None
        self._check: Callable[[], None]

    def __enter__(self) -> PartWriter:
        self._file, self._check = self._stack.enter_context(creating(self._temp))
        group = self._file.create_group(PART_VIDEO)
        if self._rows is None:
            width = math.prod(self._feature_shape)
            features = create_rows(group, "features", tail=(width,), dtype=self._dtype)
            shape = np.asarray(self._feature_shape, dtype=np.int64)
            write_attrs(features, {"feature_shape": shape})
        else:
            _create_found(group.create_group(self._rows.task), self._rows)
        for name, dtype in ROW_TYPES.items():
            create_rows(group, name, tail=(), dtype=dtype)
        group.create_group(LAYERS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._stack.__exit__(kind, error, trace)
        finally:
            remove(self._temp)

    def append(self, chunk: ChunkResult) -> None:
        """Add the frames of the next chunk.

        Raises:
            ValueError: Its arrays do not fit one another, or what was appended before.
            StoreWriteError: The system refuses.
            FeatureRangeError: A feature does not fit float16.
        """
        count = len(chunk.features)
        width = math.prod(self._feature_shape) if self._rows is None else 0
        if chunk.features.shape != (count, width):
            raise ValueError(f"features are {chunk.features.shape}, expected ({count}, {width})")
        for name in ROW_TYPES:
            if getattr(chunk, name).shape != (count,):
                got = getattr(chunk, name).shape
                raise ValueError(f"{name} is {got}, expected ({count},)")
        if self._n_layers is None:
            self._create_layer_rows(chunk.density.shape[-1])
        for rows in (chunk.density, chunk.density_delta):
            if rows.shape != (count, self._n_layers):
                raise ValueError(f"density is {rows.shape}, expected ({count}, {self._n_layers})")
        _check_found(chunk.found, self._rows, count)
        audit = {}
        for name, known in zip(AUDIT_ROWS, (chunk.audit_error, chunk.estimate), strict=True):
            audit[name] = np.full(count, np.nan) if known is None else known
            if audit[name].shape != (count,):
                raise ValueError(f"{name} is {audit[name].shape}, expected ({count},)")
        group = self._file[PART_VIDEO]
        if chunk.found is None:
            append_rows(group["features"], self._narrow(chunk.features))
        else:
            self._append_found(group[self._task], chunk.found)
        self._check()
        for name in ROW_TYPES:
            append_rows(group[name], getattr(chunk, name))
        append_rows(group[LAYERS]["density_t"], chunk.density.astype(np.float16))
        append_rows(group[LAYERS]["density_delta_t"], chunk.density_delta.astype(np.float16))
        self._check()
        for name, rows in audit.items():
            self._audit[name].append(rows.astype(np.float32))
        self.n_frames += count

    def finish(
        self,
        *,
        layers: Mapping[str, Array | Sequence[str]],
        attrs: Mapping[str, Attr],
        status: str = "ok",
    ) -> None:
        """Complete the video, check what is on disk, and put it under its name for good.

        Args:
            layers: Columns by name, each (L,), numbers or strings.
            attrs: Attributes of the video's group. `time_base` goes to `pts`.
            status: "ok" or "partial".

        Raises:
            ValueError: A column or attribute cannot be stored under that name.
            StoreWriteError: The system refuses, or what was written cannot be read back.
        """
        self._check_finish(layers, attrs, status)
        if self._n_layers is None:
            self._create_layer_rows(len(next(iter(layers.values()), ())))
        for name, column in layers.items():
            if len(column) != self._n_layers:
                raise ValueError(f"column {name} has {len(column)} of {self._n_layers} layers")
        group = self._file[PART_VIDEO]
        for name in sorted(layers):
            write_column(group[LAYERS], name, layers[name])
        self._write_audit(group)
        group_attrs = dict(attrs)
        if "time_base" in group_attrs:
            write_attrs(group["pts"], {"time_base": str(group_attrs.pop("time_base"))})
        done = DoneVideo(
            stored_id=self._stored_id,
            status=status,
            n_frames=self.n_frames,
            source_size=self._source.size,
            source_mtime_ns=self._source.mtime_ns,
        )
        own = {name: getattr(done, name) for name in OWN_ATTRS}
        write_attrs(group, {**group_attrs, **own})
        root: dict[str, Attr | Array] = {
            "format": PART_FORMAT_NAME,
            "format_version": version_of(self._task),
            "config_sha256": self._config_sha256,
            "video_id": self._stored_id,
        }
        if self._task is not None:
            root["task"] = self._task
        write_attrs(self._file, root)
        self._check()
        self._stack.close()
        self._verify(done)
        with writing(self._path):
            commit(self._temp, self._path)
        self._on_done(done)

    def _write_audit(self, group: Any) -> None:
        """The errors, if any is known."""
        columns = {
            name: np.concatenate(parts or [np.empty(0)]) for name, parts in self._audit.items()
        }
        if all(np.isnan(column).all() for column in columns.values()):
            return
        for name, column in columns.items():
            rows = create_rows(
                group, f"{AUDIT}/{name}", tail=(), dtype="float32", n_rows=self.n_frames
            )
            rows[...] = column

    def _verify(self, expected: DoneVideo) -> None:
        try:
            found = read_part(self._temp, config_sha256=self._config_sha256, task=self._task)
        except StoreFormatError as error:
            raise StoreWriteError(
                f"what was written to {self._path} cannot be read back: {error}; check the disk"
            ) from error
        if found != expected:
            raise StoreWriteError(
                f"{self._path} reads back as {found}, not {expected}; check the disk"
            )

    def _check_finish(
        self, layers: Mapping[str, Any], attrs: Mapping[str, Attr], status: str
    ) -> None:
        if status not in STATUSES:
            raise ValueError(f"a video is {' or '.join(STATUSES)}, not {status!r}")
        taken = sorted({*attrs} & {*OWN_ATTRS})
        if taken:
            raise ValueError(f"the store itself sets {', '.join(taken)}")
        bad = sorted(n for n in layers if n in LAYER_ROWS or "/" in n or n in {"", ".", ".."})
        if bad:
            raise ValueError(f"a column of layers cannot be named {', '.join(map(repr, bad))}")

    def _append_found(self, group: Any, found: Found) -> None:
        append_rows(group[OFFSETS], self._n_found + np.cumsum(found.counts, dtype=np.int64))
        append_rows(group[FRAME_SIZE], found.frame_size)
        for name, column in found.columns.items():
            append_rows(group[name], column)
        self._n_found += int(found.counts.sum())

    def _create_layer_rows(self, n_layers: int) -> None:
        for name in LAYER_ROWS:
            create_rows(self._file[PART_VIDEO][LAYERS], name, tail=(n_layers,), dtype="float16")
        self._n_layers = n_layers

    def _narrow(self, features: Array) -> Array:
        if self._dtype == "float32":
            return features
        with np.errstate(over="ignore"):
            narrow = features.astype(np.float16)
        lost = np.isinf(narrow) & np.isfinite(features)
        if lost.any():
            raise FeatureRangeError(
                f"{self._source.video_id}: a feature of {features[lost][0]:g} does not fit float16 "
                "(at most 65504); store float32, which needs another output"
            )
        return narrow


def _create_found(group: Any, rows: TaskRows) -> None:
    append_rows(create_rows(group, OFFSETS, tail=(), dtype="int64"), np.zeros(1, np.int64))
    create_rows(group, FRAME_SIZE, tail=(2,), dtype="int32")
    for name, (tail, dtype) in rows.columns.items():
        create_rows(group, name, tail=tail, dtype=dtype)


def _check_found(found: Found | None, rows: TaskRows | None, count: int) -> None:
    if found is None and rows is None:
        return
    if found is None or rows is None:
        has, wants = ("features", "a task's rows")[:: 1 if found is None else -1]
        raise ValueError(f"the chunk has {has}, expected {wants}")
    expected: dict[str, tuple[Array, tuple[int, ...]]]
    expected = {"counts": (found.counts, (count,)), FRAME_SIZE: (found.frame_size, (count, 2))}
    for name, (tail, _) in rows.columns.items():
        expected[name] = (found.columns[name], (int(found.counts.sum()), *tail))
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            raise ValueError(f"{name} is {array.shape}, expected {shape}")


def read_part(path: Path, *, config_sha256: str, task: str | None) -> DoneVideo:
    """Check a part in full, checksums too, and say what it holds.

    Args:
        path: The part.
        config_sha256: What it has to be made with.
        task: What it has to be of; None means features.

    Raises:
        StoreFormatError: It is damaged or was made with another configuration.
        StoreError: The system does not let it be read.
    """
    try:
        with reading(path) as file, damage_named(file):
            root = read_attrs(file)
            _check_root(path, root, config_sha256=config_sha256, version=version_of(task))
            group = file[PART_VIDEO]
            check_video(group, deep=True)
            attrs = read_attrs(group)
            return DoneVideo(
                stored_id=str(root["video_id"]), **{name: attrs[name] for name in OWN_ATTRS}
            )
    except StoreError:
        raise
    except READ_ERRORS as error:  # on opening it
        refuse_to_blame(path, error)
        raise StoreFormatError(f"{path} is damaged: {error}") from error


def _check_root(path: Path, root: Mapping[str, Any], *, config_sha256: str, version: str) -> None:
    expected = {
        "format": PART_FORMAT_NAME,
        "format_version": version,
        "config_sha256": config_sha256,
    }
    for name, value in expected.items():
        if root.get(name) != value:
            raise StoreFormatError(f"{path}: {name} is {root.get(name)!r}, expected {value!r}")
