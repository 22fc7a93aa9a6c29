"""Worker processes, each with a pipe of its own.

Pools with a shared queue wait for ever, or break as a whole, when a process is killed while it
holds the queue's lock. Here a dead worker closes its own pipe and nothing else: the parent
notices at once, learns from its exit code what happened, and starts another. A worker that is
busy but says nothing is killed by the same code.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from rrm_extract.errors import WorkerError
from rrm_extract.jobs.messages import Ready, Task
from rrm_extract.jobs.worker import work

__all__ = ["Lost", "Worker", "WorkerPool"]

START_SECONDS = 600.0
"""How long a worker may take to import torch and map the weights; a network drive can be slow."""

MAX_FAILED_STARTS = 3
"""After so many workers in a row that died before they were ready, something is wrong with all."""

STOP_SECONDS = 5.0
"""How long a worker that was told to stop may take before it is killed."""


@dataclass(eq=False)
class Worker:
    """One worker process as its parent sees it.

    Attributes:
        task: what it is doing, None when idle.
        last_task: what it did before; its clip may still be open.
    """

    process: SpawnProcess
    connection: Connection
    ready: bool = False
    task: Task | None = None
    last_task: Task | None = None
    heard: float = field(default_factory=time.monotonic)

    @property
    def idle(self) -> bool:
        """Whether it waits for a task."""
        return self.ready and self.task is None


@dataclass(frozen=True)
class Lost:
    """A worker died, or was killed because it was silent.

    Attributes:
        task: what it was doing.
        reason: one line.
    """

    task: Task | None
    reason: str


class WorkerPool:
    """A fixed number of workers; the dead are replaced.

    Args:
        size: number of processes.
        recipe_path: what they compute.
        threads: of each.
        timeout: seconds that a busy worker may be silent.
    """

    def __init__(self, *, size: int, recipe_path: Path, threads: int, timeout: float) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._recipe_path = recipe_path
        self._threads = threads
        self._timeout = timeout
        self._failed_starts = 0
        self.workers: list[Worker] = []
        for _ in range(size):
            self.workers.append(self._start())

    def submit(self, worker: Worker, task: Task) -> None:
        """Gives an idle worker a task. If it has just died, :meth:`poll` will tell."""
        worker.task, worker.heard = task, time.monotonic()
        with contextlib.suppress(OSError):
            worker.connection.send(task)

    def poll(self, seconds: float) -> list[tuple[Worker, object]]:
        """Messages of the workers, and a :class:`Lost` for each that is gone.

        Waits up to ``seconds`` for the first. An answer to a task makes its worker idle.

        Raises:
            WorkerError: workers die before they are ready.
        """
        pipes = {worker.connection: worker for worker in self.workers}
        sentinels = {worker.process.sentinel: worker for worker in self.workers}
        awake = wait([*pipes, *sentinels], timeout=seconds)
        events: list[tuple[Worker, object]] = []
        for item in awake:
            worker = pipes.get(item) if isinstance(item, Connection) else None
            if worker is not None:
                events.extend((worker, message) for message in self._receive(worker))
        for item in awake:
            worker = sentinels.get(item) if isinstance(item, int) else None
            if worker is not None:
                events.extend((worker, message) for message in self._receive(worker))
                events.append((worker, self._replace(worker, _obituary(worker.process))))
        now = time.monotonic()
        for worker in list(self.workers):
            allowed = self._timeout if worker.ready else max(START_SECONDS, self._timeout)
            busy = worker.task is not None or not worker.ready
            if busy and now - worker.heard > allowed:
                worker.process.kill()
                worker.process.join()
                reason = f"silent for {allowed:g} s and killed"
                events.append((worker, self._replace(worker, reason)))
        return events

    def finished(self, worker: Worker) -> None:
        """Marks a worker idle, after its answer."""
        worker.last_task, worker.task = worker.task, None

    def close(self, *, kill: bool = False) -> None:
        """Ends all workers: kindly, or at once."""
        for worker in self.workers:
            if kill:
                worker.process.kill()
            else:
                with contextlib.suppress(OSError):
                    worker.connection.send(None)
        deadline = time.monotonic() + STOP_SECONDS
        for worker in self.workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()
            worker.process.close()
        self.workers = []

    def pids(self) -> Sequence[int | None]:
        """Process ids, for those who want to look at them."""
        return [worker.process.pid for worker in self.workers]

    def _start(self) -> Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=work, args=(theirs, self._recipe_path, self._threads), daemon=True
        )
        # Ctrl-C reaches the whole process group, but only the parent acts on it: the signal stays
        # blocked in the child, which inherits the mask.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        return Worker(process, ours)

    def _receive(self, worker: Worker) -> list[object]:
        messages: list[object] = []
        try:
            while worker.connection.poll():
                messages.append(worker.connection.recv())
        except (EOFError, OSError):
            pass  # it died; its sentinel tells
        if messages:
            worker.heard = time.monotonic()
        if any(isinstance(message, Ready) for message in messages):
            worker.ready = True
            self._failed_starts = 0
        return messages

    def _replace(self, worker: Worker, reason: str) -> Lost:
        self.workers.remove(worker)
        worker.connection.close()
        worker.process.close()
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                msg = (
                    f"{self._failed_starts} workers in a row ended before they were ready "
                    f"(the last: {reason}); expected enough memory for the network in each of "
                    "--workers processes; what they printed is above"
                )
                raise WorkerError(msg)
        self.workers.append(self._start())
        return Lost(worker.task, reason)


def _obituary(process: SpawnProcess) -> str:
    process.join()
    code = process.exitcode or 0
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return f"ended with exit code {code}"
