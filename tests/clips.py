"""Encodes small clips in which every frame carries its own number."""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

COLUMNS, ROWS = 8, 2
"""Blocks of the bar code: one bit each."""

DARK, BRIGHT = 40, 215


def numbered_picture(number: int, *, width: int = 64, height: int = 48) -> npt.NDArray[np.uint8]:
    """A picture (H, W, 3) uint8 that shows a number below 65,536 as black and white blocks."""
    bits = (number >> np.arange(COLUMNS * ROWS)) & 1
    blocks = np.where(bits, BRIGHT, DARK).astype(np.uint8).reshape(ROWS, COLUMNS)
    rows = np.arange(height) * ROWS // height
    columns = np.arange(width) * COLUMNS // width
    return np.repeat(blocks[rows][:, columns, None], 3, axis=2)


def read_number(picture: npt.NDArray[np.uint8]) -> int:
    """The number in a picture (H, W, 3) uint8, after lossy coding."""
    height, width = picture.shape[:2]
    rows = (np.arange(ROWS) * 2 + 1) * height // (2 * ROWS)
    columns = (np.arange(COLUMNS) * 2 + 1) * width // (2 * COLUMNS)
    bits = picture[rows][:, columns, 1].reshape(-1) > (DARK + BRIGHT) // 2
    return int((bits << np.arange(COLUMNS * ROWS)).sum())


def write_clip(
    path: Path,
    *,
    n_frames: int = 48,
    rate: Fraction | int = 24,
    codec: str = "libx264",
    gop: int = 12,
    b_frames: int = 0,
    times: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    size: tuple[int, int] = (64, 48),
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    first_number: int = 0,
    container_format: str | None = None,
    container_options: dict[str, str] | None = None,
    noise: int = 0,
) -> Path:
    """Encode pictures with the numbers `first_number`, `first_number` + 1, ...

    Args:
        times: Presentation time of each frame, units of `time_base`; default: 0, 1, ... at `rate`.
        noise: Grey levels of noise, so that packets are of a size worth damaging.
    """
    coder_options = {"g": str(gop), "bf": str(b_frames), "threads": "1"}
    if codec == "libx264":
        # An exact bar code matters more than size, and a fixed GOP more than quality.
        coder_options |= {"preset": "ultrafast", "sc_threshold": "0", "keyint_min": str(gop)}
        coder_options["b_strategy"] = "0"
    elif codec in ("mpeg4", "mpeg2video"):
        coder_options |= {"q:v": "2", "sc_threshold": "1000000000"}
    random = np.random.default_rng(0)
    muxing = container_options or {}
    with av.open(str(path), "w", format=container_format, options=muxing) as container:
        stream = container.add_stream(codec, rate=Fraction(rate))
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        stream.codec_context.options = coder_options | (options or {})
        base = time_base or 1 / Fraction(rate)
        stream.codec_context.time_base = base
        for index in range(n_frames):
            picture = numbered_picture(first_number + index, width=size[0], height=size[1])
            if noise:
                grain = random.integers(-noise, noise + 1, picture.shape)
                picture = (picture + grain).clip(0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = index if times is None else times[index]
            frame.time_base = base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_tone(path: Path, *, codec: str = "pcm_s16le") -> Path:
    """Encode a second of silence, and no video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8000, layout="mono")
        samples = np.zeros((1, 8000), dtype=np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 8000
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def remux(
    source: Path,
    target: Path,
    *,
    edit: Callable[[int, av.Packet], av.Packet | None],
    container_format: str | None = None,
) -> Path:
    """Copy a clip's packets into another file; `edit` may change or drop each one.

    Args:
        edit: Gets the packet's number and the packet; None drops it.
    """
    with av.open(str(source)) as old, av.open(str(target), "w", format=container_format) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for number, packet in enumerate(packet for packet in old.demux(stream) if packet.size):
            edited = edit(number, packet)
            if edited is not None:
                edited.stream = copy
                new.mux(edited)
    return target


def replace_packets(source: Path, target: Path, *, numbers: Iterable[int], data: bytes) -> Path:
    """Copy a clip, giving the packets of these numbers other data."""
    chosen = set(numbers)

    def edit(number: int, packet: av.Packet) -> av.Packet:
        if number not in chosen:
            return packet
        replaced = av.Packet(data)
        replaced.pts, replaced.dts = packet.pts, packet.dts
        replaced.time_base = packet.time_base
        return replaced

    return remux(source, target, edit=edit)


NOT_CODED = b"\x00\x00\x01\xb6\x52\xcf"
"""An MPEG-4 picture at 24 per second that repeats the one before, and gives no frame."""


def packet_places(path: Path) -> list[tuple[int, int]]:
    """Offset and size in the file of each video packet, in the order of the file."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def decode_all(path: Path) -> list[npt.NDArray[np.uint8]]:
    """Every frame (H, W, 3) uint8 RGB in the decoder's order, decoded plainly from the start."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def flip_bytes(path: Path, places: Iterable[int]) -> None:
    """Invert the bytes of a file at these offsets."""
    data = bytearray(path.read_bytes())
    for place in places:
        data[place] ^= 0xFF
    path.write_bytes(bytes(data))


def write_pictures(
    path: Path, pictures: Sequence[npt.NDArray[np.uint8]], *, rate: int = 24
) -> Path:
    """Encode pictures (H, W, 3) uint8 RGB, which hardly lose by it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.options = {"crf": "12", "preset": "veryfast", "threads": "1"}
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_edit_list(
    source: Path, target: Path, segments: Sequence[tuple[int, Fraction | None]]
) -> Path:
    """Copy an MP4 with another edit list: (seconds, first second shown; None for nothing)."""
    with av.open(str(source)) as container:
        units = container.streams.video[0].time_base.denominator

    def entry(seconds: int, start: Fraction | None) -> bytes:
        at = -1 if start is None else round(start * units)
        return struct.pack(">qqi", 1000 * seconds, at, 1 << 16)  # FFmpeg counts milliseconds

    body = b"".join(entry(*segment) for segment in segments)
    head = struct.pack(">4sII", b"elst", 1 << 24, len(segments))
    edits = _atom(head + body)

    def copied(data: bytes) -> bytes:
        result, at = b"", 0
        while at < len(data):
            size, kind = struct.unpack_from(">I4s", data, at)
            inside = data[at + 8 : at + size]
            if kind == b"elst":
                result += edits
            elif kind in (b"moov", b"trak", b"edts"):
                result += _atom(kind + copied(inside))
            else:
                result += data[at : at + size]
            at += size
        return result

    content = copied(source.read_bytes())
    assert edits in content, "the muxer writes an edit list to begin with"
    target.write_bytes(content)
    return target


def _atom(content: bytes) -> bytes:
    return struct.pack(">I", 4 + len(content)) + content
