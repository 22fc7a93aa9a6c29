"""One row of the table of options: name, help, accepted values, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rrm_extract.config.kinds import Kind, UnfitError
from rrm_extract.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option of a job.

    Attributes:
        name: key in a job file and attribute of `JobConfig`.
        kind: what values it takes.
        default: value when it is not given.
        about: one or two sentences of help.
        example: a value that could be typed, without the flag.
        decides_result: another value gives other features.
        short: one-letter flag such as "-o", or None.
    """

    name: str
    kind: Kind
    default: object
    about: str
    example: str
    decides_result: bool
    short: str | None

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags on the command line, for example ("-o", "--output")."""
        long = "--" + self.name.replace("_", "-")
        if self.kind.is_flag:
            long += "/--no-" + self.name.replace("_", "-")
        return (long,) if self.short is None else (self.short, long)

    @property
    def help(self) -> str:
        """Help text that ends with an example."""
        if self.kind.is_flag:
            return f"{self.about} Example: {self.flags[-1].split('/')[0]}"
        return f"{self.about} Example: {self.flags[0]} {self.example}"

    def check(self, value: object, *, where: str | None = None) -> Any:
        """Returns `value` in the option's own type.

        Args:
            value: from YAML, Python or the command line; numbers may be text.
            where: the job file it came from; None means the command line.

        Raises:
            ConfigError: the value cannot be used; names the place, the option, the value and
                what was expected.
        """
        try:
            return self.kind.read(value)
        except UnfitError:
            flag = self.flags[-1].split("/")[0] if self.name != "inputs" else "INPUTS"
            place = f"option {flag}" if where is None else f"{where}: key {self.name!r}"
            example = "" if self.kind.is_flag else f", for example {self.example}"
            # A command line has no null: there the option is left away.
            expects = self.kind.expects if where else self.kind.expects.removesuffix(", or null")
            raise ConfigError(f"{place} is {shown(value)}, expected {expects}{example}") from None


def shown(value: object) -> str:
    """`value` on one line, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def option_field(
    kind: Kind,
    default: object,
    about: str,
    example: str,
    *,
    decides_result: bool = False,
    short: str | None = None,
) -> Any:
    """A field of `JobConfig` together with its row of the table."""
    row = {
        "kind": kind,
        "default": default,
        "about": about,
        "example": example,
        "decides_result": decides_result,
        "short": short,
    }
    return field(default=default, metadata={"option": row})
