"""The machine: processing elements (PEs) that hold a compressed matrix and skip its zeros."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rrm_extract.errors import ConfigError

__all__ = ["EIE", "EieMachine"]

INDEX_BITS_MOST = 16
"""More bits than any encoding of a gap needs: a PE would hold 65,536 rows."""


@dataclass(frozen=True, kw_only=True)
class EieMachine:
    """An EIE (Han et al., ISCA 2016, arXiv 1602.01528, Sec. III and IV).

    Attributes:
        pes: processing elements; each does one multiply-accumulate in a cycle. Row i of a matrix
            belongs to PE ``i mod pes``.
        clock_hz: cycles in a second.
        queue_depth: activations that wait in front of each PE.
        index_bits: of the number of zeros before an entry of a compressed column.

    Raises:
        ConfigError: one of them is not a positive number, or ``index_bits`` is above 16.
    """

    pes: int = 64
    clock_hz: float = 800e6
    queue_depth: int = 8
    index_bits: int = 4

    def __post_init__(self) -> None:
        """Refuses a machine that cannot be."""
        for name in ("pes", "queue_depth", "index_bits"):
            value = getattr(self, name)
            if value < 1:
                msg = f"{name} of an EIE is {value}; expected at least 1"
                raise ConfigError(msg)
        if self.index_bits > INDEX_BITS_MOST:
            msg = f"index_bits of an EIE is {self.index_bits}; expected at most {INDEX_BITS_MOST}"
            raise ConfigError(msg)
        if not (self.clock_hz > 0 and math.isfinite(self.clock_hz)):
            msg = f"clock_hz of an EIE is {self.clock_hz}; expected a positive number"
            raise ConfigError(msg)

    @property
    def index_span(self) -> int:
        """Rows that one entry can lie beyond the one before it: 16, with indices of 4 bits."""
        return 1 << self.index_bits

    @property
    def peak_macs(self) -> float:
        """Multiply-accumulates in a second, with every PE busy: 51.2e9 for the paper's machine.

        Counted as two operations each, that is the paper's 102 GOP/s.
        """
        return self.pes * self.clock_hz

    def seconds(self, cycles: float) -> float:
        """Time that cycles take."""
        return cycles / self.clock_hz

    def rows_of_pes(self, rows: int) -> NDArray[np.int64]:
        """(pes,) int64: how many of ``rows`` rows each PE holds."""
        pe = np.arange(self.pes)
        return np.maximum(0, (rows - pe + self.pes - 1) // self.pes)


EIE = EieMachine()
"""The machine of the paper: 64 PEs at 800 MHz, queues of 8, indices of 4 bits."""
