"""What a calibration has found, for a person."""

from __future__ import annotations

from pathlib import Path

from rrm_extract.config import threshold_text
from rrm_extract.device import is_cpu
from rrm_extract.jobs.calibration import (
    AccumulatedCalibration,
    Calibration,
    TargetCalibration,
)

__all__ = ["calibration_text"]


def calibration_text(calibration: Calibration, path: Path) -> str:
    """A few lines: what was found, how good it is, how to use it."""
    if isinstance(calibration, AccumulatedCalibration):
        text = _accumulated_text(calibration, path)
    else:
        text = _target_text(calibration, path)
    return f"{calibration.subject.model}, weights {calibration.report['weights']}\n{text}"


def _target_text(calibration: TargetCalibration, path: Path) -> str:
    report = calibration.report
    times, errors = report["milliseconds_per_frame"], report["error_percentile"]
    ratio = report["estimate_over_true"]
    percentile = f"{calibration.percentile:g}th percentile"
    where = "one core" if is_cpu(report["device"]) else report["device"]
    lines = [
        f"{path}: threshold {report['threshold']:.3g} for all layers keeps a feature error of "
        f"{calibration.target_error:g} ({percentile} {errors['uniform']:.2g} on the samples)",
        f"watched and steered, the {percentile} is {errors['governed']:.2g} on the samples",
    ]
    if ratio:
        lines.append(
            f"the watching estimate is {ratio['median']:.2f} times the true error "
            f"({ratio['p5']:.2f} to {ratio['p95']:.2f} from the 5th to the 95th percentile)"
        )
    lines += [
        f"milliseconds a frame on {where}: {times['threshold_0']:.1f} at threshold 0, "
        f"{times['uniform']:.1f} with this threshold, {times['governed']:.1f} watched and steered",
    ]
    if not calibration.truncates:
        lines.append(calibration.nothing_won())
    lines.append(f"use it: rrm-extract VIDEOS --thresholds {path} ...")
    return "\n".join(lines)


def _accumulated_text(calibration: AccumulatedCalibration, path: Path) -> str:
    report = calibration.report
    held_out = report["held_out"]
    threshold = threshold_text(calibration.threshold)
    lines = [
        f"{path}: polynomial of the fourth order for threshold {threshold}, from "
        f"{report['pairs']} frames of {len(report['clips'])} clips",
        f"R2 {report['r2']:.3f}, residual {report['residual_rms']:.2g} (root mean square), "
        f"{report['residual_max']:.2g} at most",
    ]
    if held_out is None:
        lines.append("too few clips to tell how far it is off on others")
    elif "r2" not in held_out:
        lines.append("each clip truncates more than all others: nothing can be said of new ones")
    else:
        lines.append(
            f"on clips that it has not seen: R2 {held_out['r2']:.3f}, residual "
            f"{held_out['residual_rms']:.2g}, {held_out['residual_max']:.2g} at most; "
            f"{held_out['beyond_data']} frames beyond the data"
        )
    lines += [
        f"data up to an accumulated truncation of {report['reach']:.3g}: a run never goes beyond, "
        "but begins a new round there",
        f"use it: rrm-extract VIDEOS --policy paper --threshold {threshold} "
        f"--aecs {path} --error-limit NUMBER ...",
    ]
    return "\n".join(lines)
