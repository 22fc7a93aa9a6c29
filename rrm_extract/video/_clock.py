"""Brings a stream's timestamps onto one clock: closes its jumps, sets broken times right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from fractions import Fraction

Int64s = npt.NDArray[np.int64]

NO_TIME = -(2**63)
"""FFmpeg's AV_NOPTS_VALUE: the packet has no such timestamp."""

MAX_BACKWARD_SECONDS = 1
"""Decoding times that fall back by more are a new beginning (files joined end to end)."""

MAX_FORWARD_SECONDS = 3600
"""A frame shown for longer is no frame but a broken timestamp."""

LONGEST_STEP = 1.5
"""Usual times from frame to frame; between frames further apart there is room for another."""

MAX_REORDERED = 16
"""Frames that are shown before one that is decoded earlier; no coder in use reorders further."""

MAX_DELAY_SECONDS = 1
"""From decoding to showing, beyond twice what reordering takes and what most frames have."""


def unjump(stamps: Int64s, jump_at: Int64s, jump_by: Int64s) -> Int64s:
    """Give timestamps (P,) on one clock, adding `jump_by` (J,) from packets `jump_at` (J,) on."""
    if not len(jump_at):
        return stamps
    shifts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(jump_by)])
    places = np.searchsorted(jump_at, np.arange(len(stamps)), side="right")
    return np.asarray(stamps + shifts[places])


def filled(dts: Int64s) -> Int64s:
    """Decoding times (P,) with those that are missing, at least one is not, taken from before.

    FFmpeg knows none of the first packets of a Matroska file with reordered frames.
    """
    known = np.flatnonzero(dts != NO_TIME)
    places = np.searchsorted(known, np.arange(len(dts)), side="right") - 1
    return np.asarray(dts[known[np.maximum(places, 0)]])


def find_jumps(
    clock: Int64s, shown: npt.NDArray[np.bool_], *, time_base: Fraction, usual: int
) -> tuple[Int64s, Int64s]:
    """Find where times in decoding order (P,) fall back or leap, and what closes each gap.

    Only of packets that are shown: those before the second segment of an edit list fall back to
    the key frame that it needs. A single time out of line is a jump there and back; where the
    container has presentation times alone, as Matroska has, decoding times are broken with them.
    """
    places = np.flatnonzero(shown)
    clock = clock[places]
    # In floating point: a broken timestamp may be near the ends of int64.
    steps = np.diff(clock.astype(np.float64)) * float(time_base)
    jumps = np.flatnonzero((steps < -MAX_BACKWARD_SECONDS) | (steps > MAX_FORWARD_SECONDS)) + 1
    longest = 2 * usual + float(MAX_BACKWARD_SECONDS / time_base)
    by: dict[int, int] = {}
    for at in jumps.tolist():
        if at in by:
            continue
        for single in (at - 1, at):
            shift = 0 if single in by else _into_line(clock, single, longest=longest)
            if shift:
                by |= {single: shift, single + 1: -shift}
                break
        else:
            by[at] = int(clock[at - 1]) + usual - int(clock[at])
    if any(abs(shift) >= 2**62 for shift in by.values()):
        by = {at: max(-(2**62), min(2**62, shift)) for at, shift in by.items()}
    where = sorted(by)
    return places[where].astype(np.int64), np.array([by[at] for at in where], dtype=np.int64)


def _into_line(clock: Int64s, at: int, *, longest: float) -> int:
    """What puts a time (of P) between its neighbours, if it is far away and they are near; or 0."""
    if not 0 < at < len(clock) - 1:
        return 0
    before, time, behind = (int(clock[place]) for place in (at - 1, at, at + 1))
    shift = (before + behind) // 2 - time
    return shift if 0 < behind - before <= longest < abs(shift) else 0


def find_broken(
    ticks: Int64s,
    clock: Int64s,
    shown: npt.NDArray[np.bool_],
    *,
    time_base: Fraction,
    usual: int,
) -> tuple[Int64s, Int64s]:
    """Find presentation times that cannot be, as jumps there and, at the next packet, back.

    A frame is shown as long after it is decoded as most others are, give or take what reordering
    takes. Around one that stands for long the times are further apart, but the frames are still
    shown in turn; a frame that is neither shown in time nor in turn has a broken time.

    Args:
        ticks: (P,) int64: presentation times, in decoding order, on one clock.
        clock: (P,) int64: decoding times, on the same one.
        shown: (P,) bool: which of the packets are shown.
        time_base: The unit of the times, seconds.
        usual: The usual time from frame to frame.

    Returns:
        Packets (2 B,) and what is added to the times from each one on (2 B,), both int64.
    """
    none = np.zeros(0, dtype=np.int64)
    places = np.flatnonzero(shown)
    if len(places) <= MAX_REORDERED:
        return none, none
    times, decoded = ticks[places], clock[places]
    turns = np.empty(len(places), dtype=np.int64)
    turns[np.argsort(times, kind="stable")] = np.arange(len(places))
    out_of_turn = np.abs(turns - np.arange(len(places))) > MAX_REORDERED
    # In floating point: a broken timestamp may be near the ends of int64.
    delays = times.astype(np.float64) - decoded
    longest = 2 * MAX_REORDERED * usual + float(MAX_DELAY_SECONDS / time_base)
    broken = out_of_turn & (np.abs(delays - np.median(delays)) > longest)
    if not broken.any() or 2 * np.count_nonzero(broken) > len(broken):
        return none, none
    earliest = decoded[broken] + int(delays[~broken].min())
    by = _places_to_be(np.sort(times[~broken]), earliest, usual=usual) - times[broken]
    at = places[broken]
    return np.stack([at, at + 1], axis=1).reshape(-1), np.stack([by, -by], axis=1).reshape(-1)


def _places_to_be(times: Int64s, earliest: Int64s, *, usual: int) -> Int64s:
    """When frames (B,) that can be shown from `earliest` (B,) on fit between others (T,), sorted.

    In the first gap that is long enough for another frame, beside the steps around it, if it is
    near. Else at once: a time too early does no harm, the decoder's order is kept.
    """
    steps = np.diff(times)
    if len(steps) < 2:
        return earliest
    before, behind = np.append(steps[1], steps[:-1]), np.append(steps[1:], steps[-2])
    # Where frames come faster than usual a gap is shorter.
    around = np.clip(np.maximum(before, behind), max(1, usual // 4), usual)
    is_gap = steps > LONGEST_STEP * around
    gaps = times[:-1][is_gap] + around[is_gap]
    if not len(gaps):
        return earliest
    found = np.searchsorted(gaps, earliest - usual // 2)
    gap = gaps[np.minimum(found, len(gaps) - 1)]
    is_near = (found < len(gaps)) & (gap - earliest <= MAX_REORDERED * usual)
    return np.asarray(np.where(is_near, gap, earliest))
