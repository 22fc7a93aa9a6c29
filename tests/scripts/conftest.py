"""The scripts import one another as Python does when one of them is run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """Benchmarks choose torch's number of threads, which other tests are not to feel."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
