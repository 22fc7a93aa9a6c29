"""A layer of a network on EIE, cycle by cycle, estimated from samples.

A convolution is taken apart by pixels: the channels of one pixel of the input are a vector, and the
rows of the matrix are the outputs that the pixel reaches, for each tap of the kernel all output
channels. (Patches of the input times the filters would be the same MACs. But each non-zero would
be broadcast once for each tap, and with 64 filters a PE would hold a single row of the matrix,
whose zeros then save nothing.) Output channel c belongs to PE ``c mod pes``, whatever the tap, so
that a PE keeps the sums of its own channels. The pixels follow one another without a pause. Other
groups' channels of a grouped convolution are empty columns. A fully-connected layer is a single
pixel with one tap.

What a file says of a layer are densities, so weights and activations are random: each weight, and
each input, is non-zero independently of all others. Real changes come in clusters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rrm_extract.errors import ConfigError
from rrm_extract.rrm.cost import Channels, LayerCost
from rrm_extract.rrm.eie.detection import detect
from rrm_extract.rrm.eie.entries import random_entries
from rrm_extract.rrm.eie.machine import EIE, EieMachine
from rrm_extract.rrm.eie.pipeline import count_cycles
from rrm_extract.rrm.eie.product import random_activity

__all__ = ["Estimate", "simulate_layer"]

SAMPLES = 4
"""Windows of a layer that are simulated, each with weights and activations of its own."""

WINDOW = 4096
"""Inputs in a window, unless the layer has fewer, or ..."""

FEWEST_ACTIVE = 512
"""... fewer of them than this would be non-zero."""

WIDEST = 1 << 20
"""Inputs in the largest window."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Cycles of one layer for one frame.

    Attributes:
        cycles: mean of the samples, for the whole layer.
        standard_error: of that mean, from how the samples differ.
        samples: how many there were.
        share: of the layer's inputs in one sample.
    """

    cycles: float
    standard_error: float
    samples: int
    share: float


def simulate_layer(
    layer: LayerCost,
    density: float,
    *,
    weight_density: float = 1.0,
    random: np.random.Generator,
    machine: EieMachine = EIE,
    samples: int = SAMPLES,
) -> Estimate:
    """Estimates the cycles of one layer for one frame.

    Args:
        layer: with its channels; its own densities are not looked at.
        density: share of its inputs that are non-zero.
        weight_density: share of its weights that are non-zero.
        random: where weights and activations come from.
        machine: on which it runs.
        samples: how many windows are simulated, at least 2 for a standard error.

    Raises:
        ConfigError: a density is not between 0 and 1, there are fewer than 2 samples, or the
            layer's channels are not known.
    """
    for name, value in (("density", density), ("weight_density", weight_density)):
        if not 0 <= value <= 1:
            msg = f"{name} of {layer.name} is {value}; expected 0 to 1"
            raise ConfigError(msg)
    if samples < 2:
        msg = f"samples is {samples}; expected at least 2"
        raise ConfigError(msg)
    if layer.channels is None:
        msg = f"the channels of {layer.name} are not known; expected a layer with its channels"
        raise ConfigError(msg)
    inputs, taps = _reach(layer, layer.channels)
    window = min(inputs, _window(density))
    active = [random_activity(window, density, random) for _ in range(samples)]
    found = [detect(vector, machine=machine) for vector in active]
    rows = np.stack(
        [
            _rows(
                one.index + _begin(inputs, window, layer.channels, random),
                layer.channels,
                taps,
                random.random(),
                machine,
            )
            for one in found
        ]
    )
    entries = random_entries(rows, density=weight_density, random=random, machine=machine)
    counted = count_cycles(
        entries.total,
        idle=np.stack([one.idle for one in found]),
        idle_after=np.array([one.idle_after for one in found]),
        machine=machine,
    )
    each = counted.total * (inputs / window)
    return Estimate(
        cycles=float(each.mean()),
        standard_error=float(each.std(ddof=1) / math.sqrt(samples)),
        samples=samples,
        share=window / inputs,
    )


def _reach(layer: LayerCost, channels: Channels) -> tuple[int, float]:
    """Inputs that reach any output, and for how many taps one does, on average.

    A stride makes it a fraction. Where the stride is wider than the kernel, some inputs are never
    looked at.
    """
    taps = layer.macs * channels.groups / (layer.input_elements * channels.outputs)
    if taps >= 1:
        return layer.input_elements, taps
    return max(1, round(layer.input_elements * taps)), 1.0


def _window(density: float) -> int:
    if density == 0:
        return WIDEST
    return min(WIDEST, max(WINDOW, math.ceil(FEWEST_ACTIVE / density)))


def _begin(inputs: int, window: int, channels: Channels, random: np.random.Generator) -> int:
    """The first input of a window: it begins with a pixel, and ends within the layer."""
    pixels = (inputs - window) // channels.inputs + 1
    return int(random.integers(pixels)) * channels.inputs


def _rows(
    index: NDArray[np.int64], channels: Channels, taps: float, phase: float, machine: EieMachine
) -> NDArray[np.int64]:
    """(K, pes): how many rows of each broadcast input's column each PE holds."""
    pixel, channel = np.divmod(index, channels.inputs)
    # Of a fraction of a tap, some pixels have one more than others, evenly spread.
    before = np.floor(phase + taps * pixel).astype(np.int64)
    reached = np.floor(phase + taps * (pixel + 1)).astype(np.int64) - before
    group = channel // (channels.inputs // channels.groups)
    rows: NDArray[np.int64] = _rows_of_groups(channels, machine)[group] * reached[:, None]
    return rows


def _rows_of_groups(channels: Channels, machine: EieMachine) -> NDArray[np.int64]:
    """(groups, pes): how many of a group's output channels each PE has."""
    channel = np.arange(channels.outputs)
    held = np.zeros((channels.groups, machine.pes), np.int64)
    group = channel // (channels.outputs // channels.groups)
    np.add.at(held, (group, channel % machine.pes), 1)
    return held
