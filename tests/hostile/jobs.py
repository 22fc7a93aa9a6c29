"""Jobs that can be watched, hurt and taken up again."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.command import command, environment

PATIENCE_SECONDS = 120.0
"""How long anything may take before the test fails."""

GONE_SECONDS = 20.0
"""How long a process that ought to end may take, on a machine that has more to do.

A worker sees at once that its parent is gone, but not before it has imported what it needs.
"""


@dataclass
class Job:
    """One run of the command in a process group of its own, as a shell makes it."""

    process: subprocess.Popen[bytes]
    parts: Path
    out: Path
    err: Path
    seen: dict[int, psutil.Process] = field(default_factory=dict)

    @property
    def stderr(self) -> str:
        return self.err.read_text(errors="replace")

    @property
    def stdout(self) -> str:
        return self.out.read_text(errors="replace")

    def family(self) -> list[psutil.Process]:
        """The processes below the job, and all that were ever seen there."""
        try:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self.seen.setdefault(child.pid, child)
        except psutil.NoSuchProcess:
            pass
        return [child for child in self.seen.values() if child.is_running()]

    def workers(self) -> list[psutil.Process]:
        """Its worker processes that live.

        What a worker starts (libraries ask ``uname`` and ``ldconfig`` as they are imported) has
        the worker's command line until it has its own, but another parent.
        """
        alive = []
        for child in self.family():
            try:
                is_own = child.ppid() == self.process.pid
                if is_own and any("spawn_main" in word for word in child.cmdline()):
                    alive.append(child)
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return alive

    def chunks(self) -> list[Path]:
        """Chunks on disk now."""
        while True:
            try:
                return sorted(self.parts.glob("*.chunks/*.npz"))
            except FileNotFoundError:  # a folder went away meanwhile (Python before 3.12)
                continue

    def finished_parts(self) -> list[Path]:
        """Parts on disk now."""
        return sorted(p for p in self.parts.glob("*.h5") if not p.name.startswith("."))

    def until(self, what: Callable[[], Any]) -> None:
        """Waits until something holds, or the job is over."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.process.poll() is None and not what():
            self.family()
            assert time.monotonic() < deadline, f"it never happened; stderr: {self.stderr}"
            time.sleep(0.01)

    def kill(self, *, group: bool) -> None:
        """SIGKILL to the whole group, or to the parent alone."""
        self.family()
        if group:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait()

    def end(self, timeout: float = PATIENCE_SECONDS) -> int:
        """Waits for the exit code, and that no process is left behind."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            self.family()
            if time.monotonic() > deadline:
                self.kill(group=True)
                raise AssertionError(f"the job did not end; stderr: {self.stderr}")
            time.sleep(0.1)  # to look through all processes takes milliseconds
        self.expect_no_orphans()
        return self.process.returncode

    def expect_no_orphans(self) -> None:
        _, alive = psutil.wait_procs(list(self.seen.values()), timeout=GONE_SECONDS)
        left = [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
        assert not left, f"processes left behind: {left}"


@contextmanager
def started(
    arguments: Sequence[str | Path],
    *,
    cwd: Path,
    extra: dict[str, str] | None = None,
    file_size: int | None = None,
) -> Iterator[Job]:
    """A job that runs; what is left of it at the end of the block is killed.

    Args:
        file_size: bytes that no file may exceed, for want of a full disk.
    """

    def prepare() -> None:
        # Shells start what runs in the background deaf to it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY))

    output = Path(arguments[list(arguments).index("-o") + 1])
    variables = environment({"RRM_TESTS_SABOTAGE": "1", **(extra or {})})
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        with out.open("wb") as to, err.open("wb") as errors:
            process = subprocess.Popen(
                command(*arguments),
                cwd=cwd,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=to,
                stderr=errors,
                start_new_session=True,
                preexec_fn=prepare,
            )
        job = Job(process, output.with_name(f"{output.name}.parts"), out, err)
        try:
            yield job
        finally:
            job.family()
            if process.poll() is None:
                job.kill(group=True)
            for child in job.family():
                child.kill()


def finished(arguments: Sequence[str | Path], *, cwd: Path, **options: Any) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a job that is left alone; no process stays behind."""
    with started(arguments, cwd=cwd, **options) as job:
        code = job.end()
        return code, job.stdout, job.stderr


def events(log: Path) -> list[dict[str, Any]]:
    """The lines of a --json-log."""
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def expect_clean(folder: Path, *names: str) -> None:
    """Nothing is in a folder but the output, its lock and ``names``: nothing to delete by hand."""
    left = {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}
    assert left == set(names)


def dice() -> random.Random:
    """Random numbers whose seed is shown when the test fails."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    return random.Random(seed)
