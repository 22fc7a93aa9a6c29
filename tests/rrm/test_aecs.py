from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrm_extract.errors import CalibrationError
from rrm_extract.rrm.aecs import AccumulatedError, accumulated, fit_accumulated_error


def test_accumulated_by_hand() -> None:
    truncated = np.array([[0.0, 0.0], [4.0, 9.0], [1.0, 0.0]])
    key_frame = np.array([True, False, False])
    np.testing.assert_allclose(accumulated(truncated, key_frame=key_frame), [0, 5, 6])
    np.testing.assert_allclose(
        accumulated(truncated, key_frame=np.zeros(3, bool), before=10), [10, 15, 16]
    )


def test_what_accumulates_ends_at_a_key_frame() -> None:
    truncated = np.array([[1.0], [0.0], [4.0], [0.0], [4.0], [1.0]])
    key_frame = np.array([0, 1, 0, 1, 0, 0], bool)
    np.testing.assert_allclose(
        accumulated(truncated, key_frame=key_frame, before=7), [8, 0, 2, 0, 2, 3]
    )


def test_a_polynomial_of_the_fourth_order_is_found_again() -> None:
    total = np.linspace(0, 20, 60)
    true = AccumulatedError(coefficients=(0.1, 0.05, 0.2, 0.3), reach=20.0)
    fit = fit_accumulated_error(total, true.predict(total))
    np.testing.assert_allclose(fit.model.coefficients, true.coefficients, rtol=1e-3)
    assert fit.model.reach == 20
    assert fit.r2 == pytest.approx(1)
    assert fit.residual_max < 1e-6
    assert fit.pairs == 59, "a key frame is no datum: the polynomial passes through the origin"


def test_a_round_ends_past_the_limit_and_past_the_data() -> None:
    model = AccumulatedError(coefficients=(1.0, 0.0, 0.0, 0.0), reach=10.0)
    total = np.array([0.0, 4.0, 6.0, 9.0, 10.5])
    assert model.over(total, limit=0.5).tolist() == [False, False, True, True, True]
    assert model.over(total, limit=2.0).tolist() == [False, False, False, False, True]


@given(
    st.lists(st.floats(-5, 5), min_size=4, max_size=4),
    st.lists(st.floats(0, 30), min_size=1, max_size=20),
)
def test_predictions_never_fall_within_a_round(
    coefficients: list[float], steps: list[float]
) -> None:
    model = AccumulatedError(coefficients=tuple(coefficients), reach=100.0)
    predicted = model.predict(np.cumsum(steps))
    assert (np.diff(predicted) >= 0).all()
    assert (predicted >= 0).all()


def test_too_few_data_fail() -> None:
    with pytest.raises(CalibrationError, match="3 frames have truncated something"):
        fit_accumulated_error(np.array([0.0, 1, 2, 3, 3]), np.array([0.0, 1, 2, 3, 3]))
