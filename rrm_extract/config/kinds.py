"""What options accept: reading and checking single values, with nothing known of any option.

A reader takes a value from YAML, Python or the command line and returns it in its own type and in
its one written form, so that equal settings compare equal. It raises `UnfitError` for any other.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

DEFAULT_THRESHOLD = 1e-4
"""The paper's threshold; it changes the features of trained networks by less than 0.1 %."""

DEFAULT_PERCENTILE = 95.0
"""Share of frames, in percent, that keeps a target error unless it is said otherwise."""

MAX_FPS = 1000
"""Frames per second above this are a slip of the pen, and would make millions of equal frames."""


class UnfitError(ValueError):
    """A value that an option cannot take; the caller knows the option's name."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What an option accepts.

    Attributes:
        read: turns a value from YAML, Python or the command line into the checked value.
        expects: what is accepted, as the end of the sentence "expected ...".
        metavar: placeholder in help; the empty string for a switch.
        is_text: the value is text as it stands, so `--set model=18` means the text "18".
        is_path: `~` and `${NAME}` are expanded when it comes from a job file.
        is_flag: a switch, `--name/--no-name`.
        is_many: may be given several times.
        choices: the only values, if they are few.
    """

    read: Callable[[object], object]
    expects: str
    metavar: str = ""
    is_text: bool = False
    is_path: bool = False
    is_flag: bool = False
    is_many: bool = False
    choices: tuple[str, ...] = ()


def _number(value: object) -> float:
    # bool is an int in Python, and options of the command line are text.
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise UnfitError
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise UnfitError from None
    if not math.isfinite(number):
        raise UnfitError
    return number


def _above_zero(value: object) -> float:
    number = _number(value)
    if number <= 0:
        raise UnfitError
    return number


def _at_least_zero(value: object) -> float:
    number = _number(value)
    if number < 0:
        raise UnfitError
    return number + 0.0  # turns -0.0 into 0.0, so that equal settings are written alike


def _unit(value: object) -> float:
    number = _at_least_zero(value)
    if number > 1:
        raise UnfitError
    return number


def _whole(least: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        number = _number(value)
        if number != int(number) or number < least:
            raise UnfitError
        return int(number)

    return read


def text(value: object) -> str:
    """Text that is not empty; a path object counts as text."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise UnfitError
    return value


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, (str, os.PathLike)):
        return (text(value),)
    if not isinstance(value, (list, tuple)):
        raise UnfitError
    return tuple(text(item) for item in value)


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise UnfitError
    return value


def or_none(read: Callable[[object], object]) -> Callable[[object], object]:
    """A reader that also takes None."""
    return lambda value: None if value is None else read(value)


def _one_of(choices: tuple[str, ...]) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise UnfitError
        return value

    return read


def frame_rate(value: object) -> str:
    """A rate written in one way only: "24", "30000/1001", "2997/100" or "native"."""
    if value == "native":
        return "native"
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Fraction)):
        raise UnfitError
    try:
        rate = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise UnfitError from None
    if not 0 < rate <= MAX_FPS:
        raise UnfitError
    return str(rate)


def threshold(value: object) -> float | dict[str, float]:
    """One number, or numbers by layer name with the rest of the network under "default"."""
    if isinstance(value, str):
        value = _threshold_text(value)
    if not isinstance(value, Mapping):
        return _at_least_zero(value)
    layers: dict[str, float] = {"default": DEFAULT_THRESHOLD}
    for name, number in value.items():
        layers[text(name)] = _at_least_zero(number)
    # One way to write each setting: without layers of its own it is a plain number.
    return layers if len(layers) > 1 else layers["default"]


def _threshold_text(text: str) -> object:
    """`"1e-4,layer4=1e-3"` as a mapping, `"1e-4"` as it is."""
    if "," not in text and "=" not in text:
        return text
    layers: dict[str, object] = {}
    for part in text.split(","):
        name, equals, number = part.rpartition("=")
        name = name.strip() if equals else "default"
        if name in layers:
            raise UnfitError
        layers[name] = number
    return layers


def threshold_text(value: float | Mapping[str, float]) -> str:
    """A threshold as the command line has it."""
    if not isinstance(value, Mapping):
        return number_text(value)
    own = [f"{name}={number_text(each)}" for name, each in value.items() if name != "default"]
    return ",".join([number_text(value.get("default", DEFAULT_THRESHOLD)), *own])


def number_text(number: float) -> str:
    """A number as short as it can be read back."""
    text = f"{number:g}"
    return text if float(text) == number else repr(float(number))


def preprocess(value: object) -> str | dict[str, Any] | None:
    """A name, a file or a mapping; what it means is not known here."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {text(key): json_value(item) for key, item in value.items()}
    return text(value)


def share(value: object) -> str:
    """A share from 0 to 1 written in one way only: "1/500", "0", "1"."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Fraction)):
        raise UnfitError
    try:
        part = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise UnfitError from None
    if not 0 <= part <= 1:
        raise UnfitError
    return str(part)


def _percent(value: object) -> float:
    number = _above_zero(value)
    if number > 100:
        raise UnfitError
    return number


def json_value(value: object) -> object:
    """A deep copy of `value`, of types that JSON has."""
    if isinstance(value, Mapping):
        return {text(key): json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise UnfitError
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise UnfitError


def choice(*choices: str) -> Kind:
    """The kind of an option with few values."""
    return Kind(
        read=_one_of(choices),
        expects=" or ".join(repr(choice) for choice in choices),
        metavar="|".join(choices),
        is_text=True,
        choices=choices,
    )


NAME = Kind(read=text, expects="a name", metavar="NAME", is_text=True)
PATTERNS = Kind(
    read=_texts,
    expects="a pattern for file names or a list of them",
    metavar="PATTERN",
    is_text=True,
    is_many=True,
)
PATHS = Kind(
    read=_texts,
    expects="a path, or a list of paths, each in quotes where YAML needs them",
    metavar="PATH",
    is_text=True,
    is_path=True,
    is_many=True,
)
MAYBE_PATH = Kind(read=or_none(text), expects="a path", metavar="FILE", is_text=True, is_path=True)
MAYBE_FOLDER = dataclasses.replace(MAYBE_PATH, expects="a folder", metavar="FOLDER")
SECONDS = Kind(read=_above_zero, expects="a number of seconds above 0", metavar="SECONDS")
MAYBE_SECONDS = dataclasses.replace(
    SECONDS, read=or_none(_above_zero), expects="a number of seconds above 0, or null"
)
MAYBE_ERROR = Kind(
    read=or_none(_above_zero), expects="a relative error above 0, or null", metavar="NUMBER"
)
MAYBE_UNIT = Kind(read=or_none(_unit), expects="a number from 0 to 1, or null", metavar="NUMBER")
MAYBE_AT_LEAST_ZERO = Kind(
    read=or_none(_at_least_zero), expects="a number of 0 or more, or null", metavar="NUMBER"
)
PERCENT = Kind(read=_percent, expects="a number above 0 and up to 100", metavar="PERCENT")
SHARE = Kind(read=share, expects="a share of frames from 0 to 1", metavar="SHARE")
COUNT = Kind(read=_whole(1), expects="a whole number, 1 or more", metavar="N")
COUNT_OR_ZERO = Kind(read=_whole(0), expects="a whole number, 0 or more", metavar="N")
MAYBE_COUNT = Kind(
    read=or_none(_whole(1)), expects="a whole number, 1 or more, or null", metavar="N"
)
SWITCH = Kind(read=_switch, expects="true or false", is_flag=True)
MAYBE_SWITCH = Kind(read=or_none(_switch), expects="true, false or null", is_flag=True)
