"""What a worker tells of itself while it has no answer yet."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from rrm_extract.errors import EngineError
from rrm_extract.jobs import worker
from rrm_extract.jobs.messages import Alive, ChunkTask, Fatal, TaskFailed
from rrm_extract.video import Sampling


class OverError(Exception):
    """The test is over."""


class Listener:
    """A connection whose other end notes that the worker is alive."""

    def __init__(self) -> None:
        self.heard = threading.Event()

    def send(self, message: object) -> None:
        if isinstance(message, Alive):
            self.heard.set()


class Told:
    """A connection that is told where the computation lies, and notes what the worker says."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def recv(self) -> Path:
        return Path("computation")

    def send(self, message: object) -> None:
        self.messages.append(message)


class OutOfMemoryError(RuntimeError):
    """As torch's."""


class AcceleratorError(RuntimeError):
    """As torch's."""


OF_MEMORY = OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 MiB")
SPOILED = AcceleratorError("CUDA error: an illegal memory access was encountered")
SPOILED_BEFORE = RuntimeError("CUDA error: device-side assert triggered")
OF_MEMORY_AS_WELL = AcceleratorError("CUDA error: out of memory")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OF_MEMORY,
            "allocate 2.00 MiB); expected room for each of --workers on a --device that wo",
        ),
        (OF_MEMORY_AS_WELL, "out of memory); expected room for each of --workers"),
        (SPOILED, "was encountered); expected room for each of --workers"),
        (RuntimeError("No CUDA GPUs are available"), "available); expected room for each"),
        (MemoryError("std::bad_alloc"), "_alloc); expected memory for each of --workers, with"),
        (RuntimeError("[enforce fail] can't allocate memory"), "memory); expected memory for each"),
        (ImportError("no such module"), "no such module); what it needs must be importable there"),
        (EngineError("the network's own text"), "load the network: the network's own text"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_network_that_cannot_be_loaded_says_what_helps(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.signal, "signal", mock.Mock())  # Ctrl-C is for the tests
    monkeypatch.setattr(worker, "_computation", mock.Mock(side_effect=error))
    told: Any = Told()
    worker.work(told, 1, False)
    (message,) = told.messages
    assert isinstance(message, Fatal)
    assert words in message.message
    assert message.message.startswith("a worker cannot load the network")


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (SPOILED, True),
        (SPOILED_BEFORE, True),
        (OF_MEMORY, False),
        (OF_MEMORY_AS_WELL, False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), False),
        (AcceleratorError("CUDA error: no kernel image is available for execution"), False),
        (RuntimeError("it is the clip"), False),
    ],
)
def test_a_worker_whose_device_has_failed_ends(
    error: Exception, ends: bool, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(worker.os, "_exit", mock.Mock(side_effect=OverError))
    monkeypatch.setattr(worker, "ChunkExtractor", mock.Mock())
    one: Any = worker._Worker(Told(), mock.Mock())  # type: ignore[arg-type]
    monkeypatch.setattr(one, "_chunk", mock.Mock(side_effect=error))
    task: Any = mock.Mock(spec=ChunkTask)
    if ends:
        with pytest.raises(OverError):
            one._answer(task)
        expected = f"a worker ends, for its device has failed ({type(error).__name__}: {error})\n"
        assert capsys.readouterr().err == expected
    else:
        assert isinstance(one._answer(task), TaskFailed)


def test_a_chunk_that_is_written_slowly_is_no_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener, over = Listener(), threading.Event()

    def sleep(_: float) -> None:
        if over.wait(0.001):
            raise OverError

    clock = SimpleNamespace(sleep=sleep, perf_counter=time.perf_counter)
    monkeypatch.setattr(worker, "time", clock)
    written: list[bool] = []

    def save(*_: object) -> None:  # a disk that takes as long as it takes to be heard of
        written.append(listener.heard.wait(timeout=20))

    monkeypatch.setattr(worker, "save_chunk", save)
    with mock.patch.object(worker, "ChunkExtractor"):
        one: Any = worker._Worker(listener, mock.Mock())  # type: ignore[arg-type]
    one.reader = SimpleNamespace(n_packets_read=0)
    one.extractor = SimpleNamespace(
        frames_done=0,
        work_done=0.0,
        extract=lambda *_: SimpleNamespace(timestamps=[], damage=None),
    )

    def beat() -> None:
        with suppress(OverError):
            one._heartbeat()

    heartbeat = threading.Thread(target=beat, daemon=True)
    heartbeat.start()
    task = ChunkTask(
        video=0, video_id="a.mp4", info=None, sampling=Sampling(), index=0, save_to=tmp_path / "0"
    )
    one._chunk(task)
    over.set()
    heartbeat.join()
    assert written == [True]
    assert not one.is_writing
