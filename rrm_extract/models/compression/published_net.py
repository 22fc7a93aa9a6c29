"""Reads AlexNet_compressed.net, which the authors of Deep Compression published.

https://github.com/songhan/Deep-Compression-AlexNet describes it by its decoder. Little-endian,
without a header: the number of entries of each layer as uint32; then for each layer, convolutions
first,

- the codebook, float32: 256 values for a convolution, 16 for a fully-connected layer;
- the bias, float32;
- the codes: a byte each for a convolution, 4 bits each for a fully-connected layer;
- the gaps: 4 bits each. The number of weights between an entry and the one before.

Of two values in a byte the first is in the lower half. Weights that have no entry have code 0.
Huffman coding was left out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import WeightsError
from .gaps import entry_positions
from .layer import CompressedLayer, LayerKind

__all__ = ["PUBLISHED_LAYERS", "PublishedNet", "read_published_net"]

PUBLISHED_LAYERS: dict[str, tuple[LayerKind, tuple[int, ...]]] = {
    "conv1": ("convolution", (96, 3, 11, 11)),
    "conv2": ("convolution", (256, 48, 5, 5)),
    "conv3": ("convolution", (384, 256, 3, 3)),
    "conv4": ("convolution", (384, 192, 3, 3)),
    "conv5": ("convolution", (256, 192, 3, 3)),
    "fc6": ("fully-connected", (4096, 9216)),
    "fc7": ("fully-connected", (4096, 4096)),
    "fc8": ("fully-connected", (1000, 4096)),
}
"""Layers of Caffe's AlexNet in the file's order, and the shapes of their weights."""

_INDEX_BITS = 4
_BITS: dict[LayerKind, int] = {"convolution": 8, "fully-connected": 4}
_FLOAT = 4
"""Bytes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PublishedNet:
    """Everything in the file."""

    layers: tuple[CompressedLayer, ...] = field(repr=False)
    """In the network's order, named "conv1.weight" to "fc8.weight"."""
    biases: dict[str, NDArray[np.float32]] = field(repr=False)
    """"conv1.bias" to "fc8.bias"."""
    sha256: str
    """Of the file."""

    @property
    def fully_connected(self) -> tuple[CompressedLayer, ...]:
        """The fully-connected layers; see :func:`compressed_columns`."""
        return tuple(layer for layer in self.layers if layer.kind == "fully-connected")

    def state(self) -> dict[str, NDArray[np.float32]]:
        """The state dict, decoded."""
        return {**{layer.name: layer.weights() for layer in self.layers}, **self.biases}


def read_published_net(path: Path) -> PublishedNet:
    """Read a file in the layout of AlexNet_compressed.net.

    The file has no mark and no checksum; it is recognised by its size, which follows from its first
    numbers.

    Raises:
        WeightsError: unreadable, or of another layout.
    """
    n_layers = len(PUBLISHED_LAYERS)
    try:
        with path.open("rb") as file:
            head = file.read(4 * n_layers)
            if len(head) < 4 * n_layers:
                raise _other_layout(path, "it is shorter than a list of layers")
            counts = np.frombuffer(head, "<u4")
            size = path.stat().st_size
            if size != _file_size(counts):
                raise _other_layout(path, f"its size, {size} bytes, does not fit its first numbers")
            data = head + file.read(size - len(head))
            if len(data) != size:
                raise _other_layout(path, f"it ends after {len(data)} bytes")
    except OSError as error:
        raise WeightsError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    start = counts.nbytes
    layers, biases = [], {}
    for name, count in zip(PUBLISHED_LAYERS, counts.tolist(), strict=True):
        layer, bias, start = _read_layer(path, data, start, name, count)
        layers.append(layer)
        biases[f"{name}.bias"] = bias
    return PublishedNet(
        layers=tuple(layers), biases=biases, sha256=hashlib.sha256(data).hexdigest()
    )


def _sizes(name: str, count: int) -> tuple[int, int, int, int]:
    """Bytes of a layer's codebook, bias, codes and gaps."""
    kind, shape = PUBLISHED_LAYERS[name]
    bits = _BITS[kind]
    return (
        _FLOAT << bits,
        _FLOAT * shape[0],
        -(-count * bits // 8),
        -(-count * _INDEX_BITS // 8),
    )


def _file_size(counts: NDArray[np.uint32]) -> int:
    each = zip(PUBLISHED_LAYERS, counts.tolist(), strict=True)
    return counts.nbytes + sum(sum(_sizes(name, count)) for name, count in each)


def _read_layer(
    path: Path, data: bytes, start: int, name: str, count: int
) -> tuple[CompressedLayer, NDArray[np.float32], int]:
    """The layer, its bias, and where the next one begins."""
    kind, shape = PUBLISHED_LAYERS[name]
    parts = []
    for size in _sizes(name, count):
        parts.append(data[start : start + size])
        start += size
    codebook, bias = (np.frombuffer(part, "<f4").astype(np.float32) for part in parts[:2])
    codes, gaps = (np.frombuffer(part, np.uint8) for part in parts[2:])
    layer = CompressedLayer(
        name=f"{name}.weight",
        kind=kind,
        shape=shape,
        bits=_BITS[kind],
        index_bits=_INDEX_BITS,
        codebook=codebook,
        codes=codes if _BITS[kind] == 8 else _halves(codes, count),
        gaps=_halves(gaps, count),
    )
    if count and entry_positions(layer.gaps)[-1] >= layer.n_weights:
        raise _other_layout(path, f"{name} has entries behind its last weight")
    if not (np.isfinite(codebook).all() and np.isfinite(bias).all()):
        raise _other_layout(path, f"{name} has values that are not finite")
    return layer, bias, start


def _halves(packed: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """(count,) values of 4 bits, the lower half of each byte first."""
    return np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[:count]


def _other_layout(path: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"{str(path)!r} has not the layout of AlexNet_compressed.net: {reason}; expected the file "
        "of github.com/songhan/Deep-Compression-AlexNet"
    )
