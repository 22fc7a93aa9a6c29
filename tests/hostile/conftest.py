from __future__ import annotations

from pathlib import Path

import pytest

from rrm_extract.video.synthetic import write_demo_clip
from tests.command import extraction
from tests.hostile.jobs import finished


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four short clips, and one of twenty chunks that takes a second or more."""
    folder = tmp_path_factory.mktemp("hostile videos")
    for name, seconds in (("a", 1.5), ("b_slow", 2.25), ("sub/c", 0.5), ("y_slow", 3.0)):
        write_demo_clip(folder / f"{name}.mp4", seconds=seconds, size=(64, 48), seed=len(name))
    write_demo_clip(folder / "long_slow.mp4", seconds=20, size=(64, 48), seed=9)
    return folder


@pytest.fixture(scope="session")
def whole(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The features of the videos, of a job that nothing happened to."""
    path = tmp_path_factory.mktemp("undisturbed") / "feats.h5"
    code, _, err = finished(job(videos, path), cwd=path.parent)
    assert (code, err) == (0, "")
    return path


def job(inputs: Path, output: Path, *options: str | Path) -> list[str | Path]:
    """Arguments of a small job; a frame's feature is 16 KB."""
    wide = ("--layer", "features", "--pool", "none")
    return extraction(inputs, output, *wide, "--workers", "2", *options)
