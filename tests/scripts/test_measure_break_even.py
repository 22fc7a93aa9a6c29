"""Where lists of deltas begin to take longer than dense frames."""

from __future__ import annotations

import pytest

pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")

from measure_break_even import crossing_of

DENSITIES = (0.1, 0.2, 0.4)


def test_the_crossing_lies_between_two_densities() -> None:
    assert crossing_of(DENSITIES, (0.5, 0.9, 1.3)) == pytest.approx(0.25)
    # Medians that are not in order: the first one counts.
    assert crossing_of(DENSITIES, (0.5, 1.5, 0.9)) == pytest.approx(0.15)


@pytest.mark.parametrize("ratios", [(1.1, 1.4, 2.0), (0.2, 0.4, 0.9)], ids=["below", "above"])
def test_a_crossing_that_was_not_looked_at_is_none(ratios: tuple[float, ...]) -> None:
    assert crossing_of(DENSITIES, ratios) is None
