"""Names of files in a line for people."""

from __future__ import annotations

__all__ = ["printable"]


def printable(line: str) -> str:
    """The line with what is not to be printed as escapes: line ends, a terminal's commands."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
