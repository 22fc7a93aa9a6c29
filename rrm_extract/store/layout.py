"""How one video lies in HDF5: creating, appending, copying and checking its group."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np

from rrm_extract.errors import RrmError, StoreError, StoreFormatError
from rrm_extract.signals import held_back
from rrm_extract.store.files import writing
from rrm_extract.store.schema import (
    AUDIT,
    AUDIT_ROWS,
    FEATURE_TYPES,
    LAYER_ROWS,
    LAYERS,
    MEMBERS,
    RESERVED,
    ROW_TYPES,
    STATUSES,
    TASK_RESERVED,
    Array,
    Attr,
    storable,
    version_of,
)
from rrm_extract.store.shield import ShieldedFile
from rrm_extract.store.taskrows import ANY, FRAME_SIZE, OFFSETS, TASK_COLUMNS

Group: TypeAlias = Any  # h5py has no types
Dataset: TypeAlias = Any

READ_ERRORS = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    MemoryError,
)
"""What h5py raises on a file that is damaged; an object that turned into another lacks attributes.
"""

# With the format of HDF5 1.10 names, shapes and attributes carry checksums too; h5py's default, of
# HDF5 1.6, has none.
_LIBVER = ("v110", "v110")

_CHUNK_BYTES = 1 << 18  # small enough to read one frame cheaply, large enough to stream
_CHUNK_ROWS = 1 << 10  # a chunk takes its full room in the file, however few rows are in it
_AT_ONCE = 1 << 26  # bytes that HDF5 may copy before errors of the disk are looked for
_BLOCK_BYTES = 1 << 22  # what is held in memory at once when rows are copied, checked or compared


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    """An HDF5 file opened to be read.

    Raises:
        StoreError: It is open in this process already, and cannot be opened once more.
    """
    with _opened(path) as file:
        yield file


def _opened(path: Path) -> Any:
    """The file, opened as it is open in this process already, if it is.

    Files are never changed in place, so no lock is needed; HDF5's own would fail on read-only
    network folders. But all handles of a process have to agree, and plain h5py has asked for one.
    """
    for locking in (False, "best-effort", True):
        try:
            return h5py.File(path, "r", locking=locking)
        except OSError as error:
            if "flag values don't match" not in str(error):
                raise
            reason = _one_line(error)
    raise StoreError(
        f"{path} is open in this process already, in another way ({reason}); close it there, or "
        "open it there with h5py.File(..., locking=False)"
    )


@contextmanager
def creating(path: Path) -> Iterator[tuple[Any, Callable[[], None]]]:
    """A new HDF5 file, and a function to call after every step that raises what went wrong.

    HDF5 does not survive an interrupt while it writes. They are held back while the file is made
    and closed; whoever writes to it holds them back meanwhile.

    Raises:
        StoreWriteError: The system refuses; what is at `path` is then not to be used.
    """
    with writing(path):
        shield = ShieldedFile(path)
    try:
        with ExitStack() as stack:
            with held_back():
                file = h5py.File(shield, "w", driver="fileobj", libver=_LIBVER)
                stack.callback(_close, file)
            yield file, shield.check
        shield.check()
    finally:
        shield.close()
    shield.check()


def _close(file: Any) -> None:
    with held_back():
        file.close()


def create_rows(
    group: Group, name: str, *, tail: Sequence[int], dtype: str, n_rows: int | None = None
) -> Dataset:
    """A checksummed dataset of shape (n_rows or 0, *tail) that can grow along its first axis.

    Args:
        group: Where.
        name: Its name.
        tail: Shape of one row; extents may be 0.
        dtype: Type it is stored in.
        n_rows: Rows it will have in the end, when known; chunks are then cut to waste little.
    """
    row_bytes = max(1, math.prod(tail)) * np.dtype(dtype).itemsize
    rows = min(_CHUNK_ROWS, max(1, _CHUNK_BYTES // row_bytes))
    if n_rows is not None:
        n_chunks = max(1, -(-n_rows // rows))
        rows = max(1, -(-n_rows // n_chunks))
    return group.create_dataset(
        name,
        shape=(n_rows or 0, *tail),
        # An extent of 0 must not be a limit: HDF5 has no chunks of nothing.
        maxshape=(None, *(extent or None for extent in tail)),
        chunks=(rows, *(max(1, extent) for extent in tail)),
        dtype=dtype,
        fletcher32=True,
    )


def append_rows(dataset: Dataset, rows: Array) -> None:
    """Add `rows` (t, *tail) at the end."""
    count = len(rows)
    if count == 0:
        return
    start = dataset.shape[0]
    dataset.resize(start + count, axis=0)
    if rows.size:
        dataset[start:] = rows


def row_blocks(dataset: Dataset) -> Iterator[slice]:
    """Slices of a few MiB that cover all rows of a dataset."""
    n_rows = dataset.shape[0]
    row_bytes = max(1, math.prod(dataset.shape[1:])) * dataset.dtype.itemsize
    chunk = dataset.chunks[0] if dataset.chunks else 1
    step = max(1, _BLOCK_BYTES // (row_bytes * chunk)) * chunk
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def write_column(group: Group, name: str, values: Any) -> None:
    """A small dataset from an array or a sequence; strings become variable-length UTF-8."""
    array = np.asarray(values)
    if array.dtype.kind in "OU":
        text = np.asarray([storable(str(v)) for v in array.ravel()], dtype=object)
        group.create_dataset(name, data=text.reshape(array.shape), dtype=h5py.string_dtype())
    else:
        checksum = array.size > 0 and array.ndim > 0
        group.create_dataset(name, data=array, fletcher32=checksum)


def read_column(dataset: Dataset) -> Array:
    """The whole of a dataset; strings as an object array of `str`."""
    if h5py.check_string_dtype(dataset.dtype) is not None:
        return np.asarray(dataset.asstr()[...], dtype=object)
    return np.asarray(dataset[...])


def write_attrs(target: Any, attrs: Mapping[str, Attr | Array]) -> None:
    """Set attributes, in the order of their names so that files come out alike."""
    for name in sorted(attrs):
        value = attrs[name]
        target.attrs[name] = storable(value) if isinstance(value, str) else value


def read_attrs(target: Any) -> dict[str, Any]:
    """Attributes as Python values; arrays stay arrays."""
    return {name: read_attr(target, name) for name in target.attrs}  # items() looks up twice


def read_attr(target: Any, name: str) -> Any:
    """One attribute, in the same way."""
    value = target.attrs[name]
    return value.item() if isinstance(value, np.generic) else value


def task_of(file: Any) -> str | None:
    """The task that a file, or a part, is of; None for features.

    Raises:
        ValueError: There is no such task.
    """
    # A file of format 1 may have an attribute of this name that means nothing.
    if str(file.attrs.get("format_version")).startswith("1."):
        return None
    task = file.attrs["task"]
    _expect(task in TASK_COLUMNS, f"task is {task!r}")
    return str(task)


def row_members(group: Group) -> dict[str, Dataset]:
    """The datasets of a video that were written row by row, by path below its group.

    They have one row per frame, but for those of a task's group.
    """
    task = task_of(group.file)
    if task is None:
        names = ["features"]
    else:
        names = [f"{task}/{name}" for name in (OFFSETS, FRAME_SIZE, *TASK_COLUMNS[task])]
    found = {name: group[name] for name in (*names, *ROW_TYPES)}
    for name in LAYER_ROWS:
        found[f"{LAYERS}/{name}"] = group[LAYERS][name]
    # A file of format 1.0 has none, but may have videos of such names there.
    if AUDIT in group and group.file.attrs.get("format_version") != "1.0":
        for name in AUDIT_ROWS:
            found[f"{AUDIT}/{name}"] = group[AUDIT][name]
    return found


def copy_video(source: Group, target: Group, check: Callable[[], None]) -> None:
    """Copy one video's own members and attributes, a few MiB at a time, checking checksums.

    Videos nested below `source` (docs/format.md, section 4) are not copied.

    Args:
        source: The video's group.
        target: An existing group, empty but for nested videos.
        check: Called after every step.

    Raises:
        StoreFormatError: `source` is damaged.
        StoreWriteError: From `check`.
    """
    layers = target.require_group(LAYERS)
    with damage_named(source):
        for name, rows in row_members(source).items():
            copy = create_rows(
                target, name, tail=rows.shape[1:], dtype=rows.dtype.name, n_rows=rows.shape[0]
            )
            write_attrs(copy, read_attrs(rows))
            for block in row_blocks(rows):
                if rows.size:
                    copy[block] = rows[block]
                check()
        columns = source[LAYERS]
        for name in columns:
            if name not in LAYER_ROWS:
                write_column(layers, name, read_column(columns[name]))
                check()
        # Last, for they make the group a video.
        write_attrs(target, read_attrs(source))
    check()


def carry_video(videos: Group, stored_id: str, target: Group, check: Callable[[], None]) -> None:
    """Copy one video of a finished file as it lies there, if it can be taken whole.

    Some twenty times as fast as :func:`copy_video`, for HDF5 copies the bytes, checksums among
    them, and does not look at them: the copy has to be checked. A video of an older format, with
    another one nested below it, or so large that an error of the disk would be noticed too late, is
    copied by that function.

    Args:
        videos: The group of videos.
        stored_id: The video's name in it.
        target: The group of videos that it comes into.
        check: Called after every step.

    Raises:
        StoreFormatError: What is found on the way is damaged.
        StoreWriteError: From `check`.
    """
    source = videos[stored_id]
    with damage_named(source):
        task = task_of(source.file)
        is_current = str(source.file.attrs["format_version"]) == version_of(task)
        own = RESERVED if task is None else TASK_RESERVED
        is_whole = is_current and stored_id not in target and all(name in own for name in source)
        size = sum(rows.id.get_storage_size() for rows in row_members(source).values())
    if not is_whole or size > _AT_ONCE:
        copy_video(source, target.require_group(stored_id), check)
        return
    with damage_named(source):
        target.copy(source, target, name=stored_id)
    check()


def check_video(group: Group, *, deep: bool) -> None:
    """Check that a group is a whole video of this format.

    Args:
        group: The video's group.
        deep: Read every value, which checks the checksums; else only shapes and types.

    Raises:
        StoreFormatError: What is wrong.
    """
    with damage_named(group):
        attrs = read_attrs(group)
        _expect(attrs["status"] in STATUSES, f"status is {attrs['status']!r}")
        n_frames = attrs["n_frames"]
        _expect(isinstance(attrs["source_size"], int), "source_size is no integer")
        _expect(isinstance(attrs["source_mtime_ns"], int), "source_mtime_ns is no integer")
        task = task_of(group.file)
        for member in MEMBERS if task is None else (*MEMBERS[1:], task):
            _expect(member in group, f"{member} is missing")
        if task is not None:
            _check_task(group[task], task, n_frames)
        for name, rows in row_members(group).items():
            _expect(bool(rows.fletcher32), f"{name} has no checksum")
            if not name.startswith(f"{task}/"):
                _check_rows(name, rows, n_frames)
            if deep and rows.size:
                for block in row_blocks(rows):
                    rows[block]
        columns = group[LAYERS]
        for name in columns if deep else ():
            if name not in LAYER_ROWS:
                read_column(columns[name])


def _check_rows(name: str, rows: Dataset, n_frames: int) -> None:
    """Whether a member with one row per frame is what it has to be."""
    _expect(rows.shape[0] == n_frames, f"{name} has {rows.shape[0]} of {n_frames} rows")
    last = name.rpartition("/")[2]
    if name == "features":
        shape = rows.attrs["feature_shape"]
        _expect(rows.ndim == 2, "features is no matrix")
        _expect(math.prod(map(int, shape)) == rows.shape[1], "feature_shape does not fit")
        _expect(rows.dtype.name in FEATURE_TYPES, f"features is {rows.dtype}")
    elif name.startswith(f"{AUDIT}/"):
        _expect(rows.ndim == 1 and rows.dtype == np.float32, f"{name} is {rows.dtype}")
    elif last in LAYER_ROWS:
        _expect(rows.ndim == 2 and rows.dtype == np.float16, f"{name} is no float16 matrix")
    else:
        _expect(rows.ndim == 1 and rows.dtype == ROW_TYPES[name], f"{name} is {rows.dtype}")


def _check_task(group: Group, task: str, n_frames: int) -> None:
    """Whether what was found in the frames fits together."""
    offsets, sizes = group[OFFSETS], group[FRAME_SIZE]
    _expect(offsets.shape == (n_frames + 1,), f"{OFFSETS} is {offsets.shape}")
    _expect(offsets.dtype == np.int64, f"{OFFSETS} is {offsets.dtype}")
    _expect(sizes.shape == (n_frames, 2), f"{FRAME_SIZE} is {sizes.shape}")
    _expect(sizes.dtype == np.int32, f"{FRAME_SIZE} is {sizes.dtype}")
    rows = offsets[...]
    _expect(rows[0] == 0 and bool((np.diff(rows) >= 0).all()), f"{OFFSETS} do not ascend from 0")
    for name, (tail, dtype) in TASK_COLUMNS[task].items():
        column = group[name]
        _expect(column.dtype == dtype, f"{task}/{name} is {column.dtype}")
        fits = len(column.shape) == 1 + len(tail) and all(
            wanted in (extent, ANY)
            for extent, wanted in zip(column.shape, (rows[-1], *tail), strict=True)
        )
        _expect(fits, f"{task}/{name} is {column.shape} for {rows[-1]} rows")


@contextmanager
def damage_named(target: Any) -> Iterator[None]:
    """Turn whatever h5py raises on damaged data into a StoreFormatError that names the place."""
    if not target:
        raise ValueError("the feature file is closed")
    place = f"{target.file.filename}:{target.name}"
    try:
        yield
    except RrmError:
        raise
    except READ_ERRORS as error:
        refuse_to_blame(place, error)
        raise StoreFormatError(
            f"{place} is damaged ({_one_line(error)}); move the file away or delete it "
            "and run the command that made it again"
        ) from error


def refuse_to_blame(place: object, error: BaseException) -> None:
    """Raise a StoreError where not the file but the system is at fault, short of handles, say.

    h5py's errors have an errno only then. Work that is sound must not be thrown away for them.
    """
    if isinstance(error, MemoryError):
        what = f" ({_one_line(error)})" if str(error) else ""
        raise StoreError(
            f"not enough memory to read {place}{what}; free some, take fewer --workers, or read a "
            "video in blocks"
        ) from error
    if isinstance(error, OSError) and error.errno is not None:
        reason = os.strerror(error.errno)
        raise StoreError(f"cannot read {place}: {reason}; put that right and try again") from error


def same_value(a: Any, b: Any) -> bool:
    """Whether two attributes or columns are equal in type, shape, and bit for bit."""
    x, y = np.asarray(a), np.asarray(b)
    if (x.shape, x.dtype.kind) != (y.shape, y.dtype.kind):
        return False
    if x.dtype.kind in "OU":
        return bool((x == y).all())
    return x.dtype == y.dtype and x.tobytes() == y.tobytes()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _expect(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)
