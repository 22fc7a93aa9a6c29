"""One computed chunk on disk, so that a long video resumes where it was interrupted.

A chunk file is the SHA-256 of what follows, then an uncompressed npz archive: whatever passes the
digest is what was written. It is private to the writer.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from rrm_extract.errors import StoreWriteError
from rrm_extract.store.files import write_atomic, writing
from rrm_extract.store.schema import ChunkResult
from rrm_extract.store.taskrows import FRAME_SIZE, Found

_ARRAYS: Final = (
    "features",
    "timestamps",
    "pts",
    "frame_index",
    "key_frame",
    "work",
    "density",
    "density_delta",
)
_MAYBE_ARRAYS: Final = ("audit_error", "estimate")
_COUNTS: Final = "counts"
_FOUND: Final = "found."
"""Begins the names of what a task found."""
_DIGEST_BYTES = 32


def save_chunk(path: Path, result: ChunkResult) -> None:
    """Write a chunk to the path that `OutputStore.chunk_path` gave; safe in any process.

    After a kill at any moment the file is whole or not there. Its folder is made when missing; the
    folder above must exist, for without it the run is over.

    Raises:
        StoreWriteError: The system refuses.
    """
    arrays = {name: getattr(result, name) for name in _ARRAYS}
    for name in _MAYBE_ARRAYS:
        if getattr(result, name) is not None:
            arrays[name] = getattr(result, name)
    if (found := result.found) is not None:
        columns = {**found.columns, _COUNTS: found.counts, FRAME_SIZE: found.frame_size}
        arrays |= {f"{_FOUND}{name}": column for name, column in columns.items()}
    meta = {"index": result.index, "attrs": dict(result.attrs), "damage": result.damage}
    text = json.dumps(meta, default=_plain)
    buffer = io.BytesIO(bytes(_DIGEST_BYTES))
    buffer.seek(_DIGEST_BYTES)
    np.savez(buffer, meta=np.frombuffer(text.encode(), dtype=np.uint8), **arrays)
    # Released at once also when writing fails: a buffer that is still exported cannot be freed.
    with buffer.getbuffer() as data:
        data[:_DIGEST_BYTES] = _digest(data)
        try:
            _write(path, data)
        except StoreWriteError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            # The video has ended, at damage before this chunk say, and its folder went meanwhile.
            _write(path, data)


def _write(path: Path, data: memoryview) -> None:
    with writing(path):
        path.parent.mkdir(exist_ok=True)
    write_atomic(path, data)


def load_chunk(path: Path) -> ChunkResult | None:
    """The chunk at `path`, or None when it is missing or damaged and has to be computed again."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if len(data) < _DIGEST_BYTES or _digest(memoryview(data)) != data[:_DIGEST_BYTES]:
        return None
    stream = io.BytesIO(data)
    stream.seek(_DIGEST_BYTES)
    try:
        with np.load(stream, allow_pickle=False) as file:
            meta = json.loads(file["meta"].tobytes())
            return ChunkResult(
                index=int(meta["index"]),
                attrs=meta["attrs"],
                damage=str(meta["damage"]),
                **{name: file[name] for name in _ARRAYS},
                **{name: file[name] for name in _MAYBE_ARRAYS if name in file},
                found=_found(file),
            )
    except (KeyError, ValueError, TypeError):  # what another version of this program wrote
        return None


def _found(file: Any) -> Found | None:
    columns = {
        name.removeprefix(_FOUND): file[name] for name in file.files if name.startswith(_FOUND)
    }
    if not columns:
        return None
    return Found(counts=columns.pop(_COUNTS), frame_size=columns.pop(FRAME_SIZE), columns=columns)


def _digest(data: memoryview) -> bytes:
    return hashlib.sha256(data[_DIGEST_BYTES:]).digest()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a chunk's attributes are numbers and strings, not {type(value).__name__}")
