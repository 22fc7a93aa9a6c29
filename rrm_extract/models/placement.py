"""Where a frame lies in a network's input, and back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..errors import PreprocessError

__all__ = ["Placement", "centred", "check_frame_size"]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a resized frame lies in the network's input, in pixels of that input.

    A crop leaves only part of it inside: ``top`` and ``left`` are then negative.
    """

    top: int
    left: int
    height: int
    width: int

    def undo(self, points: Tensor, height: int, width: int) -> Tensor:
        """Where points of the input lie in the frame, resized with its edges on the edges.

        Args:
            points: (..., 2) float: x and y in pixels of the input; the middle of the first pixel
                is at 0.5.
            height: of the frame, pixels.
            width: likewise.

        Returns:
            (..., 2) float: x and y in pixels of the frame.
        """
        corner = points.new_tensor([self.left, self.top])
        return (points - corner) * points.new_tensor([width / self.width, height / self.height])


def centred(height: int, width: int, *, size: tuple[int, int]) -> Placement:
    """Where torchvision's centre crop to ``size`` (h, w) leaves a frame of this size."""
    top, left = (
        (want - have) // 2 if want > have else -round((have - want) / 2)
        for have, want in zip((height, width), size, strict=True)
    )
    return Placement(top=top, left=left, height=height, width=width)


def check_frame_size(height: int, width: int) -> None:
    """Raise PreprocessError unless a frame of this size has pixels."""
    if min(height, width) < 1:
        raise PreprocessError(f"a frame is {height}x{width}; expected at least 1x1 pixels")
