"""How many processors a job may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["usable_cores"]

GROUPS = Path("/sys/fs/cgroup")
"""Where Linux tells what a container is allowed."""


def usable_cores(groups: Path = GROUPS) -> int:
    """Cores this process may run on, or as many as its container has the time of."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    allowed = _allowed(groups)
    return max(1, cores if allowed is None else min(cores, allowed))


def _allowed(groups: Path) -> int | None:
    """Whole cores of a limit on the time of all; None without one."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            words = " ".join((groups / file).read_text(encoding="ascii") for file in files).split()
            quota, period = (math.inf if word == "max" else float(word) for word in words)
        except (OSError, ValueError):
            continue
        if 0 < quota < math.inf and period > 0:  # -1 is no limit, in the older form
            return math.ceil(quota / period)
    return None
