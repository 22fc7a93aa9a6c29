"""Uncompressed AVI files, byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

GREY = b"".join(bytes([shade, shade, shade, 0]) for shade in range(256))


def write_palette_avi(
    path: Path, frames: Sequence[npt.NDArray[np.uint8] | None], *, rate: int = 24
) -> Path:
    """8 bits a pixel with a palette of grey, as MATLAB and ImageJ write them.

    Args:
        path: the file.
        frames: (H, W) each, W a multiple of 4; None for a chunk without data, which shows the one
            before once more.
        rate: frames a second.
    """
    height, width = next(frame.shape for frame in frames if frame is not None)
    size = height * width
    avih = struct.pack("<14I", 1000000 // rate, size * rate, 0, 0x10, len(frames), 0, 1, size,
                       width, height, 0, 0, 0, 0)  # fmt: skip
    strh = struct.pack("<4s4sIHHIIIIIIIIhhhh", b"vids", b"DIB ", 0, 0, 0, 0, 1, rate, 0,
                       len(frames), size, 0xFFFFFFFF, 0, 0, 0, width, height)  # fmt: skip
    strf = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 0, size, 0, 0, 256, 0) + GREY
    strl = _list(b"strl", _chunk(b"strh", strh) + _chunk(b"strf", strf))
    movi, index = b"", b""
    for frame in frames:
        data = b"" if frame is None else np.ascontiguousarray(frame[::-1]).tobytes()
        index += struct.pack("<4sIII", b"00db", 0x10, 4 + len(movi), len(data))
        movi += _chunk(b"00db", data)
    body = _list(b"hdrl", _chunk(b"avih", avih) + strl) + _list(b"movi", movi)
    body += _chunk(b"idx1", index)
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"AVI " + body)
    return path


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _list(name: bytes, data: bytes) -> bytes:
    return _chunk(b"LIST", name + data)
