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
    found = _below(folder, names, frozenset({_identity(folder)}))
    yield from (path for path, is_folder in found if not is_folder)


def files_of_match(folder: Path, *, base: Path) -> Iterator[Path]:
    """The files below a folder that a pattern has matched, as if it were met below ``base``."""
    if folder.name not in NOT_OF_USERS:
        found = _inside(folder, _above(folder, base))
        yield from (path for path, is_folder in found if not is_folder)


def folders_below(folder: Path, *, base: Path) -> Iterator[Path]:
    """A folder and all folders below it that can be read, as :func:`files_below` looks at them.

    Args:
        folder: ``base``, or below it.
        base: links back into folders from here on are not followed.
    """
    found = _inside(folder, _above(folder, base))
    yield from (path for path, is_folder in found if is_folder)


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
) -> Iterator[tuple[Path, bool]]:
    """What is below a folder that was read, and whether it is a folder that can be read."""
    for name in sorted(names):
        if name.startswith(".") or name in NOT_OF_USERS:
            continue
        path = parent / name
        if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir() fails where nothing may be read
            yield from _inside(path, above)
        else:
            yield path, False


def _inside(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[tuple[Path, bool]]:
    """The same of a folder and what is below it; of one that it lies in nothing."""
    identity = _identity(folder)
    if identity in above:
        return
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except OSError:
        yield folder, False
    else:
        yield folder, True
        yield from _below(folder, names, above | {identity})


def _above(folder: Path, base: Path) -> frozenset[tuple[int, int]]:
    """The folders that one lies in, from ``base`` on."""
    return frozenset(_identity(each) for each in folder.parents if each.is_relative_to(base))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
