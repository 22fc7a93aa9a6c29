"""Writes .dcz files; docs/dcz.md specifies them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .container import describe_section, pack
from .dcz import TENSOR_TYPES
from .encoded import EncodedLayer

__all__ = ["dcz_bytes"]


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
