"""The calibration of a job with a target, which lies beside its output for the same command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rrm_extract.config import JobConfig
from rrm_extract.config.job import TASK_OPTIONS
from rrm_extract.errors import CalibrationError, StoreFormatError, StoreMismatchError
from rrm_extract.jobs.calibrate import earlier
from rrm_extract.jobs.calibration import TargetCalibration, digest, parse, save
from rrm_extract.store import FeatureFile
from rrm_extract.store.job import load_job
from rrm_extract.store.place import OutputPlace

__all__ = ["calibration_path", "has_calibration"]


_TOLD_BY_NETWORK = frozenset(
    {
        *("model", "weights", "preprocess", "layer", "thresholds", "aecs"),
        *("target_error", "percentile"),  # see _has_target
        *(name for names in TASK_OPTIONS.values() for name in names),
    }
)
"""Settings that an identity has in another form than they are given in."""


def calibration_path(output: Path) -> Path:
    """Where the calibration of an output lies."""
    return output.parent / f"{output.name}.calibration.json"  # also of ".", which is refused later


def has_calibration(config: JobConfig, place: OutputPlace, path: Path) -> bool:
    """Whether the calibration beside an output is the one to go on with.

    The output's own takes the place of a file that is missing or damaged. Where there is neither an
    output nor unfinished work, nothing depends on what lies there; nor is anything of them gone on
    with where they are to be overwritten, but for the work of a run that was to do so as well.

    Args:
        config: the job; has a ``target_error``.
        place: of the output.
        path: of the calibration, see :func:`calibration_path`.

    Raises:
        StoreMismatchError: the output or its unfinished work was made for another target, or with
            another calibration, or its calibration is lost.
        StoreFormatError: the output is no feature file, or unfinished work is of no use.
    """
    parts, output = place.parts_dir, place.output
    if config.overwrite:
        return _is_of_overwriting(config, parts, path)
    job = load_job(parts)
    if job is None and not output.exists():
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


def _is_of_overwriting(config: JobConfig, parts: Path, path: Path) -> bool:
    """Whether an interrupted run that was to overwrite the output was made with it."""
    try:
        job = load_job(parts)
    except StoreFormatError:  # it will be overwritten, too
        return False
    if job is None or not job.overwrite:
        return False
    identity, beside = json.loads(job.identity_json), earlier(path)
    # What only the loaded network tells is compared with the calibration itself.
    same = all(
        identity.get(name) == value
        for name, value in config.identity().items()
        if name not in _TOLD_BY_NETWORK
    )
    fits = beside is not None and _is_of(beside, identity)
    return same and fits and _has_target(config, identity)


def _has_target(config: JobConfig, identity: dict[str, Any]) -> bool:
    asked = (config.target_error, config.percentile)
    return asked == (identity.get("target_error"), identity.get("percentile"))


def _check_target(config: JobConfig, identity: dict[str, Any], where: str, lies_there: str) -> None:
    if _has_target(config, identity):
        return
    target, percentile = identity.get("target_error"), identity.get("percentile")
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
