"""SIGKILL, of the job and of its workers."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil

from rrm_extract import FeatureFile
from rrm_extract.store import load_chunk, same_content, save_chunk
from rrm_extract.store.job import load_job
from rrm_extract.store.names import file_key
from rrm_extract.store.schema import sha256_of
from tests.hostile.conftest import job
from tests.hostile.jobs import Job, dice, events, expect_clean, finished, started

MARK_SECONDS = 1e6
"""Added to a chunk's decoding time, which is no part of what has to be equal."""

LATEST = (5, 10, 15)
"""Progress at which each kill comes at the latest. A job that has made 15 is not over for a while,
whatever it began with: more than half of the twenty slow chunks are left, or the other clips."""


def unfinished_chunks(run: Job, videos: Path) -> list[Path]:
    """Chunks on disk of videos that have no part yet."""
    record = load_job(run.parts)
    if record is None:  # killed before there was anything
        return []
    folders = []
    for path in videos.rglob("*.mp4"):
        video_id, stat = path.relative_to(videos).as_posix(), path.stat()
        if not (run.parts / f"{file_key(video_id)}.h5").exists():
            source = (video_id, stat.st_size, stat.st_mtime_ns)
            folders.append(f"{file_key(*source, sha256_of(record.identity_json))}.chunks")
    return [chunk for chunk in run.chunks() if chunk.parent.name in folders]


def progress_of(run: Job) -> int:
    """What is on disk: its chunks, a part for three of them."""
    return len(run.chunks()) + 3 * len(run.finished_parts())


def has_come(run: Job, progress: int, moment: float) -> bool:
    """Whether a job has made so much, or it is so late on the monotonic clock."""
    return time.monotonic() >= moment or progress_of(run) >= progress


def mark(chunk: Path) -> None:
    """Makes a chunk on disk known again."""
    result = load_chunk(chunk)
    assert result is not None, "a chunk that has its name is whole"
    if result.attrs["seconds_decode"] < MARK_SECONDS:
        seconds = float(result.attrs["seconds_decode"]) + MARK_SECONDS
        save_chunk(chunk, replace(result, attrs={**result.attrs, "seconds_decode": seconds}))


def test_a_job_killed_several_times_is_like_one_that_was_not(
    videos: Path, whole: Path, tmp_path: Path
) -> None:
    random = dice()
    output = tmp_path / "feats.h5"
    arguments = job(videos, output)
    kept: set[str] = set()
    for turn, (group, progress) in enumerate(zip((False, True, False), LATEST, strict=True)):
        with started(arguments, cwd=tmp_path) as run:
            moment = math.inf
            if turn == 0:
                run.until(run.workers)  # the first kill comes while the workers start
                moment = time.monotonic() + random.uniform(0, 1)
            else:
                progress = min(progress, progress_of(run) + random.randint(1, 9))
            run.until(partial(has_come, run, progress, moment))
            run.kill(group=group)
            run.expect_no_orphans()
            assert not output.exists()
            for chunk in unfinished_chunks(run, videos):
                mark(chunk)
                kept.add(chunk.relative_to(run.parts).as_posix())
    assert kept, "the kills came too early to show anything"
    code, _, err = finished(arguments, cwd=tmp_path)
    assert (code, err) == (0, "")
    assert same_content(whole, output) == []
    expect_clean(tmp_path, "feats.h5")
    with FeatureFile(output) as file:
        reused = sum(video.attrs["seconds_decode"] // MARK_SECONDS for video in file.values())
    assert reused == len(kept), "no chunk that was done is computed again"


def test_killed_workers_are_replaced(videos: Path, whole: Path, tmp_path: Path) -> None:
    random = dice()
    output, log = tmp_path / "feats.h5", tmp_path / "log.jsonl"
    killed = []
    with started(job(videos, output, "--json-log", log), cwd=tmp_path) as run:
        for when in (lambda: True, run.chunks, lambda: len(run.chunks()) > random.randint(2, 9)):
            run.until(lambda when=when: when() and _others(run, killed))
            victim = random.choice(_others(run, killed))
            victim.kill()
            killed.append(victim.pid)
            time.sleep(random.uniform(0, 0.5))
        assert run.end() == 0, run.stderr
        assert run.stderr == ""
        assert "lost and replaced" in run.stdout
    lost = [event for event in events(log) if event["event"] == "worker_lost"]
    assert len(lost) == len(killed)
    assert all("SIGKILL" in event["reason"] for event in lost)
    assert same_content(whole, output) == []
    expect_clean(tmp_path, "feats.h5", "log.jsonl")


def test_a_lost_worker_fails_its_clip_when_there_is_no_retry(videos: Path, tmp_path: Path) -> None:
    clip, output = tmp_path / "y_wait.mp4", tmp_path / "feats.h5"
    shutil.copy(videos / "y_slow.mp4", clip)
    with started(job(clip, output, "--retries", "0", "--workers", "1"), cwd=tmp_path) as run:
        run.until(clip.with_name("y_wait.mp4.waits").exists)  # it is at a chunk, not between two
        _kill_all(run)
        assert run.end() == 1, run.stderr
        assert "y_wait.mp4" in run.stderr
        assert "SIGKILL" in run.stderr
    with FeatureFile(output) as file:
        (failure,) = file.failures
        assert (failure.error_type, failure.attempts) == ("WorkerError", 1)
        assert "--workers" in failure.message
        assert file["y_wait.mp4"].status == "partial"
        assert len(file["y_wait.mp4"].features) == 8, "the first chunk"


def _others(run: Job, killed: list[int]) -> list[psutil.Process]:
    """Workers but those just killed, which may still be seen."""
    return [worker for worker in run.workers() if worker.pid not in killed]


def _kill_all(run: Job) -> None:
    for worker in run.workers():
        worker.kill()
