"""The scripts import one another as Python does when one of them is run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.clips import replace_packets, write_clip

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))


@pytest.fixture
def breaking_late(tmp_path: Path) -> Path:
    """A folder of two clips, of which a.mp4 cannot be decoded from its middle on."""
    clips, whole = tmp_path / "clips", tmp_path / "whole.mp4"
    clips.mkdir()
    write_clip(whole, n_frames=24)
    replace_packets(whole, clips / "a.mp4", numbers=range(12, 24), data=b"no frame")
    write_clip(clips / "b.mp4", n_frames=24)
    return clips


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """Benchmarks choose torch's number of threads, which other tests are not to feel."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
