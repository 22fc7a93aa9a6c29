"""One writer per output."""

from __future__ import annotations

import os
from pathlib import Path

import filelock

from rrm_extract.errors import StoreLockedError
from rrm_extract.store.files import writing


class WriterLock:
    """The lock on an output: held until `release`, or until the process ends, however it ends.

    The operating system keeps the lock (flock), not the file. The file, hidden and empty, stays:
    deleting it could let two later writers each lock a file of that name.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._path = output.parent / f".{output.name}.lock"  # also of ".", which is refused later
        self._lock = filelock.FileLock(self._path, timeout=0, thread_local=False)

    def acquire(self, *, holder: str) -> None:
        """Take the lock.

        Args:
            holder: Who probably has it, for the message; empty when unknown.

        Raises:
            StoreLockedError: Another writer has it.
            StoreWriteError: The folder cannot be written to.
        """
        with writing(self._output):
            # Where a file cannot be made the system says why; filelock might only wait.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666))
            try:
                self._lock.acquire()
            except filelock.Timeout as error:
                raise StoreLockedError(
                    f"{self._output} is being written by {holder or 'another process'}; "
                    "wait until it ends or choose another -o"
                ) from error

    def release(self) -> None:
        """Let the next one in."""
        self._lock.release()
