"""Files that are either there whole or not at all, and the errors of writing them."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rrm_extract.errors import StoreError, StoreWriteError

_TEMP_SUFFIX = ".tmp"
_TEMP_NAME = re.compile(rf"\.(.+)\.\d+{re.escape(_TEMP_SUFFIX)}", re.DOTALL)

STALE_SECONDS = 3600.0
"""Age of what is still on its way and nobody has touched since: whoever wrote it was killed."""

NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY})
"""What file systems shared with a host or over a network say of syncing that they do not have."""


def write_error(path: Path, error: OSError) -> StoreWriteError:
    """The error for the user when the system refuses to write `path`."""
    reason = error.strerror or str(error)
    return StoreWriteError(
        f"cannot write {path}: {reason}; what was complete is kept, "
        "so make room or allow writing there and run the same command again, or choose another -o"
    )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn any system error inside into a StoreWriteError that names `path` and the reason."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise write_error(path, error) from error


def check_folder(path: Path) -> None:
    """Refuses a file that cannot be written for want of its folder.

    Raises:
        StoreWriteError: there is no such folder, or it may not be looked at.
    """
    # Not is_dir(), which from Python 3.14 on takes what may not be looked at for missing.
    try:
        is_there = stat.S_ISDIR(path.parent.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        is_there = False
    except OSError as error:
        raise StoreWriteError(
            f"cannot write {path}: {error.strerror or error}; choose another place"
        ) from error
    if not is_there:
        raise StoreWriteError(f"cannot write {path}: {path.parent} is no folder; make it first")


def temp_path(path: Path) -> Path:
    """A name in the same folder for a file on its way to `path`, one per process."""
    return path.with_name(f".{path.name}.{os.getpid()}{_TEMP_SUFFIX}")


def is_temp(path: Path) -> bool:
    """Whether `path` is such a name, of any process."""
    return path.name.startswith(".") and path.name.endswith(_TEMP_SUFFIX)


def remove_stale(targets: Iterable[Path]) -> None:
    """Remove what killed processes have left on its way to some files; never fails over it."""
    names: defaultdict[Path, set[str]] = defaultdict(set)
    for path in targets:
        names[path.parent].add(path.name)
    for folder, wanted in names.items():
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                temp = _TEMP_NAME.fullmatch(entry.name)
                if temp is None or temp[1] not in wanted:
                    continue
                with suppress(OSError):  # another process has removed it
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE_SECONDS:
                        remove(folder / entry.name)


def sync(handle: int) -> None:
    """Make what was written survive a power cut, as far as the system can. Raises OSError."""
    full: int | None = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:  # macOS, whose fsync leaves it in the cache of the drive
        try:
            fcntl.fcntl(handle, full)
        except OSError as error:
            if error.errno not in NO_SYNC:
                raise
        else:
            return
    os.fsync(handle)


def fsync_dir(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut, where the system can."""
    with suppress(PermissionError):  # Windows opens no folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            sync(handle)
        except OSError as error:
            if error.errno not in NO_SYNC:
                raise
        finally:
            os.close(handle)


def commit(temp: Path, path: Path) -> None:
    """Put a finished temporary file under its name, for good. Raises OSError."""
    with temp.open("rb+") as file:
        sync(file.fileno())
    temp.replace(path)
    fsync_dir(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of `path` at the end; for copies that can be made anew.

    Raises:
        StoreWriteError: The system refuses; `path` is as it was.
    """
    temp = temp_path(path)
    with writing(path):
        try:
            yield temp
            temp.replace(path)
        finally:
            remove(temp)


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path`: after a kill at any moment `path` is the old file or the new one.

    Raises:
        StoreWriteError: The system refuses; `path` is as it was.
    """
    temp = temp_path(path)
    with writing(path):
        try:
            temp.write_bytes(data)
            commit(temp, path)
        finally:
            remove(temp)


def remove(path: Path) -> None:
    """Remove a file or a folder of ours if it is there; never fails over one that will not go."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
