"""Positions of the kept weights, as gaps of a few bits (section 2 of the paper, Figure 2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["bridge_gaps", "entry_positions", "trailing_fillers"]


def bridge_gaps(
    skipped: NDArray[np.int64], codes: NDArray[np.uint8], *, index_bits: int, trailing: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Break gaps that are too long for their bits with fillers.

    Args:
        skipped: (kept,) int64, how many weights lie between each one and the one before.
        codes: (kept,) uint8, of the weights; 0 is a filler's and does not occur.
        index_bits: width of a gap, 1 to 8.
        trailing: fillers behind the last weight.

    Returns:
        Codes and gaps of the entries, (E,) uint8 each.
    """
    reach = 1 << index_bits
    fillers = skipped // reach
    places = np.cumsum(fillers + 1) - 1
    n_entries = (int(places[-1]) + 1 if len(places) else 0) + trailing
    all_codes = np.zeros(n_entries, np.uint8)
    all_gaps = np.full(n_entries, reach - 1, np.uint8)
    all_codes[places] = codes
    all_gaps[places] = skipped - fillers * reach
    return all_codes, all_gaps


def trailing_fillers(n_left: int, *, index_bits: int) -> int:
    """How many fillers it takes until no more than 2^index_bits of ``n_left`` weights are left."""
    return max(0, -(-n_left // (1 << index_bits)) - 1)


def entry_positions(gaps: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Where entries are, (E,) int64 from their gaps, (E,) uint8."""
    return np.cumsum(gaps.astype(np.int64) + 1) - 1
