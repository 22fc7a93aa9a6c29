"""One picture of an overlay: the frame, painted, and the strip below it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rrm_extract.models import Transform
from rrm_extract.report.show.found import Found
from rrm_extract.report.show.heat import View, paint
from rrm_extract.report.show.strip import Strip
from rrm_extract.report.show.work import WorkSoFar
from rrm_extract.video import SampledFrame

__all__ = ["Canvas"]

WIDTH = 640
"""Smaller frames are enlarged to at least this, so that text can be read."""

HEIGHT = 1440
"""Frames are not enlarged beyond this."""

_GROUND = (24, 24, 28)
_EDGE = (200, 200, 200)


class Canvas:
    """Draws pictures of one size.

    Args:
        height: of the clip's first frame, pixels.
        width: likewise. Frames of other sizes are put in its place, their aspect kept.
        transform: from frames to the network's input.
        input_size: (h, w) of that input.
        found: what draws boxes or skeletons; None for nothing.
        captions: of the strip.
    """

    def __init__(
        self,
        *,
        height: int,
        width: int,
        transform: Transform,
        input_size: tuple[int, int],
        found: Found | None,
        captions: Sequence[str],
    ) -> None:
        factor = max(1, min(math.ceil(WIDTH / width), HEIGHT // height))
        self._room = (width * factor, height * factor)
        self._transform = transform
        self._input_size = input_size
        self._found = found
        self.width = _even(max(self._room[0], WIDTH))
        self._strip = Strip(self.width, captions)
        self.height = _even(self._room[1] + self._strip.height)

    def draw(
        self,
        frame: SampledFrame,
        density: NDArray[np.float32],
        raw: NDArray[np.float32],
        work: WorkSoFar,
    ) -> NDArray[np.uint8]:
        """(height, width, 3) uint8 RGB.

        Args:
            frame: the frame.
            density: (h, w) in 0..1, a map of the network's input.
            raw: (D,) the network's output.
            work: of all frames up to this one.
        """
        canvas = Image.new("RGB", (self.width, self.height), _GROUND)
        picture = self._picture(frame.image, density)
        if self._found is not None:
            height, width = frame.image.shape[:2]
            self._found.draw(picture, raw, height=height, width=width)
        left = (self.width - picture.width) // 2
        canvas.paste(picture, (left, (self._room[1] - picture.height) // 2))
        strip = self._strip.draw(frame=frame.sample_index, seconds=frame.timestamp, work=work)
        canvas.paste(strip, (0, self._room[1]))
        return np.asarray(canvas)

    def _picture(self, image: NDArray[np.uint8], density: NDArray[np.float32]) -> Image.Image:
        """The frame, painted and enlarged, with the edges of what the network sees."""
        height, width = image.shape[:2]
        view = View.of(self._transform, self._input_size, height=height, width=width)
        painted = Image.fromarray(paint(image, view.spread(density, height, width)))
        scale = min(self._room[0] / width, self._room[1] / height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        if size != painted.size:
            # Whole pixels, so that what is painted has the edges that it has in the frame.
            painted = painted.resize(size, Image.Resampling.NEAREST)
        if view.is_part_of(height, width):
            left, top, right, bottom = (
                round(edge * scale) for edge in (view.left, view.top, view.right, view.bottom)
            )
            ImageDraw.Draw(painted).rectangle((left, top, right - 1, bottom - 1), outline=_EDGE)
        return painted


def _even(side: int) -> int:
    """Video encoders that halve colour's resolution need even sizes."""
    return side + side % 2
