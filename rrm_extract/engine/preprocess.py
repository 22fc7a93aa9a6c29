"""From frames to network input in one native pass that computes only the pixels of the crop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rrm_extract.engine.pictures import PictureTransform
from rrm_extract.errors import PreprocessError
from rrm_extract.models import Preprocess
from rrm_extract.models.frames import check_tensor

__all__ = ["NativeTransform", "supports"]


def supports(preprocess: object) -> bool:
    """Whether :class:`NativeTransform` can stand for a transform.

    It can for every :class:`~rrm_extract.models.Preprocess` with antialiasing and the layout
    "nchw"; not for transforms of other classes.
    """
    return (
        type(preprocess) is Preprocess  # a class of one's own may do something else
        and preprocess.antialias
        and preprocess.layout == "nchw"
        and preprocess.interpolation in ("bilinear", "bicubic")
    )


class NativeTransform:
    """Does what ``preprocess`` does, on the processor's vectors and in one thread.

    The result is that of ``preprocess`` to the bit where torch rounds sums as its builds for AVX2
    and AVX-512 are known to. With another build of torch, or another instruction set, the compiler
    has ordered the same operations in another way: a few pixels in a million, those halfway
    between two levels, then are one level (1/255 of the range) off.

    Args:
        preprocess: one that :func:`supports` accepts.

    Raises:
        PreprocessError: ``preprocess`` is not supported.
        EngineError: the native engine is not part of this installation, or RRM_ISA does not fit.
    """

    def __init__(self, preprocess: Preprocess) -> None:
        if not supports(preprocess):
            raise PreprocessError(
                f"{preprocess} has no native form; expected antialias=True and layout='nchw', "
                "otherwise call it as it is"
            )
        self.preprocess = preprocess
        self.pictures = PictureTransform(preprocess.describe())

    def __reduce__(self) -> tuple[type[NativeTransform], tuple[Preprocess]]:
        return type(self), (self.preprocess,)

    @property
    def isa(self) -> str:
        """The instruction set that is used."""
        return self.pictures.isa

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """One frame of network input: (3, h, w)."""
        return self.preprocess.output_shape

    def describe(self) -> dict[str, object]:
        """That of ``preprocess``: the result is the same."""
        return self.preprocess.describe()

    def undo(self, points: Tensor, height: int, width: int) -> Tensor:
        """That of ``preprocess``."""
        return self.preprocess.undo(points, height, width)

    def __call__(self, frames: Tensor, /) -> Tensor:
        """Turn frames into network input.

        Args:
            frames: (T, 3, H, W) or (T, H, W, 3) uint8 RGB on the CPU; quickest where H, W and
                channels lie in this order in memory, as decoders give them.

        Returns:
            (T, 3, h, w) float32, contiguous.

        Raises:
            PreprocessError: ``frames`` is no tensor, or has another dtype or shape.
        """
        check_tensor(frames)
        by_channel = frames.ndim == 4 and frames.shape[1] == 3
        by_pixel = frames.ndim == 4 and frames.shape[3] == 3
        if frames.dtype != torch.uint8 or not (by_channel or by_pixel):
            raise PreprocessError(
                f"frames are {frames.dtype} {tuple(frames.shape)}; expected uint8 (T, 3, H, W) "
                "or (T, H, W, 3) in RGB"
            )
        pixels = frames.permute(0, 2, 3, 1) if by_channel else frames
        out = torch.empty((len(frames), *self.output_shape), dtype=torch.float32, device="cpu")
        if len(frames):
            self.pictures.fill(pixels.contiguous().numpy(), out.numpy())
        return out

    def images(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Turn pictures into network input, without first copying them into one array.

        Args:
            images: T pictures, each (H, W, 3) uint8 RGB of any size.

        Returns:
            (T, 3, h, w) float32, contiguous.

        Raises:
            PreprocessError: a picture has another dtype or shape.
        """
        return torch.from_numpy(self.pictures.images(images))
