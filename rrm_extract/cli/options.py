"""Command-line options made from the table of job options."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from rrm_extract.config import OPTIONS, JobConfig

__all__ = ["TRIAL_OPTIONS", "job_from", "job_options"]

F = TypeVar("F", bound=Callable[..., Any])

TRIAL_OPTIONS = (
    "root",
    "include",
    "model",
    "task",
    "weights",
    "layer",
    "pool",
    "preprocess",
    "policy",
    "fps",
    "chunk",
    "engine",
    "precision",
    "device",
    "threads",
    "time_batch",
)
"""Of a job, what any command needs that runs the network on some frames of some videos."""


def job_options(names: Iterable[str] | None = None) -> Callable[[F], F]:
    """A decorator that adds the options of a job, all of them or some.

    Values stay text: the table itself checks them, so that a job file and the command line agree.
    """
    wanted = None if names is None else set(names)

    def decorate(function: F) -> F:
        for option in reversed(OPTIONS):
            if option.name == "inputs" or (wanted is not None and option.name not in wanted):
                continue
            kind: dict[str, Any] = (
                {"is_flag": True, "default": None}
                if option.kind.is_flag
                else {
                    "type": str,
                    "default": None,
                    "metavar": option.kind.metavar,
                    "multiple": isinstance(option.default, tuple),
                }
            )
            function = click.option(*option.flags, option.name, help=option.help, **kind)(function)
        return function

    return decorate


def job_from(inputs: Iterable[str], values: dict[str, Any]) -> JobConfig:
    """The job that the options describe; options that were not given have their defaults.

    Raises:
        ConfigError: a value cannot be used.
    """
    given = {name: value for name, value in values.items() if value not in (None, ())}
    return JobConfig.from_mapping({"inputs": list(inputs), **given})
