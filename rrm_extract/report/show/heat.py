"""Densities as colours over a frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rrm_extract.models import Transform

__all__ = ["View", "heat_colours", "paint"]

_COLOURS = ((255, 225, 60), (255, 130, 20), (225, 25, 60), (150, 0, 110))
"""From little to all, in equal steps: yellow, orange, red, purple."""

_LEAST, _MOST = 0.1, 0.65
"""Opacity of the smallest density above 0, and of 1."""


@dataclass(frozen=True, kw_only=True)
class View:
    """What of a frame the network sees: edges of its input, in pixels of the frame.

    A letterbox sees more than the frame; the edges then lie outside.
    """

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def of(cls, transform: Transform, size: tuple[int, int], *, height: int, width: int) -> View:
        """The view of an input of ``size`` (h, w) on a frame of height x width pixels."""
        corners = torch.tensor([[0, 0], [size[1], size[0]]], dtype=torch.float64, device="cpu")
        (left, top), (right, bottom) = transform.undo(corners, height, width).tolist()
        return cls(left=left, top=top, right=right, bottom=bottom)

    def is_part_of(self, height: int, width: int) -> bool:
        """Whether, at some side, pixels of a frame of this size lie outside."""
        return max(self.left, self.top, width - self.right, height - self.bottom) > 0.5

    def spread(self, density: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
        """A map of the input, (h, w), as one of the frame, (height, width); 0 where it is blind.

        A pixel of the frame has the value of the cell that its middle lies in.
        """
        rows, seen_rows = _cells(height, self.top, self.bottom, density.shape[0])
        columns, seen_columns = _cells(width, self.left, self.right, density.shape[1])
        spread: NDArray[np.float32] = density[np.ix_(rows, columns)]
        return np.where(np.outer(seen_rows, seen_columns), spread, np.float32(0))


def _cells(
    pixels: int, begin: float, end: float, cells: int
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The cell of each pixel along one side, and whether it lies in one."""
    cell = np.floor((np.arange(pixels) + 0.5 - begin) / (end - begin) * cells).astype(np.intp)
    return cell.clip(0, cells - 1), (cell >= 0) & (cell < cells)


def heat_colours(density: NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., 3) RGB in 0..255 of densities in 0..1."""
    stops = np.linspace(0, 1, len(_COLOURS))
    channels = [np.interp(density, stops, channel) for channel in zip(*_COLOURS, strict=True)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _tables() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """For 256 densities: what stays of the frame, (256, 1), and what is added to it, (256, 3)."""
    density = np.linspace(0, 1, 256, dtype=np.float32)
    opacity = (_LEAST + (_MOST - _LEAST) * density)[:, None]
    opacity[0] = 0
    return 1 - opacity, heat_colours(density) * opacity


_STAYS, _ADDED = _tables()


def paint(image: NDArray[np.uint8], density: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A frame with its densities painted over it; where they are 0 it stays as it is.

    Args:
        image: (H, W, 3) uint8 RGB.
        density: (H, W) float32 in 0..1.
    """
    # Rounded up: the smallest density is still one.
    level = np.ceil(density * 255).astype(np.uint8)
    painted: NDArray[np.uint8] = np.rint(image * _STAYS[level] + _ADDED[level]).astype(np.uint8)
    return painted
