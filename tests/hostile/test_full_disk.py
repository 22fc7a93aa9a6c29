"""A disk without room, for which a limit on the size of files stands in."""

from __future__ import annotations

import json
from pathlib import Path

from rrm_extract.jobs.network_cache import VARIABLE
from rrm_extract.store import same_content
from tests.hostile.conftest import job
from tests.hostile.jobs import expect_clean, finished, started

# Bytes; the job's notes take 2 KB, the network for the workers 20, a chunk of 8 frames 130, the
# parts up to 2,600 and the file 3,700.
LIMITS = {
    "recipe": 8_000,
    ".npz": 100_000,
    ".h5.": 1_000_000,
    ".feats.h5.": 3_000_000,
}
"""What cannot be written any more, and the limit at which it is the first."""


def test_a_full_disk_loses_nothing(videos: Path, whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "feats.h5"
    arguments = job(videos, output, "--workers", "1")
    done: set[str] = set()
    for what, limit in LIMITS.items():
        loads = {VARIABLE: "off"} if what == "recipe" else None  # which is written by the loader
        with started(arguments, cwd=tmp_path, file_size=limit, extra=loads) as run:
            assert run.end() == 3, f"{what}: {run.stdout} {run.stderr}"
            assert run.stderr.count("\n") == 1, run.stderr
            assert what in run.stderr
            assert str(run.parts) in run.stderr
            assert "File too large" in run.stderr
            parts = {path.name for path in run.finished_parts()}
            assert done <= parts, "what is done stays"
            done = parts
            temporary = list(run.parts.glob(".*")) if run.parts.exists() else []
            assert not temporary
            assert not output.exists()
    assert len(done) == 5, "only the merging was left"
    code, out, err = finished(arguments, cwd=tmp_path)
    assert (code, err) == (0, "")
    assert "5 done before" in out
    assert same_content(whole, output) == []
    expect_clean(tmp_path, "feats.h5")


def test_a_log_that_cannot_be_written_fails(videos: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(json.dumps({"event": "end", "time": 0, "of": "a job before " * 400}) + "\n")
    code, _, err = finished(
        job(videos / "a.mp4", tmp_path / "feats.h5", "--json-log", log),
        cwd=tmp_path,
        file_size=log.stat().st_size,  # enough for what is written before
    )
    assert code == 3
    assert err.count("\n") == 1, err
    assert f"log {log} cannot be written" in err
