"""The network is loaded in a process of its own, which then ends.

Loading takes PyTorch and the network as it was published: up to a gigabyte that neither the parent
nor workers on the native engine have a use for afterwards.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from multiprocessing.spawn import get_executable
from pathlib import Path
from typing import Any

from rrm_extract.config import JobConfig
from rrm_extract.errors import RrmError, WorkerError
from rrm_extract.jobs.compiled import beside
from rrm_extract.jobs.memory import peak_memory
from rrm_extract.jobs.network_cache import NetworkCache, copied, network_key
from rrm_extract.jobs.plan import JobPlan
from rrm_extract.signals import held_back
from rrm_extract.store.files import remove

__all__ = ["KeptNetwork", "Loader", "network_of", "serve"]

BEGIN = """\
import sys
from multiprocessing.connection import Connection
parent = Connection(int(sys.argv[1]))
sys.path[:] = parent.recv()
from rrm_extract.jobs.loading import serve
serve(parent)
"""
"""What the process runs: it finds the same modules as its parent."""


KEEP_SECONDS = 5.0
"""How much longer than the job the process may take to keep the network for later jobs."""


class Loader:
    """The parent's side: begins to load at once, and goes on while other things are done.

    Args:
        config: the job.
        key: under which the network is kept for later jobs; None if it is not.

    Attributes:
        peak_memory: of the process when it was done, bytes; 0 before.

    Raises:
        WorkerError: the system allows no more processes.
    """

    def __init__(self, config: JobConfig, *, key: str | None = None) -> None:
        self.peak_memory = 0
        self._connection, theirs = multiprocessing.Pipe()
        executable = os.fsdecode(get_executable())
        number = theirs.fileno()
        try:
            with held_back():  # Ctrl-C is for the parent
                self._process = subprocess.Popen(  # noqa: S603 - this Python, and our own words
                    [executable, "-c", BEGIN, str(number)],
                    pass_fds=[number],
                    stdin=subprocess.DEVNULL,
                )
        except OSError as error:
            self._connection.close()
            msg = f"no process can be started to load the network ({error.strerror})"
            raise WorkerError(msg) from error
        finally:
            theirs.close()
        try:
            self._connection.send(sys.path)
            self._connection.send((config, key))
        except OSError:
            pass  # it ended; whoever asks for the plan is told how
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self.peak_memory:
            with contextlib.suppress(subprocess.TimeoutExpired):  # it may still be keeping it
                self._process.wait(KEEP_SECONDS)
        self.close()

    def plan(self) -> JobPlan:
        """Waits for what the network is like.

        Raises:
            UsageError: the request is wrong.
            WorkerError: the process ended without a word.
        """
        plan: JobPlan = self._answer()
        return plan

    def save(self, path: Path) -> None:
        """Has the computation written for the workers; the process ends soon after.

        Raises:
            StoreWriteError: no space or no permission.
            WorkerError: the process ended without a word.
        """
        with contextlib.suppress(OSError):  # it ended, and the answer says how
            self._connection.send(path)
        self.peak_memory = self._answer()

    def close(self) -> None:
        """Ends the process."""
        with held_back():
            self._process.kill()
            # Not for ever: a process that waits for a dead network drive cannot be killed.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(KEEP_SECONDS)
            self._connection.close()

    def _answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            code = self._process.wait()
            what = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            advice = "if memory ran out, free some" if -code == signal.SIGKILL else "see above"
            msg = f"the process that loads the network {what}; {advice}"
            raise WorkerError(msg) from error
        if isinstance(answer, BaseException):
            raise answer
        return answer


class KeptNetwork:
    """In place of a :class:`Loader`: what an earlier job has loaded.

    Args:
        config: the job.
        cache: where it is kept.
        key: under which.
        plan: what it is like.

    Attributes:
        peak_memory: as of a loader; 0 if none was needed.
    """

    def __init__(self, config: JobConfig, cache: NetworkCache, key: str, plan: JobPlan) -> None:
        self.peak_memory = 0
        self._config = config
        self._cache = cache
        self._key = key
        self._plan = plan

    def __enter__(self) -> KeptNetwork:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def plan(self) -> JobPlan:
        """What the network is like."""
        return self._plan

    def save(self, path: Path) -> None:
        """Puts the computation where the workers read it.

        Raises:
            UsageError, StoreWriteError, WorkerError: as a loader, which does it where this fails.
        """
        try:
            copied(self._cache.computation(self._key), path)
        except OSError:
            for part in (path, beside(path)):  # not written through a link: others read it
                remove(part)
            with Loader(self._config, key=self._key) as loader:
                loader.plan()
                loader.save(path)
                self.peak_memory = loader.peak_memory


def network_of(config: JobConfig) -> Loader | KeptNetwork:
    """The network of a job: kept by an earlier one, or being loaded.

    Raises:
        WorkerError: the system allows no more processes.
    """
    cache = NetworkCache.of_user()
    key = None if cache is None else network_key(config)
    if cache is None or key is None:
        return Loader(config)
    plan = cache.find(key)
    return Loader(config, key=key) if plan is None else KeptNetwork(config, cache, key, plan)


def serve(parent: Connection) -> None:
    """Runs in the process: loads the network, says what it is like, and writes it when asked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    threading.Thread(target=_end_with, args=(parent.fileno(),), daemon=True).start()
    with contextlib.suppress(EOFError, OSError):  # nobody wants it any more
        _serve(parent)


def _serve(parent: Connection) -> None:
    config: JobConfig
    config, key = parent.recv()
    try:
        # Here: the parent imports this module, and is to stay without torch.
        from rrm_extract.jobs.recipe import load_plan, prepare_process, save_computation

        prepare_process(config.threads)
        plan, recipe = load_plan(config)
    except Exception as error:  # noqa: BLE001 - the process boundary: the parent raises it
        parent.send(_portable(error))
        return
    parent.send(plan)
    path = parent.recv()
    try:
        save_computation(recipe, path)
    except Exception as error:  # noqa: BLE001 - as above
        parent.send(_portable(error))
        return
    parent.send(peak_memory())
    cache = NetworkCache.of_user()
    if cache is not None and key is not None:
        # Not where a file was replaced since the key was made: it is of the one before.
        cache.keep(key, plan, path, holds=lambda: network_key(config) == key)
    os._exit(0)  # to take torch down would take a second


def _portable(error: Exception) -> Exception:
    """The error itself if another process can read it."""
    if not isinstance(error, RrmError):
        traceback.print_exc()  # of no use to the parent, which does not have this stack
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception as why:  # noqa: BLE001 - a class of anybody's, which does anything
        return RuntimeError(f"{type(error).__name__}: {error} ({why})")
    return error


def _end_with(descriptor: int) -> None:
    """Ends this process as soon as its parent is gone, or has no use for it."""
    poll, parent = select.poll(), os.getppid()
    poll.register(descriptor, 0)  # hanging up is always reported, but on macOS
    while not poll.poll(1000) and os.getppid() == parent:
        pass
    os._exit(1)
