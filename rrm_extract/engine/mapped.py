"""Objects with large arrays in a file, from which all processes share one copy of the arrays."""

from __future__ import annotations

import json
import mmap
import pickle
from pathlib import Path
from typing import Any

__all__ = ["MAGIC", "is_mapped", "load_mapped", "save_mapped"]

MAGIC = b"rrm-extract mapped objects 1\n"

ALIGNMENT = 64
"""Arrays begin at a cache line."""


def save_mapped(value: Any, path: Path) -> None:
    """Writes an object that can be pickled; its numpy arrays lie in the file as they are.

    Raises:
        OSError: the file cannot be written.
    """
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    raw = [buffer.raw() for buffer in buffers]
    sizes = json.dumps([len(pickled), *(len(data) for data in raw)]).encode() + b"\n"
    with path.open("wb") as file:
        file.write(MAGIC + sizes)
        for data in (memoryview(pickled), *raw):
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
            file.write(data)


def is_mapped(path: Path) -> bool:
    """Whether a file was written by :func:`save_mapped`."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def load_mapped(path: Path) -> Any:
    """What :func:`save_mapped` wrote, in this version and for this user.

    Arrays are mapped: memory is taken when they are read, once for all processes, and a process
    that writes to one has a copy of its own. The file may be deleted as soon as it is mapped.
    """
    with path.open("rb") as file:
        file.seek(len(MAGIC))
        sizes = json.loads(file.readline())
        position = file.tell()
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    parts = []
    for size in sizes:
        position += -position % ALIGNMENT
        parts.append(mapped[position : position + size])
        position += size
    return pickle.loads(parts[0], buffers=parts[1:])  # noqa: S301 - of this job, from its parent
