"""Worker processes, each with a pipe of its own.

Pools with a shared queue wait for ever, or break as a whole, when a process is killed while it
holds the queue's lock. Here a dead worker closes its own pipe and nothing else: the parent
notices at once, learns from its exit code what happened, and starts another. A worker that is
busy but says nothing is killed by the same code.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import signal
import time
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from rrm_extract.errors import WorkerError
from rrm_extract.jobs.messages import Alive, Answer, ChunkDone, Fatal, Scanned, Task, TaskFailed
from rrm_extract.jobs.worker import work
from rrm_extract.signals import held_back

__all__ = [
    "LONGEST_LOOK",
    "STOP_SECONDS",
    "Answered",
    "Event",
    "Lost",
    "Worker",
    "WorkerPool",
    "let_go",
    "obituary",
]

START_SECONDS = 600.0
"""How long a worker may take to import torch and map the weights; a network drive can be slow."""

MAX_FAILED_STARTS = 3
"""After so many workers in a row that died before they were ready, something is wrong with all."""

STOP_SECONDS = 5.0
"""How long a worker that was killed may take to be gone."""

LONGEST_LOOK = 1.0
"""Seconds of silence that one call of :meth:`WorkerPool.poll` counts at most.

While the parent writes a long video, or is itself stopped (Ctrl-Z), it hears nobody; that is not
the workers' silence.
"""


@dataclass(eq=False)
class Worker:
    """One worker process as its parent sees it.

    Attributes:
        task: what it is doing, None when idle.
        last_task: what it did before; its clip may still be open.
        silence: seconds since it said anything, or was given something to do.
    """

    process: SpawnProcess
    connection: Connection
    ready: bool = False
    task: Task | None = None
    last_task: Task | None = None
    silence: float = 0.0

    @property
    def idle(self) -> bool:
        """Whether it waits for a task."""
        return self.ready and self.task is None


@dataclass(frozen=True)
class Answered:
    """A worker's task is over, and the worker idle.

    Attributes:
        task: what it was to do.
        answer: how that went.
    """

    task: Task
    answer: Answer


@dataclass(frozen=True)
class Lost:
    """A worker died, or was killed because it was silent.

    Attributes:
        task: what it was doing; None when it had answered its last task, or was starting.
        reason: what became of it, such as "was killed by SIGKILL".
        advice: what may help.
    """

    task: Task | None
    reason: str
    advice: str


Event = Alive | Fatal | Answered | Lost
"""What the parent hears of a worker."""


class WorkerPool:
    """Workers, which start at once; the dead are replaced.

    Args:
        size: number of processes.
        threads: of each.
        timeout: seconds that a busy worker may be silent.
        with_torch: whether what they compute is known to need PyTorch.

    Attributes:
        ready: when the first worker was ready, as ``time.monotonic`` counts; NaN before.

    Raises:
        WorkerError: the system allows no more processes.
    """

    def __init__(
        self, *, size: int, threads: int, timeout: float, with_torch: bool = False
    ) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._recipe_path: Path | None = None
        self._threads = threads
        self._timeout = timeout
        self._with_torch = with_torch
        self._failed_starts = 0
        self._looked = time.monotonic()
        self.ready = math.nan
        self.workers: list[Worker] = []
        self._stuck: list[SpawnProcess] = []
        try:
            self.grow(size)
        except BaseException:  # an interrupt too must leave no process behind
            self.close()
            raise

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def grow(self, size: int) -> None:
        """Starts what workers are missing to a number of them.

        Raises:
            WorkerError: the system allows no more processes.
        """
        while len(self.workers) < size:
            self._start()

    def load(self, recipe_path: Path) -> None:
        """Tells the workers what they compute; they have imported what they need meanwhile."""
        self._recipe_path = recipe_path
        for worker in self.workers:
            self._tell(worker)

    def submit(self, worker: Worker, task: Task) -> bool:
        """Gives an idle worker a task.

        Returns:
            Whether it could be told; a worker that has just died has not begun anything.
        """
        try:
            worker.connection.send(task)
        except OSError:
            return False
        worker.task, worker.silence = task, 0.0
        return True

    def poll(self, seconds: float) -> list[tuple[Worker, Event]]:
        """What happened, in order, and a :class:`Lost` for each worker that is gone.

        Waits up to ``seconds`` for the first event.

        Raises:
            WorkerError: workers die before they are ready.
        """
        pipes = {worker.connection: worker for worker in self.workers}
        sentinels = {worker.process.sentinel: worker for worker in self.workers}
        awake = wait([*pipes, *sentinels], timeout=seconds)
        now = time.monotonic()
        looked, self._looked = min(now - self._looked, LONGEST_LOOK), now
        for worker in self.workers:
            worker.silence += looked
        events: list[tuple[Worker, Event]] = []
        for worker in [pipes[item] for item in awake if isinstance(item, Connection)]:
            events.extend((worker, event) for event in self._receive(worker))
        for worker in [sentinels[item] for item in awake if isinstance(item, int)]:
            # What it said last counts: a task that it answered was not lost with it.
            events.extend((worker, event) for event in self._receive(worker))
            events.append((worker, self._replace(worker, *obituary(worker.process))))
        for worker in list(self.workers):
            allowed = self._timeout if worker.ready else max(START_SECONDS, self._timeout)
            if not worker.idle and worker.silence > allowed:
                worker.process.kill()
                # Not for ever: a process that waits for a dead network drive cannot be killed.
                worker.process.join(STOP_SECONDS)
                reason = f"was silent for {allowed:g} s and was killed"
                lost = self._replace(worker, reason, "try a longer --timeout")
                events.append((worker, lost))
        return events

    def close(self) -> None:
        """Ends all workers at once.

        An idle one has nothing to lose, and would take a second to take torch down; what another
        still computes belongs to no video any more.
        """
        with held_back():  # an impatient second Ctrl-C must not leave any behind
            for worker in self.workers:
                worker.process.kill()
            deadline = time.monotonic() + STOP_SECONDS
            for worker in self.workers:
                worker.process.join(max(0.0, deadline - time.monotonic()))
                self._forget(worker)
            self.workers = []
            for process in self._stuck:
                let_go(process)

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        arguments = (theirs, self._threads, self._with_torch)
        process = self._context.Process(target=work, args=arguments, daemon=True)
        # It comes with the first child, and would unblock Ctrl-C for that one.
        resource_tracker.ensure_running()
        try:
            with held_back():  # until the worker is on the list of those that have to be ended
                process.start()
                worker = Worker(process, ours)
                self.workers.append(worker)
        except OSError as error:
            ours.close()
            msg = (
                f"worker process {len(self.workers) + 1} cannot be started ({error.strerror}); "
                "try with fewer --workers"
            )
            raise WorkerError(msg) from error
        finally:
            theirs.close()
        self._tell(worker)

    def _tell(self, worker: Worker) -> None:
        if self._recipe_path is not None:
            with contextlib.suppress(OSError):  # it died; its sentinel tells
                worker.connection.send(self._recipe_path)

    def _receive(self, worker: Worker) -> list[Event]:
        events: list[Event] = []
        with contextlib.suppress(EOFError, OSError):  # it died; its sentinel tells
            while worker.connection.poll():
                message = worker.connection.recv()
                worker.silence = 0.0
                if isinstance(message, Alive | Fatal):
                    events.append(message)
                elif isinstance(message, Scanned | ChunkDone | TaskFailed):
                    if worker.task is not None:
                        events.append(Answered(worker.task, message))
                    worker.last_task, worker.task = worker.task, None
                else:  # Ready
                    worker.ready = True
                    if math.isnan(self.ready):
                        self.ready = time.monotonic()
                    self._failed_starts = 0
        return events

    def _replace(self, worker: Worker, reason: str, advice: str) -> Lost:
        self.workers.remove(worker)
        self._forget(worker)
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                msg = (
                    f"{self._failed_starts} workers in a row ended before they were ready (the "
                    f"last {reason}); {advice}; what they printed, if anything, is above"
                )
                raise WorkerError(msg)
        self._start()
        return Lost(worker.task, reason, advice)

    def _forget(self, worker: Worker) -> None:
        worker.connection.close()
        try:
            worker.process.close()
        except ValueError:  # it cannot be killed: the system will end it some day
            self._stuck.append(worker.process)


def let_go(process: SpawnProcess) -> None:
    """Has Python not wait at its end for a process that cannot be killed, however long."""
    multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]


def obituary(process: SpawnProcess) -> tuple[str, str]:
    """What became of a worker, and what may help."""
    process.join()
    code = process.exitcode or 0
    if code >= 0:
        return f"ended with exit code {code}", "see what it printed"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if -code == signal.SIGKILL:
        return f"was killed by {name}", "if memory ran out, try fewer --workers"
    return f"was killed by {name}", "if the decoder crashed on the clip, encode it anew"
