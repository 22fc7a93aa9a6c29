"""Opening a file with FFmpeg, safely and with errors that say what is wrong."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

import av
import av.container
import av.video.stream

from rrm_extract.errors import ClipOpenError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOT_VIDEO_FORMATS = ("tty", "image2", "ico", "lrc", "srt", "webvtt", "ass", "concat", "hls", "dash")
"""Demuxers that FFmpeg picks for text, pictures and play lists."""

PICTURE_BRANDS = ("heic", "heix", "mif1", "avif")
"""Brands of HEIF files that hold a picture; FFmpeg reads its tiles as videos of one frame."""

ATTACHED_PICTURE = 0x400
"""FFmpeg's AV_DISPOSITION_ATTACHED_PIC, which not every PyAV has a name for."""


def open_video(
    path: Path,
) -> tuple[av.container.InputContainer, av.video.stream.VideoStream]:
    """Open a file and choose its video stream.

    The caller owns the container and must close it: a container that is left to the
    garbage collector can hang (https://github.com/PyAV-Org/PyAV/issues/1849).

    Args:
        path: A regular file.

    Returns:
        The open container and its first video stream that is not a cover picture.

    Raises:
        ClipOpenError: Missing, no regular file, empty, unreadable, not a video, or
            without a video stream.
    """
    check_regular_file(path)
    try:
        container = av.open(
            # The prefix keeps names such as "concat:a.mp4" from being taken for a protocol,
            # and only local files are ever opened, whatever a play list asks for.
            f"file:{path.absolute()}",
            mode="r",
            # Given as `options` they also go to the streams, and older PyAV crashes on that.
            container_options={"protocol_whitelist": "file"},
            metadata_errors="replace",
        )
    except av.error.FFmpegError as error:
        raise ClipOpenError(
            f"{path}: FFmpeg cannot read this as a video ({describe(error)}); expected a video file"
        ) from error
    try:
        stream = _choose_stream(path, container)
    except ClipOpenError:
        container.close()
        raise
    return container, stream


def data_packets(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> Iterator[av.Packet[Any]]:
    """Give the stream's packets that have data.

    Those without are PyAV's mark of the end, and frames that an encoder left out.
    """
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except IndexError:
            # PyAV, past the last packet, where a stream appeared only in the middle of the file.
            return
        if packet.size:
            yield packet


def check_regular_file(path: Path) -> os.stat_result:
    """Say why a path is no file that can hold a video.

    Returns:
        The file's status.

    Raises:
        ClipOpenError: Missing, no permission, a folder or a device, or empty.
    """
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise ClipOpenError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise ClipOpenError(f"{path}: cannot be read ({describe(error)})") from error
    if stat.S_ISDIR(status.st_mode):
        if not os.access(path, os.R_OK | os.X_OK):
            raise ClipOpenError(
                f"{path}: is a folder that cannot be read; allow it, or leave it out"
            )
        raise ClipOpenError(f"{path}: is a folder; expected a video file")
    if not stat.S_ISREG(status.st_mode):
        raise ClipOpenError(f"{path}: is no regular file; expected a video file")
    if status.st_size == 0:
        raise ClipOpenError(f"{path}: the file is empty; expected a video file")
    if not os.access(path, os.R_OK):
        raise ClipOpenError(f"{path}: no permission to read it")
    return status


def describe(error: Exception) -> str:
    """Give the cause of an error in one line, without paths and numbers."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


def _choose_stream(
    path: Path, container: av.container.InputContainer
) -> av.video.stream.VideoStream:
    names = container.format.name.split(",")
    brand = container.metadata.get("major_brand")
    is_picture = brand in PICTURE_BRANDS
    if is_picture or any(name in NOT_VIDEO_FORMATS or name.endswith("_pipe") for name in names):
        kind = brand if is_picture else container.format.name
        raise ClipOpenError(
            f"{path}: FFmpeg reads this as {kind!r} (text, a picture or a play list); "
            "expected a video file"
        )
    streams = list(container.streams.video)
    if not streams:
        kinds = sorted({stream.type for stream in container.streams})
        raise ClipOpenError(
            f"{path}: no video stream, only {', '.join(kinds) or 'nothing'}; expected a video file"
        )
    for stream in streams:
        # A stream without a decoder has no codec context.
        if not _is_cover(stream) and stream.codec_context is not None:
            return stream
    if all(_is_cover(stream) for stream in streams):
        raise ClipOpenError(f"{path}: no video stream, only a cover picture")
    raise ClipOpenError(f"{path}: FFmpeg has no decoder for the video stream's codec")


def _is_cover(stream: av.video.stream.VideoStream) -> bool:
    disposition: Any = getattr(stream, "disposition", 0)
    return bool(int(getattr(disposition, "value", disposition)) & ATTACHED_PICTURE)
