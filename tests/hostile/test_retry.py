"""Jobs that go on, and videos that are tried again."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from rrm_extract import FeatureFile
from rrm_extract.cli import main
from rrm_extract.store import ChunkResult, load_chunk, save_chunk
from rrm_extract.video.synthetic import write_demo_clip
from tests.command import rrm_extract
from tests.hostile.conftest import job
from tests.hostile.jobs import finished, started

RETRY = "--retry-failed"


def test_what_was_kept_of_a_damaged_clip_is_not_lost_to_a_worse_try(tmp_path: Path) -> None:
    clip, output = tmp_path / "crash-late.mkv", tmp_path / "feats.h5"
    write_demo_clip(clip, seconds=6, size=(64, 48))
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 3 // 4])
    arguments = job(clip, output, "--retries", "0")
    assert rrm_extract(*arguments, cwd=tmp_path).returncode == 1
    with FeatureFile(output) as file:
        before = file[clip.name].features
    assert len(before) > 3 * 8, "more than the chunks before the one at which a worker dies"
    code, _, err = finished([*arguments, RETRY], cwd=tmp_path)
    assert code == 1
    assert "SIGSEGV" in err
    with FeatureFile(output) as file:
        assert file[clip.name].features.tobytes() == before.tobytes()
        assert "SIGSEGV" in file.failures[0].message


def _interrupted(videos: Path, clip: Path, arguments: list[str]) -> Path:
    """A job that was killed with the first chunk of its clip on disk, which is returned."""
    shutil.copy(videos / "y_slow.mp4", clip)
    with started(arguments, cwd=clip.parent) as run:
        run.until(run.chunks)
        run.kill(group=True)
        (chunk,) = run.chunks()
    return chunk


def _nothing_of(chunk: ChunkResult, damage: str) -> ChunkResult:
    arrays = {one.name: getattr(chunk, one.name) for one in fields(chunk)}
    empty = {name: rows[:0] for name, rows in arrays.items() if isinstance(rows, np.ndarray)}
    return replace(chunk, **empty, damage=damage)


def test_a_clip_that_could_not_be_read_is_read_when_it_is_tried_again(
    videos: Path, whole: Path, tmp_path: Path
) -> None:
    clip, output = tmp_path / "y_wait.mp4", tmp_path / "feats.h5"
    arguments = [str(word) for word in job(clip, output)]
    path = _interrupted(videos, clip, arguments)
    chunk = load_chunk(path)
    assert chunk is not None
    save_chunk(path, _nothing_of(chunk, "Input/output error"))  # as of a drive that was gone
    assert main([*arguments, RETRY]) == 0
    with FeatureFile(output) as file, FeatureFile(whole) as undisturbed:
        assert file.failures == []
        good = undisturbed["y_slow.mp4"].features
        assert file[clip.name].features.tobytes() == good.tobytes()


def test_a_run_that_goes_on_claims_only_what_it_did(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, output = tmp_path / "y_wait.mp4", tmp_path / "feats.h5"
    arguments = [str(word) for word in job(clip, output)]
    _interrupted(videos, clip, arguments)
    capsys.readouterr()
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "16 frames in " in out
    assert " and 8 of earlier runs, 2 workers" in out
    assert "summed over workers and all runs (but write: of this one): " in out
