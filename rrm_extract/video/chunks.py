"""Where the sampled frames and the chunks of a clip lie in time.

All of it is exact integer arithmetic on the stream's own clock, and depends on the clip and
the settings only.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rrm_extract.video.clip import ClipInfo

FINE_CLOCK = Fraction(1, 1000)
"""On a clock of this many seconds a tick, or finer, frame times are taken for rounded to ticks.

Matroska shows frame 1 of 24 per second at 0.042 s, after the sample at 1/24 s that it was made
for. On such a clock a sample's time is therefore rounded up to the next tick. What coarser clocks
hold is told from the frames' times: see `_is_rounded`.
"""


@dataclass(frozen=True)
class Sampling:
    """Which frames of a clip are looked at, and how they are cut into chunks."""

    fps: Fraction | None = Fraction(24)
    """Sampled frames per second; None takes each decoded frame once ("native")."""
    chunk: Fraction = Fraction(10)
    """Seconds per chunk."""

    def __post_init__(self) -> None:
        if self.fps is not None and self.fps <= 0:
            raise ValueError(f"fps={self.fps}: expected a positive number, or None for native")
        if self.chunk <= 0:
            raise ValueError(f"chunk={self.chunk}: expected a positive number of seconds")

    @property
    def frames_per_chunk(self) -> int:
        """Sampled frames per chunk, at least 1; undefined for native."""
        if self.fps is None:
            raise ValueError("fps=None: chunks of native frames have no fixed number of frames")
        return max(1, floor(self.fps * self.chunk + Fraction(1, 2)))


@dataclass(frozen=True)
class Span:
    """One chunk of a clip. Times in units of the clip's `time_base` since the first frame."""

    start: int
    """Frames shown from here on belong to the chunk (and before, to the first chunk)."""
    stop: int | None
    """Frames shown from here on belong to the next one; None for the last chunk."""
    samples: range
    """Positions of the chunk's sampled frames in the clip; empty for native."""
    is_first: bool

    def contains(self, tick: int) -> bool:
        """Whether a frame that begins then belongs to the chunk."""
        return (self.is_first or tick >= self.start) and (self.stop is None or tick < self.stop)


def count_samples(info: ClipInfo, sampling: Sampling) -> int:
    """Sampled frames of an undamaged clip, at least 1: its duration times fps, rounded up.

    For native: an upper bound, as a packet need not hold a frame.
    """
    if sampling.fps is None:
        return info.n_packets
    duration = info.duration
    if info.time_base <= FINE_CLOCK:
        duration -= info.time_base  # the end of the last frame is rounded too
    elif _is_rounded(info, sampling.fps):
        # On a coarse clock both the last frame's time and how long it is shown count: together
        # they may be two ticks too long. The frame's own sample is within a tick of its time.
        ticks = max(info.packets.span - 2, info.packets.last_tick + 1)
        duration = ticks * info.time_base
    return max(1, ceil(duration * sampling.fps))


def expected_frames(info: ClipInfo, sampling: Sampling) -> int:
    """How many frames the chunks of an undamaged clip give, for showing progress."""
    return count_samples(info, sampling)


def count_chunks(info: ClipInfo, sampling: Sampling) -> int:
    """How many chunks a clip has, at least 1."""
    if sampling.fps is None:
        return floor(info.packets.last_tick * info.time_base / sampling.chunk) + 1
    return -(-count_samples(info, sampling) // sampling.frames_per_chunk)


def sample_tick(info: ClipInfo, fps: Fraction, sample: int) -> int:
    """The latest time at which a frame shown in a sample may begin, in time base units."""
    ticks = sample / (fps * info.time_base)
    return ceil(ticks) if _is_rounded(info, fps) else floor(ticks)


def _is_rounded(info: ClipInfo, fps: Fraction) -> bool:
    """Whether frames may begin up to a tick beside the times that they were made for.

    On a clock coarser than `FINE_CLOCK` times are exact where a tick is one frame (AVI), or where
    all are multiples of the shortest step (30 per second in QuickTime's ticks of 1/600 s, GIFs
    with one delay). They are rounded where they are uneven: 24 per second in GIF's ticks of 1/100
    s are shown at 0, 4, 8, 13, 17 and so on.
    """
    if info.time_base <= FINE_CLOCK:
        return True
    if info.packets.frame_span == 1:
        return False
    step = info.packets.step
    if step < 2:
        return True
    # Of a few frames the rounded times may be even too (15 per second in GIF: 0, 7). They may be
    # the samples' own frames if none of them is a whole tick away.
    n_steps = max(1, info.packets.last_tick // step)
    return 0 < abs(1 / (fps * info.time_base) - step) * n_steps < 1


def chunk_span(info: ClipInfo, sampling: Sampling, chunk: int) -> Span | None:
    """Where a chunk lies; None past the end of the clip."""
    count = count_chunks(info, sampling)
    if not 0 <= chunk < count:
        return None
    is_last = chunk == count - 1
    if sampling.fps is None:
        start = ceil(chunk * sampling.chunk / info.time_base)
        stop = ceil((chunk + 1) * sampling.chunk / info.time_base)
        return Span(
            start=start,
            stop=None if is_last else stop,
            samples=range(0),
            is_first=chunk == 0,
        )
    size = sampling.frames_per_chunk
    first = chunk * size
    end = min(first + size, count_samples(info, sampling))
    return Span(
        start=sample_tick(info, sampling.fps, first),
        stop=None if is_last else sample_tick(info, sampling.fps, end),
        samples=range(first, end),
        is_first=chunk == 0,
    )
