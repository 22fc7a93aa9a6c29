from __future__ import annotations

from pathlib import Path

import pytest

from rrm_extract.jobs.discover import Video
from rrm_extract.jobs.messages import ChunkTask, ScanTask, Task
from rrm_extract.jobs.schedule import Schedule, VideoState, _longest_stretch
from rrm_extract.store import Source
from rrm_extract.video import ClipInfo, Sampling, scan_clip
from rrm_extract.video.synthetic import write_demo_clip


def states(count: int) -> list[VideoState]:
    return [
        VideoState(key, Video(f"{key}.mp4", Path(f"{key}.mp4")), Source(f"{key}.mp4", 1, 1))
        for key in range(count)
    ]


def chunk_path(source: Source, index: int) -> Path:
    return Path(f"{source.video_id}.{index}")


def scanned(state: VideoState, info: ClipInfo, chunks: int) -> None:
    state.info, state.pending = info, set(range(chunks))


def carries_info(task: tuple[VideoState, Task] | None) -> bool:
    assert task is not None
    assert isinstance(task[1], ChunkTask)
    return task[1].info is not None


def indices(task: tuple[VideoState, Task] | None) -> tuple[int, int]:
    assert task is not None
    assert isinstance(task[1], ChunkTask)
    return task[1].video, task[1].index


def test_a_worker_goes_on_with_its_clip_and_a_long_clip_is_shared(tmp_path: Path) -> None:
    info = scan_clip(write_demo_clip(tmp_path / "clip.mp4", seconds=0.5, size=(64, 48)))
    videos = states(2)
    schedule = Schedule(videos, Sampling())
    first = schedule.next_task(None, chunk_path)
    assert first is not None
    assert first[1] == ScanTask(0, Path("0.mp4"))
    scanned(videos[0], info, 9)
    one = schedule.next_task(first[1], chunk_path)
    assert indices(one) == (0, 0)
    assert carries_info(one)
    other = schedule.next_task(None, chunk_path)
    assert other is not None
    assert other[1] == ScanTask(1, Path("1.mp4")), "a clip nobody works on comes first"
    scanned(videos[1], info, 1)
    other = schedule.next_task(other[1], chunk_path)
    assert indices(other) == (1, 0)
    videos[0].running.discard(0)
    assert one is not None
    one = schedule.next_task(one[1], chunk_path)
    assert indices(one) == (0, 1), "the worker goes on with its clip"
    assert not carries_info(one), "the worker has the clip's table of packets"
    assert other is not None
    other = schedule.next_task(other[1], chunk_path)
    assert indices(other) == (0, 5), "the rest of the long clip is shared at its middle"
    assert carries_info(other), "the other worker has the table of another clip"
    assert other is not None
    videos[0].running.discard(5)
    schedule.put_back(*other)
    assert carries_info(schedule.next_task(None, chunk_path)), "a worker in place of a lost one"


def test_a_waiting_worker_gets_nothing(tmp_path: Path) -> None:
    videos = states(1)
    schedule = Schedule(videos, Sampling())
    schedule.next_task(None, chunk_path)
    assert schedule.next_task(None, chunk_path) is None
    assert not schedule.exhausted
    schedule.close(videos[0])
    assert schedule.exhausted


@pytest.mark.parametrize(
    ("pending", "stretch"),
    [
        (set(), range(0)),
        ({0, 1, 2}, range(3)),
        ({0, 2, 3, 5}, range(2, 4)),
        ({1, 2, 4, 5, 9}, range(1, 3)),
        ({7, *range(10, 90), *range(91, 99)}, range(10, 90)),
    ],
)
def test_the_longest_stretch_is_no_copy_of_its_chunks(pending: set[int], stretch: range) -> None:
    assert _longest_stretch(pending) == stretch


def test_chunks_behind_damage_do_not_count() -> None:
    (state,) = states(1)
    state.pending, state.running = {3, 4}, {1, 2}
    state.done = {0: 10}
    state.damage_at(2, "broken")
    assert state.pending == set()
    state.running = {1}
    assert not state.finished, "chunk 1 lies before the damage"
