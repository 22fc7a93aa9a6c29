"""What the index of an AVI file says of frames that FFmpeg gives no packets for."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

_HEADER = 8
_ENTRY = np.dtype([("id", "S4"), ("flags", "<u4"), ("offset", "<u4"), ("size", "<u4")])
_INDEX = b"idx1"


def repeats_at_end(path: Path, stream: int) -> int:
    """How many frames at the end of a whole AVI file are chunks without data.

    Such a chunk says that the frame before is shown once more (a "dropped" or "null" frame).

    Args:
        path: The file.
        stream: The video stream's number in it.

    Returns:
        0 where the file is cut off, or has no index of the first kind.
    """
    try:
        with path.open("rb") as file:
            return _count(file, path.stat().st_size, stream)
    except (OSError, struct.error):
        return 0


def _count(file: BinaryIO, size: int, stream: int) -> int:
    name, length = struct.unpack("<4sI", file.read(_HEADER))
    end = _HEADER + length
    if name != b"RIFF" or end > size:
        return 0
    file.seek(4, 1)  # what kind of file it is
    while file.tell() + _HEADER <= end:
        name, length = struct.unpack("<4sI", file.read(_HEADER))
        if name == _INDEX:
            entries = np.frombuffer(file.read(length // _ENTRY.itemsize * _ENTRY.itemsize), _ENTRY)
            kinds = [f"{stream:02d}{kind}".encode() for kind in ("db", "dc")]
            sizes = entries["size"][np.isin(entries["id"], kinds)]
            with_data = np.flatnonzero(sizes)
            return len(sizes) - 1 - int(with_data[-1]) if len(with_data) else 0
        file.seek(length + length % 2, 1)
    return 0
