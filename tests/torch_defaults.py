"""Torch's defaults as some programs set them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def other_defaults() -> Iterator[None]:
    """Tensors are float64, and have no numbers, where nothing else is said."""
    before = torch.get_default_dtype()
    with torch.device("meta"):
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
