"""Whether two feature files say the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from rrm_extract.store.layout import (
    damage_named,
    read_attrs,
    read_column,
    reading,
    row_blocks,
    row_members,
    same_value,
)
from rrm_extract.store.reader import FeatureFile
from rrm_extract.store.schema import FAILURES, INDEX, LAYER_ROWS, LAYERS, VIDEOS, is_volatile


def same_content(a: str | Path, b: str | Path) -> list[str]:
    """The differences between two feature files, one line each; none when they say the same.

    Values are compared bit for bit; volatile ones (docs/format.md, section 7) and the order of
    bytes in the files are not. Memory does not grow with the length of the videos.

    Raises:
        StoreFormatError: One of them cannot be read.
    """
    with FeatureFile(a) as first, FeatureFile(b) as second:
        ids = {row.stored_id for row in first.index}, {row.stored_id for row in second.index}
    with reading(Path(a)) as file_a, reading(Path(b)) as file_b:
        found = _attrs("/", file_a, file_b)
        for table in (INDEX, FAILURES):
            own = itemgetter(table)
            found += _columns(f"/{table}", _read(file_a, own), _read(file_b, own))
        found += [f"/{VIDEOS}/{name}: only in {a}" for name in sorted(ids[0] - ids[1])]
        found += [f"/{VIDEOS}/{name}: only in {b}" for name in sorted(ids[1] - ids[0])]
        for name in sorted(ids[0] & ids[1]):
            video = itemgetter(f"{VIDEOS}/{name}")
            found += _videos(f"/{VIDEOS}/{name}", _read(file_a, video), _read(file_b, video))
    return found


def _read(target: Any, read: Callable[[Any], Any]) -> Any:
    """What is read from a part of one file; damage is that file's."""
    with damage_named(target):
        return read(target)


def _videos(place: str, a: Any, b: Any) -> list[str]:
    found = _attrs(place, a, b)
    members, others = _read(a, row_members), _read(b, row_members)
    found += [
        f"{place}/{name}: only in the {'first' if name in members else 'second'}"
        for name in sorted({*members} ^ {*others})
    ]
    for name, rows in members.items():
        if name not in others:
            continue
        found += _attrs(f"{place}/{name}", rows, others[name])
        found += _rows(f"{place}/{name}", rows, others[name])
    layers = itemgetter(LAYERS)
    return found + _columns(
        f"{place}/{LAYERS}", _read(a, layers), _read(b, layers), skip=LAYER_ROWS
    )


def _rows(place: str, a: Any, b: Any) -> list[str]:
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return [f"{place}: {a.dtype} {a.shape} against {b.dtype} {b.shape}"]
    if a.size:
        for block in row_blocks(a):
            x, y = _read(a, itemgetter(block)), _read(b, itemgetter(block))
            if x.tobytes() != y.tobytes():
                differs = [p.tobytes() != q.tobytes() for p, q in zip(x, y, strict=True)]
                return [f"{place}: differs from row {block.start + differs.index(True)} on"]
    return []


def _columns(place: str, a: Any, b: Any, *, skip: tuple[str, ...] = ()) -> list[str]:
    def columns(group: Any) -> dict[str, Any]:
        return {name: read_column(column) for name, column in group.items() if name not in skip}

    return _values(place, _read(a, columns), _read(b, columns))


def _attrs(place: str, a: Any, b: Any) -> list[str]:
    return _values(f"{place} attribute", _read(a, read_attrs), _read(b, read_attrs))


def _values(place: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    found = []
    for name in sorted({*a, *b}):
        if is_volatile(name):
            continue
        if name not in a or name not in b:
            found.append(f"{place} {name}: only in the {'first' if name in a else 'second'}")
        elif not same_value(a[name], b[name]):
            found.append(f"{place} {name}: {_short(a[name])} against {_short(b[name])}")
    return found


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
