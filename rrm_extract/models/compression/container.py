"""The container of a .dcz file: header, metadata, sections (section 1 of docs/dcz.md)."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import WeightsError

__all__ = ["damaged", "describe_section", "pack", "take_section", "unpack"]

MAJOR, MINOR = 1, 0

_MAGIC = b"\x89DCZ\r\n\x1a\n"
_HEADER = struct.Struct("<8sHHIQII")
_MAX_METADATA = 1 << 24
"""Bytes; the metadata of a network of a thousand layers are a hundredth of it."""


def describe_section(data: bytes) -> list[int]:
    """What the metadata say of a section: its size and its checksum."""
    return [len(data), zlib.crc32(data)]


def pack(metadata: dict[str, Any], sections: Sequence[bytes]) -> bytes:
    """The bytes of a file; ``metadata`` describes the sections."""
    text = json.dumps(metadata, allow_nan=False, separators=(",", ":")).encode()
    size = _HEADER.size + len(text) + sum(map(len, sections))
    start = _HEADER.pack(_MAGIC, MAJOR, MINOR, len(text), size, zlib.crc32(text), 0)[:-4]
    return b"".join([start, struct.pack("<I", zlib.crc32(start)), text, *sections])


def unpack(path: Path) -> tuple[dict[str, Any], memoryview, bytes]:
    """Read a file and check everything but the sections.

    Returns:
        The metadata, the bytes of all sections, and the bytes of the file.

    Raises:
        WeightsError: unreadable, no .dcz file, of another version, or damaged.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
            length, size = _check_header(path, header)
            if path.stat().st_size != size:
                raise damaged(path, f"it has {path.stat().st_size} bytes, expected {size}")
            data = header + file.read(size - len(header))
    except OSError as error:
        raise WeightsError(
            f"compressed network {str(path)!r} cannot be read: {error.strerror or error}"
        ) from error
    if len(data) != size:
        raise damaged(path, f"it has {len(data)} bytes, expected {size}")
    text = data[_HEADER.size : _HEADER.size + length]
    if zlib.crc32(text) != _HEADER.unpack(header)[5]:
        raise damaged(path, "the checksum of its metadata is wrong")
    try:
        metadata = json.loads(text.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise damaged(path, "its metadata are no JSON") from error
    if not isinstance(metadata, dict):
        raise damaged(path, "its metadata are no JSON object")
    return metadata, memoryview(data)[_HEADER.size + length :], data


def take_section(path: Path, sections: memoryview, start: int, size: int, crc: int) -> memoryview:
    """One section that is known to be there; WeightsError if its checksum is wrong."""
    section = sections[start : start + size]
    if zlib.crc32(section) != crc:
        raise damaged(path, "the checksum of its data is wrong")
    return section


def damaged(path: Path, reason: str) -> WeightsError:
    """The error for a file that is not what it should be."""
    return WeightsError(
        f"compressed network {str(path)!r} is damaged: {reason}; copy or make it again "
        "(rrm-extract compress)"
    )


def _check_header(path: Path, header: bytes) -> tuple[int, int]:
    """Bytes of the metadata, and of the file."""
    if header[: len(_MAGIC)] != _MAGIC:
        raise WeightsError(
            f"{str(path)!r} is no compressed network; expected a .dcz file of "
            "`rrm-extract compress`"
        )
    if len(header) < _HEADER.size:
        raise damaged(path, "it ends in its header")
    _, major, minor, length, size, _, crc = _HEADER.unpack(header)
    if zlib.crc32(header[:-4]) != crc:
        raise damaged(path, "the checksum of its header is wrong")
    if major != MAJOR:
        raise WeightsError(
            f"compressed network {str(path)!r} has format version {major}.{minor}, expected "
            f"{MAJOR}.x; make it again, or use a version of rrm-extract that reads it"
        )
    if length > _MAX_METADATA or _HEADER.size + length > size:
        raise damaged(path, f"{length} bytes of metadata cannot be")
    return length, size


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")
