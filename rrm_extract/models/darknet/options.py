"""Reads the options of one section, and refuses those that would change the result unseen."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from ...errors import ModelError
from .cfg import Section

__all__ = ["Options"]

_TRAINING = frozenset(
    {"clip", "dontsave", "learning_rate", "onlyforward", "smooth", "stopbackward", "truth"}
)
"""Options of any section that only training looks at."""


class Options:
    """The options of one section; every one has to be read, or known to do nothing.

    Args:
        section: the section.
        neutral: options that are not supported, with the values at which they do nothing.
        ignored: options that only training looks at, besides those of all sections.
    """

    def __init__(
        self,
        section: Section,
        *,
        neutral: Mapping[str, Collection[str]] | None = None,
        ignored: Collection[str] = (),
    ) -> None:
        self.section = section
        self._neutral = neutral or {}
        self._ignored = {*ignored, *_TRAINING}
        self._read: set[str] = set()

    def whole(self, name: str, default: int | None, *, least: int = 0, most: int = 1 << 20) -> int:
        """A whole number in ``least``..``most``; required where ``default`` is None.

        Raises:
            ModelError: it is missing, no whole number, or out of this range.
        """
        text = self.text(name, None if default is None else str(default))
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise self.refusal(name, f"expected a whole number in {least:,}..{most:,}")
        return value

    def real(self, name: str, default: float) -> float:
        """A finite number.

        Raises:
            ModelError: it is none.
        """
        (value,) = self._numbers(name, self.text(name, repr(default)), 1)
        return value

    def reals(self, name: str, count: int) -> tuple[float, ...]:
        """``count`` finite numbers with commas between them.

        Raises:
            ModelError: they are missing, or there are more or fewer.
        """
        return self._numbers(name, self.text(name, None), count)

    def wholes(self, name: str) -> tuple[int, ...]:
        """At least one whole number, with commas between them.

        Raises:
            ModelError: they are missing, or something else.
        """
        text = self.text(name, None)
        try:
            return tuple(int(part) for part in text.split(","))
        except ValueError:
            raise self.refusal(name, "expected whole numbers such as -1,-4") from None

    def text(self, name: str, default: str | None) -> str:
        """The value as it stands.

        Raises:
            ModelError: it is missing and ``default`` is None.
        """
        self._read.add(name)
        option = self.section.options.get(name)
        if option is not None:
            return option.text
        if default is None:
            raise ModelError(
                f"{self.section.where}: [{self.section.kind}] lacks {name!r}, which it needs"
            )
        return default

    def refusal(self, name: str, why: str) -> ModelError:
        """The error for a value of ``name`` that cannot be used."""
        option = self.section.options.get(name)
        where = self.section.where
        if option is None:
            return ModelError(f"{where}: [{self.section.kind}] without {name}: {why}")
        place = f"{self.section.file} line {option.line}"
        return ModelError(f"{place}: [{self.section.kind}] {name}={option.text}: {why}")

    def finish(self) -> None:
        """Refuse what has not been read.

        Raises:
            ModelError: an option is unknown, or asks for something that is not supported.
        """
        for name, option in self.section.options.items():
            if name in self._read or name in self._ignored:
                continue
            if name not in self._neutral:
                known = ", ".join(sorted(self._read))
                raise self.refusal(name, f"not supported; known here: {known}")
            if option.text not in self._neutral[name]:
                neutral = " or ".join(self._neutral[name])
                raise self.refusal(name, f"not supported; expected {neutral}")

    def _numbers(self, name: str, text: str, count: int) -> tuple[float, ...]:
        expected = f"expected {count} numbers with commas" if count > 1 else "expected a number"
        try:
            values = tuple(float(part) for part in text.split(","))
        except ValueError:
            raise self.refusal(name, expected) from None
        if len(values) != count or not all(math.isfinite(value) for value in values):
            raise self.refusal(name, expected)
        return values
