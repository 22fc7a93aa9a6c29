"""A worker process: takes tasks from its parent until it is killed."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from rrm_extract.engine.mapped import is_mapped
from rrm_extract.errors import ClipError, RrmError, StoreError, WorkerError
from rrm_extract.jobs.compiled import load_compiled
from rrm_extract.jobs.extractor import ChunkExtractor, Computation
from rrm_extract.jobs.memory import peak_memory
from rrm_extract.jobs.messages import (
    Alive,
    ChunkDone,
    ChunkTask,
    Fatal,
    Ready,
    Scanned,
    ScanTask,
    Task,
    TaskFailed,
)
from rrm_extract.store import save_chunk
from rrm_extract.video import ClipInfo, ClipReader, scan_clip

__all__ = ["HEARTBEAT_SECONDS", "end_with_parent", "named_line", "work"]

HEARTBEAT_SECONDS = 0.5
"""How often a worker looks whether anything moved, and says so if it did."""

LONGEST_REASON = 500
"""Characters of an unforeseen error's text that are kept."""

SPOILING = (
    "illegal memory access",
    "illegal instruction",
    "device-side assert",
    "launch failure",
    "launch timed out",
    "misaligned address",
    "hardware stack error",
    "uncorrectable ECC",
    "unknown error",
)
"""Of the CUDA runtime's messages, those after which a process has to end before it can go on."""


def work(connection: Connection, threads: int, with_torch: bool) -> None:
    """Runs in the worker process; returns when the parent closes the connection.

    Args:
        connection: to the parent, which says where the computation lies, and then what to do.
        threads: that torch may take.
        with_torch: whether to import it at once, while somebody still loads the network.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    threading.Thread(target=end_with_parent, daemon=True).start()
    if with_torch:
        with suppress(ImportError):  # it comes again, with somebody to tell
            importlib.import_module("rrm_extract.jobs.recipe")
    try:
        recipe_path: Path = connection.recv()
    except (EOFError, OSError):  # the parent has no use for it after all, or is gone
        return
    try:
        worker = _Worker(connection, _computation(recipe_path, threads))
    except Exception as error:  # noqa: BLE001 - the process boundary: the parent tells the user
        connection.send(Fatal(WorkerError.__name__, _not_loaded(error), is_store=False))
        return
    worker.run()


def _computation(path: Path, threads: int) -> Computation:
    """What the parent has left there; torch is imported only if it is needed."""
    if is_mapped(path):
        return load_compiled(path)
    from rrm_extract.jobs.recipe import load_recipe, prepare_process

    prepare_process(threads)
    return load_recipe(path)


def _not_loaded(error: Exception) -> str:
    """Why a worker has no network, and what helps."""
    if isinstance(error, RrmError):
        return f"a worker cannot load the network: {one_line(error)}"
    if _is_of_device(error):
        advice = "expected room for each of --workers on a --device that works"
    elif isinstance(error, MemoryError) or "allocate memory" in str(error):
        advice = "expected memory for each of --workers, with --time-batch frames"
    else:
        advice = "what it needs must be importable there"
    return f"a worker cannot load the network ({named_line(error)}); {advice}"


def _is_of_device(error: Exception) -> bool:
    """Whether a GPU has no memory left, is not there, or has failed."""
    # By their names: torch may not be imported. Before 2.8 failures had no class of their own.
    named = type(error).__name__ in {"AcceleratorError", "OutOfMemoryError"}
    return named or "CUDA" in str(error)


def _spoils_device(error: Exception) -> bool:
    """Whether all that this process would still compute on its GPU fails as well."""
    return _is_of_device(error) and any(words in str(error) for words in SPOILING)


def end_with_parent() -> None:
    """Ends this process as soon as its parent is gone, however that happened."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        # Nobody wants what is being computed, and nobody else would stop it.
        os._exit(1)


