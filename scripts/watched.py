"""A process with its children: how long it ran, and the memory that all of them took."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Watched", "watched_run"]

INTERVAL_SECONDS = 0.25


@dataclass(frozen=True)
class Watched:
    """One run.

    Attributes:
        seconds: wall-clock time.
        output: what it printed.
        memory: (seconds since the start, bytes, bytes without processes that pass) of all its
            processes together; pages that several share count once. Empty where the system does
            not say.
    """

    seconds: float
    output: str
    memory: tuple[tuple[float, int, int], ...]

    def peak(self, *, after: float = 0.0, passing: bool = True) -> float | None:
        """The largest memory in megabytes; None if it is not known.

        Args:
            after: from that second on.
            passing: with the processes that pass.
        """
        sizes = [size if passing else rest for when, size, rest in self.memory if when >= after]
        return max(sizes) / 2**20 if sizes else None


def watched_run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    passing: str | None = None,
) -> Watched:
    """Runs a command to its end.

    Args:
        command: and its arguments.
        environment: of it; None for ours.
        cwd: its working folder; None for ours.
        passing: processes with this in their command line pass, and others stay.

    Raises:
        subprocess.CalledProcessError: its exit code is not 0.
    """
    began = time.perf_counter()
    memory: list[tuple[float, int, int]] = []
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=cwd,
    )
    while True:
        try:
            output, errors = process.communicate(timeout=INTERVAL_SECONDS)
            break
        except subprocess.TimeoutExpired:
            size, rest = _family_bytes(process.pid, passing)
            if size:
                memory.append((time.perf_counter() - began, size, rest))
    seconds = time.perf_counter() - began
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output, errors)
    return Watched(seconds, output, tuple(memory))


def _family_bytes(pid: int, passing: str | None) -> tuple[int, int]:
    """Of all processes, and of those that do not pass."""
    total = rest = 0
    for number in _family(pid):
        try:
            words = Path(f"/proc/{number}/cmdline").read_bytes()
            text = Path(f"/proc/{number}/smaps_rollup").read_text(encoding="ascii")
        except OSError:  # it has just ended, or the system has no such file
            continue
        if not words:  # it is ending, and cannot be told by them any more
            continue
        size = sum(1024 * int(line.split()[1]) for line in text.splitlines() if line[:4] == "Pss:")
        total += size
        if passing is None or os.fsencode(passing) not in words:
            rest += size
    return total, rest


def _family(pid: int) -> list[int]:
    found = [pid]
    for number in found:
        try:
            tasks = list(Path(f"/proc/{number}/task").iterdir())
            for task in tasks:
                found += map(int, (task / "children").read_text(encoding="ascii").split())
        except OSError:
            continue
    return found
