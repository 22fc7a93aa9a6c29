"""From frames to network input in one native pass that computes only the pixels of the crop."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rrm_extract.engine.native import isa_of_this_process, native_module
from rrm_extract.errors import PreprocessError
from rrm_extract.models import Preprocess

__all__ = ["NativeTransform", "supports"]

_SIZES_KEPT = 16
"""Frame sizes whose weights are kept: a clip has one or two, and each takes some kilobytes."""


def supports(preprocess: object) -> bool:
    """Whether :class:`NativeTransform` can stand for a transform.

    It can for every :class:`~rrm_extract.models.Preprocess` with antialiasing and the layout
    "nchw"; not for transforms of other classes.
    """
    return (
        isinstance(preprocess, Preprocess)
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
        self.isa = isa_of_this_process()
        self._native = native_module().Preprocessor
        self._by_size: dict[tuple[int, int], Any] = {}

    def __reduce__(self) -> tuple[type[NativeTransform], tuple[Preprocess]]:
        return type(self), (self.preprocess,)

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """One frame of network input: (3, h, w)."""
        return self.preprocess.output_shape

    def __call__(self, frames: Tensor, /) -> Tensor:
        """Turn frames into network input.

        Args:
            frames: (T, 3, H, W) or (T, H, W, 3) uint8 RGB on the CPU; quickest where H, W and
                channels lie in this order in memory, as decoders give them.

        Returns:
            (T, 3, h, w) float32, contiguous.

        Raises:
            PreprocessError: ``frames`` has another dtype or shape.
        """
        by_channel = frames.ndim == 4 and frames.shape[1] == 3
        by_pixel = frames.ndim == 4 and frames.shape[3] == 3
        if frames.dtype != torch.uint8 or not (by_channel or by_pixel):
            raise PreprocessError(
                f"frames are {frames.dtype} {tuple(frames.shape)}; expected uint8 (T, 3, H, W) "
                "or (T, H, W, 3) in RGB"
            )
        pixels = frames.permute(0, 2, 3, 1) if by_channel else frames
        out = self._empty(len(frames))
        if len(frames):
            self._run(pixels.contiguous().numpy(), out)
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
        for image in images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise PreprocessError(
                    f"a picture is {image.dtype} {image.shape}; expected uint8 (H, W, 3) in RGB"
                )
        out = self._empty(len(images))
        done = 0
        for _, group in groupby(images, key=lambda image: image.shape):
            same_size = [np.ascontiguousarray(image) for image in group]
            self._run(same_size, out[done : done + len(same_size)])
            done += len(same_size)
        return out

    def _empty(self, count: int) -> Tensor:
        return torch.empty((count, *self.output_shape), dtype=torch.float32)

    def _run(self, frames: NDArray[np.uint8] | list[NDArray[np.uint8]], out: Tensor) -> None:
        height, width = frames[0].shape[:2]
        try:
            self._of_size(height, width).run(frames, out.numpy())
        except ValueError as error:
            raise PreprocessError(str(error)) from error

    def _of_size(self, height: int, width: int) -> Any:
        """The Preprocessor for frames of this size."""
        if (height, width) not in self._by_size:
            if len(self._by_size) >= _SIZES_KEPT:
                self._by_size.clear()
            wanted = self.preprocess
            resize = _resized(height, width, wanted.resize)
            self._by_size[height, width] = self._native(
                source=(height, width),
                resize=resize,
                offset=(_offset(resize[0], wanted.crop[0]), _offset(resize[1], wanted.crop[1])),
                crop=wanted.crop,
                interpolation=wanted.interpolation,
                mean=wanted.mean,
                std=wanted.std,
                scale=wanted.scale,
                channels=wanted.channels,
                isa=self.isa,
            )
        return self._by_size[height, width]


def _resized(height: int, width: int, shorter: int) -> tuple[int, int]:
    """The size with this shorter side, as torchvision rounds it: down."""
    if height <= width:
        return shorter, int(shorter * width / height) if height else 0
    return int(shorter * height / width) if width else 0, shorter


def _offset(size: int, crop: int) -> int:
    """Where torchvision's centre crop begins; negative where it adds a border."""
    return -((crop - size) // 2) if crop > size else round((size - crop) / 2)
