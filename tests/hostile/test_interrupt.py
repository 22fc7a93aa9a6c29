"""Ctrl-C and SIGTERM, as a terminal and a batch system send them: to the whole process group."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from rrm_extract.cli import main
from rrm_extract.store import merge, same_content
from tests.hostile.conftest import job
from tests.hostile.jobs import expect_clean, finished, started


def test_interrupted_jobs_keep_what_is_done(videos: Path, whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "feats.h5"
    arguments = job(videos, output)
    kept: set[Path] = set()
    for number in (signal.SIGINT, signal.SIGTERM):
        with started(arguments, cwd=tmp_path) as run:
            run.until(lambda kept=kept: set(run.finished_parts()) - kept and run.chunks())
            os.killpg(run.process.pid, number)
            assert run.end() == 130
            assert run.stderr.strip().count("\n") == 0, run.stderr
            assert "interrupted" in run.stderr
            assert "Traceback" not in run.stderr
            assert run.stdout == ""
            assert kept < set(run.finished_parts()), "what is done stays"
            kept = set(run.finished_parts())
            assert not list(run.parts.glob(".*")), "no temporary file"
    code, out, err = finished(arguments, cwd=tmp_path)
    assert (code, err) == (0, "")
    assert f"{len(kept)} done before" in out
    assert same_content(whole, output) == []
    expect_clean(tmp_path, "feats.h5")


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize("pause", [0, 0.05, 0.2])
def test_interrupted_while_workers_start(pause: float, videos: Path, tmp_path: Path) -> None:
    with started(job(videos, tmp_path / "feats.h5"), cwd=tmp_path) as run:
        run.until(run.workers)
        os.killpg(run.process.pid, signal.SIGINT)
        time.sleep(pause)
        os.killpg(run.process.pid, signal.SIGINT)  # an impatient second time
        assert run.end() == 130
        assert run.stderr.strip().count("\n") == 0, run.stderr
    expect_clean(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_the_file_is_put_together(
    number: signal.Signals,
    videos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "feats.h5"
    arguments = [str(word) for word in job(videos / "sub", output)]
    copy_video = merge.copy_video

    def interrupted(*given: Any) -> None:
        signal.raise_signal(number)
        copy_video(*given)

    with monkeypatch.context() as patch:
        patch.setattr(merge, "copy_video", interrupted)
        capsys.readouterr()
        assert main(arguments) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not output.exists()
    assert [path.suffix for path in (tmp_path / "feats.h5.parts").iterdir() if path.suffix == ".h5"]
    assert not list((tmp_path / "feats.h5.parts").glob(".*")), "no temporary file"
    assert main(arguments) == 0
    assert "1 done before" in capsys.readouterr().out
    expect_clean(tmp_path, "feats.h5")
