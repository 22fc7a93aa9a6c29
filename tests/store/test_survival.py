"""Kill -9, a disk without room, two writers."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from rrm_extract.errors import StoreLockedError
from rrm_extract.store import FeatureFile, OutputStore, same_content

from .helpers import IDENTITY, expected_features, names_in, source, write_file
from .subprocesses import run, start

N_KILLS = 10


def check_file(path: Path) -> int:
    """Every listed video is whole and has the right numbers; returns how many there are."""
    if not path.exists():
        return 0
    with FeatureFile(path) as file:
        assert file.complete
        for video_id, video in file.items():
            video.check()
            np.testing.assert_array_equal(video.features, expected_features(video_id))
        return len(file)


def test_kill_at_random_moments(tmp_path: Path) -> None:
    path = tmp_path / "feats.h5"
    dice = random.Random()
    seen = 0
    for turn in range(5 * N_KILLS):
        if turn >= N_KILLS and seen > 0:
            break
        with start("script_write_runs.py", path) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(dice.uniform(0, 0.6 if turn < N_KILLS else 3))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        now = check_file(path)
        assert now >= seen
        seen = now
    assert seen > 0, "no run got as far as its file; the kills came too early to show anything"

    # The same command again, once more with everything there was.
    videos = [f"folder {i % 3}/clip{i}.mp4" for i in range(seen + 4)]
    with OutputStore(path, IDENTITY) as store:
        resumed = [v for v in videos if store.status(source(v)) is not None]
    assert len(resumed) >= seen
    write_file(path, videos)
    assert names_in(tmp_path) == {"feats.h5"}
    with FeatureFile(path) as file:
        assert [record.video_id for record in file.failures] == ["bad.mp4"]
        whole = write_file(tmp_path / "whole.h5", file.videos, file.failures)
    assert same_content(path, whole) == []


def test_lock_ends_with_the_process(tmp_path: Path) -> None:
    path = tmp_path / "feats.h5"
    with start("script_hold.py", path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ok\n"
        with (
            pytest.raises(StoreLockedError, match="is being written by"),
            OutputStore(path, IDENTITY),
        ):
            pass
        process.kill()
    with OutputStore(path, IDENTITY) as store:
        assert store.status(source("clip.mp4")) == "ok"


def test_no_room(tmp_path: Path) -> None:
    # Parts take 1.6 MB each here, the file 4.5 MB.
    limits = [0, 100, 300, 1_000, 40_000, 600_000, 1_400_000, 1_560_000, 1_800_000, 3_000_000,
              4_400_000, 10_000_000]  # fmt: skip
    lines = run("script_little_room.py", tmp_path, *limits).splitlines()
    results = [json.loads(line) for line in lines]
    assert [r["limit"] for r in results] == limits
    assert [r["merged"] for r in results] == [False] * 11 + [True]
    assert {len(r["done"]) for r in results[:6]} == {0}
    assert {len(r["done"]) for r in results[8:]} == {3}  # and then the merge had no room
    sources = [source(f"{i}.mp4") for i in range(3)]
    for result in results:
        path = tmp_path / f"{result['limit']}.h5"
        assert path.exists() == result["merged"]
        if not result["merged"]:
            assert "File too large" in result["error"]
            assert str(path) in result["error"]
        with OutputStore(path, IDENTITY) as store:  # what was complete is kept
            done = [s.video_id for s in sources if store.status(s) is not None]
            assert done == result["done"]


def test_no_room_keeps_the_old_file(tmp_path: Path) -> None:
    path = write_file(tmp_path / "3000000.h5", ["old.mp4"])
    before = path.read_bytes()
    (line,) = run("script_little_room.py", tmp_path, 3_000_000).splitlines()
    assert not json.loads(line)["merged"]
    assert path.read_bytes() == before
    sources = [source(f"{i}.mp4") for i in range(3)]
    with OutputStore(path, IDENTITY) as store:
        store.finish(sources, [], {}, complete=True)
    with FeatureFile(path) as file:
        assert file.videos == ["0.mp4", "1.mp4", "2.mp4", "old.mp4"]


def test_memory_does_not_grow(tmp_path: Path) -> None:
    short, long = map(int, run("script_memory.py", tmp_path).split())
    # The long video is 160 MiB.
    assert long - short < 48


def test_failing_script_fails() -> None:
    with pytest.raises(AssertionError):
        run("no_such_script.py")
