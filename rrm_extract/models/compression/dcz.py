"""Compressed networks as .dcz files; docs/dcz.md specifies them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from .bitstream import BLOCK, DamagedStreamError
from .container import damaged, describe_section, pack, take_section, unpack
from .encoded import EncodedLayer, decode_layer
from .gaps import entry_positions
from .layer import MAX_BITS, CompressedLayer, LayerKind
from .metadata import Fields

__all__ = [
    "TENSOR_TYPES",
    "CompressedNetwork",
    "DczDescription",
    "dcz_bytes",
    "describe_dcz",
    "read_dcz",
]

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

_MAX_WEIGHTS = 1 << 30
"""Weights and elements of a file: 4 GB of float32, more than the largest network of torchvision."""

_MAX_DIMENSIONS = 8

_N_SECTIONS = 7
"""Of a layer."""


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


def dcz_bytes(
    layers: Sequence[EncodedLayer],
    tensors: Mapping[str, NDArray[Any]],
    *,
    model: str,
    preprocess: Mapping[str, object] | None,
    weights_id: str,
    weights_sha256: str,
    tool_version: str,
) -> bytes:
    """The bytes of a .dcz file; see :class:`CompressedNetwork` for what they hold.

    Args:
        layers: the compressed layers.
        tensors: the rest of the state dict, of the types in :data:`TENSOR_TYPES`.
        model: as ``load_model`` takes it.
        preprocess: description of the network's input.
        weights_id: what was compressed.
        weights_sha256: of the state dict before.
        tool_version: version of this package.
    """
    sections: list[bytes] = []
    described = []
    for encoded in layers:
        own = encoded.sections
        sections += own
        described.append(
            {
                "name": encoded.layer.name,
                "kind": encoded.layer.kind,
                "shape": list(encoded.layer.shape),
                "bits": encoded.layer.bits,
                "index_bits": encoded.layer.index_bits,
                "entries": encoded.layer.n_entries,
                "sections": [describe_section(section) for section in own],
            }
        )
    others = []
    for name, tensor in tensors.items():
        data = np.ascontiguousarray(tensor).astype(TENSOR_TYPES[tensor.dtype.name]).tobytes()
        sections.append(data)
        others.append(
            {
                "name": name,
                "dtype": tensor.dtype.name,
                "shape": list(tensor.shape),
                "section": describe_section(data),
            }
        )
    metadata = {
        "model": model,
        "preprocess": None if preprocess is None else dict(preprocess),
        "weights_id": weights_id,
        "weights_sha256": weights_sha256,
        "tool_version": tool_version,
        "layers": described,
        "tensors": others,
    }
    return pack(metadata, sections)


def describe_dcz(path: Path) -> DczDescription:
    """Read what a .dcz file says of itself; its layers are not decoded.

    Raises:
        WeightsError: unreadable, no .dcz file, of another version, or damaged.
    """
    metadata, _, data = unpack(path)
    return _description(metadata, path, data)


def read_dcz(path: Path) -> CompressedNetwork:
    """Read a .dcz file; nothing in it is run, and it is checked before memory is reserved.

    Raises:
        WeightsError: unreadable, no .dcz file, of another version, or damaged.
    """
    metadata, sections, data = unpack(path)
    top = Fields(metadata, path, "its metadata")
    reading = _Reading(path, sections)
    layers = tuple(reading.layer(fields) for fields in top.objects("layers"))
    tensors = dict(reading.tensor(fields) for fields in top.objects("tensors"))
    reading.finish()
    return CompressedNetwork(
        description=_description(metadata, path, data), layers=layers, tensors=tensors
    )


def _kind(fields: Fields) -> LayerKind:
    for kind in get_args(LayerKind):
        if fields.text("kind") == kind:
            return cast(LayerKind, kind)
    raise fields.wrong("kind", "convolution or fully-connected")


def _description(metadata: dict[str, Any], path: Path, data: bytes) -> DczDescription:
    top = Fields(metadata, path, "its metadata")
    preprocess = metadata.get("preprocess")
    if preprocess is not None and not isinstance(preprocess, dict):
        raise top.wrong("preprocess", "an object or null")
    return DczDescription(
        model=top.text("model"),
        preprocess=preprocess,
        weights_id=top.text("weights_id"),
        weights_sha256=top.text("weights_sha256"),
        sha256=hashlib.sha256(data).hexdigest(),
    )


class _Reading:
    """How far the sections of a file have been read."""

    def __init__(self, path: Path, sections: memoryview) -> None:
        self._path = path
        self._sections = sections
        self._start = 0
        self._names: set[str] = set()
        self._n_weights = 0

    def layer(self, fields: Fields) -> CompressedLayer:
        name, shape = self._name_and_shape(fields, least=1)
        if len(shape) < 2:
            raise fields.wrong("shape", "2 dimensions or more")
        layer = CompressedLayer(
            name=name,
            kind=_kind(fields),
            shape=shape,
            bits=fields.integer("bits", 1, MAX_BITS),
            index_bits=fields.integer("index_bits", 1, MAX_BITS),
            codebook=np.zeros(0, np.float32),
            codes=np.zeros(0, np.uint8),
            gaps=np.zeros(0, np.uint8),
        )
        n_entries = fields.integer("entries", 0, layer.n_weights)
        reach = 1 << layer.index_bits
        if layer.n_weights > (n_entries + 1) * reach:
            raise fields.wrong("entries", f"enough of them for {layer.n_weights} weights")
        sections = tuple(self._take(size, crc) for size, crc in fields.sections(_N_SECTIONS))
        n_shared = len(sections[0]) // 4
        n_blocks = -(-n_entries // BLOCK)
        expected = (4 * n_shared, n_shared, 2 * n_blocks, None, reach, 2 * n_blocks, None)
        if not 1 <= n_shared <= 1 << layer.bits or any(
            size not in (None, len(section))
            for section, size in zip(sections, expected, strict=True)
        ):
            raise fields.wrong("sections", "the sizes that the entries need")
        try:
            layer = decode_layer(layer, sections, n_entries)
        except DamagedStreamError as error:
            raise damaged(self._path, f"layer {name!r}: {error}") from error
        if layer.codebook[0] != 0 or not np.isfinite(layer.codebook).all():
            raise damaged(self._path, f"layer {name!r}: its codebook cannot be")
        end = int(entry_positions(layer.gaps)[-1]) + 1 if n_entries else 0
        if not end <= layer.n_weights <= end + reach:
            raise damaged(self._path, f"layer {name!r}: {end} of {layer.n_weights} weights")
        return layer

    def tensor(self, fields: Fields) -> tuple[str, NDArray[Any]]:
        name, shape = self._name_and_shape(fields, least=0)
        dtype = fields.text("dtype")
        if dtype not in TENSOR_TYPES:
            raise fields.wrong("dtype", f"one of {', '.join(TENSOR_TYPES)}")
        ((size, crc),) = fields.sections(None)
        if size != math.prod(shape) * np.dtype(TENSOR_TYPES[dtype]).itemsize:
            raise fields.wrong("section", "the size of the tensor")
        raw = np.frombuffer(self._take(size, crc), TENSOR_TYPES[dtype])
        return name, raw.astype(dtype).reshape(shape)

    def finish(self) -> None:
        if self._start != len(self._sections):
            raise damaged(self._path, "there is something behind its last section")

    def _name_and_shape(self, fields: Fields, *, least: int) -> tuple[str, tuple[int, ...]]:
        name = fields.text("name")
        if name in self._names:
            raise damaged(self._path, f"it has {name!r} twice")
        self._names.add(name)
        shape = fields.shape(least, _MAX_DIMENSIONS)
        # Without its zeros, so that no axis is beyond what an array can have.
        self._n_weights += math.prod(size or 1 for size in shape)
        if self._n_weights > _MAX_WEIGHTS:
            raise damaged(self._path, f"more than {_MAX_WEIGHTS} weights")
        return name, shape

    def _take(self, size: int, crc: int) -> memoryview:
        if size > len(self._sections) - self._start:
            raise damaged(self._path, "a section reaches behind its end")
        section = take_section(self._path, self._sections, self._start, size, crc)
        self._start += size
        return section
