"""What a frame costs, and what the recurrence saves: the paper's measures as plain functions.

The paper (arXiv 1802.09723) converts sparsity to speed through hardware that skips zeros. Every
speedup here is such a *theoretical* one: a ratio of multiply-accumulates, not of seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = [
    "Channels",
    "LayerCost",
    "complexity",
    "dense_complexity",
    "overall_density",
    "overall_sparsity",
    "theoretical_speedup",
    "theoretical_speedup_over_sparse_input",
]

Weighting = Literal["macs", "elements"]


class Channels(NamedTuple):
    """What a convolution or fully-connected layer connects: channels, or features."""

    inputs: int
    outputs: int
    groups: int


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One convolution or fully-connected layer, averaged over frames.

    Attributes:
        name: the layer.
        macs: dense multiply-accumulates of one frame.
        input_elements: elements of the layer's input, one frame.
        output_elements: elements of its output, one frame.
        density: share of non-zeros of the plain input, what hardware that skips zeros
            would see without the recurrence; 0 to 1.
        density_delta: share of non-zeros of the truncated delta; 0 to 1.
        channels: of the layer; None where they are not known.
    """

    name: str
    macs: int
    input_elements: int
    output_elements: int
    density: float
    density_delta: float
    channels: Channels | None = None


def overall_density(
    layers: Sequence[LayerCost],
    *,
    weight: Weighting = "macs",
    of: Literal["delta", "input"] = "delta",
) -> float:
    """Mean density over layers, weighted by their MACs or by their input elements; NaN if empty."""
    weights = [layer.macs if weight == "macs" else layer.input_elements for layer in layers]
    values = [layer.density_delta if of == "delta" else layer.density for layer in layers]
    total = sum(weights)
    if total == 0:
        return math.nan
    return sum(w * value for w, value in zip(weights, values, strict=True)) / total


def overall_sparsity(
    layers: Sequence[LayerCost],
    *,
    weight: Weighting = "macs",
    of: Literal["delta", "input"] = "delta",
) -> float:
    """Overall sparsity, Eq. 9: 1 - weighted mean density.

    Args:
        layers: all linear layers of the network.
        weight: "macs" counts a layer by its work (what a speedup follows from), "elements" by
            the size of its input (the share of all values that are zero).
        of: the truncated deltas, or the plain inputs ("input", without the recurrence).
    """
    return 1.0 - overall_density(layers, weight=weight, of=of)


def dense_complexity(layer: LayerCost) -> float:
    """Operations of the dense layer for one frame (Table 1): its MACs."""
    return float(layer.macs)


def complexity(layer: LayerCost) -> float:
    """Operations of the recurrent layer for one frame (Table 1, Eq. 6).

    The MACs of the non-zero deltas, one subtraction for each input element to make the delta,
    and one addition for each output element onto the kept output.
    """
    return layer.macs * layer.density_delta + layer.input_elements + layer.output_elements


def theoretical_speedup(layers: Sequence[LayerCost]) -> float:
    """Dense MACs over the MACs of the non-zero deltas (Eq. 10, against the dense network).

    Infinite when nothing changed at all; NaN without layers.
    """
    density = overall_density(layers)
    return math.inf if density == 0 else 1.0 / density


def theoretical_speedup_over_sparse_input(layers: Sequence[LayerCost]) -> float:
    """MACs of the non-zero inputs over those of the non-zero deltas.

    Eq. 10 against the same zero-skipping hardware without the recurrence: what the recurrence
    adds to hardware that already exploits the zeros that ReLU leaves.
    """
    delta = overall_density(layers)
    plain = overall_density(layers, of="input")
    return math.inf if delta == 0 else plain / delta
