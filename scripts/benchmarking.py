"""What the benchmark scripts share: where figures come from, and how they are taken."""

from __future__ import annotations

import importlib
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rrm_extract.jobs.digests import digest_of_code

__all__ = [
    "counted",
    "interleaved",
    "machine",
    "median",
    "read_json",
    "read_result",
    "records_before",
    "require",
    "save_json",
    "save_text",
    "say",
    "versions",
    "write_json",
]

CODE_DIGITS = 16
"""Of the digest of the package's code, by which figures of two builds are told apart."""


def machine() -> dict[str, Any]:
    """Processor, usable cores and memory."""
    info: dict[str, Any] = {"system": platform.system(), "architecture": platform.machine()}
    info["cores"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        fields: dict[str, str] = {}
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            fields[name.strip()] = value.strip()
        info["processor"] = fields.get("model name", "")
        flags = fields.get("flags", fields.get("Features", "")).split()
        info["isa"] = sorted(
            flag for flag in flags if flag.startswith(("avx", "fma", "amx", "asimd", "sve"))
        )
    info["memory_gb"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return info


def versions(names: Sequence[str]) -> dict[str, str]:
    """Versions of Python, of this code, and of the installed distributions among ``names``."""
    found = {"python": platform.python_version(), "code": digest_of_code()[:CODE_DIGITS]}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def median(values: Sequence[float]) -> float:
    """The median; of an even number of values their mean in the middle."""
    return float(statistics.median(values))


def interleaved(runs: Sequence[Callable[[], float]], *, repeats: int) -> list[list[float]]:
    """What each run returns at each repeat, taken in rounds.

    Every run has its turn before any has another, so that whatever else the machine does, and
    however its clock drifts, meets all of them alike.

    Args:
        runs: functions that measure something once.
        repeats: how many rounds.

    Returns:
        For each run its ``repeats`` values, in the order of the rounds.
    """
    values: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, taken in zip(runs, values, strict=True):
            taken.append(run())
    return values


def counted(number: int, noun: str) -> str:
    """Such as "1 thread" or "2 threads"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def write_json(values: Any, path: Path | None) -> None:
    """Prints JSON, and writes it to ``path`` as well if there is one."""
    print(json.dumps(values, indent=2))
    if path is not None:
        save_json(values, path)


def save_json(values: Any, path: Path) -> None:
    """Writes JSON to ``path``, whole or not at all."""
    save_text(json.dumps(values, indent=2) + "\n", path)


def save_text(text: str, path: Path) -> None:
    """Writes text to ``path``, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def read_json(path: Path) -> Any:
    """Reads what a benchmark has written; ends the program where there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        sys.exit(f"{path}: {error}; expected a file that a benchmark script wrote with --json")


def read_result(path: Path, script: str, *keys: str) -> dict[str, Any]:
    """Reads what a script has written with ``--json``; ends the program where it has not.

    Args:
        path: the file.
        script: its name, without ".py".
        keys: what only its files have.
    """
    found = read_json(path)
    if not isinstance(found, dict) or not found.keys() >= {*keys}:
        sys.exit(f"{path}: expected a file that scripts/{script}.py wrote with --json")
    return found


def records_before(path: Path, head: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records of a file that others are to be added to; ends the program if they do not fit.

    Args:
        path: what a benchmark has written; no file has no records.
        head: what the file has to have, word for word, such as ``machine`` and ``versions``.
    """
    if not path.exists():
        return []
    found = read_json(path)
    for name, own in head.items():
        if found.get(name) != own:
            sys.exit(f"{path}: --add: its {name} are others: {found.get(name)}; here {own}")
    records: list[dict[str, Any]] = found["records"]
    return records


def require(module: str) -> Any:
    """A module of the extra ``bench``; ends the program with advice where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        sys.exit(f'{error}; it comes with the extra "bench": pip install -e ".[bench]"')


def say(text: str) -> None:
    """Progress, beside the result on standard output."""
    print(text, file=sys.stderr, flush=True)
