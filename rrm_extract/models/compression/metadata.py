"""Reads JSON that anybody may have written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import WeightsError
from .container import damaged

__all__ = ["Fields"]

_MAX_NUMBER = (1 << 63) - 1


class Fields:
    """The fields of one JSON object, each of the type that is asked for.

    Args:
        values: the object.
        path: the file it is from.
        where: what it is, for messages.
    """

    def __init__(self, values: dict[str, Any], path: Path, where: str) -> None:
        self._values = values
        self._path = path
        self._where = where

    def wrong(self, key: str, expected: str) -> WeightsError:
        """The error for a field that is not as it should be."""
        return damaged(self._path, f"{self._where}: {key!r} is not {expected}")

    def text(self, key: str) -> str:
        """A string."""
        value = self._values.get(key)
        if not isinstance(value, str):
            raise self.wrong(key, "a string")
        return value

    def integer(self, key: str, least: int, most: int) -> int:
        """An integer in a range, both ends included."""
        value = self._values.get(key)
        if not _is_integer(value, least, most):
            raise self.wrong(key, f"an integer from {least} to {most}")
        return int(value)  # type: ignore[arg-type]  # it is one

    def shape(self, least: int, most_dimensions: int) -> tuple[int, ...]:
        """The field "shape": a few integers of at least ``least``."""
        value = self._values.get("shape")
        if (
            not isinstance(value, list)
            or len(value) > most_dimensions
            or not all(_is_integer(size, least, _MAX_NUMBER) for size in value)
        ):
            raise self.wrong("shape", f"at most {most_dimensions} sizes of at least {least}")
        return tuple(value)

    def sections(self, count: int | None) -> list[tuple[int, int]]:
        """Size and checksum of ``count`` sections, or of the one "section"."""
        key = "section" if count is None else "sections"
        value = self._values.get(key)
        described = [value] if count is None else value
        if (
            not isinstance(described, list)
            or len(described) != (count or 1)
            or not all(
                isinstance(pair, list)
                and len(pair) == 2
                and all(_is_integer(number, 0, _MAX_NUMBER) for number in pair)
                for pair in described
            )
        ):
            raise self.wrong(key, "[SIZE, CRC]" if count is None else f"{count} of [SIZE, CRC]")
        return [(size, crc) for size, crc in described]

    def objects(self, key: str) -> list[Fields]:
        """An array of objects."""
        value = self._values.get(key)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.wrong(key, "an array of objects")
        return [Fields(item, self._path, f"{key}[{number}]") for number, item in enumerate(value)]


def _is_integer(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
