"""Sparsity as time at the machine's peak: what the RRM paper's Sec. 4 reads off EIE.

Every multiply-accumulate whose weight and activation are both non-zero takes one PE one cycle, all
PEs are always busy, and nothing else takes time. Ratios of such times are Eq. 10.
"""

from __future__ import annotations

from typing import Literal

from rrm_extract.rrm.cost import LayerCost
from rrm_extract.rrm.eie.machine import EIE, EieMachine

__all__ = ["analytic_seconds", "dense_equivalent_ops", "elementwise_seconds"]


def analytic_seconds(
    layer: LayerCost,
    *,
    of: Literal["dense", "input", "delta"],
    weight_density: float = 1.0,
    machine: EieMachine = EIE,
) -> float:
    """Theoretical seconds of one layer for one frame; NaN where the density is.

    Args:
        layer: the layer.
        of: its plain inputs ("input", without the recurrence), its truncated deltas, or "dense":
            neither zeros of activations nor zeros of weights are skipped.
        weight_density: share of its weights that are not zero.
        machine: on which it runs.
    """
    if of == "dense":
        return layer.macs / machine.peak_macs
    density = layer.density_delta if of == "delta" else layer.density
    return layer.macs * density * weight_density / machine.peak_macs


def elementwise_seconds(layer: LayerCost, *, machine: EieMachine = EIE) -> float:
    """What Eq. 6 adds to the MACs: a subtraction for each input, an addition for each output.

    At one element in each PE and cycle. The paper's Eq. 10, and :func:`analytic_seconds`, leave it
    out: an EIE could begin with the kept output in its accumulators, which costs nothing.
    """
    return (layer.input_elements + layer.output_elements) / machine.peak_macs


def dense_equivalent_ops(
    *, weight_density: float, activation_density: float, machine: EieMachine = EIE
) -> float:
    """Operations in a second that a machine which skips no zeros would need to keep up.

    A multiply-accumulate is two operations. The 3 TOP/s that both papers quote are those of
    AlexNet's pruned layers: 102 GOP/s at about 3 % of the MACs.
    """
    return 2 * machine.peak_macs / (weight_density * activation_density)
