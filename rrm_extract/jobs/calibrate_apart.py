"""A calibration in a process of its own, which a video may end without ending the job."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path

from rrm_extract.config import JobConfig
from rrm_extract.errors import RrmError, WorkerError
from rrm_extract.jobs.calibrate import run_calibration
from rrm_extract.jobs.pool import LONGEST_LOOK, STOP_SECONDS, let_go, obituary
from rrm_extract.jobs.worker import HEARTBEAT_SECONDS, end_with_parent
from rrm_extract.signals import held_back

__all__ = ["calibrate_apart"]

MOST_BROKEN = 8
"""Videos that may end the process; more, and it is not the videos."""


def calibrate_apart(config: JobConfig, output: Path, *, say: Callable[[str], None]) -> None:
    """Calibrates and writes the file in a process that then ends, and its memory with it.

    Where it ends, or nothing moves for ``config.timeout`` seconds, while it reads a video, it is
    started again without that one. Killed by SIGKILL, as where memory runs out, it ends the job.

    Args:
        config: the job, with ``target_error``.
        output: the file.
        say: is told what is being done.

    Raises:
        UsageError: the request cannot be met.
        StoreWriteError: the file cannot be written.
        WorkerError: the system allows no more processes, or it ended without a word.
    """
    broken: list[str] = []
    said: set[str] = set()

    def say_once(text: str) -> None:  # the next process comes to the same videos
        if text not in said:
            said.add(text)
            say(text)

    while (found := _calibrate_without(broken, config, output, say=say_once)) is not None:
        broken.append(found.video_id)
        if len(broken) >= MOST_BROKEN:
            msg = (
                f"{len(broken)} videos ended the process that calibrates (the last: "
                f"{found.video_id}, {found.reason}); look at them, or at the decoder"
            )
            raise WorkerError(msg)
        say(f"{found.video_id}: while it was read the process that calibrates {found.reason}")


@dataclass(frozen=True)
class _Broken:
    """A video that ended the process, and how."""

    video_id: str
    reason: str


@dataclass(frozen=True)
class _Reading:
    """The video that the process reads, said again whenever something has moved; or None."""

    video_id: str | None


def _calibrate_without(
    broken: Sequence[str], config: JobConfig, output: Path, *, say: Callable[[str], None]
) -> _Broken | None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = (theirs, config, output, tuple(broken))
    process = context.Process(target=_serve, args=arguments, daemon=True)
    # It comes with the first child, and would unblock Ctrl-C for that one.
    resource_tracker.ensure_running()
    try:
        with held_back():  # Ctrl-C is for the parent
            process.start()
    except OSError as error:
        ours.close()
        msg = f"no process can be started to calibrate ({error.strerror})"
        raise WorkerError(msg) from error
    finally:
        theirs.close()
    reading: str | None = None
    try:
        while True:
            try:
                if reading is not None and _is_silent(ours, config.timeout):
                    return _Broken(reading, f"was silent for {config.timeout:g} s and was killed")
                message = ours.recv()
            except (EOFError, OSError) as error:
                reason, _ = obituary(process)
                if reading is not None and process.exitcode != -signal.SIGKILL:
                    return _Broken(reading, reason)
                advice = "if memory ran out, free some" if "SIGKILL" in reason else "see above"
                raise WorkerError(f"the process that calibrates {reason}; {advice}") from error
            if message is None:
                return None
            if isinstance(message, Exception):
                raise message
            if isinstance(message, _Reading):
                reading = message.video_id
            else:
                say(message)
    finally:
        process.kill()
        # Not for ever: a process that waits for a dead network drive cannot be killed.
        process.join(STOP_SECONDS)
        if process.is_alive():
            let_go(process)
        ours.close()


def _is_silent(connection: Connection, allowed: float) -> bool:
    """Whether nothing is said for so many seconds; those in which we were stopped do not count."""
    silence, looked = 0.0, time.monotonic()
    while not connection.poll(LONGEST_LOOK):
        now = time.monotonic()
        silence += min(now - looked, LONGEST_LOOK)
        looked = now
        if silence >= allowed:
            return True
    return False


class _Watch:
    """Tells the parent which video is read, and when something moves.

    Args:
        parent: what is told.
    """

    def __init__(self, parent: Connection) -> None:
        self._parent = parent
        self._sending = threading.Lock()
        self._video_id: str | None = None
        self._moved: Callable[[], int] = int
        threading.Thread(target=self._heartbeat, daemon=True).start()

    def send(self, message: object) -> None:
        """Whatever it is, whoever sends it."""
        with self._sending:
            self._parent.send(message)

    def begins(self, video_id: str, moved: Callable[[], int]) -> None:
        """See :class:`rrm_extract.jobs.samples.ReadingWatch`."""
        self._video_id, self._moved = video_id, moved
        self.send(_Reading(video_id))

    def ends(self) -> None:
        """See :class:`rrm_extract.jobs.samples.ReadingWatch`."""
        self._video_id, self._moved = None, int
        self.send(_Reading(None))

    def _heartbeat(self) -> None:
        before = 0
        while True:
            time.sleep(HEARTBEAT_SECONDS)
            now = self._moved()
            with self._sending:
                if now != before and self._video_id is not None:
                    self._parent.send(_Reading(self._video_id))
            before = now


def _serve(parent: Connection, config: JobConfig, output: Path, without: tuple[str, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    threading.Thread(target=end_with_parent, daemon=True).start()
    watch = _Watch(parent)
    try:
        run_calibration(config, output, say=watch.send, without=without, watch=watch)
        watch.send(None)
    except RrmError as error:
        watch.send(error)
