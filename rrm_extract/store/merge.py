"""Putting the videos of an earlier file and of the parts into one new file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from rrm_extract.errors import StoreFormatError, StoreWriteError
from rrm_extract.store.files import commit, remove, writing
from rrm_extract.store.layout import (
    carry_video,
    check_video,
    copy_video,
    creating,
    reading,
    write_attrs,
    write_column,
)
from rrm_extract.store.names import escape
from rrm_extract.store.part import DoneVideo
from rrm_extract.store.reader import FeatureFile
from rrm_extract.store.schema import (
    FAILURES,
    INDEX,
    PART_VIDEO,
    VIDEOS,
    Array,
    Attr,
    FailureRecord,
)

_TOGETHER = 256
"""Videos after which the earlier file is closed: while it is open HDF5 keeps something of each."""


@dataclass(frozen=True)
class Entry:
    """One video of the new file."""

    done: DoneVideo
    part: Path | None
    """The part it comes from; None for the earlier file."""


def write_finished(
    output: Path,
    temp: Path,
    *,
    entries: Sequence[Entry],
    failures: Sequence[FailureRecord],
    root_attrs: Mapping[str, Attr | Array],
    task: str | None,
    let_through: Callable[[], None],
) -> None:
    """Write the new file to `temp`, check all of it, and rename it over `output`.

    Memory does not grow with the number or length of the videos, but for the index. `let_through`
    is called again and again until `temp` is whole, when HDF5 is at rest; what it raises leaves
    `output` and the parts as they were.

    Raises:
        StoreWriteError: The system refuses, or what was written cannot be read back; `output` and
            the parts are as they were.
        StoreFormatError: A part, or the earlier file, was damaged after it was written.
    """
    entries = sorted(entries, key=lambda entry: entry.done.stored_id.encode())
    try:
        with creating(temp) as (file, check_disk):

            def check() -> None:
                check_disk()
                let_through()

            file.create_group(VIDEOS)
            for begin in range(0, len(entries), _TOGETHER):
                _copy(entries[begin : begin + _TOGETHER], output, file, check)
            _write_index(file.create_group(INDEX), [entry.done for entry in entries])
            _write_failures(file.create_group(FAILURES), failures, task)
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            write_attrs(file, {"created_utc": now, **root_attrs})
            check()
        _verify(temp, output, entries, let_through)
        with writing(output):
            commit(temp, output)
    finally:
        remove(temp)


def _copy(entries: Sequence[Entry], output: Path, file: Any, check: Callable[[], None]) -> None:
    with ExitStack() as stack:
        earlier = None
        if any(entry.part is None for entry in entries):
            earlier = stack.enter_context(reading(output))
        for entry in entries:
            stored_id = entry.done.stored_id
            if entry.part is not None:
                # A video nested below another may have made the group already.
                _copy_part(entry.part, stored_id, file[VIDEOS].require_group(stored_id), check)
            elif earlier is not None:
                carry_video(earlier[VIDEOS], stored_id, file[VIDEOS], check)


def _copy_part(path: Path, stored_id: str, target: Any, check: Callable[[], None]) -> None:
    try:
        with reading(path) as part:
            copy_video(part[PART_VIDEO], target, check)
    except StoreFormatError as error:
        # Not removed here: the next run checks it in full, and removes it if it is damaged.
        raise StoreFormatError(
            f"the features of {stored_id} were damaged on disk after they were written "
            f"({error.__cause__}); run the same command again to make them again"
        ) from error


def _verify(
    temp: Path, output: Path, entries: Sequence[Entry], let_through: Callable[[], None]
) -> None:
    checked: Entry | None = None
    try:
        with FeatureFile(temp) as file:
            same = list(file.index) == [entry.done for entry in entries]
            for entry, video in zip(entries, file.values(), strict=False):
                checked = entry
                video.check()
                let_through()
            _ = file.failures
    except StoreFormatError as error:
        if checked is not None and checked.part is None:
            # It was copied unread, and may have been damaged before.
            with reading(output) as earlier:
                check_video(earlier[VIDEOS][checked.done.stored_id], deep=True)
        raise StoreWriteError(
            f"what was written for {output} cannot be read back: {error}; check the disk "
            "and run the same command again"
        ) from error
    if not same:
        raise StoreWriteError(f"what was written for {output} lists other videos; check the disk")


def _write_index(group: Any, rows: Sequence[DoneVideo]) -> None:
    _write_strings(group, "video_id", (row.stored_id for row in rows))
    _write_strings(group, "status", (row.status for row in rows))
    _write_ints(group, "n_frames", (row.n_frames for row in rows))
    _write_ints(group, "source_size", (row.source_size for row in rows))
    _write_ints(group, "source_mtime_ns", (row.source_mtime_ns for row in rows))


def _write_failures(group: Any, records: Sequence[FailureRecord], task: str | None) -> None:
    rows = sorted(
        ((escape(r.video_id, task=task), r) for r in records), key=lambda row: row[0].encode()
    )
    _write_strings(group, "video_id", (stored_id for stored_id, _ in rows))
    for name in ("stage", "error_type", "message"):
        _write_strings(group, name, (getattr(record, name) for _, record in rows))
    for name in ("attempts", "source_size", "source_mtime_ns"):
        _write_ints(group, name, (getattr(record, name) for _, record in rows))


def _write_strings(group: Any, name: str, values: Iterable[str]) -> None:
    write_column(group, name, np.asarray(list(values), dtype=object))


def _write_ints(group: Any, name: str, values: Iterable[int]) -> None:
    write_column(group, name, np.asarray(list(values), dtype=np.int64))
