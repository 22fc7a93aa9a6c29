"""What a Matroska file says of its length, beside what FFmpeg takes from it."""

from __future__ import annotations

import os
import re
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_HEAD_BYTES = 4096
"""At the beginning of the file: the EBML header, of some 40 bytes, and where the segment begins."""

_ELEMENT_BYTES = 12
"""Of the kind and the size of an element, at most."""

_SEGMENT = bytes.fromhex("18538067")
"""The element that has everything else in it."""

_CLUSTER = bytes.fromhex("1F43B675")
"""The element that has some seconds of frames in it."""

_ANYWHERE = frozenset(map(bytes.fromhex, ("EC", "BF")))
"""Room that is free, and a checksum."""

_IN_SEGMENT = _ANYWHERE | {
    _CLUSTER,
    *map(
        bytes.fromhex,
        # Seek head, information, tracks, cues, attachments, chapters, tags.
        ("114D9B74", "1549A966", "1654AE6B", "1C53BB6B", "1941A469", "1043A770", "1254C367"),
    ),
}

_IN_CLUSTER = _ANYWHERE | frozenset(
    # Timestamp, silent tracks, position, size before, simple block, block group, encrypted block.
    map(bytes.fromhex, ("E7", "5854", "A7", "AB", "A3", "A0", "AF"))
)

_DURATION = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")


def tagged_end(tags: Mapping[str, str]) -> Fraction | None:
    """When a track ends, seconds, as the tag says that FFmpeg and mkvmerge write for each one.

    FFmpeg counts from the beginning of the file, mkvmerge from that of the track.
    """
    match = _DURATION.fullmatch(tags.get("DURATION", "").strip())
    if match is None:
        return None
    hours, minutes, seconds = match.groups()
    return 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)


def is_cut_off(path: Path) -> bool:
    """Whether the file has fewer bytes than it says, where it says it."""
    with path.open("rb") as file:
        segment = _segment(file)
        return segment is not None and segment[1] > _size_of(file)


def is_whole(path: Path) -> bool:
    """Whether the file says how long it is, and is a chain of elements to that very end.

    Then nothing is missing, whatever end it declares: a last frame that is shown for long has no
    duration of its own in files of FFmpeg's.
    """
    with path.open("rb") as file:
        segment = _segment(file)
        if segment is None or segment[1] > _size_of(file):
            return False
        return _is_chain(file, *segment, kinds=_IN_SEGMENT)


def _segment(file: BinaryIO) -> tuple[int, int] | None:
    """Where its content begins and ends; None where that is not said or not found."""
    at = 0
    while at < _HEAD_BYTES:
        element = _element(file, at)
        if element is None or element[2] is None:
            return None
        kind, begin, at = element[0], element[1], element[2]
        if kind == _SEGMENT:
            return begin, at
    return None


def _is_chain(file: BinaryIO, at: int, end: int, *, kinds: frozenset[bytes]) -> bool:
    while at < end:
        element = _element(file, at)
        if element is None or element[0] not in kinds or element[2] is None or element[2] > end:
            return False
        kind, begin, at = element[0], element[1], element[2]
        if kind == _CLUSTER and not _is_chain(file, begin, at, kinds=_IN_CLUSTER):
            return False
    return True


def _element(file: BinaryIO, at: int) -> tuple[bytes, int, int | None] | None:
    """What an element is, where its content begins, and where it ends if it says so."""
    file.seek(at)
    head = file.read(_ELEMENT_BYTES)
    if not head or not head[0]:
        return None
    width = _width(head, 0)
    kind, size = head[:width], head[width : width + _width(head, width)]
    if width > 4 or not size or not size[0] or len(size) < _width(size, 0):
        return None
    ones = (1 << 7 * len(size)) - 1
    length = int.from_bytes(size, "big") & ones
    begin = at + width + len(size)
    # All ones: of a file that was written as a stream.
    return kind, begin, None if length == ones else begin + length


def _size_of(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)


def _width(data: bytes, at: int) -> int:
    """Bytes of the number at a place: as many as its first one has leading zeros, and one."""
    return 9 - data[at].bit_length() if at < len(data) else 1
