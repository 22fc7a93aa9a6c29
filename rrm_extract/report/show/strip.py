"""The strip below a frame: its share of work, the last frames' as a graph, and what is shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rrm_extract.report.show.heat import heat_colours
from rrm_extract.report.show.unit import unit_of
from rrm_extract.report.show.work import WINDOW, WorkSoFar
from rrm_extract.report.table import number

__all__ = ["Strip"]

_GROUND = (24, 24, 28)
_FIELD = (40, 40, 46)
_LINE = (90, 90, 98)
_TEXT = (235, 235, 235)
_QUIET = (170, 170, 176)
_WORK = (90, 170, 250)
_KEY = (250, 130, 40)
"""Colours: ground, graph's field, its lines, text, less of it, work, key frames."""

_GRAPH = 56
_MARGIN = 8
"""Sizes in units, see :func:`unit_of`."""


class Strip:
    """Draws strips of one size.

    Args:
        width: pixels.
        captions: lines that stay, such as the network's name; broken where they are too long.
    """

    def __init__(self, width: int, captions: Sequence[str]) -> None:
        unit = unit_of(width)
        self.width = width
        self._margin = round(_MARGIN * unit)
        self._graph = round(_GRAPH * unit)
        self._font = ImageFont.load_default(12 * unit)
        self._line = round(17 * unit)
        self._captions = [line for text in captions for line in self.broken(text)]
        # The line that changes, the graph, the captions, the scale of colours.
        lines = 2 + len(self._captions)
        self.height = 3 * self._margin + self._graph + lines * self._line

    def draw(self, *, frame: int, seconds: float, work: WorkSoFar) -> Image.Image:
        """The strip for the last frame of ``work``.

        Args:
            frame: its number.
            seconds: its time.
            work: of all frames up to it.
        """
        strip = Image.new("RGB", (self.width, self.height), _GROUND)
        draw = ImageDraw.Draw(strip)
        y = self._margin // 2
        share, is_key = work.recent[-1]
        draw.text((self._margin, y), f"frame {frame}   {seconds:.3f} s", _TEXT, font=self._font)
        middle = self.width // 4
        text = f"work {100 * share:.1f} % of dense MACs" + ("   key frame" if is_key else "")
        draw.text((middle, y), text, _KEY if is_key else _WORK, font=self._font)
        text = f"theoretical speedup so far {number(work.speedup, 2)}"
        draw.text((self.width - self._margin, y), text, _TEXT, font=self._font, anchor="ra")
        y += self._line + self._margin // 2
        self._draw_graph(draw, y, work)
        y += self._graph + self._margin
        for line in self._captions:
            draw.text((self._margin, y), line, _QUIET, font=self._font)
            y += self._line
        self._draw_scale(strip, draw, y)
        return strip

    def _draw_graph(self, draw: ImageDraw.ImageDraw, top: int, work: WorkSoFar) -> None:
        """A bar for each of the last frames, the newest at the right once there is no room."""
        left, right = self._margin, self.width - self._margin
        bottom = top + self._graph
        draw.rectangle((left, top, right - 1, bottom - 1), fill=_FIELD)
        step = (right - left) / WINDOW
        for position, (share, is_key) in enumerate(work.recent):
            high = round(min(share, 1.0) * (self._graph - 1))
            x = left + round(position * step)
            end = max(left + round((position + 1) * step) - 1, x)
            colour = _KEY if is_key else _WORK
            draw.rectangle((x, bottom - 1 - high, end, bottom - 1), fill=colour)
        half = top + self._graph // 2
        draw.line((left, half, right - 1, half), fill=_LINE)
        draw.text((left + 2, top), "100 %", _QUIET, font=self._font)

    def _draw_scale(self, strip: Image.Image, draw: ImageDraw.ImageDraw, top: int) -> None:
        """What the colours mean."""
        x = self._margin
        wide, high = self.width // 4, self._line - 5
        text = "colour: share of the numbers at a place that changed   0 %"
        draw.text((x, top), text, _QUIET, font=self._font)
        x += round(draw.textlength(text, font=self._font)) + self._margin
        ramp = heat_colours(np.linspace(0, 1, wide, dtype=np.float32))
        bar = np.broadcast_to(np.rint(ramp).astype(np.uint8), (high, wide, 3))
        strip.paste(Image.fromarray(np.ascontiguousarray(bar)), (x, top + 2))
        draw.text((x + wide + self._margin, top), "100 %", _QUIET, font=self._font)

    def broken(self, text: str) -> list[str]:
        """A text as lines that fit; a word that is too long is broken as well."""
        room = self.width - 2 * self._margin
        lines = [""]
        for word in text.split(" "):
            longer = f"{lines[-1]} {word}".lstrip()
            if self._font.getlength(longer) <= room:
                lines[-1] = longer
                continue
            if lines[-1]:
                lines.append("")
            for letter in word:
                if lines[-1] and self._font.getlength(lines[-1] + letter) > room:
                    lines.append("")
                lines[-1] += letter
        return lines
