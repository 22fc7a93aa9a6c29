"""What is said of audited errors."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from rrm_extract.report.audit import audit_lines, audit_measures

NOTHING = np.empty(0, np.float32)


def measures(*errors: float) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return audit_measures(np.array(errors, np.float32), NOTHING, {})


def test_finite_errors_are_interpolated() -> None:
    found = measures(0.0, 0.25, 0.5, 1.0)
    assert (found["audited"], found["infinite"]) == (4, 0)
    assert (found["error_median"], found["error_max"]) == (0.375, 1.0)
    assert found["error_p99"] == pytest.approx(0.985)
    assert len(audit_lines(found)) == 1


@pytest.mark.parametrize(
    ("errors", "median"),
    [
        ([0.0, 0.5, math.inf], 0.5),
        ([0.0, 0.5, math.inf, math.inf], math.inf),
        ([math.inf], math.inf),
    ],
)
def test_infinite_errors_are_the_worst(errors: list[float], median: float) -> None:
    found = measures(*errors)
    assert found["audited"] == len(errors)
    assert found["infinite"] == sum(map(math.isinf, errors))
    assert found["error_median"] == median
    assert found["error_p99"] == found["error_max"] == math.inf
    first, second = audit_lines(found)
    assert f"audited error of {len(errors)} frames" in first
    assert "99th percentile infinite, max infinite" in first
    assert f"the error of {found['infinite']} of them is infinite" in second


def test_nothing_audited_is_nothing_to_say() -> None:
    found = measures()
    assert found["audited"] == found["infinite"] == 0
    assert found["error_max"] is None
    assert audit_lines(found) == []


@pytest.mark.parametrize(
    ("rounds", "beyond", "expected"),
    [
        (3, 0, ["3 times the accumulated error reached its limit"]),
        (2, 2, ["2 times the accumulated truncation went beyond the calibration's data"]),
        (
            5,
            1,
            [
                "4 times the accumulated error reached its limit",
                "1 times the accumulated truncation went beyond the calibration's data",
            ],
        ),
    ],
)
def test_a_round_ends_at_the_limit_or_where_the_data_end(
    rounds: int, beyond: int, expected: list[str]
) -> None:
    lines = audit_lines(audit_measures(NOTHING, NOTHING, {"rounds": rounds, "beyond_data": beyond}))
    assert [line.partition(":")[0] for line in lines] == expected
