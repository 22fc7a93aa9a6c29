"""The cycles of a matrix-vector product: queues, stalls, and PEs that have more to do than others.

Cycle by cycle (EIE paper, Sec. IV; :mod:`rrm_extract.rrm.eie.reference` is the machine itself, of
which this is the closed recurrence):

- one non-zero activation is broadcast to the queues of all PEs, unless one of them is full;
- a PE takes the activation at the head of its queue when it is done with the one before, at the
  earliest in the cycle after the broadcast, and spends a cycle on each entry of its column. Where
  it has no entry it still reads the column's two pointers, which takes one cycle
  (https://github.com/RalphMao/EIE-simulator, src/ptrvec.cpp).

Filling and draining the arithmetic pipeline, a handful of cycles for a whole vector, and loading
weights and activations, are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rrm_extract.rrm.eie.machine import EIE, EieMachine

__all__ = ["Cycles", "count_cycles"]


@dataclass(frozen=True, eq=False)
class Cycles:
    """How long products took.

    Attributes:
        total: (...) int64, until the last PE is done and the whole vector was looked at.
        balanced: (...) float64, if the entries were spread evenly and never waited for: what the
            EIE paper calls theoretical.
        busiest: (...) int64, entries of the PE that has most.
    """

    total: NDArray[np.int64]
    balanced: NDArray[np.float64]
    busiest: NDArray[np.int64]


def count_cycles(
    entries: NDArray[np.int64],
    *,
    idle: NDArray[np.int64],
    idle_after: NDArray[np.int64] | int = 0,
    machine: EieMachine = EIE,
) -> Cycles:
    """The cycles of one product, or of several that have nothing to do with one another.

    Args:
        entries: (..., K, pes), entries of the broadcast activations' columns in each PE.
        idle: (..., K), cycles without a broadcast before each of them.
        idle_after: (...), after the last.
        machine: with these queues.
    """
    *products, count, pes = entries.shape
    busy = np.moveaxis(np.maximum(entries, 1), -2, 0)  # (K, ..., pes)
    waits = np.moveaxis(np.broadcast_to(idle, entries.shape[:-1]), -1, 0) + 1
    started = np.zeros((count, *products, pes), np.int64)  # when a PE takes an activation
    free = np.zeros((*products, pes), np.int64)  # when it is done with the one before
    sent = np.full(products, -1, np.int64)  # when the last one was broadcast
    for step in range(count):
        sent = sent + waits[step]
        if step >= machine.queue_depth:
            # Every queue has room again once the oldest that could wait in it has been taken.
            sent = np.maximum(sent, started[step - machine.queue_depth].max(axis=-1))
        start = np.maximum(free, (sent + 1)[..., None], out=started[step])
        free = start + busy[step]
    held = entries.sum(axis=-2)
    return Cycles(
        total=np.maximum(free.max(axis=-1), sent + 1 + idle_after),
        balanced=held.sum(axis=-1) / pes,
        busiest=held.max(axis=-1),
    )
