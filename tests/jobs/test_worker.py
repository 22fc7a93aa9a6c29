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

from rrm_extract.jobs import worker
from rrm_extract.jobs.messages import Alive, ChunkTask
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
