"""Small compressed layers and files, and files that lie."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from rrm_extract.models.compression import (
    CompressedLayer,
    EncodedLayer,
    compress_weights,
    dcz_bytes,
    encode_layer,
)
from rrm_extract.models.compression.container import describe_section, pack, unpack

Metadata = dict[str, Any]
Lie = Callable[[Metadata, list[bytes]], None]


def small_layer(name: str = "fc.weight", seed: int = 0, **options: Any) -> CompressedLayer:
    """12 x 30 weights of which a third is kept, 3 bits a code, 2 bits a gap."""
    weights = np.random.default_rng(seed).normal(size=(12, 30)).astype(np.float32)
    chosen = {"density": 1 / 3, "bits": 3, "index_bits": 2, "kind": "fully-connected", **options}
    return compress_weights(weights, name=name, **chosen)


def file_bytes(*layers: EncodedLayer, model: str = "alexnet") -> bytes:
    return dcz_bytes(
        layers,
        {"fc.bias": np.arange(5, dtype=np.float32), "n": np.array(7)},
        model=model,
        preprocess=None,
        weights_id="random:0",
        weights_sha256="0" * 64,
        tool_version="0",
    )


def write_small(path: Path, **options: Any) -> Path:
    path.write_bytes(file_bytes(encode_layer(small_layer()), **options))
    return path


def write_lie(path: Path, lie: Lie) -> Path:
    """A small file that was changed, with all checksums and sizes right again."""
    metadata, rest, _ = unpack(write_small(path))
    sections, start = [], 0
    for size, _ in _described(metadata):
        sections.append(bytes(rest[start : start + size]))
        start += size
    lie(metadata, sections)
    for pair, section in zip(_described(metadata), sections, strict=False):
        pair[:] = describe_section(section)
    path.write_bytes(pack(metadata, sections))
    return path


def set_at_top(**values: object) -> Lie:
    def lie(metadata: Metadata, sections: list[bytes]) -> None:
        metadata.update(values)

    return lie


def _described(metadata: Metadata) -> list[list[int]]:
    layers, tensors = metadata["layers"], metadata["tensors"]
    return [pair for layer in layers for pair in layer["sections"]] + [
        tensor["section"] for tensor in tensors
    ]


def write_metadata(path: Path, text: bytes) -> Path:
    """A file with any metadata and without sections."""
    packed = pack({}, [])
    empty = json.dumps({}).encode()
    assert packed.endswith(empty)
    start = packed[:12] + struct.pack("<IQI", len(text), 32 + len(text), zlib.crc32(text))
    path.write_bytes(start + struct.pack("<I", zlib.crc32(start)) + text)
    return path


def float_arrays(min_size: int = 1, max_size: int = 200) -> st.SearchStrategy[NDArray[np.float32]]:
    numbers = st.floats(-100, 100, width=32) | st.sampled_from([0.0, -0.0, 1.0, -1.0])
    return st.lists(numbers, min_size=min_size, max_size=max_size).map(
        lambda values: np.array(values, np.float32)
    )
