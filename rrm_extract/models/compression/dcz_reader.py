"""Reads .dcz files, whoever wrote them; docs/dcz.md specifies them."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from .bitstream import BLOCK, DamagedStreamError
from .container import damaged, take_section, unpack
from .dcz import MAX_WEIGHTS, TENSOR_TYPES, CompressedNetwork, DczDescription
from .encoded import decode_layer
from .gaps import entry_positions
from .layer import MAX_BITS, CompressedLayer, LayerKind
from .metadata import Fields

__all__ = ["describe_dcz", "read_dcz"]

_MAX_DIMENSIONS = 8

_N_SECTIONS = 7
"""Of a layer."""


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
    preprocess = metadata.get("preprocess", "missing")
    if not (preprocess is None or isinstance(preprocess, dict)):
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
        if dtype == "bool" and (raw > 1).any():
            raise damaged(self._path, f"tensor {name!r}: bytes that are neither 0 nor 1")
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
        if self._n_weights > MAX_WEIGHTS:
            raise damaged(self._path, f"more than {MAX_WEIGHTS} weights")
        return name, shape

    def _take(self, size: int, crc: int) -> memoryview:
        if size > len(self._sections) - self._start:
            raise damaged(self._path, "a section reaches behind its end")
        section = take_section(self._path, self._sections, self._start, size, crc)
        self._start += size
        return section
