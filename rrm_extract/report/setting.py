"""What a network was run with, in a few words."""

from __future__ import annotations

from rrm_extract.config import JobConfig, threshold_text
from rrm_extract.jobs.calibration import Calibration, TargetCalibration

__all__ = ["setting_text"]


def setting_text(config: JobConfig, calibration: Calibration | None) -> str:
    """The threshold and what becomes of small changes, or the target that takes its place."""
    if isinstance(calibration, TargetCalibration):
        return f"target error {calibration.target_error:g} ({config.thresholds})"
    limit = "" if config.error_limit is None else f", error limit {config.error_limit:g}"
    return f"threshold {threshold_text(config.threshold)} ({config.policy}{limit})"
