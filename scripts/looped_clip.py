"""One longer clip: the same clip several times over, its packets copied and not encoded anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av

__all__ = ["LoopError", "clip_seconds", "looped_clip"]


class LoopError(Exception):
    """The clip's packets cannot be put one after the other."""


def clip_seconds(path: Path) -> float:
    """How long a clip's pictures last, by its packets.

    Raises:
        LoopError: a packet has no time.
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        packets, frame = _packets(container, path)
        return float((packets[-1].dts - packets[0].dts + frame) * stream.time_base)


def looped_clip(path: Path, output: Path, *, times: int) -> Path:
    """Writes the pictures of a clip ``times`` times one after the other.

    Args:
        path: the clip; every loop begins with its first packet, which has to be a key frame.
        output: the longer clip, in a container that the same packets fit into.
        times: how often.

    Raises:
        LoopError: a packet has no time.
    """
    with av.open(str(output), "w") as target:
        stream, shift = None, 0
        for _ in range(times):
            with _opened(path) as container:
                packets, frame = _packets(container, path)
                if stream is None:
                    stream = target.add_stream_from_template(container.streams.video[0])
                length = packets[-1].dts - packets[0].dts + frame
                for packet in packets:
                    packet.dts += shift
                    if packet.pts is not None:
                        packet.pts += shift
                    packet.stream = stream
                    target.mux(packet)
                shift += length
    return output


def _opened(path: Path) -> Any:
    try:
        return av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        msg = f"{path}: {error}"
        raise LoopError(msg) from error


def _packets(container: Any, path: Path) -> tuple[list[Any], int]:
    """The packets of the first video stream, each with a dts, and the length of a frame."""
    stream = container.streams.video[0]
    if not stream.time_base or not stream.average_rate:
        msg = f"{path}: it has no time base or no frame rate"
        raise LoopError(msg)
    frame = max(1, round(1 / (stream.average_rate * stream.time_base)))
    packets = [packet for packet in container.demux(stream) if packet.size]
    # Matroska knows only when a packet is shown; FFmpeg cannot say when the first are decoded.
    known = next((k for k, packet in enumerate(packets) if packet.dts is not None), None)
    if known is None:
        msg = f"{path}: no packet has a time"
        raise LoopError(msg)
    for k in reversed(range(known)):
        packets[k].dts = packets[k + 1].dts - frame
    if any(packet.dts is None for packet in packets):
        msg = f"{path}: some packets have no time"
        raise LoopError(msg)
    return packets, frame
