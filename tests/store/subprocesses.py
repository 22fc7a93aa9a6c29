"""Runs a script of this folder in a process of its own, which may then be killed or starved."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import rrm_extract

HERE = Path(__file__).parent
TIMEOUT_S = 60


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    root = Path(rrm_extract.__file__).parent.parent
    return subprocess.Popen(
        [sys.executable, str(HERE / script), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


def run(script: str, *arguments: object) -> str:
    """Its output; the process must end well."""
    with start(script, *arguments) as process:
        out, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    return out
