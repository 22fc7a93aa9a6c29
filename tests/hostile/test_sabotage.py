"""Decoders that hang or crash, and workers that cannot start."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rrm_extract import FeatureFile
from tests.command import extraction
from tests.hostile import unloadable
from tests.hostile.conftest import job
from tests.hostile.jobs import events, expect_clean, finished
from tests.tiny import MODEL

BAD = {
    "crash": "killed by SIGSEGV while computing chunk 0",
    "crash-late": "killed by SIGSEGV while computing chunk 2",
    "hang": "silent for 3 s and was killed while computing chunk 0",
    "raise": "nobody expects this",
    "crash-raise": "nobody expects this",
    "stuck-scan": "silent for 3 s and was killed while opening it",
}


def test_clips_that_break_the_decoder_do_not_stop_the_others(
    videos: Path, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "videos"
    shutil.copytree(videos, folder)
    for name in BAD:
        shutil.copy(videos / "y_slow.mp4", folder / f"{name}.mp4")
    # Not silent, though the scan and the first chunk take longer than the timeout.
    shutil.copy(videos / "a.mp4", folder / "crawl.mp4")
    output, log = tmp_path / "feats.h5", tmp_path / "log.jsonl"
    code, _, err = finished(
        job(folder, output, "--timeout", "3", "--retries", "1", "--json-log", log), cwd=tmp_path
    )
    assert code == 1
    assert "Traceback" not in err
    assert err.count("\n") == len(BAD), err
    with FeatureFile(output) as file, FeatureFile(whole) as undisturbed:
        failures = {failure.video_id: failure for failure in file.failures}
        assert set(failures) == {f"{name}.mp4" for name in BAD}
        for name, words in BAD.items():
            failure = failures[f"{name}.mp4"]
            assert words in failure.message
            assert failure.attempts == (1 if name == "raise" else 2)
            assert failure.error_type == ("LookupError" if "raise" in name else "WorkerError")
        good = undisturbed["y_slow.mp4"].features
        late = file["crash-late.mp4"]
        assert (late.status, len(late.features)) == ("partial", 16)
        assert late.features.tobytes() == good[:16].tobytes()
        assert set(file) == {*undisturbed, "crash-late.mp4", "crawl.mp4"}
        assert file["crawl.mp4"].features.tobytes() == undisturbed["a.mp4"].features.tobytes()
        for video_id, video in undisturbed.items():
            assert file[video_id].features.tobytes() == video.features.tobytes()
    # A healthy worker can be silent for so long as well, if the disk is.
    lost = [
        event
        for event in events(log)
        if event["event"] == "worker_lost" and Path(event.get("video_id", "")).stem in BAD
    ]
    assert len(lost) == 2 * (len(BAD) - 2) + 1
    expect_clean(tmp_path, "feats.h5", "log.jsonl", "videos")


def test_a_worker_whose_device_has_failed_is_replaced(
    videos: Path, whole: Path, tmp_path: Path
) -> None:
    clip, output = tmp_path / "spoil.mp4", tmp_path / "feats.h5"
    shutil.copy(videos / "a.mp4", clip)
    options = ("--workers", "1", "--retries", "1")
    code, out, err = finished(job(clip, output, *options), cwd=tmp_path)
    assert (code, err.count("\n")) == (0, 1), err
    assert "a worker ends, for its device has failed (RuntimeError: CUDA error: an illegal" in err
    assert "1 of them lost and replaced" in out
    with FeatureFile(output) as file, FeatureFile(whole) as undisturbed:
        assert file["spoil.mp4"].features.tobytes() == undisturbed["a.mp4"].features.tobytes()


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({}, ["ImportError: the network needs what is not here"]),
        ({unloadable.DEADLY: "1"}, ["3 workers in a row", "SIGSEGV"]),
    ],
    ids=["raises", "dies"],
)
def test_workers_that_cannot_start_fail(
    videos: Path, tmp_path: Path, extra: dict[str, str], words: list[str]
) -> None:
    code, out, err = finished(
        extraction(videos, tmp_path / "f.h5", "--model", unloadable.MODEL, "--workers", "1"),
        cwd=tmp_path,
        extra=extra,
    )
    assert code == 1
    assert out == ""
    assert err.count("\n") == 1, err
    for word in words:
        assert word in err
    expect_clean(tmp_path)


def test_clips_that_break_the_decoder_are_not_calibrated_on(videos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    shutil.copy(videos / "a.mp4", folder / "good.mp4")
    # Not silent, though it takes longer than the timeout to be read.
    shutil.copy(videos / "a.mp4", folder / "crawl.mp4")
    for name in ("crash", "hang", "raise"):
        shutil.copy(videos / "sub" / "c.mp4", folder / f"{name}.mp4")
    output = tmp_path / "feats.h5"
    options = ("--target-error", "0.1", "--timeout", "3", "--retries", "0", "--chunk", "9")
    arguments = [folder, "-o", output, "--model", MODEL, "--fps", "8", "--workers", "1", *options]
    code, _, err = finished(arguments, cwd=tmp_path)
    assert code == 1
    assert "Traceback" not in err
    assert "crash.mp4: while it was read the process that calibrates was killed by SIGSEGV" in err
    assert "hang.mp4: while it was read the process that calibrates was silent for 3 s" in err
    assert err.count("raise.mp4: LookupError: nobody expects this") == 1, "said once"
    assert "crawl.mp4" not in err
    assert "calibrating on 24 frames of 2 of 5 videos" in err
    with FeatureFile(output) as file:
        assert list(file) == ["crawl.mp4", "good.mp4"]
        assert {one.video_id for one in file.failures} == {"crash.mp4", "hang.mp4", "raise.mp4"}
