"""The wire format of protocol buffers, as far as weights files need it.

A message is a sequence of fields, each a number (its key: the field's number times 8, plus how it
is written) and what that says follows: another such number, 4 or 8 bytes, or a length and as many
bytes, which may be a message again. Numbers are little-endian in groups of 7 bits
(https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["MOST_FIELDS", "Field", "MessageError", "WireReader"]

MOST_FIELDS = 1_000_000
"""Fields of all messages of a file together: a thousand times what networks have. Files made of
nothing but fields would otherwise be read for minutes."""

_WIDTHS = {1: 8, 5: 4}
_LENGTH = 2
_MOST_BITS = 64


class MessageError(Exception):
    """The bytes are no message; the text says where and why."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of a message."""

    number: int
    value: int
    """Of a whole number; 0 for fields of bytes."""
    begin: int
    """Where the field's bytes begin in the file, counted from 0."""
    content: memoryview | None
    """The bytes; None for a whole number."""


class WireReader:
    """Reads the messages of one file.

    Args:
        content: the whole file; nothing of it is copied.
    """

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._fields_left = MOST_FIELDS

    def fields(self, message: Field | None = None) -> Iterator[Field]:
        """The fields of a message, by default of the file.

        Raises:
            MessageError: the bytes are no message, or end too early; or the file has more than
                ``MOST_FIELDS`` fields.
        """
        position, end = 0, len(self._content)
        if message is not None:
            if message.content is None:
                raise MessageError(f"a number at byte {message.begin}, where a message should be")
            position, end = message.begin, message.begin + len(message.content)
        while position < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise MessageError(f"more than {MOST_FIELDS:,} fields")
            start = position
            key, position = self._number(position, end)
            number, kind = key >> 3, key & 7
            if number == 0 or not (kind == 0 or kind == _LENGTH or kind in _WIDTHS):
                raise MessageError(f"no field at byte {start}")
            value = 0
            if kind == 0:
                value, position = self._number(position, end)
                yield Field(number=number, value=value, begin=position, content=None)
                continue
            if kind == _LENGTH:
                length, position = self._number(position, end)
            else:
                length = _WIDTHS[kind]
            if length > end - position:
                raise MessageError(
                    f"a field at byte {start} of {length:,} bytes, of which {end - position:,} are "
                    "there"
                )
            content = self._content[position : position + length]
            yield Field(number=number, value=0, begin=position, content=content)
            position += length

    def packed(self, field: Field) -> Iterator[int]:
        """The whole numbers that a field of bytes holds.

        Raises:
            MessageError: it holds something else.
        """
        position, end = field.begin, field.begin + len(field.content or b"")
        while position < end:
            value, position = self._number(position, end)
            yield value

    def _number(self, position: int, end: int) -> tuple[int, int]:
        """A whole number, and where it ends."""
        value = shift = 0
        start = position
        while position < end and shift < _MOST_BITS:
            byte = self._content[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
            shift += 7
        raise MessageError(f"a number at byte {start} that does not end")
