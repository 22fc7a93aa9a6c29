"""torchvision's own transform of a set of weights, as a Preprocess."""

from __future__ import annotations

from typing import Any

from torchvision.transforms._presets import ImageClassification

from ..errors import PreprocessError
from .preprocess import Preprocess

__all__ = ["from_preset"]


def from_preset(preset: Any) -> Preprocess:
    """Read the numbers of ``weights.transforms()``; the result equals it to the bit.

    Raises:
        PreprocessError: the preset is not torchvision's ``ImageClassification``.
    """
    # A subclass may have another step.
    if type(preset) is not ImageClassification:
        raise PreprocessError(
            f"the transform of these weights is {type(preset).__name__}, expected torchvision's "
            "ImageClassification; describe the network's input with preprocess="
        )
    (resize,) = preset.resize_size
    (crop,) = preset.crop_size
    return Preprocess(
        resize=int(resize),
        crop=(int(crop), int(crop)),
        mean=_triple(preset.mean),
        std=_triple(preset.std),
        interpolation=str(preset.interpolation.value),
        antialias=bool(preset.antialias),
    )


def _triple(values: list[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
