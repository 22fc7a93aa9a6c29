"""Two jobs on one output, and source files that change."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from rrm_extract import FeatureFile
from rrm_extract.cli import main
from rrm_extract.store import same_content
from rrm_extract.video.synthetic import write_demo_clip
from tests.hostile.conftest import job
from tests.hostile.jobs import started


def test_a_second_job_is_turned_away(
    videos: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "feats.h5"
    with started(job(videos, output), cwd=tmp_path) as first:
        first.until(first.chunks)
        # As Ctrl-Z does; the second one must not wait for the first.
        first.process.send_signal(signal.SIGSTOP)
        with_target = [*job(videos, output, "--overwrite", "--target-error", "0.01")]
        at = with_target.index("--threshold")
        del with_target[at : at + 2]
        for arguments in (
            job(videos, output), job(videos, output, "--overwrite"), with_target,
        ):  # fmt: skip
            assert main([str(word) for word in arguments]) == 3
            err = capsys.readouterr().err
            assert err.count("\n") == 1
            assert f"process {first.process.pid} " in err
            assert str(output) in err
        assert not output.with_name("feats.h5.calibration.json").exists(), "it is the first one's"
        first.process.send_signal(signal.SIGCONT)
        assert first.end() == 0, first.stderr
    assert same_content(whole, output) == []


def test_a_source_that_changes(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output, log = (tmp_path / name for name in ("videos", "feats.h5", "log.jsonl"))
    for name in ("gone_wait", "new_wait"):
        folder.mkdir(exist_ok=True)
        shutil.copy(videos / "y_slow.mp4", folder / f"{name}.mp4")
    shutil.copy(videos / "a.mp4", folder)
    arguments = [str(word) for word in job(folder, output, "--json-log", log)]
    with started(arguments, cwd=tmp_path) as run:
        # A clip is done, and its chunks are gone, when the log has it: the others wait then.
        run.until(
            lambda: (
                log.exists()
                and '"event": "video"' in log.read_text()
                and len({chunk.parent for chunk in run.chunks()}) == 2
            )
        )
        write_demo_clip(folder / "new_wait.mp4", seconds=1.25, size=(64, 48), seed=8)
        (folder / "gone_wait.mp4").unlink()
        for name in ("gone_wait", "new_wait"):
            (folder / f"{name}.mp4.go").touch()
        assert run.end() == 1
        assert "Traceback" not in run.stderr
    with FeatureFile(output) as file:
        assert list(file) == ["a.mp4"]
        failures = {failure.video_id: failure.message for failure in file.failures}
        assert "changed while" in failures["new_wait.mp4"]
        assert "No such file" in failures["gone_wait.mp4"]
    shutil.copy(videos / "a.mp4", folder / "gone_wait.mp4")
    assert main(arguments) == 0, "other files than those that failed"
    with FeatureFile(output) as file:
        assert file.failures == []
        lengths = {video_id: len(video.features) for video_id, video in file.items()}
        assert lengths == {"a.mp4": 12, "gone_wait.mp4": 12, "new_wait.mp4": 10}

    # A disk that is not mounted must not cost what was computed when it was.
    listing = tmp_path / "videos/list.txt"
    listing.write_text("a.mp4\ngone_wait.mp4\n")
    (folder / "gone_wait.mp4").unlink()
    capsys.readouterr()
    assert main([str(word) for word in job(listing, output)]) == 1
    assert "gone_wait.mp4: No such file" in capsys.readouterr().err
    with FeatureFile(output) as file:
        assert file["gone_wait.mp4"].features.shape == (12, 16**3)


def test_a_source_that_comes_back_is_read_again(videos: Path, tmp_path: Path) -> None:
    clip, away, output = (tmp_path / name for name in ("back_wait.mp4", "away.mp4", "feats.h5"))
    shutil.copy(videos / "y_slow.mp4", clip)
    arguments = [str(word) for word in job(clip, output)]
    with started(arguments, cwd=tmp_path) as run:
        run.until(run.chunks)
        clip.rename(away)
        clip.with_name(f"{clip.name}.go").touch()
        assert run.end() == 1, run.stderr
        assert "No such file" in run.stderr
    away.rename(clip)  # the very same, as after a moment without network
    assert main(arguments) == 0
    with FeatureFile(output) as file:
        assert (file.failures, len(file[clip.name].features)) == ([], 24)
