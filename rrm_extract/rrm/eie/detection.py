"""Leading non-zero detection: which activations are broadcast, and how long they are looked for.

The tree of detectors (EIE paper, Sec. IV, "Distributed Leading Non-Zero Detection") looks at one
activation of every PE at a time and passes on the first non-zero, one in a cycle. What a group of
such activations costs beyond its non-zeros is taken from the authors' simulator
(https://github.com/RalphMao/EIE-simulator, src/nzfetch.cpp): one cycle that finds nothing left,
unless the group's last activation was a non-zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from rrm_extract.rrm.eie.machine import EIE, EieMachine

__all__ = ["Detection", "detect"]


@dataclass(frozen=True, eq=False)
class Detection:
    """What the tree finds in a vector.

    Attributes:
        index: (K,) int64, places of the non-zeros.
        idle: (K,) int64, cycles that find nothing, before each of them and after the one before.
        idle_after: such cycles after the last.
    """

    index: NDArray[np.int64]
    idle: NDArray[np.int64]
    idle_after: int


def detect(activations: npt.ArrayLike, *, machine: EieMachine = EIE) -> Detection:
    """Finds the non-zeros of a vector (N,), of any type.

    Raises:
        ValueError: ``activations`` is no vector.
    """
    active = np.asarray(activations) != 0
    if active.ndim != 1:
        msg = f"activations has shape {active.shape}; expected a vector"
        raise ValueError(msg)
    groups = -(-len(active) // machine.pes)
    padded = np.zeros(groups * machine.pes, bool)
    padded[: len(active)] = active
    lost = ~padded.reshape(groups, machine.pes)[:, -1]  # by group: a cycle that finds nothing
    before = np.concatenate([[0], np.cumsum(lost)])  # cycles lost before each group
    index = np.flatnonzero(active)
    so_far = before[index // machine.pes]
    idle = np.diff(so_far, prepend=0)
    return Detection(index, idle, int(before[-1] - (so_far[-1] if len(index) else 0)))
