"""The Recurrent Residual Module, readable: the specification that engines are tested against."""

from __future__ import annotations

from rrm_extract.rrm.accelerate import accelerate
from rrm_extract.rrm.cost import (
    LayerCost,
    complexity,
    dense_complexity,
    overall_density,
    overall_sparsity,
    theoretical_speedup,
    theoretical_speedup_over_sparse_input,
)
from rrm_extract.rrm.module import FrameDensities, RecurrentNetwork, layer_thresholds
from rrm_extract.rrm.truncate import POLICIES, Policy, truncated_deltas

__all__ = [
    "POLICIES",
    "FrameDensities",
    "LayerCost",
    "Policy",
    "RecurrentNetwork",
    "accelerate",
    "complexity",
    "dense_complexity",
    "layer_thresholds",
    "overall_density",
    "overall_sparsity",
    "theoretical_speedup",
    "theoretical_speedup_over_sparse_input",
    "truncated_deltas",
]
