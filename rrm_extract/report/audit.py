"""What is known of the features' errors, in a line or two."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["audit_lines", "audit_measures", "error_percentile"]


def audit_measures(
    errors: NDArray[Any], estimates: NDArray[Any], events: Mapping[str, int]
) -> dict[str, Any]:
    """Of the errors that are known; None where there is none.

    Args:
        errors: relative L2 errors of the frames that were audited; some may be infinite.
        estimates: of the frames whose error was predicted.
        events: what happened how often, see :data:`rrm_extract.jobs.control.EVENTS`.
    """
    measures: dict[str, Any] = {"audited": len(errors), "infinite": int(np.isinf(errors).sum())}
    for name, share in (("median", 50), ("p99", 99), ("max", 100)):
        measures[f"error_{name}"] = error_percentile(errors, share)
    for name, share in (("median", 50), ("p95", 95), ("max", 100)):
        measures[f"estimate_{name}"] = error_percentile(estimates, share)
    counted = ("breaches", "rounds", "beyond_data", "cuts")
    measures.update({name: int(events.get(name, 0)) for name in counted})
    return measures


def audit_lines(measures: Mapping[str, Any]) -> list[str]:
    """The same for a person; nothing where nothing is known."""
    lines = []
    if measures["audited"]:
        lines.append(
            f"audited error of {measures['audited']} frames: "
            f"median {_text(measures['error_median'])}, "
            f"99th percentile {_text(measures['error_p99'])}, max {_text(measures['error_max'])}"
        )
    if measures["infinite"]:
        lines.append(
            f"the error of {measures['infinite']} of them is infinite: the dense network's feature "
            "is zero, or one of the two has NaN or infinities"
        )
    if measures["estimate_median"] is not None:
        lines.append(
            f"estimated error of all frames: median {_text(measures['estimate_median'])}, "
            f"95th percentile {_text(measures['estimate_p95'])}"
        )
    if measures["breaches"]:
        one = measures["breaches"] == 1
        steered = measures["estimate_median"] is not None
        follow = "thresholds follow what was measured" if steered else "nothing was truncated"
        lines.append(
            f"{measures['breaches']} measured error{' was' if one else 's were'} over the target; "
            f"{follow}"
        )
    reached = measures["rounds"] - measures["beyond_data"]  # a round ends for one or the other
    if reached:
        lines.append(f"{reached} times the accumulated error reached its limit: a key frame each")
    if measures["beyond_data"]:
        lines.append(
            f"{measures['beyond_data']} times the accumulated truncation went beyond the "
            "calibration's data: a key frame each; calibrate on clips with as much movement"
        )
    return lines


def error_percentile(values: NDArray[Any], share: float) -> float | None:
    """A percentile of errors, some of which may be infinite; None of no values.

    Between a value and an infinite one all is infinite.
    """
    if not len(values):
        return None
    if np.isinf(np.percentile(values, share, method="higher")):
        return math.inf
    # At the last finite one the interpolation would take 0 times infinity.
    finite = np.minimum(values, np.finfo(np.float32).max)
    return float(np.percentile(finite, share))


def _text(error: float) -> str:
    return "infinite" if math.isinf(error) else f"{error:.2g}"
