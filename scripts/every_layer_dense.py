"""The native engine with every layer dense in every frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from rrm_extract.engine import forms

__all__ = ["every_layer_dense"]


@contextmanager
def every_layer_dense() -> Iterator[None]:
    """Networks made inside never use lists: every density is above their break-evens."""
    with mock.patch.dict(forms.BREAK_EVEN, dict.fromkeys(forms.BREAK_EVEN, -1.0)):
        yield
