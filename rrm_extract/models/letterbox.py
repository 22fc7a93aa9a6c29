"""The transform of networks that look at the whole frame: its aspect kept, on a background."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .frames import check_frames
from .placement import Placement, check_frame_size

__all__ = ["Letterbox"]

_ZEROS = (0.0, 0.0, 0.0)
_ONES = (1.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Letterbox:
    """A transform that is its own description.

    Call it with (T, 3, H, W) uint8 RGB frames to get (T, *output_shape) float32, frame by frame.
    With the defaults it is Darknet's ``letterbox_image``, up to rounding:

    1. Pixels become ``value / 255``; with ``scale`` 255 they stay as they are.
    2. The frame is resized to the largest size of its aspect that fits; a side that does not fill
       the input is rounded down, to at least 1 pixel. Bilinear, in float, without antialiasing,
       the centres of the corner pixels on each other (``align_corners=True``).
    3. It is put in the middle of the input, half a pixel up or left where the rest is odd. What
       it leaves free is ``fill``.
    4. ``mean`` is subtracted and ``std`` divided by, from the background too.
    """

    size: tuple[int, int]
    """(h, w) of the network's input, pixels."""
    fill: float = 0.5
    """Of the background, 0 (black) to 1 (white), whatever ``scale`` is."""
    scale: int = 1
    """Largest pixel value: 1 (0..1) or 255 (0..255)."""
    channels: str = "rgb"
    """"rgb" or "bgr": the network's channel order."""
    mean: tuple[float, float, float] = _ZEROS
    """Subtracted per channel, in the network's channel order, after scaling."""
    std: tuple[float, float, float] = _ONES
    """Divided by per channel, in the network's channel order."""
    layout: str = "nchw"
    """"nchw" or "nhwc": the network's layout."""

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """One frame of network input: (3, h, w), or (h, w, 3) for layout "nhwc"."""
        height, width = self.size
        return (3, height, width) if self.layout == "nchw" else (height, width, 3)

    def describe(self) -> dict[str, object]:
        """JSON-able, and accepted by :func:`rrm_extract.models.parse_preprocess`."""
        return {
            "letterbox": list(self.size),
            "fill": self.fill,
            "scale": self.scale,
            "channels": self.channels,
            "mean": list(self.mean),
            "std": list(self.std),
            "layout": self.layout,
        }

    def place(self, height: int, width: int) -> Placement:
        """Where a frame of this size (pixels) comes to lie.

        Raises:
            PreprocessError: the frame has no pixels.
        """
        check_frame_size(height, width)
        rows, columns = self.size
        if columns * height < rows * width:
            inner = (max(1, height * columns // width), columns)
        else:
            inner = (rows, max(1, width * rows // height))
        return Placement(
            top=(rows - inner[0]) // 2,
            left=(columns - inner[1]) // 2,
            height=inner[0],
            width=inner[1],
        )

    def undo(self, points: Tensor, height: int, width: int) -> Tensor:
        """Where points of the network's input lie in the frame.

        Args:
            points: (..., 2) float: x and y in pixels of the input; the middle of the first pixel
                is at 0.5.
            height: of the frame, pixels.
            width: likewise.

        Returns:
            (..., 2) float: x and y in pixels of the frame, the middle of the first at 0.5.

        Raises:
            PreprocessError: the frame has no pixels.
        """
        place = self.place(height, width)
        corner = points.new_tensor([place.left, place.top])
        # The middles of the corner pixels are on each other; a side of 1 pixel has only one.
        steps = points.new_tensor([max(place.width - 1, 1), max(place.height - 1, 1)])
        return (points - corner - 0.5) * points.new_tensor([width - 1, height - 1]) / steps + 0.5

    def __call__(self, frames: Tensor, /) -> Tensor:
        """Turn frames into network input.

        Args:
            frames: (T, 3, H, W) uint8 RGB.

        Returns:
            (T, *output_shape) float32, contiguous.

        Raises:
            PreprocessError: ``frames`` has another dtype or shape.
        """
        check_frames(frames)
        place = self.place(frames.shape[2], frames.shape[3])
        out = torch.full(
            (len(frames), 3, *self.size),
            float(self.fill * self.scale),
            dtype=torch.float32,
            device="cpu",
        )
        inside = out[
            :, :, place.top : place.top + place.height, place.left : place.left + place.width
        ]
        for target, frame in zip(inside, frames, strict=True):
            target.copy_(self._one(frame, place))
        if (self.mean, self.std) != (_ZEROS, _ONES):
            out.sub_(out.new_tensor(self.mean)[:, None, None])
            out.div_(out.new_tensor(self.std)[:, None, None])
        return out if self.layout == "nchw" else out.permute(0, 2, 3, 1).contiguous()

    def _one(self, frame: Tensor, place: Placement) -> Tensor:
        """(3, H, W) uint8 -> (3, place.height, place.width) float32."""
        x = frame.to(torch.float32)
        if self.scale == 1:
            x = x / 255
        if self.channels == "bgr":
            x = x.flip(0)
        size = (place.height, place.width)
        return F.interpolate(x[None], size=size, mode="bilinear", align_corners=True)[0]
