"""The table of a stream's packets: when each frame is shown and where decoding may start."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rrm_extract.video._bits import Entry
from rrm_extract.video._clock import (
    LONGEST_STEP,
    MAX_FORWARD_SECONDS,
    NO_TIME,
    Int64s,
    filled,
    find_broken,
    find_jumps,
    unjump,
)

if TYPE_CHECKING:
    from fractions import Fraction

    import av

MOST_UNSTAMPED = 0.75
"""Share of packets without any time up to which the others tell theirs. Of fields it is a half."""


class PacketColumns:
    """Collects the packets of a stream, in the order of the file.

    Kept as plain arrays: a day of video has millions of packets.
    """

    def __init__(self) -> None:
        self.pts = array("q")
        self.dts = array("q")
        self.durations = array("q")
        self.sizes = array("i")
        self.hidden = array("b")
        self.key_index = array("q")
        self.key_position = array("q")
        self.key_entry = array("b")

    def append(self, packet: av.Packet[Any]) -> None:
        """Add a packet."""
        self.pts.append(NO_TIME if packet.pts is None else packet.pts)
        self.dts.append(NO_TIME if packet.dts is None else packet.dts)
        self.durations.append(packet.duration or 0)
        self.sizes.append(packet.size)
        self.hidden.append(packet.is_discard)

    def append_key(self, *, position: int | None, entry: Entry) -> None:
        """Say that the packet added last has the key frame flag."""
        self.key_index.append(len(self.pts) - 1)
        self.key_position.append(-1 if position is None else position)
        self.key_entry.append(entry)


@dataclass(frozen=True, eq=False)
class PacketTable:
    """The packets of a stream, about 13 bytes for each. P packets, K key packets, J jumps.

    "Slots": in some containers a packet's presentation time is missing or a guess. What is
    known then is the set of times at which frames are shown; frames take them in the order in
    which the decoder gives them. Otherwise each frame has the time of its own packet.
    """

    stamps: Int64s
    """(P,) int64: the packet's timestamp as in the file, in decoding order, in time base units;
    where it has none, one behind that of the packet before."""
    sizes: npt.NDArray[np.int32]
    """(P,) int32: bytes. With the stamp it tells whether a packet is the expected one."""
    hidden: npt.NDArray[np.bool_]
    """(P,) bool: not to be shown (cut off by an edit list, before the first key frame, or behind
    frames that a file which was cut off has lost)."""
    by_slot: bool
    """Whether frames take times in order instead of having their packet's."""
    stamped_by: str
    """Which timestamp `stamps` holds: "pts", "dts", or "rate" (its frame's number)."""
    jump_at: Int64s
    """(J,) int64: packets at which the file's clock jumps; behind a broken time it jumps back."""
    jump_by: Int64s
    """(J,) int64: what is added to the stamps from there on, in time base units."""
    key_index: Int64s
    """(K,) int64: packets at which decoding may start, ascending."""
    key_seek: Int64s
    """(K, 2) int64: presentation and decoding time to ask FFmpeg for, `NO_TIME` for none."""
    key_position: Int64s
    """(K,) int64: offset in the file, bytes; -1 unknown."""
    key_closed: npt.NDArray[np.bool_]
    """(K,) bool: no frame decoded later is shown earlier."""
    span: int
    """From the first frame's time to the end of the last, in time base units."""
    frame_span: int
    """The usual time from frame to frame, in time base units, at least 1."""

    def __len__(self) -> int:
        return len(self.stamps)

    def __getstate__(self) -> dict[str, object]:
        # Without what was derived: a table travels to every worker process.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def ticks(self) -> Int64s:
        """(P,) int64: the time since the first frame, in time base units.

        By slot: ascending, slot p being the p-th time at which a frame can be shown.
        Otherwise: of the packet's frame. Hidden packets have a time too.
        """
        ticks = unjump(self.stamps, self.jump_at, self.jump_by)
        if self.by_slot:
            ticks = np.sort(ticks)
        shown = ticks[~self.hidden]
        return np.asarray(ticks - (shown.min() if len(shown) else ticks.min()))

    @cached_property
    def last_tick(self) -> int:
        """When the last frame that is shown begins, in `ticks`."""
        return int(self.ticks[~self.hidden].max())

    @cached_property
    def step(self) -> int:
        """The shortest time between frames that are shown, in time base units, at least 1.

        0 where another is no multiple of it; of a single frame, how long it is shown.
        """
        times = np.unique(self.ticks[~self.hidden])
        steps = times[1:] - times[:-1]
        if not len(steps):
            return self.span
        shortest = int(steps.min())
        return 0 if np.any(steps % shortest) else shortest

    @cached_property
    def shown_stamps(self) -> Int64s:
        """(P,) int64: the timestamp behind each of `ticks`, as the file has it."""
        if not self.by_slot:
            return self.stamps
        clock = unjump(self.stamps, self.jump_at, self.jump_by)
        return np.asarray(self.stamps[np.argsort(clock, kind="stable")])

    @cached_property
    def first_shown(self) -> int:
        """The first packet that is shown; of those behind it each may be needed by others."""
        return int(np.argmin(self.hidden))

    @cached_property
    def ordinals(self) -> Int64s:
        """(P,) int64: the frame's place in display order among the packets that are not hidden.

        A packet that turns out to hold no picture keeps its place: the number of a frame is the
        same wherever decoding started.
        """
        shown = np.flatnonzero(~self.hidden)
        order = shown if self.by_slot else shown[np.argsort(self.ticks[shown], kind="stable")]
        ordinals = np.full(len(self), -1, dtype=np.int64)
        ordinals[order] = np.arange(len(order))
        return ordinals

    @cached_property
    def earliest_from(self) -> Int64s:
        """(P,) int64: the earliest time of a packet and all later ones, in `ticks`.

        Where none of them is shown: the end of the clip.
        """
        ticks = np.where(self.hidden, self.span, self.ticks)
        return np.asarray(np.minimum.accumulate(ticks[::-1])[::-1])


