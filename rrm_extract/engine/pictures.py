"""Pictures to network input in one native pass. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrm_extract.engine.kernels import isa_of_this_process, native_module
from rrm_extract.errors import PreprocessError

__all__ = ["PictureTransform"]

_SIZES_KEPT = 16
"""Frame sizes whose weights are kept: a clip has one or two, and each takes some kilobytes."""


class PictureTransform:
    """The native transform on numpy arrays; :class:`NativeTransform` is the same for torch.

    Args:
        description: what ``Preprocess.describe()`` gives, with antialiasing and the layout "nchw".

    Raises:
        EngineError: the native engine is not part of this installation, or RRM_ISA does not fit.
    """

    def __init__(self, description: Mapping[str, Any]) -> None:
        self.description = dict(description)
        self.isa = isa_of_this_process()
        height, width = self.description["crop"]
        self.output_shape: tuple[int, int, int] = (3, int(height), int(width))
        self._native = native_module().Preprocessor
        self._by_size: dict[tuple[int, int], Any] = {}

    def __reduce__(self) -> tuple[type[PictureTransform], tuple[dict[str, Any]]]:
        return type(self), (self.description,)

    def images(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
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
        out = np.empty((len(images), *self.output_shape), np.float32)
        done = 0
        for _, group in groupby(images, key=lambda image: image.shape):
            same_size = [np.ascontiguousarray(image) for image in group]
            self.fill(same_size, out[done : done + len(same_size)])
            done += len(same_size)
        return out

    def fill(
        self, frames: NDArray[np.uint8] | list[NDArray[np.uint8]], out: NDArray[np.float32]
    ) -> None:
        """Writes the input for contiguous pictures of one size, of which there is at least one.

        Raises:
            PreprocessError: the pictures are empty, or too large.
        """
        height, width = frames[0].shape[:2]
        try:
            self._of_size(height, width).run(frames, out)
        except ValueError as error:
            raise PreprocessError(str(error)) from error

    def _of_size(self, height: int, width: int) -> Any:
        """The Preprocessor for frames of this size."""
        found = self._by_size.get((height, width))
        if found is None:
            if len(self._by_size) >= _SIZES_KEPT:  # of other threads, too, which hold their own
                self._by_size.clear()
            wanted = self.description
            _, *crop = self.output_shape
            resize = _resized(height, width, wanted["resize"])
            found = self._by_size[height, width] = self._native(
                source=(height, width),
                resize=resize,
                offset=(_offset(resize[0], crop[0]), _offset(resize[1], crop[1])),
                crop=tuple(crop),
                interpolation=wanted["interpolation"],
                mean=tuple(wanted["mean"]),
                std=tuple(wanted["std"]),
                scale=wanted["scale"],
                channels=wanted["channels"],
                isa=self.isa,
            )
        return found


def _resized(height: int, width: int, shorter: int) -> tuple[int, int]:
    """The size with this shorter side, as torchvision rounds it: down."""
    if height <= width:
        return shorter, int(shorter * width / height) if height else 0
    return int(shorter * height / width) if width else 0, shorter


def _offset(size: int, crop: int) -> int:
    """Where torchvision's centre crop begins; negative where it adds a border."""
    return -((crop - size) // 2) if crop > size else round((size - crop) / 2)
