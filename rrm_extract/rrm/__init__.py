"""The Recurrent Residual Module, readable: the specification that engines are tested against.

Nothing is imported before it is asked for: ``cost`` needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rrm_extract.rrm.cost import (
        Channels,
        LayerCost,
        complexity,
        dense_complexity,
        overall_density,
        overall_sparsity,
        theoretical_speedup,
        theoretical_speedup_over_sparse_input,
    )
    from rrm_extract.rrm.entry import accelerate
    from rrm_extract.rrm.frames import FrameByFrame, by_frame
    from rrm_extract.rrm.module import (
        DeltaObserver,
        FrameDensities,
        RecurrentNetwork,
        layer_thresholds,
    )
    from rrm_extract.rrm.ordinary import OrdinaryNetwork
    from rrm_extract.rrm.truncate import POLICIES, Policy, truncated_deltas

__all__ = [
    "POLICIES",
    "Channels",
    "DeltaObserver",
    "FrameByFrame",
    "FrameDensities",
    "LayerCost",
    "OrdinaryNetwork",
    "Policy",
    "RecurrentNetwork",
    "accelerate",
    "by_frame",
    "complexity",
    "dense_complexity",
    "layer_thresholds",
    "overall_density",
    "overall_sparsity",
    "theoretical_speedup",
    "theoretical_speedup_over_sparse_input",
    "truncated_deltas",
]

_ROOMS = {
    "entry": ("accelerate",),
    "frames": ("FrameByFrame", "by_frame"),
    "module": ("DeltaObserver", "FrameDensities", "RecurrentNetwork", "layer_thresholds"),
    "ordinary": ("OrdinaryNetwork",),
    "truncate": ("POLICIES", "Policy", "truncated_deltas"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    room = next((room for room, names in _ROOMS.items() if name in names), "cost")
    return getattr(importlib.import_module(f"rrm_extract.rrm.{room}"), name)
