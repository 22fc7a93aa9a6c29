"""Names of videos inside a file: as they are on disk wherever HDF5 can bear it, else escaped."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from urllib.parse import unquote

from rrm_extract.errors import InputError
from rrm_extract.store.schema import RESERVED, TASK_RESERVED

_HASH_DIGITS = 32  # 128 bits: no two videos of any data set meet


def escape(video_id: str, *, task: str | None = None) -> str:
    """The stored id of a video: the path of its group below `/videos` (docs/format.md, section 4).

    Args:
        video_id: The video's id.
        task: What the file is of; None means features. Each kind has names of its own to escape.

    Raises:
        InputError: The id is empty, or is not what decoding a path's bytes gives.
    """
    _raw_bytes(video_id)
    reserved = RESERVED if task is None else TASK_RESERVED
    components = [""]
    last = len(video_id) - 1
    for position, char in enumerate(video_id):
        if char == "/" and components[-1] and position != last:
            components.append("")
        else:
            components[-1] += _escape_char(char)
    first, *others = (_escape_component(component) for component in components)
    return "/".join([first, *(_escape_reserved(component, reserved) for component in others)])


def unescape(stored_id: str) -> str:
    """The video's id; the inverse of `escape`."""
    return unquote(stored_id, errors="surrogateescape")


def file_key(video_id: str, *context: int | str) -> str:
    """A short file name for a video, safe on every file system; `context` makes it another one."""
    digest = hashlib.sha256(_raw_bytes(video_id))
    digest.update("".join(f"\0{value}" for value in context).encode())
    return digest.hexdigest()[:_HASH_DIGITS]


def _raw_bytes(video_id: str) -> bytes:
    """The path's bytes on disk."""
    try:
        raw = video_id.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        raw = b""
    if not raw or raw.decode("utf-8", "surrogateescape") != video_id:
        raise InputError(
            f"{video_id!a} cannot name a video; expected a relative path "
            "as the file system gives it"
        )
    return raw


def _escape_char(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # stands for a byte that is no UTF-8
        return f"%{code - 0xDC00:02X}"
    if code < 0x20 or code == 0x7F or char == "%":
        return f"%{code:02X}"
    return char


def _escape_component(component: str) -> str:
    # A slash still here did not separate anything.
    component = component.replace("/", "%2F")
    if component in {".", ".."}:
        return component.replace(".", "%2E")
    return component


def _escape_reserved(component: str, reserved: Collection[str]) -> str:
    if component in reserved:
        return f"%{ord(component[0]):02X}{component[1:]}"
    return component
