"""The labels of UCF-101 and of Charades, as they are published."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TypeVar

from labels import LabelError, Labels, stem_key

__all__ = ["charades_labels", "is_charades", "is_ucf101", "ucf101_labels"]

_UCF_CLASSES = "classInd.txt"
_CHARADES_CLASSES = "Charades_v1_classes.txt"
_CHARADES_LISTS = ("Charades_v1_train.csv", "Charades_v1_test.csv")

Classes = Mapping[str, int]
"""A class's name, or code, to its index."""

_Value = TypeVar("_Value")


def is_ucf101(folder: Path) -> bool:
    """Whether UCF-101's lists are in a folder."""
    return (folder / _UCF_CLASSES).exists()


def is_charades(folder: Path) -> bool:
    """Whether Charades' CSV files are in a folder."""
    return (folder / _CHARADES_LISTS[0]).exists()


def ucf101_labels(folder: Path, *, split: int) -> Labels:
    """Reads ``ucfTrainTestlist``.

    ``classInd.txt`` has lines ``1 ApplyEyeMakeup``, ``trainlist01.txt`` lines
    ``ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1``, and ``testlist01.txt`` the same without the
    number.

    Raises:
        LabelError: a file is missing, empty or not of that form, or they contradict one another.
    """
    lists = [folder / f"{part}list{split:02d}.txt" for part in ("train", "test")]
    if missing := [path.name for path in lists if not path.exists()]:
        there = sorted(path.name for path in folder.glob("*list*.txt"))
        msg = f"{folder} has no {missing[0]} for split {split}; it has {', '.join(there) or 'none'}"
        raise LabelError(msg)
    classes = _ucf_classes(folder / _UCF_CLASSES)
    train, test = (_ucf_list(path, classes, numbered="train" in path.name) for path in lists)
    _refuse_overlap(train, test, *lists)
    return Labels(
        name=f"UCF-101, split {split}",
        classes=tuple(classes),
        multi_label=False,
        train=train,
        test=test,
    )


def _ucf_classes(path: Path) -> dict[str, int]:
    """Names to indices, which are the published numbers less 1."""
    numbers: dict[int, str] = {}
    for where, line in _lines(path):
        words = line.split()
        if len(words) != 2 or not words[0].isdecimal():
            msg = f"{where}: {line!r}; expected a number and a class, such as '1 ApplyEyeMakeup'"
            raise LabelError(msg)
        number, name = int(words[0]), words[1]
        if number in numbers or name in numbers.values():
            msg = f"{where}: {line!r} repeats a number or a class; expected each once"
            raise LabelError(msg)
        numbers[number] = name
    # The lists' numbers are checked against these.
    if sorted(numbers) != list(range(1, len(numbers) + 1)):
        msg = f"{path}: its numbers are not 1 to {len(numbers)}; expected the file as published"
        raise LabelError(msg)
    return {numbers[number]: number - 1 for number in sorted(numbers)}


def _ucf_list(path: Path, classes: Classes, *, numbered: bool) -> dict[str, tuple[int, ...]]:
    expected = "'Class/v_NAME.avi NUMBER'" if numbered else "'Class/v_NAME.avi'"
    listed: dict[str, tuple[int, ...]] = {}
    for where, line in _lines(path):
        words = line.split()
        if len(words) != 1 + numbered or "/" not in words[0]:
            msg = f"{where}: {line!r}; expected {expected}"
            raise LabelError(msg)
        name = PurePosixPath(words[0]).parent.name
        if name not in classes:
            msg = f"{where}: class {name!r} is not in {_UCF_CLASSES}; expected one of them"
            raise LabelError(msg)
        if numbered and words[1] != str(classes[name] + 1):
            msg = f"{where}: number {words[1]}; {_UCF_CLASSES} has {classes[name] + 1} for {name!r}"
            raise LabelError(msg)
        _add(listed, words[0], (classes[name],), where)
    return listed


