"""What a Matroska file says of its length, beside what FFmpeg takes from it."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_HEAD_BYTES = 4096
"""At the beginning of the file: the EBML header, of some 40 bytes, and where the segment begins."""

_SEGMENT = bytes.fromhex("18538067")
"""The element that has everything else in it."""

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
        head = file.read(_HEAD_BYTES)
    at = 0
    while at < len(head):
        kind = head[at : at + _width(head, at)]
        at += len(kind)
        width = _width(head, at)
        size = int.from_bytes(head[at : at + width], "big") & ((1 << 7 * width) - 1)
        at += width
        if kind == _SEGMENT:
            is_unknown = size == (1 << 7 * width) - 1  # of a file that was written as a stream
            return not is_unknown and at + size > path.stat().st_size
        at += size
    return False


def _width(data: bytes, at: int) -> int:
    """Bytes of the number at a place: as many as its first one has leading zeros, and one."""
    return 9 - data[at].bit_length() if at < len(data) else 1
