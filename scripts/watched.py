"""A process with its children: how long it ran, and the memory that all of them took."""

from __future__ import annotations

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
        memory: (seconds since the start, bytes) of all its processes together; pages that several
            share count once. Empty where the system does not say.
    """

    seconds: float
    output: str
    memory: tuple[tuple[float, int], ...]

    def peak(self, *, after: float = 0.0) -> float | None:
        """The largest memory in megabytes from some second on; None if it is not known."""
        sizes = [size for when, size in self.memory if when >= after]
        return max(sizes) / 2**20 if sizes else None


def watched_run(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Watched:
    """Runs a command to its end.

    Raises:
        subprocess.CalledProcessError: its exit code is not 0.
    """
    began = time.perf_counter()
    memory: list[tuple[float, int]] = []
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
            size = _family_bytes(process.pid)
            if size:
                memory.append((time.perf_counter() - began, size))
    seconds = time.perf_counter() - began
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output, errors)
    return Watched(seconds, output, tuple(memory))


def _family_bytes(pid: int) -> int:
    total = 0
    for number in _family(pid):
        try:
            text = Path(f"/proc/{number}/smaps_rollup").read_text(encoding="ascii")
        except OSError:  # it has just ended, or the system has no such file
            continue
        for line in text.splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


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
