"""How the job looks after the process that calibrates."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from rrm_extract.config import JobConfig
from rrm_extract.errors import WorkerError
from rrm_extract.jobs import calibrate_apart as module
from rrm_extract.jobs.calibrate_apart import _is_silent, _Reading, calibrate_apart


def _killed(parent: Connection, *_: object) -> None:
    """As by a system that is short of memory, while a video is read."""
    parent.send(_Reading("a.mp4"))
    os.kill(os.getpid(), signal.SIGKILL)


def _gone(parent: Connection, *_: object) -> None:
    parent.close()
    os._exit(7)


def _crashes(
    parent: Connection, _config: object, _output: object, without: tuple[str, ...]
) -> None:
    parent.send(_Reading(f"{len(without)}.mp4"))
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize(
    ("serve", "words"),
    [
        (_killed, "was killed by SIGKILL; if memory ran out, free some"),
        (_gone, "ended with exit code 7; see above"),
        (_crashes, r"8 videos ended the process that calibrates \(the last: 7\.mp4, was killed by"),
    ],
)
def test_a_process_that_ends(
    serve: object, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_serve", serve)
    said: list[str] = []
    with pytest.raises(WorkerError, match=words):
        calibrate_apart(JobConfig(target_error=0.1), tmp_path / "c.json", say=said.append)
    assert len(said) == (7 if serve is _crashes else 0)
    assert not multiprocessing.active_children()


def test_silence() -> None:
    ours, theirs = multiprocessing.Pipe()
    assert _is_silent(ours, 0.2)
    threading.Timer(0.3, theirs.send, ["here"]).start()
    # More than the system's call could be told.
    assert not _is_silent(ours, 1e9)
    assert ours.recv() == "here"


def test_time_in_which_we_were_stopped_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped:
        """A pipe whose reader is stopped for an hour in the midst of waiting."""

        looks = 0

        def poll(self, _: float) -> bool:
            self.looks += 1
            return self.looks > 1

    hours = iter(3600.0 * hour for hour in range(9))
    monkeypatch.setattr(time, "monotonic", lambda: next(hours))
    assert not _is_silent(Stopped(), 60)  # type: ignore[arg-type]
