"""Parts of a tensor's memory, as far as they can be told apart without sizes."""

from __future__ import annotations

from typing import Any

__all__ = ["Place", "overlap"]

Place = tuple[Any, ...]
"""Memory: what made it, then for each part of a part (what was indexed, the index)."""


def overlap(a: Place, b: Place) -> bool:
    """Whether two places may have memory in common."""
    if a[0] != b[0]:
        return False
    for (of_a, index_a), (of_b, index_b) in zip(a[1:], b[1:], strict=False):
        if of_a is not of_b:
            return True
        if index_a != index_b:
            return not _apart(index_a, index_b)
    return True


def _apart(a: Any, b: Any) -> bool:
    """Whether two indices of one tensor or tuple surely pick different elements."""
    a, b = (index if isinstance(index, tuple) else (index,) for index in (a, b))
    counts_from_end = Ellipsis in a or Ellipsis in b
    if counts_from_end and len(a) != len(b):
        return False
    for one, other in zip(a, b, strict=False):
        if _ranges_apart(one, other):
            return True
        # What stands behind belongs to the same dimension only if these take as many.
        if not (one is other or all(isinstance(index, (int, slice)) for index in (one, other))):
            return False
    return False


def _ranges_apart(a: Any, b: Any) -> bool:
    ranges = []
    for index in (a, b):
        if isinstance(index, bool) or not isinstance(index, (int, slice)):
            return False
        if isinstance(index, int):
            index = slice(index, None if index == -1 else index + 1)
        ranges.append(index)
    a, b = ranges
    for one, other in ((a, b), (b, a)):
        stop, start = one.stop, other.start
        if stop is None or start is None:
            continue
        if stop is start or stop == start:
            return True
        known = isinstance(stop, int) and isinstance(start, int)
        if known and (stop < 0) == (start < 0) and stop <= start:
            return True
    return False
