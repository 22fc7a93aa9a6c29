from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from rrm_extract.jobs.accounting import Accounting, layer_columns
from rrm_extract.rrm import LayerCost
from rrm_extract.store import ChunkResult

LAYERS = tuple(
    LayerCost(
        name=name, macs=macs, input_elements=10, output_elements=10, density=0, density_delta=0
    )
    for name, macs in (("a", 300), ("b", 100))
)


def chunk(key: list[bool], density_delta: list[list[float]], work: list[float]) -> ChunkResult:
    t = len(key)
    return ChunkResult(
        index=0,
        features=np.zeros((t, 1), np.float32),
        timestamps=np.zeros(t),
        pts=np.zeros(t, np.int64),
        frame_index=np.zeros(t, np.int64),
        key_frame=np.array(key),
        work=np.array(work, np.float32),
        density=np.full((t, 2), 0.5, np.float32),
        density_delta=np.array(density_delta, np.float32).reshape(t, 2),
        attrs={"seconds_decode": 1.0},
    )


def test_key_frames_count_for_work_but_not_for_the_deltas_density() -> None:
    seen = Accounting(LAYERS)
    seen.add(chunk([True, False, False], [[0.9, 0.9], [0.2, 0.4], [0.0, 0.2]], [1.0, 0.25, 0.05]))
    a, b = seen.layers()
    assert (a.density_delta, b.density_delta) == pytest.approx((0.1, 0.3))
    measures = seen.measures()
    assert measures["density_delta"] == pytest.approx((300 * 0.1 + 100 * 0.3) / 400)
    assert measures["sparsity_elements"] == pytest.approx(1 - 0.2)
    assert measures["speedup_theoretical"] == pytest.approx(3 / 1.3)
    assert measures["speedup_theoretical_over_sparse_input"] == pytest.approx(0.5 / 0.15)


def test_sums_do_not_depend_on_the_order_of_videos() -> None:
    parts = [
        chunk([True, False], [[1, 1], [0.1, 0.2]], [1, 0.125]),
        chunk([True], [[1, 1]], [1]),
    ]
    together, one, other = Accounting(LAYERS), Accounting(LAYERS), Accounting(LAYERS)
    for part in parts:
        together.add(part)
    one.add(parts[1])
    other.add(parts[0])
    one.merge(other)
    assert one.measures() == pytest.approx(together.measures())
    assert one.seconds["decode"] == 2.0


def test_only_key_frames_have_no_delta_density() -> None:
    seen = Accounting(LAYERS)
    seen.add(chunk([True], [[1, 1]], [1]))
    assert math.isnan(seen.measures()["density_delta"])
    assert seen.measures()["speedup_theoretical"] == 1.0
    assert np.isnan(layer_columns(seen.layers())["speedup"]).all()


def test_what_was_audited_is_counted_however_wrong_it_is() -> None:
    errors = np.array([0.5, np.nan, np.inf], np.float32)
    one = replace(chunk([True] * 3, [[1, 1]] * 3, [1] * 3), audit_error=errors, estimate=errors)
    seen = Accounting(LAYERS)
    seen.add(one)
    assert seen.audited_errors().tolist() == seen.estimates().tolist() == [0.5, np.inf]


def test_frames_without_numbers_are_counted() -> None:
    one = chunk([True, False], [[1.0, 1.0], [0.5, 0.5]], [1.0, 0.5])
    one.features[1] = np.nan
    seen, all_of_it = Accounting(LAYERS), Accounting(LAYERS)
    seen.add(one)
    all_of_it.merge(seen)
    assert all_of_it.not_finite == 1
