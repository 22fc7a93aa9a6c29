"""What the parent and its workers say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rrm_extract.video import ClipInfo, Sampling

__all__ = [
    "Alive",
    "Answer",
    "ChunkDone",
    "ChunkTask",
    "Fatal",
    "Ready",
    "ScanTask",
    "Scanned",
    "Task",
    "TaskFailed",
    "VideoKey",
]

VideoKey = int
"""Position of a video in the job."""


@dataclass(frozen=True)
class ScanTask:
    """Find out how long a clip is and where it can be entered."""

    video: VideoKey
    path: Path

    @property
    def what(self) -> str:
        """For messages: what was being done."""
        return "opening it"


@dataclass(frozen=True)
class ChunkTask:
    """Compute one chunk and write its result to ``save_to``.

    Attributes:
        video_id: what the video is called in the output.
        info: None for a worker whose last chunk was of the same clip. A clip's table of packets
            grows with its length; with every chunk it would be sent, and taken apart, anew.
    """

    video: VideoKey
    video_id: str
    info: ClipInfo | None
    sampling: Sampling
    index: int
    save_to: Path

    @property
    def what(self) -> str:
        """For messages: what was being done."""
        return f"computing chunk {self.index}"


Task = ScanTask | ChunkTask


@dataclass(frozen=True)
class Ready:
    """The worker has loaded the network."""


@dataclass(frozen=True)
class Alive:
    """Something moved: frames computed since the last such message, and their summed work."""

    frames: int
    work: float


@dataclass(frozen=True)
class Scanned:
    """Answer to a scan."""

    info: ClipInfo


@dataclass(frozen=True)
class ChunkDone:
    """Answer to a chunk, which is on disk now.

    Attributes:
        frames: sampled frames in it.
        damage: why it ends early, empty when it is sound.
        peak_memory: of the worker so far, bytes.
    """

    index: int
    frames: int
    damage: str
    seconds_write: float
    peak_memory: int


@dataclass(frozen=True)
class TaskFailed:
    """The clip cannot be used; the worker is well."""

    stage: str
    error_type: str
    message: str


Answer = Scanned | ChunkDone | TaskFailed
"""What a worker says when its task is over."""


@dataclass(frozen=True)
class Fatal:
    """The job cannot go on: the output cannot be written, or the engine itself failed."""

    error_type: str
    message: str
    is_store: bool
