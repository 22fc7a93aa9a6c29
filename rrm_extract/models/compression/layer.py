"""One compressed layer in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .gaps import bridge_gaps, entry_positions, trailing_fillers
from .kmeans import share_weights
from .prune import kept_count, largest_weights

__all__ = ["MAX_BITS", "CompressedLayer", "LayerKind", "compress_weights"]

LayerKind = Literal["convolution", "fully-connected"]

MAX_BITS = 8
"""Widest code and widest gap: both are kept as bytes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CompressedLayer:
    """A weight as entries: a code into a table of shared values, and the gap to the entry before.

    Weights between entries are ``codebook[0]``, which is 0 in whatever this package compresses; so
    an entry with code 0, a *filler*, only bridges a gap.
    """

    name: str
    """Of the weight in the state dict: "features.0.weight"."""
    kind: LayerKind
    shape: tuple[int, ...]
    """(C_out, C_in / groups, *kernel), or (outputs, inputs)."""
    bits: int
    """Width of a code before Huffman coding, 1 to 8."""
    index_bits: int
    """Width of a gap before Huffman coding, 1 to 8."""
    codebook: NDArray[np.float32]
    """(K,) float32, K at most 2^bits."""
    codes: NDArray[np.uint8]
    """(E,) uint8, below K."""
    gaps: NDArray[np.uint8]
    """(E,) uint8: weights between an entry and the one before, below 2^index_bits."""

    @property
    def n_weights(self) -> int:
        """Of the dense layer."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def n_entries(self) -> int:
        """Kept weights and fillers."""
        return len(self.codes)

    @property
    def n_kept(self) -> int:
        """Weights that are not pruned."""
        return int(np.count_nonzero(self.codes))

    @property
    def density(self) -> float:
        """Share of the weights that are not pruned."""
        return self.n_kept / self.n_weights

    def weights(self) -> NDArray[np.float32]:
        """The weight as an ordinary array, float32 of ``shape``."""
        flat = np.zeros(self.n_weights, np.float32)
        if self.codebook[0] != 0:
            flat += self.codebook[0]
        flat[entry_positions(self.gaps)] = self.codebook[self.codes]
        return flat.reshape(self.shape)


def compress_weights(
    weights: NDArray[np.float32],
    *,
    name: str,
    kind: LayerKind,
    density: float,
    bits: int,
    index_bits: int,
) -> CompressedLayer:
    """Prune one layer and share what is left.

    One of the 2^bits codes is the filler's; the others are clusters.

    Args:
        weights: float32, finite, two dimensions or more.
        name: of the weight in the state dict.
        kind: what the layer is.
        density: share of the weights to keep, above 0 and up to 1.
        bits: width of a code, 1 to 8.
        index_bits: width of a gap, 1 to 8.
    """
    flat = np.ascontiguousarray(weights).reshape(-1)
    positions = largest_weights(flat, kept_count(len(flat), density))
    shared, numbers = share_weights(flat[positions], (1 << bits) - 1)
    n_left = len(flat) - 1 - (int(positions[-1]) if len(positions) else -1)
    codes, gaps = bridge_gaps(
        np.diff(positions, prepend=-1) - 1,
        numbers + np.uint8(1),
        index_bits=index_bits,
        trailing=trailing_fillers(n_left, index_bits=index_bits),
    )
    return CompressedLayer(
        name=name,
        kind=kind,
        shape=weights.shape,
        bits=bits,
        index_bits=index_bits,
        codebook=np.concatenate([np.zeros(1, np.float32), shared]),
        codes=codes,
        gaps=gaps,
    )
