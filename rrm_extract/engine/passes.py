"""How a batch of frames is divided into passes through the layers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["Passes"]

FIRST_PASS = 2
"""Frames in the first pass of a lane."""

SAMPLES = 28
"""Rows, and columns, of a frame that are looked at, at most twice as many."""

MUCH, RISE = 0.1, 3.0
"""Share of the numbers that change, and times the one before, that make a new movement."""


class Passes:
    """Divides the batches of one lane.

    The engine decides from the frames of one pass which layers run dense in the next, and a layer
    that has lists takes several times as long for a frame in which all changes. So where nothing is
    known yet, and where a still picture begins to move, a short pass comes first, from which the
    engine learns. One frame between others like them (a flash, an encoder's key frame) begins no
    movement: two in a row do.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Nothing is known of the lane."""
        self._last: NDArray[np.float32] | None = None
        self._share = math.nan
        self._learns = True

    def forget_frame(self) -> None:
        """The next frame is compared with none; what the engine has learned stays."""
        self._last = None

    def divide(self, frames: NDArray[np.float32]) -> list[slice]:
        """The passes of one batch, in order; each frame is in one.

        Args:
            frames: (T, C, H, W), which follow those of the last call.
        """
        shares = self._changed(frames)
        slices: list[slice] = []
        begin, count = 0, len(frames)

        def add(end: int) -> None:
            nonlocal begin
            if end == begin:
                return
            slices.append(slice(begin, end))
            known = shares[begin:end][~np.isnan(shares[begin:end])]
            if len(known):
                self._share = float(known.mean())
            begin = end

        if self._learns:
            add(min(FIRST_PASS, count))
            self._learns = False
        while begin < count:
            # As long as nobody knows what is usual, much is enough.
            usual = 0.0 if math.isnan(self._share) else self._share
            moves = shares > max(MUCH, RISE * usual)
            both = np.flatnonzero(moves[begin:-1] & moves[begin + 1 :])
            if len(both):
                onset = begin + int(both[0])
                add(onset)
                add(onset + 1)
            else:
                add(count)
        return slices

    def _changed(self, frames: NDArray[np.float32]) -> NDArray[np.float64]:
        """The share of the numbers looked at that differ from the frame before."""
        rows, columns = (max(1, size // SAMPLES) for size in frames.shape[2:])
        looked_at = frames[:, :, ::rows, ::columns].reshape(len(frames), -1)
        shares = np.full(len(frames), np.nan)
        if self._last is not None and self._last.shape == looked_at.shape[1:]:
            shares[0] = (looked_at[0] != self._last).mean()
        shares[1:] = (looked_at[1:] != looked_at[:-1]).mean(axis=1)
        self._last = looked_at[-1].copy()
        return shares
