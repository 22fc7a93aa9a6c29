"""One writer per output."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import filelock

from rrm_extract.errors import StoreLockedError, StoreWriteError
from rrm_extract.store.files import writing

NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP})
"""ENOTSUP and EOPNOTSUPP are one number on Linux, and two on macOS."""
HELD = frozenset({errno.EWOULDBLOCK, errno.EACCES})


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
            StoreWriteError: The folder, or the lock that lies there, cannot be written to.
        """
        with writing(self._output):
            descriptor = self._opened()
            try:
                self._try_locks(descriptor)
            finally:
                os.close(descriptor)
            try:
                self._lock.acquire()
            except filelock.Timeout as error:
                raise StoreLockedError(
                    f"{self._output} is being written by {holder or 'another process'}; "
                    "wait until it ends or choose another -o"
                ) from error

    def _opened(self) -> int:
        """The file's descriptor."""
        try:
            # Where a file cannot be made the system says why; filelock might only wait.
            return os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except PermissionError as error:
            if not self._path.exists():
                raise
            raise StoreWriteError(
                f"cannot write {self._output}: its lock {self._path}, left by another user's job, "
                f"may not be opened ({error.strerror}); once that job has ended delete the file, "
                "or choose another -o"
            ) from error

    def _try_locks(self, descriptor: int) -> None:
        """That the file system keeps locks: filelock would take the file itself for one instead."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_LOCKS:
                raise StoreWriteError(
                    f"cannot write {self._output}: the file system there keeps no locks "
                    f"({error.strerror}), so that two jobs could write at once; choose another "
                    "-o, or mount it with locks (flock)"
                ) from error
            if error.errno not in HELD:
                raise

    def release(self) -> None:
        """Let the next one in."""
        self._lock.release()
