"""Reading the sampled frames of a clip, chunk by chunk, in any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import numpy.typing as npt

from rrm_extract.errors import ClipDamagedError, ClipOpenError
from rrm_extract.given_file import kept_mtime_ns
from rrm_extract.video._decode import Damage, FrameStream, TimedFrame
from rrm_extract.video._open import check_regular_file
from rrm_extract.video._picture import to_upright_rgb
from rrm_extract.video._seek import LostTrackError, Start, choose_start
from rrm_extract.video.chunks import Sampling, Span, chunk_span, sample_tick

if TYPE_CHECKING:
    from collections.abc import Iterator
    from fractions import Fraction
    from pathlib import Path
    from types import TracebackType

    from rrm_extract.video.clip import ClipInfo


@dataclass(frozen=True, eq=False)
class SampledFrame:
    """What a clip shows at one moment."""

    image: npt.NDArray[np.uint8]
    """(H, W, 3) uint8, RGB, upright, in the frame's own size. Not to be written to: a frame
    shown for several samples is one array."""
    sample_index: int
    """Position among the clip's sampled frames; for native, the same as `frame_index`."""
    timestamp: float
    """Seconds since the clip's first frame: the sample's own time; for native, the frame's."""
    pts: int
    """When the file shows the frame, in units of `ClipInfo.time_base`."""
    frame_index: int
    """Number of the frame in display order. Packets without a frame have numbers too."""
    rotation: int
    """Degrees counter-clockwise by which the decoded frame was turned: 0, 90, 180 or -90."""


class ClipReader:
    """Decodes the chunks of one clip; holds one open file at most.

    A chunk's frames are the same, bit for bit, in whatever order chunks are read and by
    whichever reader: reading on from the previous chunk is only done while nothing went wrong,
    and decoding from the middle only starts at packets that reset the decoder. Where a file
    gives no such hold, each chunk is decoded from the beginning.

    Sampled frame k shows the last frame whose time since the first frame is at most k / fps, which
    is rounded up to the next tick where the file's times are rounded to ticks.
    Before the first frame that can be decoded, that one is shown.

    Example:
        >>> from fractions import Fraction
        >>> from rrm_extract.video import ClipReader, Sampling, count_chunks, scan_clip
        >>> info, sampling = scan_clip(path), Sampling(fps=Fraction(24))
        >>> with ClipReader(info, sampling) as reader:
        ...     for chunk in range(count_chunks(info, sampling)):
        ...         for frame in reader.read(chunk):
        ...             use(frame.image)

    Args:
        info: The clip, from `scan_clip`.
        sampling: Which frames to give.
    """

    def __init__(self, info: ClipInfo, sampling: Sampling) -> None:
        self._info = info
        self._sampling = sampling
        self._cursor: _Cursor | None = None
        self._next_chunk: int | None = None
        self._begun = 0  # chunks; what another one has moved on cannot be read any further
        self._trusts_seeking = info.seekable
        self._n_decoded = 0
        self._n_decode_errors = 0
        self._n_packets_read = 0

    @property
    def path(self) -> Path:
        """The file."""
        return self._info.path

    @property
    def n_packets_read(self) -> int:
        """Packets read so far, also those that only lead to a chunk.

        Moves while `read` is at work, and may be looked at from another thread: a reader whose
        count stands still is stuck.
        """
        cursor = self._cursor
        return self._n_packets_read + (0 if cursor is None else cursor.n_packets)

    @property
    def n_decoded(self) -> int:
        """Good frames decoded that are shown during the chunks read so far.

        Frames decoded only to get there are not counted, so the sum over a clip's chunks does
        not depend on who read them.
        """
        return self._n_decoded

    @property
    def n_decode_errors(self) -> int:
        """Packets and frames that failed to decode during the chunks read so far."""
        return self._n_decode_errors

    def __enter__(self) -> ClipReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. The reader can still be used: it opens it again."""
        if self._cursor is not None:
            self._n_packets_read += self._cursor.n_packets
            self._cursor.close()
            self._cursor = None
        self._next_chunk = None

    def read(self, chunk: int) -> Iterator[SampledFrame]:
        """Give the frames of a chunk; nothing past the end of the clip.

        Args:
            chunk: Number of the chunk, from 0.

        Raises:
            ClipDamagedError: After the good frames, where the clip is damaged in this chunk, or
                where this is the last chunk and the file ends before its declared end.
            ClipOpenError: The file is gone, or was changed since it was scanned.
            ValueError: Another chunk has been begun since.
        """
        span = chunk_span(self._info, self._sampling, chunk)
        if span is None:
            return
        if self._cursor is None or self._next_chunk != chunk:
            self._begin(choose_start(self._info, span.start) if self._trusts_seeking else Start())
        else:
            self._cursor.enter(span)
        self._next_chunk = None
        self._begun = begun = self._begun + 1
        go_on = False
        try:
            fps = self._sampling.fps
            for frame in self._read_native(span) if fps is None else self._read_samples(span, fps):
                yield frame
                if self._begun != begun:
                    msg = f"chunk {chunk} of {self.path} cannot go on: another chunk is being read"
                    raise ValueError(msg)
            self._check_last(span)
            go_on = self._open_cursor.is_clean
        finally:
            if self._begun == begun:
                self._end(chunk, span, go_on=go_on)

    def _end(self, chunk: int, span: Span, *, go_on: bool) -> None:
        """Counts what was read of a chunk."""
        if self._cursor is not None:
            self._n_decoded += self._cursor.n_taken
            self._n_decode_errors += sum(span.contains(tick) for tick in self._cursor.error_ticks)
            self._cursor.n_taken = 0
        if go_on:
            self._next_chunk = chunk + 1
        else:  # also when the caller stops early: a decoder left to itself can hang
            self.close()

    def _read_samples(self, span: Span, fps: Fraction) -> Iterator[SampledFrame]:
        for sample in span.samples:
            limit = sample_tick(self._info, fps, sample)
            self._advance(limit, span)
            cursor = self._open_cursor
            if cursor.shown is None or cursor.is_lost(limit):
                self._fail()
            yield cursor.sampled(index=sample, timestamp=float(sample / fps))
        # What is shown between this chunk's last sample and the next chunk is counted here. Where
        # track was lost on the way there, the frames before the chunk come once more.
        frame = self._peek()
        while frame is not None and (span.contains(frame.tick) or frame.tick < span.start):
            self._open_cursor.take(span)
            frame = self._peek()

    def _advance(self, limit: int, span: Span) -> None:
        """Go on to the last frame that begins at or before a time, in time base units."""
        while True:
            ahead = self._peek()
            cursor = self._open_cursor
            if ahead is None or (ahead.tick > limit and cursor.shown is not None):
                return
            if ahead.tick > limit and cursor.starts_midway:
                # The packet that decoding started at gave no frame: what is shown is older.
                self._start_over()
            else:
                cursor.take(span)

    def _read_native(self, span: Span) -> Iterator[SampledFrame]:
        n_given = n_seen = 0
        cursor = None
        while True:
            frame = self._peek()
            if cursor is not self._cursor:  # began, or began again from the start of the file
                cursor = self._open_cursor
                n_seen = 0
            if frame is None:
                break
            if not span.contains(frame.tick) and frame.tick >= span.start:
                return
            self._open_cursor.take(span)
            if not span.contains(frame.tick):
                continue
            n_seen += 1
            if n_seen > n_given:
                n_given += 1
                seconds = float(frame.tick * self._info.time_base)
                yield self._open_cursor.sampled(index=frame.ordinal, timestamp=seconds)
        if span.stop is not None and self._open_cursor.is_lost(span.stop - 1):
            self._fail()

    def _check_last(self, span: Span) -> None:
        """Speak up about damage that took no sample, where it can only be the clip's end."""
        if span.stop is None:
            if self._open_cursor.damage is not None:
                self._fail()
            if self._info.damage:
                raise ClipDamagedError(f"{self._info.path}: {self._info.damage}")

    def _fail(self) -> NoReturn:
        damage = self._open_cursor.damage
        reason = damage.reason if damage is not None else "no frame could be decoded"
        raise ClipDamagedError(f"{self._info.path}: {reason}")

    def _peek(self) -> TimedFrame | None:
        try:
            return self._open_cursor.peek()
        except LostTrackError:
            self._start_over()
            return self._open_cursor.peek()

    def _start_over(self) -> None:
        self._trusts_seeking = False
        self._begin(Start())

    def _begin(self, start: Start) -> None:
        self.close()
        status = check_regular_file(self._info.path)
        known = (self._info.source_size, self._info.source_mtime_ns)
        if (status.st_size, kept_mtime_ns(status)) != known:
            raise ClipOpenError(
                f"{self._info.path}: the file was changed while it was being read; run again"
            )
        self._cursor = _Cursor(FrameStream(self._info, start))

    @property
    def _open_cursor(self) -> _Cursor:
        if self._cursor is None:
            raise ValueError("the reader was closed while a chunk was being read")
        return self._cursor


