"""Where decoding starts, and getting there."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from rrm_extract.video._clock import NO_TIME
from rrm_extract.video._open import data_packets
from rrm_extract.video._packets import PacketTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import av.container
    import av.video.stream

    from rrm_extract.video.clip import ClipInfo

SEEK_BACK_SECONDS = 2
"""How much further back to ask when a seek landed behind the wanted packet."""


class LostTrackError(Exception):
    """Decoding that began in the middle is not what decoding from the beginning gives."""


@dataclass(frozen=True)
class Start:
    """Where to begin decoding."""

    packet: int = 0
    """The first packet given to the decoder."""
    trusted_packet: int = 0
    """Decoding errors in packets before are ignored: they only lead up to this one."""
    trusted_tick: int | None = None
    """Frames shown before are dropped; None keeps all."""


def choose_start(info: ClipInfo, tick: int) -> Start:
    """Find the last packet from which the frame shown at a time can be decoded exactly.

    That frame is the last one that begins at or before `tick`, and may begin long before.
    Where the key frame is open (frames decoded after it are shown before it, and refer to
    frames before it), decoding starts one key frame earlier: then the decoder has seen all
    that any frame from the key frame on can refer to.
    """
    table = info.packets
    candidates = np.flatnonzero(table.ticks[table.key_index] <= tick)
    if not len(candidates):
        return Start()
    key = int(candidates[-1])
    packet = int(table.key_index[key])
    first = packet if table.key_closed[key] else int(table.key_index[key - 1]) if key else 0
    if first == 0:
        return Start()
    return Start(packet=first, trusted_packet=packet, trusted_tick=int(table.ticks[packet]))


def is_packet(packet: av.Packet[Any], index: int, table: PacketTable) -> bool:
    """Whether a packet is the one that was there when the file was scanned."""
    if packet.size != table.sizes[index]:
        return False
    if table.stamped_by == "rate":
        return True
    if packet.pts is None and packet.dts is None:  # the table's time was made for it
        return True
    stamp = packet.pts if table.stamped_by == "pts" else packet.dts
    return stamp is not None and stamp == table.stamps[index]


def packets_from(
    index: int,
    table: PacketTable,
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    *,
    on_skipped: Callable[[], None],
) -> Iterator[av.Packet[Any]]:
    """Give the packets from a key packet on; from the beginning of the file for 0.

    Args:
        index: The packet's number.
        table: All packets, as they were when the file was scanned.
        container: The file.
        stream: Its video stream.
        on_skipped: Called for each packet that is read before that one; without a good index there
            may be very many.

    Raises:
        LostTrackError: FFmpeg does not find that packet again.
    """
    if index == 0:
        return data_packets(container, stream)
    key = int(np.searchsorted(table.key_index, index))
    pts, dts = (int(value) for value in table.key_seek[key])
    targets = [target for target in (pts, dts) if target != NO_TIME]
    if targets and stream.time_base:
        targets.append(min(targets) - round(SEEK_BACK_SECONDS / stream.time_base))
    for target in targets:
        try:
            container.seek(target, stream=stream, backward=True)
            packets = data_packets(container, stream)
            for packet in packets:
                if is_packet(packet, index, table) and _is_place(packet, key, table):
                    return chain([packet], packets)
                if dts != NO_TIME and packet.dts is not None and packet.dts > dts:
                    break
                on_skipped()
        except av.error.FFmpegError:
            continue
    raise LostTrackError("the key frame was not found again")


def _is_place(packet: av.Packet[Any], key: int, table: PacketTable) -> bool:
    position = table.key_position[key]
    return bool(position < 0) or packet.pos is None or packet.pos == position
