"""What a decoder holds back: which packets' frames are still to come, and at what times."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av
    import numpy as np
    import numpy.typing as npt

    from rrm_extract.video._packets import PacketTable


class Inside:
    """Follows packets into a decoder and their frames out of it.

    Args:
        table: The stream's packets.
    """

    def __init__(self, table: PacketTable) -> None:
        self._table = table
        self._packets: list[int] = []
        self._slots: deque[int] = deque()
        self._waiting: list[int] | None = []

    @property
    def oldest(self) -> int | None:
        """The first packet in decoding order whose frame is still to come; None if none is."""
        return self._packets[0] if self._packets else None

    def pending_slots(self) -> list[int]:
        """By slot: the slots of the frames to come, in order."""
        return [*self._slots, *(self._waiting or [])]

    def clear(self) -> None:
        """The decoder was emptied."""
        self._packets = []
        self._slots = deque()
        self._waiting = []

    def went_in(self, packet: int, n_out: int, context: av.VideoCodecContext) -> None:
        """Note a packet that the decoder took, and how many frames it gave for it.

        By slot: a decoder that reorders holds the first frames back; from then on each packet
        that holds a frame pushes one out. One that pushes none out holds none, and its slot
        stays unused.
        """
        if self._table.hidden[packet]:
            return
        if not self._table.by_slot:
            self._packets.append(packet)
        elif self._waiting is None:
            if n_out:
                self._hold([self._first_field(packet)])
        else:
            first = self._first_field(packet)
            if first not in self._waiting[-1:]:
                self._waiting.append(first)
            if n_out:
                *before, last = self._waiting
                self._waiting = None
                self._hold([*_frames_among(before, self._table.sizes, context.reorder_depth), last])

    def came_out(self, packet: int) -> int:
        """Note that a packet's frame came out.

        Returns:
            The packet, or by slot the slot, whose time the frame has.
        """
        ticks = self._table.ticks
        if self._table.by_slot:
            self._packets = [other for other in self._packets if other != packet]
            if self._slots:
                return self._slots.popleft()
            # All of the clip's frames were held back until its end.
            return self._waiting.pop(0) if self._waiting else packet
        # Frames come out as they are shown: what should have come before never will.
        self._packets = [other for other in self._packets if ticks[other] > ticks[packet]]
        return packet

    def _first_field(self, packet: int) -> int:
        """The packet that stands for a frame: the decoder names its frames by the first field's."""
        stamps = self._table.stamps
        shares = (
            self._table.stamped_by == "rate" and packet and stamps[packet] == stamps[packet - 1]
        )
        return packet - 1 if shares else packet

    def _hold(self, packets: list[int]) -> None:
        self._packets += packets
        self._slots += packets


def _frames_among(held: list[int], sizes: npt.NDArray[np.int32], delay: int) -> list[int]:
    """Which packets, of those before the first frame came out, hold the frames held back."""
    if len(held) <= delay:
        return held
    largest = sorted(held[1:], key=lambda packet: -int(sizes[packet]))[: max(0, delay - 1)]
    return sorted(held[: min(1, delay)] + largest)
