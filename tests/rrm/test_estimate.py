from __future__ import annotations

import numpy as np

from rrm_extract.rrm.estimate import ErrorEstimate


def test_by_hand() -> None:
    estimate = ErrorEstimate(gains=np.array([4.0, 1.0]), floor=9.0)
    np.testing.assert_allclose(estimate.of(np.array([[0.0, 0.0], [4.0, 0.0], [2.0, 8.0]])),
                               [3.0, 5.0, 5.0])  # fmt: skip
