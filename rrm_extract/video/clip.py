"""What can be known of a video file without decoding it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

import av

from rrm_extract.errors import ClipOpenError
from rrm_extract.given_file import kept_mtime_ns
from rrm_extract.video._bits import Entry, EntryFinder
from rrm_extract.video._clock import MAX_FORWARD_SECONDS
from rrm_extract.video._matroska import is_cut_off, is_whole, tagged_end
from rrm_extract.video._open import check_regular_file, data_packets, describe, open_video
from rrm_extract.video._packets import PacketColumns, PacketTable, build_table
from rrm_extract.video._riff import repeats_at_end

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import av.container
    import av.video.stream

FORMATS_WITHOUT_PTS = ("avi", "asf")
"""Containers that keep decoding times only; FFmpeg then guesses presentation times.

For streams with B-frames the guess is wrong for a third of the frames.
"""

FORMATS_STARTING_ANYWHERE = ("mpegts", "mpeg", "h264", "hevc", "mpegvideo", "m4v")
"""Containers of broadcasts: what comes before the first key frame cannot be decoded."""

CODECS_STARTING_AT_KEYS = ("mpeg4",)
"""Codecs whose decoder makes up a picture where it has none to start from, and says nothing."""

CODECS_SPLIT_INTO_FIELDS = ("h264",)
"""Codecs of which FFmpeg takes each field of an interlaced frame for a packet of its own."""

FORMATS_REPEATING_HEADERS = ("mov",)
"""Containers of which FFmpeg gives the codec's header in force once more after a seek.

Of others (FLV), where the header changes in the file, only with the packet behind the new one.
"""

FORMATS_DECLARING_LENGTH = ("mov", "avi", "matroska")
"""Containers whose header says how long the stream is, so that a cut file can be told."""

FALLBACK_RATE = Fraction(25)
"""Frames per second of a stream that has neither timestamps nor a declared rate."""

LONGEST_STILL_SECONDS = 86400
"""What is said to show each frame for longer has a broken clock; a picture may stand for hours."""

MISSING_SECONDS = Fraction(1, 2)
MISSING_FRAMES = 2
"""A clip that ends earlier than declared by more than both of these is damaged."""


@dataclass(frozen=True, eq=False)
class ClipInfo:
    """A video file as its container describes it; can be pickled."""

    path: Path
    """The file."""
    width: int
    """Pixels of a coded row; the first frames' size where it changes in the stream."""
    height: int
    """Coded rows."""
    rotation: int
    """Degrees counter-clockwise by which frames are turned, where known without decoding; or 0."""
    codec: str
    """FFmpeg's name of the decoder, such as "h264"."""
    container: str
    """FFmpeg's name of the container format, such as "mov,mp4,m4a,3gp,3g2,mj2"."""
    average_rate: Fraction | None
    """Frames per second as declared; None where nothing is."""
    time_base: Fraction
    """Seconds per unit of `SampledFrame.pts`."""
    n_declared: int
    """Frames the container declares; the number of packets where it declares none."""
    n_packets: int
    """Packets meant to be shown: most hold one frame, few hold none."""
    duration: Fraction
    """Seconds from the first frame's time to the end of the last frame in the file."""
    timestamps: str
    """Where times come from: "pts", "dts" or "rate" (the declared rate, for want of both)."""
    seekable: bool
    """Whether decoding can start anywhere but at the beginning."""
    damage: str
    """Why the file is known to be incomplete without decoding it; "" where it is not."""
    source_size: int
    """Bytes of the file."""
    source_mtime_ns: int
    """Time of last change of the file, nanoseconds, as far as 64 bits reach."""
    packets: PacketTable = field(repr=False)
    """The packets, private to this package."""


def scan_clip(path: Path, *, on_packet: Callable[[], None] | None = None) -> ClipInfo:
    """Read a video file's packets, without decoding them and without keeping their data.

    Args:
        path: The file.
        on_packet: Called for each packet; a scan that has not called it for long is stuck.

    Raises:
        ClipOpenError: Missing, a folder, empty, unreadable, no video, audio only, without packets,
            or with a clock that cannot be; the message says which.
    """
    status = check_regular_file(path)
    container, stream = open_video(path)
    try:
        columns, failure = _read_packets(container, stream, on_packet)
        if not columns.pts:
            reason = f" ({failure})" if failure else ""
            raise ClipOpenError(f"{path}: the video stream has no packets{reason}")
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate or FALLBACK_RATE
        stream_base = stream.time_base or Fraction(1, 1000)
        context = stream.codec_context
        # Of a bare stream only the codec knows the rate; the demuxer always says 25.
        coded_rate = Fraction(getattr(context, "framerate", None) or rate)
        has_fields = context.codec.name in CODECS_SPLIT_INTO_FIELDS
        build = partial(
            build_table,
            columns,
            time_base=stream_base,
            rate=rate,
            guesses_pts=_is_format(container, FORMATS_WITHOUT_PTS),
            reorders=bool(context.has_b_frames),
            field_duration=round(1 / (2 * coded_rate * stream_base)) if has_fields else 0,
            starts_anywhere=context.codec.name in CODECS_STARTING_AT_KEYS
            or _is_format(container, FORMATS_STARTING_ANYWHERE),
        )
        table = build()
        time_base = 1 / coded_rate if table.stamped_by == "rate" else stream_base
        _check_clock(path, time_base, table.frame_span * time_base)
        declared = _declared_duration(path, container, stream)
        damage = failure or _say_what_is_missing(
            table.span * time_base, declared, table.frame_span * time_base
        )
        if damage and not failure and _is_format(container, ("matroska",)) and is_whole(path):
            damage = ""
        if damage and not failure and _is_format(container, ("avi",)) and declared is not None:
            # The last frame stands as long, as it would in the midst of a clip.
            span = table.span + repeats_at_end(path, stream.index) * table.frame_span
            if not is_short(declared - span * time_base, table.frame_span * time_base):
                table, damage = replace(table, span=span), ""
        if damage:
            table = build(ends_early=True)
        return ClipInfo(
            path=path,
            width=context.width,
            height=context.height,
            rotation=0,
            codec=context.codec.name,
            container=container.format.name,
            average_rate=stream.average_rate or None,
            time_base=time_base,
            n_declared=stream.frames or int((~table.hidden).sum()),
            n_packets=int((~table.hidden).sum()),
            duration=table.span * time_base,
            timestamps=table.stamped_by,
            seekable=bool((table.key_index > 0).any()),
            damage=damage,
            source_size=status.st_size,
            source_mtime_ns=kept_mtime_ns(status),
            packets=table,
        )
    finally:
        container.close()