def charades_labels(folder: Path) -> Labels:
    """Reads ``Charades_v1_train.csv`` and ``Charades_v1_test.csv``.

    Of their columns ``id`` and ``actions`` count; the latter is such as
    ``c092 11.90 21.20;c147 0.00 12.60``, or empty. Times do not count: a video is of all classes of
    its actions. ``Charades_v1_classes.txt`` names the classes; without it they are the codes that
    the two files have.

    Raises:
        LabelError: a file is missing, empty or not of that form, or they contradict one another.
    """
    lists = [folder / name for name in _CHARADES_LISTS]
    parts = [_charades_actions(path) for path in lists]
    listing = folder / _CHARADES_CLASSES
    if listing.exists():
        names = _charades_classes(listing)
    else:
        codes = {code for part in parts for _, found in part.values() for code in found}
        names = {code: code for code in sorted(codes)}
    if not names:
        msg = f"{folder}: no video has an action; expected the files as published"
        raise LabelError(msg)
    index = {code: number for number, code in enumerate(names)}
    train, test = ({key: _indices(*actions, index) for key, actions in p.items()} for p in parts)
    _refuse_overlap(train, test, *lists)
    return Labels(
        name="Charades", classes=tuple(names.values()), multi_label=True, train=train, test=test
    )


def _charades_classes(path: Path) -> dict[str, str]:
    """Codes to names, from lines such as ``c000 Holding some clothes``."""
    names: dict[str, str] = {}
    for where, line in _lines(path):
        code, _, name = line.partition(" ")
        if not name.strip() or code in names:
            msg = f"{where}: {line!r}; expected a code of its own and a name"
            raise LabelError(msg)
        names[code] = f"{code} {name.strip()}"
    return names


def _charades_actions(path: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Each video's place in the file, and the codes of its actions."""
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    try:
        columns = reader.fieldnames or ()
        if missing := {"id", "actions"} - set(columns):
            msg = (
                f"{path}: it has no column {' and '.join(sorted(missing))}, only "
                f"{', '.join(columns) or 'none'}; expected the file as published"
            )
            raise LabelError(msg)
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if not row["id"] or row["actions"] is None:
                msg = f"{where}: the row lacks its id or its actions; expected all columns"
                raise LabelError(msg)
            codes = tuple(_code(action, where) for action in row["actions"].split(";") if action)
            _add(found, row["id"], (where, codes), where)
    except csv.Error as error:
        msg = f"{path}:{reader.line_num}: {error}; expected the file as published"
        raise LabelError(msg) from error
    if not found:
        msg = f"{path}: it lists no video; expected the file as published"
        raise LabelError(msg)
    return found


def _code(action: str, where: str) -> str:
    words = action.split()
    try:
        times = [float(word) for word in words[1:]]
    except ValueError:
        times = []
    if len(words) != 3 or len(times) != 2 or not all(map(math.isfinite, times)):
        msg = f"{where}: action {action!r}; expected a code and two times, as 'c092 11.90 21.20'"
        raise LabelError(msg)
    return words[0]


def _indices(where: str, codes: tuple[str, ...], index: Classes) -> tuple[int, ...]:
    if unknown := [code for code in codes if code not in index]:
        msg = f"{where}: class {unknown[0]!r} is not in {_CHARADES_CLASSES}; expected one of them"
        raise LabelError(msg)
    return tuple(sorted({index[code] for code in codes}))


def _add(listed: dict[str, _Value], video: str, value: _Value, where: str) -> None:
    key = stem_key(video)
    if key in listed:
        msg = f"{where}: video {video!r} is listed a second time; expected each once"
        raise LabelError(msg)
    listed[key] = value


def _refuse_overlap(
    train: Mapping[str, object], test: Mapping[str, object], train_file: Path, test_file: Path
) -> None:
    if both := sorted(set(train) & set(test)):
        msg = (
            f"video {both[0]!r} is in {train_file.name} and in {test_file.name} "
            f"({len(both)} are); expected no video in both"
        )
        raise LabelError(msg)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Place and text of the lines that are not empty, at least one."""
    none = True
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            none = False
            yield f"{path}:{number}", line.strip()
    if none:
        msg = f"{path}: it is empty; expected the file as published"
        raise LabelError(msg)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}; expected the file as published"
        raise LabelError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path} is no text; expected the file as published"
        raise LabelError(msg) from error
