"""What every benchmark script says about where its figures come from."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["machine", "median", "versions", "write_json"]


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
    """Python's version and those of the installed distributions among ``names``."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def median(values: Sequence[float]) -> float:
    """The median; of an even number of values their mean in the middle."""
    return float(statistics.median(values))


def write_json(values: Any, path: Path | None) -> None:
    """Prints JSON, and writes it to ``path`` as well if there is one."""
    text = json.dumps(values, indent=2)
    print(text)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
