"""A fully-connected layer column by column, still compressed, as a sparse kernel reads it.

One input of the layer meets one column of its matrix; an input that is 0, or has not changed, needs
none of it. The layout is that of EIE (Han et al., ISCA 2016, arXiv 1602.01528, section III):
compressed sparse columns with relative indices, and codes instead of values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import WeightsError
from .gaps import bridge_gaps, entry_positions
from .layer import MAX_BITS, CompressedLayer

__all__ = ["CompressedColumns", "compressed_columns"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CompressedColumns:
    """The columns of a fully-connected layer.

    Column j is entries ``starts[j]`` to ``starts[j + 1]``. With gaps z and codes v of a column, its
    i-th entry is at row ``sum(z[:i + 1] + 1) - 1`` and has the value ``codebook[v[i]]``. An entry
    with code 0 has the value 0: it bridges a gap that its bits cannot hold.
    """

    name: str
    """Of the weight in the state dict."""
    shape: tuple[int, int]
    """(outputs, inputs): rows and columns."""
    index_bits: int
    """Width of a gap."""
    codebook: NDArray[np.float32]
    """(K,) float32, K at most 256; the first is 0."""
    codes: NDArray[np.uint8]
    """(E,) uint8, below K."""
    gaps: NDArray[np.uint8]
    """(E,) uint8: rows between an entry and the one above it in its column."""
    starts: NDArray[np.int64]
    """(inputs + 1,) int64: first entry of each column, and E."""


def compressed_columns(layer: CompressedLayer, *, index_bits: int = MAX_BITS) -> CompressedColumns:
    """Arrange a fully-connected layer by columns; the dense matrix is never made.

    Args:
        layer: of kind "fully-connected".
        index_bits: width of a gap, 1 to 8. In memory a gap takes a byte in any case; EIE has 4.

    Raises:
        WeightsError: no fully-connected layer, or one whose pruned weights are not 0.
    """
    if layer.kind != "fully-connected" or len(layer.shape) != 2:
        raise WeightsError(
            f"{layer.name} is a {layer.kind} layer of shape {layer.shape}; expected a "
            "fully-connected one"
        )
    if layer.codebook[0] != 0:
        raise WeightsError(
            f"{layer.name}: weights that are not listed are {layer.codebook[0]}, not 0: it has no "
            "sparse columns; use its weights()"
        )
    outputs, inputs = layer.shape
    kept = np.flatnonzero(layer.codes)
    rows, columns = np.divmod(entry_positions(layer.gaps)[kept], inputs)
    order = np.argsort(columns, kind="stable")  # the rows of a column stay in order
    rows, columns = rows[order], columns[order]
    is_first = np.diff(columns, prepend=-1) > 0
    skipped = np.where(is_first, rows, np.diff(rows, prepend=0) - 1)
    codes, gaps = bridge_gaps(skipped, layer.codes[kept][order], index_bits=index_bits)
    n_entries = np.bincount(columns, weights=skipped // (1 << index_bits) + 1, minlength=inputs)
    return CompressedColumns(
        name=layer.name,
        shape=(outputs, inputs),
        index_bits=index_bits,
        codebook=layer.codebook,
        codes=codes,
        gaps=gaps,
        starts=np.concatenate(([0], np.cumsum(n_entries.astype(np.int64)))),
    )
