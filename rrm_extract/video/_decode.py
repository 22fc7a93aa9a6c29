"""Decoding a clip from a packet on: frames in display order, each with its time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from rrm_extract.video._inside import Inside
from rrm_extract.video._open import describe, open_video
from rrm_extract.video._seek import LostTrackError, Start, is_packet, packets_from
from rrm_extract.video.clip import is_short

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    import av.container
    import av.video.stream

    from rrm_extract.video.clip import ClipInfo

MAX_EMPTY_BYTES = 64
"""Packets up to this size may say "nothing changed" and hold no frame (MPEG-4's N-VOP)."""

MAX_UNPROVEN = 32
"""Frames held back at most until the frames they were decoded from prove good.

H.264 and H.265 reorder by at most 16 frames; more are waiting for a frame that never comes.
"""


@dataclass(frozen=True)
class Damage:
    """Where the good part of a clip ends."""

    tick: int
    """Frames shown from here on are lost, in time base units since the first frame."""
    reason: str
    """What happened, naming the packet and the time."""


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame and when it is shown."""

    frame: av.VideoFrame
    packet: int
    """The packet it was decoded from."""
    tick: int
    """Time base units since the first frame; never less than the previous frame's."""
    pts: int
    """Timestamp in the file, time base units."""
    ordinal: int
    """Place in display order, see `PacketTable.ordinals`."""


class FrameStream:
    """Decodes one stretch of a clip, forward only.

    A frame is given once every frame decoded before it has come out of the decoder in good
    order: a B-frame may be shown before a broken frame and yet be made from it.

    Errors before the first good frame are skipped, to the next key frame. The first one after
    it ends the stream: what decoders make up from there on is no content of the clip.

    Args:
        info: The clip.
        start: Where to begin.
    """

    def __init__(self, info: ClipInfo, start: Start) -> None:
        self.start = start
        self.damage: Damage | None = None
        """Set when `frames` has ended early."""
        self.error_ticks: list[int] = []
        """Times of the packets and frames that could not be decoded."""
        self.n_packets = 0
        """Packets read so far, also those passed over on the way to the start."""
        self._info = info
        self._table = info.packets
        self._container: av.container.InputContainer | None = None
        self._inside = Inside(self._table)
        self._unproven: deque[TimedFrame] = deque()
        self._resume_at = start.packet
        self._trusted_tick = start.trusted_tick
        self._floor = int(np.iinfo(np.int64).min)
        self._n_good = 0

    def close(self) -> None:
        """Close the file."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def frames(self) -> Generator[TimedFrame, None, None]:
        """Give the good frames; when it ends, `damage` says whether the clip ended early.

        Raises:
            LostTrackError: Decoding must be done from the beginning of the file instead.
            ClipOpenError: The file cannot be opened any more.
        """
        self._container, stream = open_video(self._info.path)
        context = _set_up(stream)
        for index, packet in self._packets(self._container, stream):
            self._count_packet()
            if index < self._resume_at:
                continue
            # The decoder hands each frame the pts of its packet, whatever that is: the packet's
            # number says for certain which packet a frame came from.
            packet.pts = index
            try:
                decoded = context.decode(packet)
            except av.error.FFmpegError as error:
                if index >= self.start.trusted_packet:
                    yield from self._fail(index, describe(error), context)
                if self.damage is not None:
                    return
                continue
            self._inside.went_in(index, len(decoded), context)
            yield from self._deliver(decoded, index, context)
            if self.damage is not None:
                return
        if self.damage is None:
            yield from self._deliver(_flush(context), len(self._table) - 1, context)
        if self.damage is None:
            yield from self._give(list(self._unproven))
            self._check_end()

    def _packets(
        self, container: av.container.InputContainer, stream: av.video.stream.VideoStream
    ) -> Iterator[tuple[int, av.Packet[Any]]]:
        """Give the packets from the start on with their numbers, as they were when scanned."""
        index = self.start.packet
        problem = "the file ends here, unlike when it was scanned"
        try:
            packets = packets_from(
                index, self._table, container, stream, on_skipped=self._count_packet
            )
            for packet in packets:
                if not is_packet(packet, index, self._table):
                    problem = "the file is not the one that was scanned"
                    break
                if packet.is_discard or index >= self._table.first_shown:
                    yield index, packet
                index += 1
                if index == len(self._table):
                    return
        except av.error.FFmpegError as error:
            problem = describe(error)
        if self.start.packet:
            raise LostTrackError(problem)
        tick = int(self._table.earliest_from[index])
        self.error_ticks.append(tick)
        self.damage = Damage(tick=tick, reason=f"{self._place(index, tick)}: {problem}")

    def _count_packet(self) -> None:
        self.n_packets += 1

    def _deliver(
        self, decoded: list[av.VideoFrame], sent: int, context: av.VideoCodecContext
    ) -> Iterator[TimedFrame]:
        """Take frames from the decoder and give those that are proven good."""
        for frame in decoded:
            timed = self._receive(frame, sent)
            if timed is not None and frame.is_corrupt:
                yield from self._fail(timed.packet, "its frame is corrupt", context)
                return
        oldest = self._inside.oldest
        proven = takewhile(lambda one: oldest is None or one.packet < oldest, self._unproven)
        n_proven = max(len(list(proven)), len(self._unproven) - MAX_UNPROVEN)
        yield from self._give([self._unproven.popleft() for _ in range(n_proven)])

    def _receive(self, frame: av.VideoFrame, sent: int) -> TimedFrame | None:
        """Give a frame its time and put it behind the others, unless it is not wanted."""
        packet = sent if frame.pts is None else frame.pts
        slot = self._inside.came_out(packet)
        if self._table.hidden[slot]:
            return None
        # The decoder's order is the display order. A frame that claims to be shown before the
        # one before it takes that one's place.
        self._floor = tick = max(int(self._table.ticks[slot]), self._floor)
        if self._trusted_tick is not None and tick < self._trusted_tick:
            return None
        timed = TimedFrame(
            frame=frame,
            packet=packet,
            tick=tick,
            pts=int(self._table.shown_stamps[slot]),
            ordinal=int(self._table.ordinals[slot]),
        )
        self._unproven.append(timed)
        return timed

    def _give(self, frames: list[TimedFrame]) -> Iterator[TimedFrame]:
        self._n_good += len(frames)
        yield from frames

    def _fail(
        self, packet: int, reason: str, context: av.VideoCodecContext
    ) -> Iterator[TimedFrame]:
        """Give what is good up to a packet that could not be decoded; all from there is lost."""
        slots = self._inside.pending_slots()
        keeps_held = not self._table.by_slot or not (self._n_good or self._unproven)
        for frame in _flush(context):
            number = packet if frame.pts is None else frame.pts
            if frame.is_corrupt and number < packet:
                packet, reason = number, "its frame is corrupt"
            # By slot, the frames still inside could be shown before or after the lost ones.
            # Only the very first frame is shown first for certain.
            if keeps_held:
                self._receive(frame, packet)
                keeps_held = not self._table.by_slot
                slots = slots[1:]
        damage_tick = int(self._table.earliest_from[packet])
        good = list(
            takewhile(
                lambda one: one.packet < packet and (self._table.by_slot or one.tick < damage_tick),
                self._unproven,
            )
        )
        if self._table.by_slot and len(good) < len(self._unproven):
            damage_tick = self._unproven[len(good)].tick
        elif self._table.by_slot and slots:
            damage_tick = int(self._table.ticks[slots[0]])
        self._unproven.clear()
        self.error_ticks.append(damage_tick)
        yield from self._give(good)
        reason = f"{self._place(packet, damage_tick)}: {reason}"
        if self._n_good:
            self.damage = Damage(tick=damage_tick, reason=reason)
        elif self.start.packet:
            raise LostTrackError(reason)
        else:
            self._skip_to_key(packet)
            self._inside.clear()
            context.flush_buffers()

    def _skip_to_key(self, packet: int) -> None:
        """Go on at the next key frame: nothing before it can be decoded without this packet."""
        later = np.flatnonzero(self._table.key_index > packet)
        if len(later):
            self._resume_at = int(self._table.key_index[later[0]])
            self._trusted_tick = int(self._table.ticks[self._resume_at])
        else:
            self._resume_at = len(self._table)

    def _place(self, packet: int, tick: int) -> str:
        seconds = float(tick * self._info.time_base)
        return (
            f"packet {packet + 1} of {len(self._table)} "
            f"({seconds:.3f} s of {float(self._info.duration):.3f} s)"
        )

    def _check_end(self) -> None:
        """After the last packet: was anything swallowed without an error?"""
        if not self._n_good:
            if self.start.packet:
                raise LostTrackError("no frame came out")
            count = len(self.error_ticks)
            reason = f"no frame could be decoded from {len(self._table)} packets ({count} errors)"
            self.damage = Damage(tick=0, reason=reason)
            return
        # Small packets that repeat the frame before are no loss.
        rest = (self._table.ticks > self._floor) & (self._table.sizes > MAX_EMPTY_BYTES)
        lost = np.flatnonzero(rest & ~self._table.hidden)
        frame = self._table.frame_span * self._info.time_base
        if is_short(len(lost) * frame, frame):
            tick = self._floor + self._table.frame_span
            self.error_ticks.append(tick)
            reason = f"no frame came out of the last {len(lost)} packets"
            self.damage = Damage(tick=tick, reason=f"{self._place(int(lost[0]), tick)}: {reason}")


def _set_up(stream: av.video.stream.VideoStream) -> av.VideoCodecContext:
    """Make decoding repeatable, and free of threads that can hang.

    Frame threads can hang when decoding stops early, and slice threads over all processors can
    deadlock: https://github.com/PyAV-Org/PyAV/issues/1849,
    https://github.com/PyAV-Org/PyAV/issues/1962.
    """
    context = stream.codec_context
    context.thread_type = "SLICE"
    context.thread_count = 1
    if context.codec.name == "h264":
        # A stream need not say how far its frames are reordered. FFmpeg then finds out as it
        # goes, and drops frames meanwhile; here it holds back as many as the standard allows.
        context.options = {"strict": "strict"}
    return context


def _flush(context: av.VideoCodecContext) -> list[av.VideoFrame]:
    """Take the frames that the decoder holds back; it needs flush_buffers() to go on."""
    try:
        return list(context.decode(None))
    except av.error.FFmpegError:
        return []
