"""Darknet's .cfg text as a list of sections; what they mean is not known here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import ModelError

__all__ = ["Option", "Section", "parse_cfg", "read_cfg"]

_MAX_BYTES = 1 << 20
"""Published files have a few ten thousand; more is some other file, such as the weights."""

_MAX_LINE = 1000
"""Characters of a line; messages quote values whole."""

_COMMENTS = ("#", ";")


@dataclass(frozen=True, kw_only=True)
class Option:
    """One ``key=value``."""

    text: str
    """The value, without the spaces."""
    line: int
    """Where it stands, from 1."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """One ``[kind]`` and the options below it."""

    kind: str
    """"net", "convolutional", ..."""
    options: dict[str, Option]
    where: str
    """"FILE line 12", for messages."""
    file: str
    """The file alone, for messages."""


def read_cfg(path: Path) -> list[Section]:
    """Read the sections of a file.

    Raises:
        ModelError: the file cannot be read, or is no .cfg file.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelError(f"cannot read Darknet's cfg file {str(path)!r}: {reason}") from error
    if len(content) > _MAX_BYTES:
        raise ModelError(
            f"{str(path)!r} is larger than {_MAX_BYTES:,} bytes; expected the text of a Darknet "
            ".cfg file (a .weights file belongs to --weights)"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelError(f"{str(path)!r} is no text; expected a Darknet .cfg file") from error
    return parse_cfg(text, file=str(path))


def parse_cfg(text: str, *, file: str) -> list[Section]:
    """Split the text into sections.

    As Darknet has it, spaces mean nothing anywhere and lines that begin with "#" or ";" are
    comments. What follows a "#" in a line is one too: Darknet's own reader of numbers stops there.

    Args:
        text: the content of a .cfg file.
        file: how messages call it.

    Raises:
        ModelError: a line is neither a section nor ``key=value``, or too long; a key is given
            twice (Darknet would take the first, OpenCV the last); the file does not begin with
            [net].
    """
    sections: list[Section] = []
    for number, line in enumerate(text.splitlines(), start=1):
        content = "".join(line.split())
        if content.startswith(_COMMENTS):
            continue
        content = content.partition("#")[0]
        if not content:
            continue
        where = f"{file} line {number}"
        if len(content) > _MAX_LINE or not content.isprintable():
            raise ModelError(
                f"{where}: {_shown(line)} is longer than {_MAX_LINE:,} characters, or no text"
            )
        if content.startswith("["):
            if not content.endswith("]") or len(content) == 2:
                raise ModelError(f"{where}: {_shown(line)} is no section; expected such as [net]")
            sections.append(Section(kind=content[1:-1], options={}, where=where, file=file))
            continue
        key, equals, value = content.partition("=")
        if not key or not equals or not value:
            raise ModelError(f"{where}: {_shown(line)} is neither [section] nor key=value")
        if not sections:
            raise ModelError(f"{where}: {_shown(line)} stands before the first section, [net]")
        known = sections[-1].options
        if key in known:
            raise ModelError(
                f"{where}: {key!r} is given a second time, first in line {known[key].line}; "
                "remove one of them"
            )
        known[key] = Option(text=value, line=number)
    if not sections or sections[0].kind not in ("net", "network"):
        begins = f"begins with [{sections[0].kind}]" if sections else "has no sections"
        raise ModelError(f"{file} {begins}; expected a Darknet .cfg file, which begins with [net]")
    return sections


def _shown(line: str) -> str:
    """The line on one line, short enough for a message."""
    text = repr(line.strip())
    return text if len(text) <= 60 else f"{text[:57]}..."