class _Cursor:
    """A place in a stream of frames: the one shown, and the one after it."""

    def __init__(self, stream: FrameStream) -> None:
        self.shown: TimedFrame | None = None
        self.n_taken = 0
        self._stream = stream
        self._frames = stream.frames()
        self._ahead: TimedFrame | None = None
        self._image: tuple[npt.NDArray[np.uint8], int] | None = None
        self._early: list[int] = []  # ticks of frames taken for a chunk that ends before them

    @property
    def damage(self) -> Damage | None:
        return self._stream.damage

    @property
    def n_packets(self) -> int:
        return self._stream.n_packets

    @property
    def error_ticks(self) -> list[int]:
        return self._stream.error_ticks

    @property
    def is_clean(self) -> bool:
        return self.damage is None and not self.error_ticks

    @property
    def starts_midway(self) -> bool:
        return self._stream.start.packet > 0

    def is_lost(self, tick: int) -> bool:
        """Whether what is shown at a time is not known, for damage."""
        return self.damage is not None and tick >= self.damage.tick

    def peek(self) -> TimedFrame | None:
        """The next frame; None at the end."""
        if self._ahead is None:
            self._ahead = next(self._frames, None)
        return self._ahead

    def enter(self, span: Span) -> None:
        """Go on with the next chunk, of which some frames may have been taken already."""
        self.n_taken += sum(span.contains(tick) for tick in self._early)
        self._early = [tick for tick in self._early if not span.contains(tick)]

    def take(self, span: Span) -> None:
        """Show the next frame; it counts if it belongs to the chunk, else in its own one."""
        self.shown, self._ahead, self._image = self._ahead, None, None
        if self.shown is None:
            return
        if span.contains(self.shown.tick):
            self.n_taken += 1
        elif self.shown.tick >= span.start:
            self._early.append(self.shown.tick)

    def sampled(self, *, index: int, timestamp: float) -> SampledFrame:
        """The frame that is shown, converted when first asked for."""
        if self.shown is None:
            raise ValueError("no frame is shown yet")
        if self._image is None:
            self._image = to_upright_rgb(self.shown.frame)
        image, rotation = self._image
        return SampledFrame(
            image=image,
            sample_index=index,
            timestamp=timestamp,
            pts=self.shown.pts,
            frame_index=self.shown.ordinal,
            rotation=rotation,
        )

    def close(self) -> None:
        self._frames.close()
        self._stream.close()
