"""What is known of the features' errors, in a line or two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["audit_lines", "audit_measures"]


def audit_measures(
    errors: NDArray[Any], estimates: NDArray[Any], events: Mapping[str, int]
) -> dict[str, Any]:
    """Of the errors that are known; None where there is none.

    Args:
        errors: relative L2 errors of the frames that were audited.
        estimates: of the frames whose error was predicted.
        events: what happened how often, see :data:`rrm_extract.jobs.control.EVENTS`.
    """
    measures: dict[str, Any] = {"audited": len(errors)}
    for name, share in (("median", 50), ("p99", 99), ("max", 100)):
        measures[f"error_{name}"] = _percentile(errors, share)
    for name, share in (("median", 50), ("p95", 95), ("max", 100)):
        measures[f"estimate_{name}"] = _percentile(estimates, share)
    measures.update({name: int(events.get(name, 0)) for name in ("breaches", "rounds", "cuts")})
    return measures


def audit_lines(measures: Mapping[str, Any]) -> list[str]:
    """The same for a person; nothing where nothing is known."""
    lines = []
    if measures["audited"]:
        lines.append(
            f"audited error of {measures['audited']} frames: "
            f"median {measures['error_median']:.2g}, "
            f"99th percentile {measures['error_p99']:.2g}, max {measures['error_max']:.2g}"
        )
    if measures["estimate_median"] is not None:
        lines.append(
            f"estimated error of all frames: median {measures['estimate_median']:.2g}, "
            f"95th percentile {measures['estimate_p95']:.2g}"
        )
    if measures["breaches"]:
        one = measures["breaches"] == 1
        lines.append(
            f"{measures['breaches']} measured error{' was' if one else 's were'} over the target: "
            "thresholds were tightened there"
        )
    if measures["rounds"]:
        lines.append(
            f"{measures['rounds']} times the accumulated error reached its limit: a key frame each"
        )
    return lines


def _percentile(values: NDArray[Any], share: float) -> float | None:
    return float(np.percentile(values, share)) if len(values) else None
