"""Which chunk is computed next, and when a video is finished."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rrm_extract.jobs.discover import Video
from rrm_extract.jobs.messages import ChunkTask, ScanTask, Task, VideoKey
from rrm_extract.store import Source
from rrm_extract.video import ClipInfo, Sampling

__all__ = ["Schedule", "VideoState"]


@dataclass(eq=False)
class VideoState:
    """How far one video is.

    Attributes:
        key: its position in the job.
        info: known once it was scanned.
        pending: chunks nobody computes yet.
        running: chunks that a worker computes now.
        done: frames of each finished chunk.
        earlier: those of them that an interrupted run has left.
        damaged: the first chunk that ends early; later ones do not count.
        damage, damage_stage, damage_type: why, where, and the error's name.
        attempts: how often each chunk, and the scan (None), came to nothing or to damage.
        closed: its outcome is settled.
    """

    key: VideoKey
    video: Video
    source: Source
    info: ClipInfo | None = None
    pending: set[int] = field(default_factory=set)
    running: set[int] = field(default_factory=set)
    done: dict[int, int] = field(default_factory=dict)
    earlier: set[int] = field(default_factory=set)
    damaged: int | None = None
    damage: str = ""
    damage_stage: str = "decode"
    damage_type: str = "ClipDamagedError"
    attempts: dict[int | None, int] = field(default_factory=dict)
    closed: bool = False

    def damage_at(
        self,
        index: int,
        reason: str,
        *,
        stage: str = "decode",
        error_type: str = "ClipDamagedError",
    ) -> None:
        """Ends the video at chunk ``index``: what comes after the damage is not computed."""
        if self.damaged is None or index < self.damaged:
            self.damaged, self.damage = index, reason
            self.damage_stage, self.damage_type = stage, error_type
        self.pending = {chunk for chunk in self.pending if chunk < self.damaged}

    @property
    def finished(self) -> bool:
        """Whether every chunk that counts has been computed."""
        waiting = any(self.damaged is None or chunk < self.damaged for chunk in self.running)
        return self.info is not None and not self.pending and not waiting

    def chunks(self) -> list[int]:
        """The finished chunks that belong to the video, in order."""
        limit = self.damaged
        return sorted(chunk for chunk in self.done if limit is None or chunk <= limit)


ChunkPath = Callable[[Source, int], Path]
"""Where the result of a chunk goes."""


class Schedule:
    """Hands out tasks so that decoders rarely have to seek.

    A worker goes on with the clip it has open; then a clip nobody works on is begun; only when
    there is none is a long clip shared, at the middle of its longest stretch. The results do not
    depend on any of it: a chunk's frames and features depend on the clip and the settings alone.
    """

    def __init__(self, videos: Iterable[VideoState], sampling: Sampling) -> None:
        self._sampling = sampling
        self._unscanned: list[VideoState] = list(videos)
        self._unscanned.reverse()  # taken from the end
        self._open: dict[VideoKey, VideoState] = {}

    def next_task(self, last: Task | None, chunk_path: ChunkPath) -> tuple[VideoState, Task] | None:
        """The next task for a worker whose last one was ``last``; None if it has to wait."""
        state = self._continued(last)
        if state is not None and isinstance(last, ChunkTask):
            return self._chunk(state, last.index + 1, chunk_path, last)
        for state in self._open.values():
            if state.pending and not state.running:
                return self._chunk(state, min(state.pending), chunk_path, last)
        if self._unscanned:
            state = self._unscanned.pop()
            self._open[state.key] = state
            return state, ScanTask(state.key, state.video.path)
        best = range(0)
        for candidate in self._open.values():
            stretch = _longest_stretch(candidate.pending)
            if len(stretch) > len(best):
                best, state = stretch, candidate
        if not best or state is None:
            return None
        # The worker before the stretch will take its beginning; leave it half.
        return self._chunk(state, best[len(best) // 2], chunk_path, last)

    def put_back(self, state: VideoState, task: Task) -> None:
        """Takes a task back that no worker has done."""
        if isinstance(task, ScanTask):
            self.close(state)
            self._unscanned.append(state)
        else:
            state.running.discard(task.index)
            if state.damaged is None or task.index < state.damaged:
                state.pending.add(task.index)

    def close(self, state: VideoState) -> None:
        """Forgets a video whose outcome is settled."""
        self._open.pop(state.key, None)

    @property
    def unscanned(self) -> int:
        """Videos of which nothing is known yet."""
        return len(self._unscanned)

    @property
    def exhausted(self) -> bool:
        """Whether every video is settled."""
        return not self._unscanned and not self._open

    def _continued(self, last: Task | None) -> VideoState | None:
        if not isinstance(last, ChunkTask):
            return None
        state = self._open.get(last.video)
        return state if state is not None and last.index + 1 in state.pending else None

    def _chunk(
        self, state: VideoState, index: int, chunk_path: ChunkPath, last: Task | None
    ) -> tuple[VideoState, Task]:
        if state.info is None:
            msg = f"{state.video.video_id} has chunks before it was scanned"
            raise RuntimeError(msg)
        state.pending.discard(index)
        state.running.add(index)
        save_to = chunk_path(state.source, index)
        is_known = isinstance(last, ChunkTask) and last.video == state.key
        info = None if is_known else state.info
        name = state.video.video_id
        return state, ChunkTask(state.key, name, info, self._sampling, index, save_to)


def _longest_stretch(pending: set[int]) -> range:
    best = current = range(0)
    for index in sorted(pending):
        begin = current.start if index == current.stop else index
        current = range(begin, index + 1)
        if len(current) > len(best):
            best = current
    return best
