"""Kills a job again and again, and compares what it leaves with an uninterrupted run.

    python scripts/survive_kills.py clips/*.mp4 --kills 20 --json docs/evidence/kills.json

One job runs undisturbed. Then the same job is killed with SIGKILL at random moments: the whole
process group, the parent alone, or one worker; the same command goes on each time. When a job gets
to its end it is compared with the undisturbed one, bit for bit but for times of day and durations,
and the next job begins, until there were enough kills. Prints JSON; the exit code is 0 if nothing
differed, no process stayed behind and nothing was left to delete.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from benchmarking import machine, versions, write_json

from rrm_extract.store import same_content

PACKAGES = ("rrm-extract", "torch", "av", "h5py", "numpy")

KINDS = ("group", "parent", "worker")
"""What is killed; the job itself goes on when it is a worker."""

GONE_SECONDS = 30.0
"""How long a process may outlive its killed parent before it counts as an orphan."""


@dataclass(frozen=True)
class Kill:
    """One SIGKILL: in which run of the command, and so many seconds after its start."""

    run: int
    second: float
    kind: str
    chunks_on_disk: int
    parts_on_disk: int


@dataclass
class Record:
    """What happened.

    Attributes:
        kills: in order.
        runs: how often the command was started; jobs: how often it got to the end.
        seconds_to_vanish: after the parent was killed, until its last worker was gone.
        orphans: command lines of processes that did not go by themselves.
        differences: between the finished files and the undisturbed one.
        left_behind: files that the finished jobs left beside their output.
        bad_exits: other exit codes than 0 of runs that were not killed, with what they said.
    """

    kills: list[Kill] = field(default_factory=list)
    runs: int = 0
    jobs: int = 0
    seconds_to_vanish: list[float] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)
    bad_exits: list[str] = field(default_factory=list)

    @property
    def survived(self) -> bool:
        """Whether all was as it should be."""
        return not (self.orphans or self.differences or self.left_behind or self.bad_exits)


class Run:
    """One run of the command, in a process group of its own."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.began = time.monotonic()
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._seen: dict[int, psutil.Process] = {}

    def wait(self, seconds: float) -> bool:
        """Whether the run ended by itself within so many seconds from now."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            self.children()
            time.sleep(0.01)
        return self.process.poll() is not None

    def children(self) -> list[psutil.Process]:
        """Live processes below the run."""
        try:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self._seen.setdefault(child.pid, child)
        except psutil.NoSuchProcess:
            pass
        return [child for child in self._seen.values() if child.is_running()]

    def kill_worker(self, dice: random.Random) -> bool:
        """Kills one of the workers, if there is one."""
        workers = [child for child in self.children() if _is_worker(child)]
        if not workers:
            return False
        dice.choice(workers).kill()
        return True

    def kill(self, *, group: bool) -> tuple[float, list[str]]:
        """Kills the run; then how long its children lived, and those that did not go."""
        self.children()
        if group:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        began = time.monotonic()
        self.process.wait()
        _, alive = psutil.wait_procs(list(self._seen.values()), timeout=GONE_SECONDS)
        seconds = time.monotonic() - began
        orphans = [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
        lines = [" ".join(child.cmdline()) for child in orphans]
        for child in orphans:
            child.kill()
        return seconds, lines

    def said(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(errors="replace")[-2000:]


def _is_worker(process: psutil.Process) -> bool:
    try:
        return any("spawn_main" in word for word in process.cmdline())
    except psutil.Error:
        return False


def torment(
    command: list[str], output: Path, whole: Path, *, kills: int, seconds: float, seed: int
) -> Record:
    """Runs the command until it was killed often enough, has finished and was compared.

    Args:
        command: a job that writes ``output``.
        output: the file; nothing else should be in its folder.
        whole: what the job writes when nothing happens to it.
        kills: how many there shall be.
        seconds: how long the job takes when nothing happens to it.
        seed: of the moments and of who is killed.
    """
    dice, record = random.Random(seed), Record()
    parts = output.with_name(f"{output.name}.parts")
    has_ended = False  # by itself: only then there is something to compare
    while len(record.kills) < kills or not has_ended:
        run = Run(command, output.with_name("log"))
        record.runs += 1
        while len(record.kills) < kills:
            if run.wait(dice.uniform(0, seconds)):
                break
            kind = dice.choice(KINDS)
            kill = Kill(
                run=record.runs,
                second=round(time.monotonic() - run.began, 3),
                kind=kind,
                chunks_on_disk=len(list(parts.glob("*.chunks/*.npz"))),
                parts_on_disk=len(list(parts.glob("[!.]*.h5"))),
            )
            if kind != "worker":
                vanished, orphans = run.kill(group=kind == "group")
                record.kills.append(kill)
                record.seconds_to_vanish.append(round(vanished, 3))
                record.orphans += orphans
                break
            if run.kill_worker(dice):
                record.kills.append(kill)
            print(f"kill {len(record.kills)} of {kills}: {kill}", file=sys.stderr)
        code = run.process.wait()
        has_ended = code != -signal.SIGKILL
        if not has_ended:
            print(f"kill {len(record.kills)} of {kills}: {record.kills[-1]}", file=sys.stderr)
            continue
        record.jobs += 1
        if code != 0:
            record.bad_exits.append(f"exit code {code}: {run.said()}")
        if not output.exists():
            break
        record.differences += same_content(whole, output)
        expected = {output.name, f".{output.name}.lock", "log"}
        record.left_behind += sorted({p.name for p in output.parent.iterdir()} - expected)
        if len(record.kills) < kills:
            output.unlink()
    return record


def main() -> int:
    """Parses the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", nargs="+", metavar="VIDEOS")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--weights", default="random:0")
    parser.add_argument("--chunk", default="1", help="seconds; short ones give more to resume")
    parser.add_argument("--seed", type=int, default=None, help="of the moments; random if absent")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    # What one worker is killed for must not count against a clip, however often it happens.
    retries = ["--retries", str(given.kills)]
    options = ["--model", given.model, "--weights", given.weights, "--chunk", given.chunk, *retries]
    command = [sys.executable, "-m", "rrm_extract", *given.videos, *options, "-o"]
    with tempfile.TemporaryDirectory() as folder:
        whole, output = Path(folder, "whole", "feats.h5"), Path(folder, "killed", "feats.h5")
        whole.parent.mkdir()
        output.parent.mkdir()
        began = time.monotonic()
        undisturbed = subprocess.run([*command, str(whole)], capture_output=True, text=True)
        seconds = time.monotonic() - began
        if undisturbed.returncode != 0:
            print(undisturbed.stdout, undisturbed.stderr, file=sys.stderr)
            return 1
        record = torment(
            [*command, str(output)], output, whole, kills=given.kills, seconds=seconds, seed=seed
        )
    values = {
        "videos": [Path(video).name for video in given.videos],
        "options": options,
        "seed": seed,
        "seconds_undisturbed": round(seconds, 3),
        "survived": record.survived,
        **asdict(record),
        "machine": machine(),
        "versions": versions(PACKAGES),
    }
    write_json(values, given.json)
    return 0 if record.survived else 1


if __name__ == "__main__":
    sys.exit(main())
