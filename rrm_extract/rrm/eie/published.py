"""The table that the EIE paper publishes, and the same layers on this model.

From Tables III and IV of arXiv 1602.01528v2 (Han et al., ISCA 2016), 64 PEs at 800 MHz. The sum of
AlexNet's three actual times, 52.4 us, agrees with the 1.88e4 frames/s of the paper's abstract to
1.5 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rrm_extract.rrm.eie.entries import expected_entries
from rrm_extract.rrm.eie.machine import EIE
from rrm_extract.rrm.eie.product import simulate_random_product

__all__ = [
    "PUBLISHED",
    "PublishedLayer",
    "Reproduced",
    "fitting_weight_density",
    "reproduce",
    "rounding_range",
]


@dataclass(frozen=True)
class PublishedLayer:
    """A row of Table III with its column of Table IV.

    Attributes:
        name: as in the paper.
        columns, rows: of the matrix: inputs and outputs.
        weight_density, activation_density: as published, rounded.
        theoretical_us, actual_us: microseconds for a frame.
    """

    name: str
    columns: int
    rows: int
    weight_density: float
    activation_density: float
    theoretical_us: float
    actual_us: float


PUBLISHED = (
    PublishedLayer("Alex-6", 9216, 4096, 0.09, 0.351, 28.1, 30.3),
    PublishedLayer("Alex-7", 4096, 4096, 0.09, 0.353, 11.7, 12.2),
    PublishedLayer("Alex-8", 4096, 1000, 0.25, 0.375, 8.9, 9.9),
    PublishedLayer("VGG-6", 25088, 4096, 0.04, 0.183, 28.1, 34.4),
    PublishedLayer("VGG-7", 4096, 4096, 0.04, 0.375, 7.9, 8.7),
    PublishedLayer("VGG-8", 4096, 1000, 0.23, 0.411, 7.3, 8.4),
    PublishedLayer("NT-We", 4096, 600, 0.10, 1.0, 5.2, 8.0),
    PublishedLayer("NT-Wd", 600, 8791, 0.11, 1.0, 13.0, 13.9),
    PublishedLayer("NT-LSTM", 1201, 2400, 0.10, 1.0, 6.5, 7.5),
)

WEIGHT_ROUNDING = 0.005
ACTIVATION_ROUNDING = 0.0005
"""Half of the last digit of the published densities."""


@dataclass(frozen=True, kw_only=True)
class Reproduced:
    """What the model says of a published layer, mean of several random matrices.

    Attributes:
        theoretical_us: all entries, padding included, evenly over the PEs.
        actual_us: simulated, cycle by cycle.
        actual_error_us: standard error of ``actual_us`` over the matrices.
        nonzeros_us: as theoretical, without padding.
    """

    theoretical_us: float
    actual_us: float
    actual_error_us: float
    nonzeros_us: float


def reproduce(layer: PublishedLayer, *, seed: int, repeats: int = 3) -> Reproduced:
    """Runs random matrices and vectors of a layer's size and densities.

    Args:
        layer: which one.
        seed: of the random numbers.
        repeats: how many matrices, at least 2.
    """
    random = np.random.default_rng([seed, *layer.name.encode()])
    theoretical, actual = np.zeros(repeats), np.zeros(repeats)
    for run in range(repeats):
        cycles = simulate_random_product(
            layer.rows,
            layer.columns,
            weight_density=layer.weight_density,
            activation_density=layer.activation_density,
            random=random,
        )
        theoretical[run] = EIE.seconds(float(cycles.balanced)) * 1e6
        actual[run] = EIE.seconds(float(cycles.total)) * 1e6
    macs = layer.rows * layer.columns * layer.weight_density * layer.activation_density
    return Reproduced(
        theoretical_us=float(theoretical.mean()),
        actual_us=float(actual.mean()),
        actual_error_us=float(actual.std(ddof=1) / np.sqrt(repeats)),
        nonzeros_us=macs / EIE.peak_macs * 1e6,
    )


def rounding_range(layer: PublishedLayer) -> tuple[float, float]:
    """Theoretical microseconds, least and most, of all densities that round to the published."""

    def theoretical_us(side: Literal[-1, 1]) -> float:
        weights = layer.weight_density + side * WEIGHT_ROUNDING
        active = min(1.0, layer.activation_density + side * ACTIVATION_ROUNDING)
        return _expected_us(layer, weights, active)

    return theoretical_us(-1), theoretical_us(1)


def fitting_weight_density(layer: PublishedLayer) -> float:
    """The weight density with which random columns would take the published theoretical time."""
    low, high = 0.0, 1.0
    while high - low > 1e-6:  # more weights always take longer
        middle = (low + high) / 2
        if _expected_us(layer, middle, layer.activation_density) < layer.theoretical_us:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _expected_us(layer: PublishedLayer, weight_density: float, activation_density: float) -> float:
    entries = sum(
        expected_entries(int(rows), density=weight_density) for rows in EIE.rows_of_pes(layer.rows)
    )
    return layer.columns * activation_density * entries / EIE.peak_macs * 1e6
