"""Where pictures go: a video file, or one picture file. Either is there whole or not at all."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Literal

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rrm_extract.errors import ConfigError, StoreWriteError
from rrm_extract.store.files import (
    commit,
    remove,
    remove_stale,
    temp_path,
    write_atomic,
    writing,
)

__all__ = ["CONTAINERS", "PICTURES", "ClipWriter", "Encoder", "check_output", "write_picture"]

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""FFmpeg's container for each ending."""

PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
"""Pillow's format for each ending."""

_MPEG4_CLOCK = 65535
"""Most units a second of MPEG-4's clock."""


@dataclass(frozen=True)
class Encoder:
    """What compresses a clip.

    Attributes:
        name: FFmpeg's.
        options: for a quality at which small text stays sharp.
        note: why it is not the first choice; empty for that.
    """

    name: Literal["libx264", "mpeg4"]
    options: dict[str, str]
    note: str = ""

    @classmethod
    def choose(cls) -> Encoder:
        """H.264 where PyAV's FFmpeg has libx264, else MPEG-4, with a note.

        Raises:
            ConfigError: there is neither.
        """
        if "libx264" in av.codecs_available:
            return cls("libx264", {"crf": "18", "preset": "veryfast"})
        if "mpeg4" in av.codecs_available:
            return cls("mpeg4", {"qscale": "3"}, "this PyAV has no libx264")
        raise ConfigError(
            "this PyAV can encode neither H.264 nor MPEG-4; install its wheel (pip install av), or "
            "ask for one frame with -o frame.png"
        )


def check_output(path: Path, *, source: Path, overwrite: bool, is_picture: bool) -> None:
    """Refuses an output before anything is computed for it.

    Raises:
        ConfigError: the ending is not one of ours, or it is the clip itself.
        StoreWriteError: the file is there already, or there is no such folder.
    """
    known = PICTURES if is_picture else CONTAINERS
    if path.suffix.lower() not in known:
        other = (
            "; --frame and --at write one picture"
            if is_picture
            else "; for a picture (.png) give --frame or --at as well"
        )
        raise ConfigError(f"-o is {str(path)!r}, expected a name in {', '.join(known)}{other}")
    with writing(path):
        if not path.parent.is_dir():
            raise StoreWriteError(
                f"cannot write {path}: there is no folder {str(path.parent)!r}; make it, or choose "
                "another -o"
            )
        if path.exists():
            if source.exists() and path.samefile(source):
                raise ConfigError(f"-o {path} is the clip itself; expected another file")
            if not overwrite or path.is_dir():
                raise StoreWriteError(
                    f"{path} would be written over; use --overwrite or another -o"
                )


class ClipWriter:
    """Encodes pictures into a video file, which appears when all are written.

    Leaving the ``with`` by an error leaves what was there before.

    Args:
        path: its ending names the container.
        width: pixels, even.
        height: likewise.
        rate: frames per second that players are told.
        time_base: seconds per unit of the pictures' times.
        encoder: what compresses.

    Raises:
        StoreWriteError: the system refuses, or the encoder does.
    """

    def __init__(
        self,
        path: Path,
        *,
        width: int,
        height: int,
        rate: Fraction,
        time_base: Fraction,
        encoder: Encoder,
    ) -> None:
        self._path = path
        self._temp = temp_path(path)
        remove_stale([path])
        self._last: int | None = None
        if encoder.name == "mpeg4":
            time_base = max(time_base, Fraction(1, _MPEG4_CLOCK))
        self._time_base = time_base
        container_format = CONTAINERS[path.suffix.lower()]
        try:
            # The prefix keeps names such as "12:30.mp4" from being taken for a protocol.
            name = f"file:{self._temp.absolute()}"
            self._container = av.open(name, "w", format=container_format)
            stream = self._container.add_stream(encoder.name, rate=rate)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.options = dict(encoder.options)
            stream.codec_context.time_base = time_base
            # The bytes then do not depend on the machine.
            stream.codec_context.thread_count = 1
        except (OSError, av.error.FFmpegError) as error:
            remove(self._temp)
            raise self._refusal(error) from error
        self._stream = stream

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
            else:
                with suppress(OSError, av.error.FFmpegError):
                    self._container.close()
        finally:
            remove(self._temp)

    def write(self, picture: NDArray[np.uint8], seconds: float) -> None:
        """Adds a picture.

        Args:
            picture: (height, width, 3) uint8 RGB.
            seconds: when it is shown; not before the one before.

        Raises:
            StoreWriteError: the system refuses, or the encoder does.
        """
        tick = round(Fraction(seconds) / self._time_base)
        if self._last is not None:
            tick = max(tick, self._last + 1)  # two pictures at one time cannot be shown
        self._last = tick
        try:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = tick, self._time_base
            self._container.mux(self._stream.encode(frame))
        except (OSError, av.error.FFmpegError) as error:
            raise self._refusal(error) from error

    def _finish(self) -> None:
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            commit(self._temp, self._path)
        except (OSError, av.error.FFmpegError) as error:
            with suppress(OSError, av.error.FFmpegError):
                self._container.close()
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> StoreWriteError:
        reason = getattr(error, "strerror", None) or str(error)
        return StoreWriteError(
            f"cannot write {self._path}: {reason}; make room, or choose another -o"
        )


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Writes one picture; after a kill at any moment the path is the old file or the new one.

    Args:
        path: its ending names the format.
        picture: (H, W, 3) uint8 RGB.

    Raises:
        StoreWriteError: the system refuses.
    """
    data = io.BytesIO()
    Image.fromarray(picture).save(data, PICTURES[path.suffix.lower()], optimize=True)
    remove_stale([path])
    write_atomic(path, data.getvalue())
