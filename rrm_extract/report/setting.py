"""What a network was run with, in a few words."""

from __future__ import annotations

import json

from rrm_extract.config import JobConfig, threshold_text
from rrm_extract.device import is_cpu
from rrm_extract.errors import ConfigError
from rrm_extract.jobs.calibration import Calibration, TargetCalibration
from rrm_extract.store import FeatureFile

__all__ = [
    "processor_text",
    "refuse_target",
    "setting_text",
    "stored_setting_text",
    "stored_threshold",
]


def refuse_target(config: JobConfig) -> None:
    """Refuses a job whose thresholds would first have to be calibrated.

    Raises:
        ConfigError: it has a target error.
    """
    if config.target_error is not None:
        raise ConfigError(
            f"target_error {config.target_error:g} has no thresholds yet; expected thresholds: a "
            "file that rrm-extract calibrate makes for that target"
        )


def setting_text(config: JobConfig, calibration: Calibration | None) -> str:
    """The threshold and what becomes of small changes, or the target that takes its place."""
    if isinstance(calibration, TargetCalibration):
        return f"target error {calibration.target_error:g} ({config.thresholds})"
    return _with_policy(threshold_text(config.threshold), config.policy, config.error_limit)


def processor_text(config: JobConfig, engine: str) -> str:
    """What an engine has to itself; the native one has one thread, whatever was asked for."""
    if not is_cpu(config.device):
        return config.device
    count = 1 if engine == "native" else config.threads
    return f"{count} thread{'' if count == 1 else 's'}"


def stored_threshold(file: FeatureFile) -> str:
    """The threshold that a feature file was made with; as JSON where layers have their own.

    With a target these are the calibrated ones, from which steering starts. The attribute
    ``threshold`` of files that were made before it said so has a default that was not used.
    """
    calibration = json.loads(file.attrs.get("calibration_json", "null"))
    if calibration is not None and calibration["kind"] == TargetCalibration.kind:
        return json.dumps(calibration["thresholds"])
    return str(file.attrs.get("threshold", "?"))


def stored_setting_text(
    threshold: str,
    policy: str,
    *,
    target_error: float | None,
    percentile: float | None,
    error_limit: float | None,
) -> str:
    """As :func:`setting_text`, of what a feature file says.

    Args:
        threshold: of :func:`stored_threshold`.
        policy: "bounded" or "paper".
        target_error: of the file's identity; None without a target.
        percentile: share of frames, in percent, that shall keep it.
        error_limit: of the file's identity; None without the accumulated-error control.
    """
    by_layer = json.loads(threshold) if threshold.startswith("{") else None
    if target_error is not None:
        how = "and steered" if by_layer and any(by_layer.values()) else "to 0"
        return f"target error {target_error:g} ({percentile:g} %), thresholds calibrated {how}"
    threshold = threshold if by_layer is None else threshold_text(by_layer)
    return _with_policy(threshold, policy, error_limit)


def _with_policy(threshold: str, policy: str, error_limit: float | None) -> str:
    limit = "" if error_limit is None else f", error limit {error_limit:g}"
    return f"threshold {threshold} ({policy}{limit})"