def build_table(
    columns: PacketColumns,
    *,
    time_base: Fraction,
    rate: Fraction,
    guesses_pts: bool,
    reorders: bool,
    field_duration: int,
    starts_anywhere: bool,
    ends_early: bool = False,
) -> PacketTable:
    """Decide which timestamps to believe, and where decoding may start.

    - "pts": every packet has a presentation time. A frame has the time of its packet, but for
      single times that cannot be; unless the times are in an order that the frames cannot have:
      then frames take them in order.
    - "dts": presentation times are missing, or the container has none and FFmpeg guesses them
      (AVI). Decoding times are then the times at which frames are shown, in order.
    - "rate": there are no usable times at all; packet n is at n / rate, but for second fields.

    A packet without any time is a little behind the one before, unless most of them have none.

    Args:
        columns: The packets, at least one.
        time_base: The unit of the timestamps, seconds.
        rate: Frames per second, for want of timestamps.
        guesses_pts: The container keeps no presentation times.
        reorders: The decoder gives frames in another order than it takes them.
        field_duration: Duration of a packet that holds one of a frame's two fields, in time base
            units; 0 where packets hold frames.
        starts_anywhere: The container may begin in the middle of a video (a broadcast).
        ends_early: The file was cut off: frames may be missing between the last ones.
    """
    pts = np.array(columns.pts, dtype=np.int64)
    dts = np.array(columns.dts, dtype=np.int64)
    usual = max(1, round(1 / (rate * time_base)))
    _fill(pts, dts, usual=usual)
    hidden = np.array(columns.hidden, dtype=np.bool_)
    stamped_by, by_slot = _choose_stamps(pts, dts, guesses_pts=guesses_pts)
    numbers = _frame_numbers(np.array(columns.durations, dtype=np.int64), field_duration)
    stamps = {"pts": pts, "dts": dts, "rate": numbers}[stamped_by]
    if stamped_by == "rate":
        usual = 1

    clock = stamps if stamped_by == "rate" or np.all(dts == NO_TIME) else filled(dts)
    jump_at, jump_by = find_jumps(clock, ~hidden, time_base=time_base, usual=usual)
    decoded = unjump(clock, jump_at, jump_by)
    if stamped_by == "pts" and not by_slot:
        ticks = unjump(stamps, jump_at, jump_by)
        at, by = find_broken(ticks, decoded, ~hidden, time_base=time_base, usual=usual)
        jump_at, jump_by = _merge((jump_at, jump_by), (at, by))
    ticks = unjump(stamps, jump_at, jump_by)
    in_order = not np.any(np.diff(ticks) < 0)
    if in_order == reorders and not hidden.any():
        # Frames are reordered but their times are not, or the other way round: the times belong
        # to other frames. (Of hidden frames the decoder says nothing, so no slots can be counted.)
        by_slot = True

    key_index = np.array(columns.key_index, dtype=np.int64)
    entry = np.array(columns.key_entry, dtype=np.int8)
    entrances = key_index[entry >= Entry.OPEN]
    if starts_anywhere and len(entrances):
        hidden[: entrances[0]] = True
    if hidden.all():
        hidden[:] = False
    if ends_early and not by_slot and stamped_by != "rate":
        until = int(decoded[-1])
        hidden |= _behind_a_gap(ticks, ~hidden, complete_until=until, usual=usual)
    usable, closed = _judge_keys(
        key_index,
        entry,
        ticks,
        by_slot=by_slot,
    )
    keys = key_index[usable] if stamped_by != "rate" else key_index[:0]
    keep = np.flatnonzero(usable)[: len(keys)]
    shown = np.flatnonzero(~hidden)
    last = shown[np.argmax(ticks[shown])]
    # The last frame cannot be shown for less than nothing, nor much longer than it was declared.
    last_span = int(columns.durations[last]) if stamped_by != "rate" else 1
    return PacketTable(
        stamps=stamps,
        sizes=np.array(columns.sizes, dtype=np.int32),
        hidden=hidden,
        by_slot=by_slot,
        stamped_by=stamped_by,
        jump_at=jump_at,
        jump_by=jump_by,
        key_index=keys,
        key_seek=np.stack([pts[keys], dts[keys]], axis=1),
        key_position=np.array(columns.key_position, dtype=np.int64)[keep],
        key_closed=closed[keep],
        span=int(ticks[last] - ticks[shown].min())
        + (last_span if 0 < last_span * time_base <= MAX_FORWARD_SECONDS else usual),
        frame_span=usual,
    )


