"""What a .dcz file holds; docs/dcz.md specifies it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from .layer import CompressedLayer

__all__ = ["MAX_WEIGHTS", "TENSOR_TYPES", "CompressedNetwork", "DczDescription"]

TENSOR_TYPES: Mapping[str, str] = {
    "float32": "<f4",
    "int64": "<i8",
    "int32": "<i4",
    "int16": "<i2",
    "int8": "i1",
    "uint8": "u1",
    "bool": "u1",
}
"""Types of uncompressed tensors, and how they are stored."""

MAX_WEIGHTS = 1 << 30
"""Weights and elements of a file: 4 GB of float32, more than the largest network of torchvision."""


@dataclass(frozen=True, kw_only=True)
class DczDescription:
    """What a .dcz file says of itself."""

    model: str
    """As ``load_model`` takes it."""
    preprocess: dict[str, Any] | None
    """Description of the network's input."""
    weights_id: str
    """What was compressed."""
    weights_sha256: str
    """Of the state dict before it was compressed."""
    sha256: str
    """Of the file."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CompressedNetwork:
    """Everything in a .dcz file."""

    description: DczDescription
    layers: tuple[CompressedLayer, ...] = field(repr=False)
    """In the network's order."""
    tensors: dict[str, NDArray[Any]] = field(repr=False)
    """The rest of the state dict, by name."""

    @property
    def fully_connected(self) -> tuple[CompressedLayer, ...]:
        """The fully-connected layers; see :func:`compressed_columns`."""
        return tuple(layer for layer in self.layers if layer.kind == "fully-connected")

    def state(self) -> dict[str, NDArray[Any]]:
        """The state dict, decoded."""
        return {**{layer.name: layer.weights() for layer in self.layers}, **self.tensors}
