"""The files below a folder, whatever links and permissions make of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from rrm_extract.errors import InputError

__all__ = ["files_below", "files_of_match", "folders_below", "is_there"]

NOT_OF_USERS = frozenset({"lost+found"})
"""Folders that a file system makes for itself, and that only its owner may read."""


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder, in the order of their names.

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
    yield from _below(folder, names, frozenset({_identity(folder)}))


def files_of_match(folder: Path, *, base: Path) -> Iterator[Path]:
    """The files below a folder that a pattern has matched, as if it were met below ``base``."""
    above = frozenset(_identity(parent) for parent in _parents(folder, base))
    yield from _inside(folder, above)


def folders_below(folder: Path, *, base: Path) -> Iterator[Path]:
    """A folder and all folders below it that can be read, as :func:`files_below` looks at them.

    Args:
        folder: ``base``, or below it.
        base: links back into folders from here on are not followed.
    """
    yield from _folders(folder, frozenset(_identity(parent) for parent in _parents(folder, base)))


def is_there(path: Path) -> bool:
    """Whether there is something of that name, also if it cannot be looked at."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character
        return False
    except OSError:
        return True
    return True


def _folders(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    try:
        identity = _identity(folder)
        names = os.listdir(folder)  # noqa: PTH208 - the same call as above
    except OSError:
        return
    if identity in above:
        return
    yield folder
    for name in sorted(names):
        if not name.startswith(".") and name not in NOT_OF_USERS:
            path = folder / name
            if os.path.isdir(path):  # noqa: PTH112 - as below
                yield from _folders(path, above | {identity})


def _below(parent: Path, names: list[str], above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    for name in sorted(names):
        if name.startswith("."):
            continue
        path = parent / name
        if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir() fails where nothing may be read
            yield from _inside(path, above)
        elif name not in NOT_OF_USERS:
            yield path


def _inside(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    identity = _identity(folder)
    if identity in above or folder.name in NOT_OF_USERS:
        return
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except OSError:
        yield folder
    else:
        yield from _below(folder, names, above | {identity})


def _parents(folder: Path, base: Path) -> list[Path]:
    return [parent for parent in folder.parents if parent.is_relative_to(base)]


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