def _merge(one: tuple[Int64s, Int64s], other: tuple[Int64s, Int64s]) -> tuple[Int64s, Int64s]:
    """Jumps (J,) and jumps (K,), each packets and what is added from there on: (J + K,)."""
    at, by = (np.concatenate(parts) for parts in zip(one, other, strict=True))
    order = np.argsort(at, kind="stable")
    return at[order], by[order]


def _behind_a_gap(
    ticks: Int64s, shown: npt.NDArray[np.bool_], *, complete_until: int, usual: int
) -> npt.NDArray[np.bool_]:
    """Which frames (P,) of a file that was cut off come after frames that it has lost.

    A packet is decoded at or before the time its frame is shown, so none is missing up to the time
    at which the last one is decoded. Behind that a frame for others to refer to may be there
    without those that are shown before it.
    """
    times = np.sort(ticks[shown])
    gaps = (np.diff(times) > LONGEST_STEP * usual) & (times[1:] > complete_until)
    if not gaps.any():
        return np.zeros_like(shown)
    return np.asarray(shown & (ticks >= times[1:][gaps][0]))


def _fill(pts: Int64s, dts: Int64s, *, usual: int) -> None:
    """Gives packets (P,) without any time, where others have some, one behind the packet before.

    So it is with the second field of an interlaced frame, which FFmpeg takes for a packet of its
    own, and where a broadcast has lost a few bytes.
    """
    without = (pts == NO_TIME) & (dts == NO_TIME)
    if not without.any() or np.count_nonzero(without) > MOST_UNSTAMPED * len(without):
        return
    stamped, missing = np.flatnonzero(~without), np.flatnonzero(without)
    behind = np.searchsorted(stamped, missing)
    before = stamped[np.maximum(behind - 1, 0)]
    after = stamped[np.minimum(behind, len(stamped) - 1)]
    clock = pts if np.any(dts[stamped] == NO_TIME) else dts
    # Evenly between both, but no further apart than frames are; at the ends as elsewhere.
    room = (clock[after] - clock[before]) // np.maximum(after - before, 1)
    inside = room[(before != after) & (room > 0)]
    room[before == after] = np.median(inside) if len(inside) else usual
    step = np.where((room > 0) & (room < usual), room, usual)
    for times in (pts, dts):
        known = times[before] != NO_TIME
        times[missing[known]] = (times[before] + step * (missing - before))[known]


def _frame_numbers(durations: Int64s, field_duration: int) -> Int64s:
    """Number the frames of packets (P,) in decoding order; a frame's two fields share a number."""
    places = np.arange(len(durations), dtype=np.int64)
    is_field = (durations == field_duration) & (field_duration > 0)
    frame_before = np.maximum.accumulate(np.where(is_field, -1, places))
    is_second = is_field & ((places - frame_before) % 2 == 0)
    return np.asarray(places - np.cumsum(is_second))


def _choose_stamps(pts: Int64s, dts: Int64s, *, guesses_pts: bool) -> tuple[str, bool]:
    has_dts = not np.any(dts == NO_TIME)
    has_pts = not np.any(pts == NO_TIME)
    if has_pts and not guesses_pts:
        return "pts", False
    if has_dts:
        return "dts", True
    return ("pts", True) if has_pts else ("rate", True)


def _judge_keys(
    index: Int64s, entry: npt.NDArray[np.int8], ticks: Int64s, *, by_slot: bool
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Say at which key packets (K,) decoding may start, and which of them are closed."""
    if not len(index):
        none = np.zeros(0, dtype=np.bool_)
        return none, none
    latest_until = np.maximum.accumulate(ticks)
    earliest_from = np.minimum.accumulate(ticks[::-1])[::-1]
    before = np.where(index > 0, latest_until[np.maximum(index - 1, 0)], np.iinfo(np.int64).min)
    usable = (entry >= Entry.OPEN) & (before < ticks[index])
    leads = earliest_from[index] < ticks[index]
    if by_slot:
        # Frames take slots in order, so both sides of the packet must keep their own slots.
        return usable & ~leads, entry == Entry.CLOSED
    return usable, ~leads & (entry == Entry.CLOSED)
