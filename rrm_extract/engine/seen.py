"""What the linear layers saw, from the kernels' counts. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rrm_extract.rrm import FrameDensities

__all__ = ["CountedLayer", "Seen", "joined", "seen_by", "seen_of"]


@dataclass(frozen=True, kw_only=True)
class CountedLayer:
    """A linear layer as the accounting needs it.

    Attributes:
        macs: dense multiply-accumulates of one frame.
        elements: of its input, one frame.
    """

    macs: int
    elements: int


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the linear layers saw in each frame of one call.

    Attributes:
        density: (T, L) float64, share of non-zeros of each layer's plain input.
        density_delta: (T, L) float64, share of non-zeros of its delta; at a key frame that of the
            plain input.
        key_frame: (T,) bool, the frame was computed densely by every layer.
        work: (T,) float64, share of the dense MACs that was done.
        truncated: (T, L) float64, sum of squares of the differences that were not propagated; None
            unless the network tracks it. With the policy "bounded" that is how far each snapshot
            is from the input, with "paper" what this frame has lost.
    """

    density: NDArray[np.float64]
    density_delta: NDArray[np.float64]
    key_frame: NDArray[np.bool_]
    work: NDArray[np.float64]
    truncated: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.work)

    def first(self, frames: int) -> Seen:
        """The same of the first frames only."""
        return self._of(slice(frames))

    def last(self) -> Seen:
        """The same of the last frame only."""
        return self._of(slice(len(self) - 1, None))

    def _of(self, frames: slice) -> Seen:
        return Seen(
            density=self.density[frames],
            density_delta=self.density_delta[frames],
            key_frame=self.key_frame[frames],
            work=self.work[frames],
            truncated=None if self.truncated is None else self.truncated[frames],
        )

    def shown(
        self, positions: NDArray[np.intp], repeats: NDArray[np.bool_], *, loses: bool
    ) -> Seen:
        """The same where some frames are shown again, of which nothing has changed.

        Args:
            positions: (T,) which of these frames each one shows.
            repeats: (T,) whether it is the one before once more.
            loses: whether ``truncated`` is what each frame has lost; else it stays as it is.
        """
        again = repeats[:, None]
        truncated = None
        if self.truncated is not None:
            truncated = np.where(again & loses, 0.0, self.truncated[positions])
        return Seen(
            density=self.density[positions],
            density_delta=np.where(again, 0.0, self.density_delta[positions]),
            key_frame=self.key_frame[positions] & ~repeats,
            work=np.where(repeats, 0.0, self.work[positions]),
            truncated=truncated,
        )


def seen_by(
    layers: Sequence[CountedLayer],
    counts: Sequence[NDArray[np.int64] | None],
    *,
    frames: int,
    fresh: bool,
    truncated: Sequence[NDArray[np.float64] | None] | None = None,
) -> Seen:
    """What some layers saw.

    Args:
        layers: L layers.
        counts: for each (T, 3): non-zero inputs, deltas, and 1 where it ran dense; None for a layer
            that is always dense and that nobody counts.
        frames: T.
        fresh: whether the first frame was computed from nothing.
        truncated: for each (T,) sums of squares of what was not propagated, None for a layer that
            is always dense; None as a whole where nobody tracks it.
    """
    density = np.ones((frames, len(layers)))
    density_delta = np.ones((frames, len(layers)))
    dense = np.ones((frames, len(layers)), bool)
    first = np.arange(frames) == (0 if fresh else -1)
    for position, (layer, values) in enumerate(zip(layers, counts, strict=True)):
        if values is None:
            continue
        density[:, position] = values[:, 0] / layer.elements
        density_delta[:, position] = values[:, 1] / layer.elements
        dense[:, position] = values[:, 2] > 0
        density_delta[first, position] = density[first, position]
    macs = np.array([layer.macs for layer in layers], np.float64)
    share = np.where(dense, 1.0, density_delta)
    work = share @ macs / macs.sum() if macs.sum() else np.ones(frames)
    key_frame: NDArray[np.bool_] = np.logical_and.reduce(dense, axis=1)
    lost = None
    if truncated is not None:
        lost = np.zeros((frames, len(layers)))
        for position, sums in enumerate(truncated):
            lost[:, position] = 0 if sums is None else sums
    return Seen(
        density=density,
        density_delta=density_delta,
        key_frame=key_frame,
        work=work,
        truncated=lost,
    )


def seen_of(densities: FrameDensities) -> Seen:
    """What the layers saw, as arrays."""
    truncated = densities.truncated
    return Seen(
        density=densities.density.numpy(),
        density_delta=densities.density_delta.numpy(),
        key_frame=densities.key_frame.numpy(),
        work=densities.work.numpy(),
        truncated=None if truncated is None else truncated.numpy(),
    )


def joined(parts: Sequence[Seen]) -> Seen:
    """The same for the frames of several calls."""
    truncated = [part.truncated for part in parts if part.truncated is not None]
    return Seen(
        density=np.concatenate([part.density for part in parts]),
        density_delta=np.concatenate([part.density_delta for part in parts]),
        key_frame=np.concatenate([part.key_frame for part in parts]),
        work=np.concatenate([part.work for part in parts]),
        truncated=np.concatenate(truncated) if len(truncated) == len(parts) else None,
    )
