"""Runs the command: as a user does, in a process of its own, or in this one."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from rrm_extract.cli import main
from tests.tiny import MODEL

REPOSITORY = Path(__file__).parents[1]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The tests' modules can be imported, in workers too; see tests/every_process."""
    folders = [str(REPOSITORY / "tests" / "every_process"), str(REPOSITORY)]
    path = os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep), **(extra or {})}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "rrm_extract", *map(str, arguments)]


def rrm_extract(
    *arguments: str | Path,
    cwd: Path,
    extra: Mapping[str, str] | None = None,
    timeout: float = 240,
) -> subprocess.CompletedProcess[str]:
    """The finished process, with its output as text."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(extra),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,  # the exit code is what tests look at
    )


def called(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in this process: it has PyTorch already, which others take seconds to import."""
    before = Path.cwd()
    out, err = io.StringIO(), io.StringIO()
    os.chdir(cwd)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = main([str(argument) for argument in arguments])
    finally:
        os.chdir(before)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def extraction(inputs: str | Path, output: str | Path, *options: str | Path) -> list[str | Path]:
    """Arguments of a small job: the tiny network, 8 frames a second, chunks of a second."""
    return [
        inputs, "-o", output, "--model", MODEL, "--threshold", "1e-2", "--fps", "8",
        "--chunk", "1", *options,
    ]  # fmt: skip
