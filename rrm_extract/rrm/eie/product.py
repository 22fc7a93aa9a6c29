"""One matrix-vector product on EIE: given, or random with given densities."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rrm_extract.rrm.eie.detection import detect
from rrm_extract.rrm.eie.entries import random_entries, stored_entries
from rrm_extract.rrm.eie.machine import EIE, EieMachine
from rrm_extract.rrm.eie.pipeline import Cycles, count_cycles

__all__ = ["random_activity", "simulate_product", "simulate_random_product"]


def simulate_product(
    weights: npt.ArrayLike, activations: npt.ArrayLike, *, machine: EieMachine = EIE
) -> Cycles:
    """The cycles of a product of a matrix (rows, columns) and a vector (columns,).

    Raises:
        ValueError: their shapes do not fit.
    """
    matrix = np.asarray(weights)
    vector = np.asarray(activations)
    if matrix.ndim != 2 or vector.shape != matrix.shape[1:]:
        msg = (
            f"weights {matrix.shape} and activations {vector.shape} do not fit; expected "
            "(rows, columns) and (columns,)"
        )
        raise ValueError(msg)
    found = detect(vector, machine=machine)
    entries = stored_entries(matrix[:, found.index], machine=machine)
    return count_cycles(
        entries.total, idle=found.idle, idle_after=found.idle_after, machine=machine
    )


def simulate_random_product(
    rows: int,
    columns: int,
    *,
    weight_density: float,
    activation_density: float,
    random: np.random.Generator,
    machine: EieMachine = EIE,
) -> Cycles:
    """The cycles of a random matrix (rows, columns) and a random vector of these densities."""
    found = detect(random_activity(columns, activation_density, random), machine=machine)
    held = np.broadcast_to(machine.rows_of_pes(rows), (len(found.index), machine.pes))
    entries = random_entries(held, density=weight_density, random=random, machine=machine)
    return count_cycles(
        entries.total, idle=found.idle, idle_after=found.idle_after, machine=machine
    )


def random_activity(
    count: int, density: float, random: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """(count,) bool with ``density`` of them true, to the nearest one, at random places."""
    active = np.zeros(count, bool)
    active[: round(count * density)] = True
    random.shuffle(active)
    return active