class _Worker:
    def __init__(self, connection: Connection, computation: Computation) -> None:
        self.connection = connection
        self.extractor = ChunkExtractor(computation)
        self.reader: ClipReader | None = None
        self.info: ClipInfo | None = None
        self.sending = threading.RLock()  # also keeps what was told and what is told together
        self.n_scanned = 0
        self.is_writing = False
        self.told_frames = 0
        self.told_work = 0.0

    def run(self) -> None:
        threading.Thread(target=self._heartbeat, daemon=True).start()
        self._send(Ready())
        while True:
            try:
                task: Task = self.connection.recv()
            except (EOFError, OSError):  # the parent is gone
                break
            answer = self._answer(task)
            self._tell()
            self._send(answer)
        self._close()

    def _answer(self, task: Task) -> object:
        try:
            if isinstance(task, ScanTask):
                return Scanned(scan_clip(task.path, on_packet=self._count_packet))
            return self._chunk(task)
        except ClipError as error:
            stage = "scan" if isinstance(task, ScanTask) else "decode"
            return TaskFailed(stage, type(error).__name__, str(error))
        except StoreError as error:
            return Fatal(type(error).__name__, str(error), is_store=True)
        except RrmError as error:
            return Fatal(type(error).__name__, str(error), is_store=False)
        except MemoryError as error:
            return TaskFailed("network", "MemoryError", str(error) or "out of memory")
        except Exception as error:  # noqa: BLE001 - the process boundary: anything is reported
            if _spoils_device(error):  # in another process the device may work again
                msg = f"a worker ends, for its device has failed ({named_line(error)})"
                print(msg, file=sys.stderr, flush=True)
                os._exit(1)
            # A decoder or a network that raises on one clip must not end the others.
            stage = "scan" if isinstance(task, ScanTask) else "compute"
            self._close()
            return TaskFailed(stage, type(error).__name__, one_line(error))

    def _chunk(self, task: ChunkTask) -> ChunkDone:
        if task.info is not None:
            self._close()
            self.info = task.info
        if self.reader is None:
            if self.info is None:
                msg = f"chunk {task.index} was sent to a worker that does not know its clip"
                raise RuntimeError(msg)
            self.reader = ClipReader(self.info, task.sampling)
        result = self.extractor.extract(self.reader, task.index, task.video_id)
        began = time.perf_counter()
        self.is_writing = True
        try:
            save_chunk(task.save_to, result)
        finally:
            self.is_writing = False
        seconds_write = time.perf_counter() - began
        frames = len(result.timestamps)
        return ChunkDone(task.index, frames, result.damage, seconds_write, peak_memory())

    def _close(self) -> None:
        if self.reader is not None:
            self.reader.close()
            self.reader = None

    def _send(self, message: object) -> None:
        try:
            with self.sending:
                self.connection.send(message)
        except OSError:
            # The parent died: nobody wants what is being computed, and nobody else would stop it.
            os._exit(1)

    def _tell(self) -> None:
        with self.sending:
            frames, done = self.extractor.frames_done, self.extractor.work_done
            if frames != self.told_frames:
                self._send(Alive(frames - self.told_frames, done - self.told_work))
                self.told_frames, self.told_work = frames, done

    def _count_packet(self) -> None:
        self.n_scanned += 1

    def _heartbeat(self) -> None:
        """Says that something moved: a hung decoder moves nothing, and its worker falls silent.

        A chunk that is being written is nobody's fault, however long a busy disk takes for it.
        """
        read = 0
        while True:
            time.sleep(HEARTBEAT_SECONDS)
            reader = self.reader
            now = self.n_scanned + (0 if reader is None else reader.n_packets_read)
            if self.extractor.frames_done != self.told_frames:
                self._tell()
            elif now != read or self.is_writing:
                self._send(Alive(0, 0.0))
            read = now


def one_line(error: Exception) -> str:
    """An unforeseen error's text, as much of it as is kept."""
    return " ".join(str(error).split())[:LONGEST_REASON]


def named_line(error: Exception) -> str:
    """The same behind the error's class."""
    return f"{type(error).__name__}: {one_line(error)}"