def is_short(missing: Fraction, frame: Fraction) -> bool:
    """Whether so many seconds missing at the end, with frames of so many, are damage."""
    return missing > max(MISSING_SECONDS, MISSING_FRAMES * frame)


def _check_clock(path: Path, tick: Fraction, frame: Fraction) -> None:
    """Refuses a clock of so many seconds a tick and a frame, which would make a clip of centuries.

    Times in coarser ticks are no times; frames alone, as slides, may stand for long.
    """
    if tick > MAX_FORWARD_SECONDS or frame > LONGEST_STILL_SECONDS:
        raise ClipOpenError(
            f"{path}: its header says that each frame is shown for {float(frame):.3g} seconds; "
            "expected a header with the true rate, so write it anew (ffmpeg has -r for that)"
        )


def _is_format(container: av.container.InputContainer, kinds: tuple[str, ...]) -> bool:
    """Whether FFmpeg's demuxer, which may have several names, is one of these."""
    return any(name in kinds for name in container.format.name.split(","))


def _read_packets(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    on_packet: Callable[[], None] | None,
) -> tuple[PacketColumns, str]:
    columns = PacketColumns()
    context = stream.codec_context
    finder = EntryFinder(context.codec.name, context.extradata, pix_fmt=context.pix_fmt)
    repeats_headers = _is_format(container, FORMATS_REPEATING_HEADERS)
    previous_is_key = False
    try:
        for packet in data_packets(container, stream):
            columns.append(packet)
            if on_packet is not None:
                on_packet()
            if packet.has_sidedata("new_extradata") and not repeats_headers:
                finder.replace_header(bytes(packet.get_sidedata("new_extradata")))
            if previous_is_key and finder.needs_data and finder.opens(bytes(packet)):
                columns.key_entry[-1] = min(columns.key_entry[-1], Entry.OPEN)
            previous_is_key = packet.is_keyframe
            if packet.is_keyframe:
                data = bytes(packet) if finder.needs_data else b""
                columns.append_key(position=packet.pos, entry=finder.grade(data))
    except av.error.FFmpegError as error:
        count = len(columns.pts)
        return columns, f"the file cannot be read past packet {count} ({describe(error)})"
    return columns, ""


def _declared_duration(
    path: Path, container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> Fraction | None:
    if not _is_format(container, FORMATS_DECLARING_LENGTH):
        return None
    if stream.duration and stream.time_base:
        declared = stream.duration * stream.time_base
        # FFmpeg corrects the duration of an AVI file to what it finds, but not its frame count.
        counted = stream.frames / stream.average_rate if stream.average_rate else Fraction(0)
        if _is_format(container, ("avi",)):
            return max(declared, counted)
        # With an edit list it begins at zero, and an empty edit is before the first frame.
        start = (stream.start_time or 0) * stream.time_base
        return declared - start if 0 < start < declared else declared
    if not container.duration:
        return None
    # The longest stream sets the container's duration; it is the video's only if alone. It
    # counts from zero, not from the first frame.
    longest = Fraction(container.duration - max(0, container.start_time or 0), av.time_base)
    if len(container.streams) == 1:
        return longest
    end = tagged_end(stream.metadata)
    # A tag that says more than the container is of another file, copied from it.
    if end is not None and end <= Fraction(container.duration, av.time_base) + MISSING_SECONDS:
        return end - max(0, stream.start_time or 0) * (stream.time_base or 0)
    return longest if is_cut_off(path) else None


def _say_what_is_missing(duration: Fraction, declared: Fraction | None, frame: Fraction) -> str:
    if declared is None or not is_short(declared - duration, frame):
        return ""
    return f"the file ends after {float(duration):.3f} s of the {float(declared):.3f} s it declares"
