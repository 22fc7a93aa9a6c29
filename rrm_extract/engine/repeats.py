"""Frames that are the one before once more: nothing has changed, and nothing is computed.

A clip of fewer frames per second than are sampled shows some of them several times, and so does a
recorded screen or a slide. Layers that run dense would not notice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from rrm_extract.engine.seen import Seen, joined

__all__ = ["Repeats"]

PARTS = 16
"""A frame is compared in so many parts, and only up to the first that differs."""

if TYPE_CHECKING:
    from torch import Tensor  # which workers do without

Floats = NDArray[np.float32]
Array = TypeVar("Array", Floats, "Tensor")


class Repeats(Generic[Array]):
    """Lets a network compute only the frames that are other than the one before.

    Args:
        join: concatenates arrays of the network's kind along frames.
        loses: whether what the layers truncate is lost; else it is there in the next frame again.
    """

    def __init__(self, join: Callable[[Sequence[Array]], Array], *, loses: bool) -> None:
        self._join: Callable[[Sequence[Array]], Array] = join
        self._loses = loses
        self._scale = 1.0
        self._frame: Floats | None = None
        self._results: tuple[tuple[Array, ...], Seen] | None = None

    def forget(self) -> None:
        """The next frame repeats nothing: the network's state or thresholds are others."""
        self._frame = self._results = None

    def scaled(self, factor: float) -> None:
        """The thresholds are so many times what they were made as: with others all may change."""
        if factor != self._scale:
            self.forget()
        self._scale = factor

    def run(
        self, frames: Floats, compute: Callable[[Floats], tuple[tuple[Array, ...], Seen]]
    ) -> tuple[tuple[Array, ...], Seen, NDArray[np.bool_]]:
        """What a network makes of consecutive frames.

        Args:
            frames: (T, ...) those after the frames of the call before.
            compute: the same for those of them that have to be computed; the state is left with
                the last. May call :meth:`forget`. Where it raises, no frame is remembered.

        Returns:
            The outputs, what the layers saw, and (T,) which frames were not computed.
        """
        try:
            return self._run(frames, compute)
        except BaseException:  # an interrupt, too: the last frame has no results yet
            self.forget()
            raise

    def _run(
        self, frames: Floats, compute: Callable[[Floats], tuple[tuple[Array, ...], Seen]]
    ) -> tuple[tuple[Array, ...], Seen, NDArray[np.bool_]]:
        new = self._new(frames)
        before = self._results  # where there are none, the first frame is new
        if new.all():
            outputs, seen = compute(frames)
        else:
            known = [] if before is None else [before]
            if new.any():
                known.append(compute(frames[new]))
            positions = np.cumsum(new) - (1 if before is None else 0)
            outputs = tuple(
                self._join(parts)[positions]
                for parts in zip(*(results[0] for results in known), strict=True)
            )
            seen = joined([results[1] for results in known])
            seen = seen.shown(positions, ~new, loses=self._loses)
        if self._frame is not None:
            # Copies: what is returned is the caller's.
            last = tuple(self._join([rows[-1:]]) for rows in outputs)
            self._results = last, joined([seen.last()])
        return outputs, seen, ~new

    def _new(self, frames: Floats) -> NDArray[np.bool_]:
        """(T,) whether a frame is another than the one before; remembers the last."""
        new = np.empty(len(frames), bool)
        last = self._frame
        for position, frame in enumerate(frames):
            new[position] = last is None or not _same(last, frame)
            last = frame
        self._frame = frames[-1].copy()
        return new


def _same(a: Floats, b: Floats) -> bool:
    """Whether two frames have equal numbers; what is not a number equals nothing."""
    one, other = a.reshape(-1), b.reshape(-1)
    size = -(-one.size // PARTS)
    return all(
        np.array_equal(one[begin : begin + size], other[begin : begin + size])
        for begin in range(0, one.size, size)
    )
