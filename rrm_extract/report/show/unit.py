"""How large text and lines are."""

from __future__ import annotations

__all__ = ["unit_of"]

_WIDTH = 960
"""Of the widest picture on which they have their natural size."""


def unit_of(width: int) -> float:
    """What sizes in pixels are multiplied with, for a picture of this width."""
    return max(1.0, width / _WIDTH)
