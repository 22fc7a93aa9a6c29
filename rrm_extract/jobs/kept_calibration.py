"""The calibration of a job with a target, which lies beside its output for the same command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rrm_extract.config import JobConfig
from rrm_extract.errors import CalibrationError, StoreMismatchError
from rrm_extract.jobs.calibrate import earlier
from rrm_extract.jobs.calibration import TargetCalibration, digest, parse, save
from rrm_extract.store import FeatureFile
from rrm_extract.store.job import load_job
from rrm_extract.store.schema import parts_dir_of

__all__ = ["calibration_path", "has_calibration"]


def calibration_path(output: Path) -> Path:
    """Where the calibration of an output lies."""
    return output.parent / f"{output.name}.calibration.json"  # also of ".", which is refused later


def has_calibration(config: JobConfig, output: Path) -> bool:
    """Whether the calibration beside an output is the one to go on with.

    The output's own takes the place of a file that is missing or damaged. Where there is neither an
    output nor unfinished work, nothing depends on what lies there.

    Args:
        config: the job; has a ``target_error``.
        output: the feature file.

    Raises:
        StoreMismatchError: the output or its unfinished work was made for another target, or with
            another calibration, or its calibration is lost.
        StoreFormatError: the output is no feature file.
    """
    parts, path = parts_dir_of(output), calibration_path(output)
    job = load_job(parts)
    if config.overwrite or (job is None and not output.exists()):
        return False
    stored = None
    if output.exists():
        where = str(output)
        with FeatureFile(output) as file:
            identity = file.identity
            stored = _parsed(file.attrs.get("calibration_json", "null"), where)
    else:
        where = f"unfinished work in {parts}"
        identity = {} if job is None else json.loads(job.identity_json)
    beside = earlier(path)
    lies_there = "" if beside is None else f"; {path} is for {_target(beside)}"
    _check_target(config, identity, where, lies_there)
    if beside is not None and _is_of(beside, identity):
        return True
    if stored is not None and _is_of(stored, identity):
        if beside is not None:
            msg = (
                f"{where} was made with another calibration, for {_target(stored)}{lies_there}. "
                f"Move {path} away to go on with the output's own"
            )
            raise StoreMismatchError(msg)
        save(stored, path)
        return True
    what = "missing or damaged" if beside is None else f"another one, for {_target(beside)}"
    msg = (
        f"{where} cannot be continued: {path}, the calibration that it was made with, is {what}. "
        "Put it back, or use --overwrite to begin anew"
    )
    raise StoreMismatchError(msg)


def _check_target(config: JobConfig, identity: dict[str, Any], where: str, lies_there: str) -> None:
    target, percentile = identity.get("target_error"), identity.get("percentile")
    if (target, percentile) == (config.target_error, config.percentile):
        return
    was = "not given" if target is None else f"{target:g} (--percentile {percentile:g})"
    msg = (
        f"{where} was made with another configuration: --target-error was {was}, is now "
        f"{config.target_error:g} ({config.percentile:g}){lies_there}. "
        "Use --overwrite to replace it, or another -o"
    )
    raise StoreMismatchError(msg)


def _target(calibration: TargetCalibration) -> str:
    return f"--target-error {calibration.target_error:g} ({calibration.percentile:g})"


def _is_of(calibration: TargetCalibration, identity: dict[str, Any]) -> bool:
    return digest(calibration.to_json()) == identity.get("calibration")


def _parsed(text: str, where: str) -> TargetCalibration | None:
    """What a feature file has; None if that is no complete calibration for a target."""
    try:
        found = parse(json.loads(text), where=where, kind="target")
    except CalibrationError:
        return None
    return found if isinstance(found, TargetCalibration) else None
