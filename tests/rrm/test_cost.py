from __future__ import annotations

import math

import pytest

from rrm_extract.rrm import (
    LayerCost,
    complexity,
    dense_complexity,
    overall_sparsity,
    theoretical_speedup,
    theoretical_speedup_over_sparse_input,
)

# Two layers small enough for a calculation by hand.
CONVOLUTION = LayerCost(
    name="conv",
    macs=900,  # 10 x 10 outputs, 1 channel, 3 x 3 kernel over 1 channel
    input_elements=100,
    output_elements=100,
    density=0.5,
    density_delta=0.1,
)
CONNECTED = LayerCost(
    name="fc", macs=100, input_elements=20, output_elements=5, density=1.0, density_delta=0.4
)
BOTH = (CONVOLUTION, CONNECTED)


def test_complexity_table_1_eq_6() -> None:
    assert dense_complexity(CONVOLUTION) == 900
    assert complexity(CONVOLUTION) == pytest.approx(900 * 0.1 + 100 + 100)
    assert complexity(CONNECTED) == pytest.approx(100 * 0.4 + 20 + 5)


def test_overall_sparsity_eq_9_weighted_by_macs() -> None:
    assert overall_sparsity(BOTH) == pytest.approx(1 - (900 * 0.1 + 100 * 0.4) / 1000)


def test_overall_sparsity_eq_9_weighted_by_elements() -> None:
    assert overall_sparsity(BOTH, weight="elements") == pytest.approx(
        1 - (100 * 0.1 + 20 * 0.4) / 120
    )


def test_overall_sparsity_of_the_plain_input() -> None:
    assert overall_sparsity(BOTH, of="input") == pytest.approx(1 - (900 * 0.5 + 100 * 1.0) / 1000)


def test_speedup_eq_10() -> None:
    assert theoretical_speedup(BOTH) == pytest.approx(1000 / 130)
    assert theoretical_speedup_over_sparse_input(BOTH) == pytest.approx(550 / 130)


def test_nothing_changed() -> None:
    still = LayerCost(
        name="c", macs=9, input_elements=1, output_elements=1, density=1, density_delta=0
    )
    assert theoretical_speedup((still,)) == math.inf


def test_no_layers() -> None:
    assert math.isnan(overall_sparsity(()))
    assert math.isnan(theoretical_speedup(()))
