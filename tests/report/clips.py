"""Clips whose moving parts are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.clips import write_pictures

SIDE = 64
SQUARE = 12


def corner(frame: int) -> tuple[int, int]:
    """Row and column of the square's upper left corner."""
    return 24, 4 + 4 * frame


def scene(frame: int) -> npt.NDArray[np.uint8]:
    """(SIDE, SIDE, 3): a bright square on a soft ramp."""
    ramp = np.linspace(60, 120, SIDE)[None, :, None]
    picture = np.broadcast_to(ramp, (SIDE, SIDE, 3)).astype(np.uint8).copy()
    row, column = corner(frame)
    picture[row : row + SQUARE, column : column + SQUARE] = (240, 220, 200)
    return picture


def moving_square(path: Path, *, frames: int = 10, rate: int = 8) -> Path:
    """The square walks to the right, 4 pixels a frame."""
    return write_pictures(path, [scene(frame) for frame in range(frames)], rate=rate)


def standing_square(path: Path, *, frames: int = 10, rate: int = 8) -> Path:
    """Nothing moves."""
    return write_pictures(path, [scene(0)] * frames, rate=rate)
