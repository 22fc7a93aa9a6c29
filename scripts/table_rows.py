"""The rows of a table in a file: kept as each is finished, and found again on the next start."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarking import read_json, save_json, say

from rrm_extract.errors import StoreMismatchError
from rrm_extract.jsonable import without_nan

__all__ = ["Record", "RowFile"]

Record = dict[str, Any]
"""Of types that JSON has."""


class RowFile:
    """A table's rows, by their keys.

    A row is what ``compute`` gave, with ``key`` and ``made_from`` beside it. The file is written
    whole after each, so that a run that is ended at any time loses the row it was at. ``remarks``,
    sentences that a person has written into the file on how its rows came about, stay with them.

    Args:
        path: JSON file; None keeps nothing.
        head: what holds for every row, such as ``machine``, ``versions`` and ``settings``.
        anew: whether rows that the file has already are to be forgotten.

    Raises:
        StoreMismatchError: the file's rows were made with another head.
    """

    def __init__(self, path: Path | None, head: Mapping[str, Any], *, anew: bool = False) -> None:
        self._path = path
        self.result: Record = {**_plain(dict(head)), "rows": []}
        if path is None or anew or not path.exists():
            return
        found = read_json(path)
        if not isinstance(found, dict) or not isinstance(found.get("rows"), list):
            msg = f"{path} holds no rows of a table; give another --json, or --anew to replace it"
            raise StoreMismatchError(msg)
        other = _differences(found, self.result)
        if other:
            msg = (
                f"{path} has rows made otherwise ({'; '.join(other)}), and rows of one table must "
                "be comparable; give another --json, or --anew to make all of them again"
            )
            raise StoreMismatchError(msg)
        self.result["rows"] = found["rows"]
        if "remarks" in found:
            self.result["remarks"] = found["remarks"]

    def rows(
        self,
        keys: Sequence[Mapping[str, Any]],
        made_from: Mapping[str, Any],
        compute: Callable[[], Sequence[Mapping[str, Any]]],
    ) -> list[Record]:
        """Rows that are measured together; those of the file if it has all of them.

        Args:
            keys: what tells each of them from every other, such as dataset, network and threshold.
            made_from: what else they depend on: the videos, the weights.
            compute: a row for each key, in their order.

        Raises:
            StoreMismatchError: the file has such a row, made from something else.
        """
        wanted = [_plain(dict(key)) for key in keys]
        source = _plain(dict(made_from))
        there = [self._row(key) for key in wanted]
        for row in filter(None, there):
            other = _differences(row["made_from"], source)
            if other:
                msg = (
                    f"{self._path}: row {_shown(row['key'])} was made from something else "
                    f"({'; '.join(other)}); give another --json, or --anew to make all rows again"
                )
                raise StoreMismatchError(msg)
        finished = [row for row in there if row is not None]
        if len(finished) == len(wanted):
            say(f"{_shown(wanted[0])}: there already")
            return finished
        values = compute()
        made = [
            {"key": key, **_plain(dict(value)), "made_from": source}
            for key, value in zip(wanted, values, strict=True)
        ]
        kept = [row for row in self.result["rows"] if row["key"] not in wanted]
        self.result["rows"] = kept + made
        if self._path is not None:
            save_json(self.result, self._path)
        return made

    def row(
        self,
        key: Mapping[str, Any],
        made_from: Mapping[str, Any],
        compute: Callable[[], Mapping[str, Any]],
    ) -> Record:
        """A single row, see :meth:`rows`."""
        return self.rows([key], made_from, lambda: [compute()])[0]

    def _row(self, key: Record) -> Record | None:
        return next((row for row in self.result["rows"] if row["key"] == key), None)


def _plain(value: Any) -> Any:
    """As a JSON file gives it back; what is not finite becomes None, which JSON has."""
    return json.loads(json.dumps(without_nan(value)))


def _differences(found: Mapping[str, Any], own: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Where two heads differ, in words; rows, remarks and the command's words do not count."""
    words = []
    for name in sorted({*found, *own} - {"rows", "remarks", "command"}):
        theirs, ours = found.get(name), own.get(name)
        if isinstance(theirs, dict) and isinstance(ours, dict):
            words += _differences(theirs, ours, f"{prefix}{name}.")
        elif theirs != ours:
            words.append(f"{prefix}{name} is {json.dumps(theirs)} there, {json.dumps(ours)} here")
    return words


def _shown(key: Mapping[str, Any]) -> str:
    return ", ".join(str(value) for value in key.values())
