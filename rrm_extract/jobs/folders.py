"""The files below a folder, whatever links and permissions make of it."""

from __future__ import annotations

import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import Enum
from pathlib import Path

from rrm_extract.errors import InputError

__all__ = ["Kind", "closed_folders", "files_below", "files_of_match", "folders_below", "is_there"]

NOT_OF_USERS = frozenset({"lost+found"})
"""Folders that a file system makes for itself, and that only its owner may read."""

EXTENSION = re.compile(r"\.[0-9]*[A-Za-z][\w~+-]*")
"""Of a file; what follows the last point of a date, a version or a title is none."""


class Kind(Enum):
    """What is met below a folder."""

    FILE = "file"
    READ = "read"
    """A folder whose content is known."""
    CLOSED = "closed"
    """A folder whose content is not, or what may be one: a mount that is gone, a dangling link."""


def files_below(folder: Path) -> Iterator[tuple[Path, Kind]]:
    """All files below a folder, in the order of their names, and what each is.

    Links to folders are followed, but not back into a folder that they are in. Hidden files and
    folders are passed over. Dangling links and folders that cannot be read are given as well:
    whoever opens them learns what is wrong with them.

    Raises:
        InputError: the folder itself cannot be read.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208 - the same call as below
    except OSError as error:
        msg = f"folder {folder} cannot be read: {error.strerror}; allow it, or give another input"
        raise InputError(msg) from error
    found = _below(folder, names, frozenset({_identity(folder)}))
    yield from ((path, kind) for path, kind in found if kind is not Kind.READ)


def files_of_match(folder: Path, *, base: Path) -> Iterator[tuple[Path, Kind]]:
    """The files below a folder that a pattern has matched, as if it were met below ``base``."""
    if folder.name not in NOT_OF_USERS:
        found = _inside(folder, _above(folder, base))
        yield from ((path, kind) for path, kind in found if kind is not Kind.READ)


def folders_below(folder: Path, *, base: Path) -> Iterator[tuple[Path, Kind]]:
    """A folder and all folders below it, as :func:`files_below` looks at them.

    Args:
        folder: ``base``, or below it.
        base: links back into folders from here on are not followed.
    """
    found = _inside(folder, _above(folder, base))
    yield from ((path, kind) for path, kind in found if kind is not Kind.FILE)


def closed_folders(paths: Iterable[Path]) -> Iterator[Path]:
    """Those of some paths that are of the kind ``CLOSED``."""
    unseen: dict[Path, set[str]] = defaultdict(set)
    for path in paths:
        try:
            if stat.S_ISDIR(path.stat().st_mode) and not _can_be_read(path):
                yield path
        except OSError:
            unseen[path.parent].add(path.name)
    for parent, names in unseen.items():
        yield from (parent / name for name in sorted(_closed(parent, names)))


def is_there(path: Path) -> bool:
    """Whether there is something of that name, also if it cannot be looked at."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character
        return False
    except OSError:
        return True
    return True


def _below(
    parent: Path, names: list[str], above: frozenset[tuple[int, int]]
) -> Iterator[tuple[Path, Kind]]:
    """What is below a folder that was read."""
    visible = [n for n in sorted(names) if not n.startswith(".") and n not in NOT_OF_USERS]
    folders, unseen = set(), set()
    for name in visible:
        try:
            if stat.S_ISDIR((parent / name).stat().st_mode):
                folders.add(name)
        except OSError:
            unseen.add(name)
    closed = _closed(parent, unseen)
    for name in visible:
        if name in folders:
            yield from _inside(parent / name, above)
        else:
            yield parent / name, Kind.CLOSED if name in closed else Kind.FILE


def _inside(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[tuple[Path, Kind]]:
    """The same of a folder and what is below it; of one that it lies in nothing."""
    try:
        identity = _identity(folder)
        names = [] if identity in above else os.listdir(folder)  # noqa: PTH208
    except OSError:
        if is_there(folder):  # and was not removed meanwhile
            yield folder, Kind.CLOSED
        return
    if identity not in above:
        yield folder, Kind.READ
        yield from _below(folder, names, above | {identity})


def _closed(parent: Path, unseen: set[str]) -> set[str]:
    """The folders among the names in a folder that cannot be looked at, and what may be one.

    The listing says so even of a mount that is gone. What a link leads to is not known: of a folder
    where the name has no extension.
    """
    if not unseen:
        return set()
    closed = {name for name in unseen if not EXTENSION.fullmatch(Path(name).suffix)}
    listed: list[os.DirEntry[str]] = []
    with suppress(OSError), os.scandir(parent) as entries:
        listed += (entry for entry in entries if entry.name in unseen)
        closed &= {entry.name for entry in listed}  # others were removed meanwhile
    for entry in listed:
        with suppress(OSError):  # of a file system whose listings say names alone
            if entry.is_dir(follow_symlinks=False):
                closed.add(entry.name)
            elif not entry.is_symlink():
                closed.discard(entry.name)
    return closed


def _can_be_read(folder: Path) -> bool:
    try:
        os.listdir(folder)  # noqa: PTH208 - the same call as elsewhere
    except OSError:
        return False
    return True


def _above(folder: Path, base: Path) -> frozenset[tuple[int, int]]:
    """The folders that one lies in, from ``base`` on."""
    return frozenset(_identity(each) for each in folder.parents if each.is_relative_to(base))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
