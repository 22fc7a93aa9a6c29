"""A matrix as EIE keeps it: compressed sparse columns, with padding zeros where a gap is long.

Each PE holds its rows of each column as entries: a value, and the number of zeros before it in
``index_bits`` bits (EIE paper, Sec. III-B). A gap that does not fit needs padding: entries whose
value is zero, and which take their cycle like any other. Nothing is kept for the zeros after the
last non-zero of a column; every column begins its count anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from rrm_extract.rrm.eie.machine import EIE, EieMachine

__all__ = ["Entries", "expected_entries", "random_entries", "stored_entries"]


@dataclass(frozen=True, eq=False)
class Entries:
    """How many entries each PE holds of each column.

    Attributes:
        nonzeros: (..., columns, pes) int64.
        padding: of the same shape; zeros that only bridge a gap.
    """

    nonzeros: NDArray[np.int64]
    padding: NDArray[np.int64]

    @property
    def total(self) -> NDArray[np.int64]:
        """(..., columns, pes) int64: cycles that the entries take."""
        return self.nonzeros + self.padding


def stored_entries(weights: npt.ArrayLike, *, machine: EieMachine = EIE) -> Entries:
    """The entries of a matrix.

    Args:
        weights: (rows, columns), of any type; what is not zero is stored.
        machine: whose PEs share the rows.

    Raises:
        ValueError: ``weights`` is no matrix.
    """
    matrix = np.asarray(weights) != 0
    if matrix.ndim != 2:
        msg = f"weights has shape {matrix.shape}; expected (rows, columns)"
        raise ValueError(msg)
    rows, columns = matrix.shape
    depth = -(-rows // machine.pes)
    padded = np.zeros((depth * machine.pes, columns), bool)
    padded[:rows] = matrix
    held = padded.reshape(depth, machine.pes, columns).transpose(0, 2, 1)
    return _count(held, (columns, machine.pes), machine.index_span)


def random_entries(
    rows: NDArray[np.int64],
    *,
    density: float,
    random: np.random.Generator,
    machine: EieMachine = EIE,
) -> Entries:
    """The entries of a random matrix, each of whose elements is non-zero with one probability.

    Args:
        rows: (..., columns, pes), how many rows of the column the PE holds.
        density: that probability.
        random: where the matrix comes from.
        machine: with these indices.
    """
    if density >= 1:
        return Entries(rows, np.zeros_like(rows))  # no gaps
    depth = int(rows.max(initial=0))
    held = (
        (random.random(rows.shape, dtype=np.float32) < density) & (row < rows)
        for row in range(depth)
    )
    return _count(held, rows.shape, machine.index_span)


def expected_entries(rows: int, *, density: float, machine: EieMachine = EIE) -> float:
    """Mean entries of a random column of ``rows`` rows in one PE, padding included.

    A non-zero in row i is preceded by g zeros with probability ``d (1 - d)^g``, or ``(1 - d)^i``
    if it is the column's first, and then needs ``g // 16`` entries of padding.
    """
    if density >= 1:
        return float(rows)
    gaps = np.arange(rows)
    padding = gaps // machine.index_span
    after_another = density * (1 - density) ** gaps * padding  # by gap, in a row beyond it
    first = (1 - density) ** gaps * padding  # by row
    # A gap of g has a non-zero before it only in the rows after row g.
    bridged = float(first.sum() + (after_another * (rows - 1 - gaps)).sum())
    return density * (rows + bridged)


def _count(held: Iterable[NDArray[np.bool_]], shape: tuple[int, ...], span: int) -> Entries:
    """Counts what is stored; ``held`` are the PEs' first rows of all columns, their second, ..."""
    nonzeros = np.zeros(shape, np.int64)
    padding = np.zeros(shape, np.int64)
    last = np.full(shape, -1, np.int64)  # row of the last non-zero
    for row, there in enumerate(held):
        nonzeros += there
        padding += np.where(there, (row - 1 - last) // span, 0)
        last[there] = row
    return Entries(nonzeros, padding)
