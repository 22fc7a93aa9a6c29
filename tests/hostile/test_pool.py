"""What the parent makes of workers that die or say nothing, mostly without any process."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from rrm_extract.jobs.messages import ChunkDone, Fatal, ScanTask, TaskFailed
from rrm_extract.jobs.pool import LONGEST_LOOK, Answered, Lost, Worker, WorkerPool


class Process:
    """Stands in for a worker's process, which has ended when its other pipe is closed."""

    exitcode = -9

    def __init__(self, sentinel: Connection) -> None:
        self.sentinel = sentinel.fileno()
        self.killed = False

    def kill(self) -> None:
        self.killed = True

    def join(self, timeout: float | None = None) -> None:
        pass

    def close(self) -> None:
        pass


class Pool(WorkerPool):
    """One worker that is no process, and is not replaced."""

    def __init__(self) -> None:
        self.workers = []
        self._timeout = 5.0
        self._failed_starts = 0
        self._looked = time.monotonic()
        self._stuck = []
        ours, self.theirs = multiprocessing.Pipe()
        self.dead, self.alive = multiprocessing.Pipe()
        self.workers.append(Worker(Process(self.dead), ours, ready=True))

    def _start(self) -> None:
        pass


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    for end in (pool.theirs, pool.dead, pool.alive):
        end.close()
    for worker in pool.workers:
        worker.connection.close()


TASK = ScanTask(3, Path("a.mp4"))


@pytest.mark.parametrize("answer", [ChunkDone(0, 8, "", 0.0, 0), TaskFailed("scan", "X", "y")])
def test_a_task_that_was_answered_is_not_lost_with_its_worker(
    pool: Pool, answer: ChunkDone | TaskFailed
) -> None:
    (worker,) = pool.workers
    assert pool.submit(worker, TASK)
    pool.theirs.send(answer)
    pool.theirs.close()
    pool.alive.close()
    (_, first), (_, second) = pool.poll(0)
    assert first == Answered(TASK, answer)
    assert isinstance(second, Lost)
    assert second.task is None
    assert second.reason == "was killed by SIGKILL"
    assert pool.workers == []


def test_a_task_without_an_answer_is_lost(pool: Pool) -> None:
    pool.submit(pool.workers[0], TASK)
    pool.alive.close()
    ((_, event),) = pool.poll(0)
    assert isinstance(event, Lost)
    assert event.task == TASK


def test_a_worker_that_is_gone_takes_no_task(pool: Pool) -> None:
    (worker,) = pool.workers
    pool.theirs.close()
    assert not pool.submit(worker, TASK)
    assert worker.idle


def test_silence_counts_only_while_the_parent_listens(pool: Pool) -> None:
    (worker,) = pool.workers
    pool.submit(worker, TASK)
    pool._looked -= 1000  # the parent was stopped, or wrote a long video
    assert pool.poll(0) == []
    assert LONGEST_LOOK <= worker.silence < 5
    for _ in range(6):
        events = pool.poll(0)
        pool._looked -= LONGEST_LOOK
        if events:
            break
    ((_, event),) = events
    assert isinstance(event, Lost)
    assert event.reason == "was silent for 5 s and was killed"
    assert worker.process.killed


def test_a_worker_that_dies_before_it_knows_what_to_compute_is_replaced(tmp_path: Path) -> None:
    with WorkerPool(size=1, threads=1, timeout=60.0) as pool:
        (first,) = pool.workers
        first.process.kill()
        first.process.join()
        pool.load(tmp_path / "no-such-file")
        events: list[object] = []
        while not any(isinstance(event, Fatal) for event in events):
            events += [event for _, event in pool.poll(60)]
        assert isinstance(events[0], Lost)
        assert events[0].task is None
        assert isinstance(events[-1], Fatal)
        assert "no-such-file" in events[-1].message, "the second one was told as well"
    assert pool.workers == []


def test_nobody_waits_for_a_worker_that_cannot_be_killed(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=time.sleep, args=(60,), daemon=True)
    process.start()
    try:
        with monkeypatch.context() as patch:  # as in an uninterruptible sleep
            patch.setattr(process._popen, "poll", lambda *_: None)
            patch.setattr(process._popen, "kill", lambda: None)
            patch.setattr(process, "join", lambda *_: None)
            pool.workers.append(Worker(process, ours))
            pool._replace(pool.workers[-1], "was silent", "wait")
            assert process in multiprocessing.active_children(), "it may end before the job does"
            pool.close()
            assert process not in multiprocessing.active_children(), "as Python asks at its end"
    finally:
        process.kill()
        process.join()
        theirs.close()
