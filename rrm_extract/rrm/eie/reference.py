"""The machine, cycle by cycle and entry by entry: slow, and the oracle of the quick counts.

It computes the product as well, from the entries alone, so that the encoding proves itself.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from rrm_extract.rrm.eie.machine import EIE, EieMachine

__all__ = ["ReferenceRun", "encode_column", "run_reference"]

Entry = tuple[float, int]
"""A value, and the zeros before it."""


@dataclass(frozen=True, eq=False)
class ReferenceRun:
    """What the machine did.

    Attributes:
        outputs: (rows,) float64, the product.
        cycles: until all was done.
        mac_cycles: entries that were multiplied, padding included, over all PEs.
        stalls: cycles in which a non-zero was not broadcast, for a queue was full.
        starved: cycles in which a PE had nothing to do, over all PEs.
    """

    outputs: NDArray[np.float64]
    cycles: int
    mac_cycles: int
    stalls: int
    starved: int


def encode_column(column: npt.ArrayLike, *, machine: EieMachine = EIE) -> list[Entry]:
    """One PE's part of a column as entries (EIE paper, Sec. III-B)."""
    entries: list[Entry] = []
    zeros = 0
    for value in np.asarray(column, np.float64):
        if value == 0:
            zeros += 1
            continue
        while zeros >= machine.index_span:
            entries.append((0.0, machine.index_span - 1))  # stands for a zero of its own, too
            zeros -= machine.index_span
        entries.append((float(value), zeros))
        zeros = 0
    return entries


class _Element:
    """A PE: its rows of the matrix, its queue, and what it is at."""

    def __init__(self, weights: NDArray[np.float64], machine: EieMachine) -> None:
        self.columns = [encode_column(column, machine=machine) for column in weights.T]
        self.sums = np.zeros(len(weights))
        self.queue: deque[tuple[int, float]] = deque()
        self.todo: deque[Entry] = deque()
        self.activation = 0.0
        self.row = -1
        self.done = 0

    def work(self) -> bool:
        """One cycle; whether there was anything to do."""
        if not self.todo:
            if not self.queue:
                return False
            column, self.activation = self.queue.popleft()
            self.todo.extend(self.columns[column])
            self.row = -1
            if not self.todo:
                return True  # it has read two equal pointers
        value, zeros = self.todo.popleft()
        self.row += zeros + 1
        self.sums[self.row] += value * self.activation
        self.done += 1
        return True


class _Detector:
    """Finds the next non-zero, within the group that it looks at."""

    def __init__(self, activations: NDArray[np.float64], width: int) -> None:
        self.activations = activations
        self.width = width
        self.place = 0

    def finished(self) -> bool:
        return self.place >= len(self.activations)

    def look(self) -> int | None:
        """The place of the next non-zero of this group, which stays the next."""
        end = (self.place // self.width + 1) * self.width
        for place in range(self.place, min(end, len(self.activations))):
            if self.activations[place] != 0:
                return place
        self.place = end  # a cycle for nothing
        return None

    def passed_on(self, place: int) -> None:
        """It was broadcast. A group whose last activation it was is left at once."""
        self.place = place + 1


def run_reference(
    weights: npt.ArrayLike, activations: npt.ArrayLike, *, machine: EieMachine = EIE
) -> ReferenceRun:
    """Multiplies a matrix (rows, columns) and a vector (columns,) as EIE does."""
    matrix = np.asarray(weights, np.float64)
    vector = np.asarray(activations, np.float64)
    elements = [_Element(matrix[pe :: machine.pes], machine) for pe in range(machine.pes)]
    detector = _Detector(vector, machine.pes)
    cycles = stalls = starved = 0
    while not detector.finished() or any(pe.queue or pe.todo for pe in elements):
        # What is broadcast in this cycle can be taken in the next.
        waiting = [pe.work() for pe in elements]
        starved += waiting.count(False)
        if not detector.finished():
            place = detector.look()
            full = any(len(pe.queue) >= machine.queue_depth for pe in elements)
            stalls += place is not None and full
            if place is not None and not full:
                detector.passed_on(place)
                for pe in elements:
                    pe.queue.append((place, float(vector[place])))
        cycles += 1
    outputs = np.zeros(len(matrix))
    for number, element in enumerate(elements):
        outputs[number :: machine.pes] = element.sums
    return ReferenceRun(
        outputs=outputs,
        cycles=cycles,
        mac_cycles=sum(pe.done for pe in elements),
        stalls=stalls,
        starved=starved,
    )
