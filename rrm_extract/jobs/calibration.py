"""What a calibration has found, as a file: thresholds with a target, or the paper's polynomial.

The file is JSON. It says which network it is for, and is refused for any other: gains and
thresholds mean nothing elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rrm_extract.errors import CalibrationError, CalibrationSubjectError
from rrm_extract.jobs.control import AccumulatedControl, TargetControl
from rrm_extract.rrm.aecs import ORDER, AccumulatedError
from rrm_extract.rrm.estimate import ErrorEstimate
from rrm_extract.store.files import remove_stale, write_atomic

__all__ = [
    "AccumulatedCalibration",
    "Calibration",
    "Subject",
    "TargetCalibration",
    "ceiling_of",
    "check_layers",
    "check_subject",
    "digest",
    "load",
    "parse",
    "save",
]

CEILING = 1.5
"""Share of the target above which no estimate is let pass, where some frames may be over it: what
comes after such a frame in its batch is computed twice."""

FORMAT = "rrm-extract-calibration"
VERSION = 1

OPTIONS = {"target": "--thresholds", "accumulated": "--aecs"}
"""What takes a calibration of each kind."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a calibration is for: it holds for nothing else.

    Attributes:
        model, weights_sha256, layer, pool, precision: as in the feature file.
        preprocess: description of the transform.
        engine: "native" or "torch"; layers that run dense truncate nothing.
    """

    model: str
    weights_sha256: str
    layer: str
    pool: str
    precision: str
    preprocess: Mapping[str, Any]
    engine: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "preprocess": dict(self.preprocess)}


@dataclass(frozen=True, kw_only=True)
class TargetCalibration:
    """Thresholds that keep a target, and how to watch it.

    Attributes:
        target_error: relative L2 error of the feature.
        percentile: share of frames, in percent, that shall keep it.
        thresholds: of each linear layer, by its name.
        gains: of each linear layer, see :class:`rrm_extract.rrm.estimate.ErrorEstimate`.
        floor: see there.
        aim: see :class:`rrm_extract.rrm.governor.Governor`.
        subject: what it is for.
        report: how it was found, for a person.
    """

    target_error: float
    percentile: float
    thresholds: Mapping[str, float]
    gains: Mapping[str, float]
    floor: float
    aim: float
    subject: Subject
    report: Mapping[str, Any] = field(default_factory=dict)

    kind = "target"

    @property
    def truncates(self) -> bool:
        """Whether any layer has a threshold above 0."""
        return any(self.thresholds.values())

    def nothing_won(self) -> str:
        """What a person is told of a calibration that truncates nothing."""
        return (
            "nothing is won here by being less exact: the calibration has threshold 0, with an "
            f"error of {self.floor**0.5:.2g} on the samples"
        )

    def control(self, layers: Sequence[str]) -> TargetControl | None:
        """What watches a network with these linear layers; None if nothing is ever truncated.

        Raises:
            CalibrationError: it has none of the gains of a layer.
        """
        if not self.truncates:
            return None
        _check_gains(self.gains, layers, where="the calibration")
        gains = np.array([self.gains[name] for name in layers], np.float64)
        return TargetControl(
            estimate=ErrorEstimate(gains=gains, floor=self.floor),
            target=self.target_error,
            aim=self.aim,
            ceiling=ceiling_of(self.percentile),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; see :func:`load`."""
        return _json(self)


@dataclass(frozen=True, kw_only=True)
class AccumulatedCalibration:
    """The paper's polynomial for one threshold.

    Attributes:
        threshold: that the data were taken with.
        model: the polynomial.
        subject: what it is for.
        report: how good the fit is, for a person.
    """

    threshold: float | Mapping[str, float]
    model: AccumulatedError
    subject: Subject
    report: Mapping[str, Any] = field(default_factory=dict)

    kind = "accumulated"

    def control(self, limit: float) -> AccumulatedControl:
        """What watches a network.

        Args:
            limit: relative L2 error at which a round ends.
        """
        return AccumulatedControl(model=self.model, limit=limit)

    def to_json(self) -> dict[str, Any]:
        """Plain values; see :func:`load`."""
        return _json(self)


Calibration = TargetCalibration | AccumulatedCalibration


def _json(calibration: Calibration) -> dict[str, Any]:
    values = {
        key: dict(value) if isinstance(value, Mapping) else value
        for key, value in vars(calibration).items()
    }
    values["subject"] = calibration.subject.to_json()
    if isinstance(calibration, AccumulatedCalibration):
        values["model"] = calibration.model.to_json()
    return {"format": FORMAT, "version": VERSION, "kind": calibration.kind, **values}


def save(calibration: Calibration, path: Path) -> None:
    """Writes a calibration for :func:`load`.

    Raises:
        StoreWriteError: the system refuses; an earlier file is as it was.
    """
    values = calibration.to_json()
    values["report"] = _without_infinities(values["report"])
    text = json.dumps(values, indent=2, allow_nan=False) + "\n"
    remove_stale([path])
    write_atomic(path, text.encode())


def _without_infinities(value: Any) -> Any:
    """What JSON has no numbers for becomes null; a report is for reading."""
    if isinstance(value, Mapping):
        return {key: _without_infinities(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_infinities(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load(path: Path, *, kind: str) -> Calibration:
    """Reads a calibration.

    Args:
        path: a file of :func:`save`.
        kind: "target" or "accumulated".

    Raises:
        CalibrationError: it cannot be read, or is no calibration of that kind.
    """
    return parse(_read(path), where=str(path), kind=kind)


def is_calibration(path: Path) -> bool:
    """Whether a file is one of :func:`save`, of whatever kind and version."""
    try:
        return _has_format(_read(path))
    except CalibrationError:
        return False


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no JSON"
        msg = f"{path} cannot be read: {reason}; expected what rrm-extract calibrate has written"
        raise CalibrationError(msg) from error


def _has_format(values: Any) -> bool:
    return isinstance(values, dict) and values.get("format") == FORMAT


def parse(values: Any, *, where: str, kind: str) -> Calibration:
    """A calibration from its plain values; see :func:`load`."""
    if not _has_format(values):
        msg = f"{where} is no calibration; expected what rrm-extract calibrate has written"
        raise CalibrationError(msg)
    if values.get("version") != VERSION:
        msg = (
            f"{where} has version {values.get('version')!r} of the calibration's format, expected "
            f"{VERSION}; calibrate again"
        )
        raise CalibrationError(msg)
    found = values.get("kind")
    if found != kind:
        option = OPTIONS.get(found) if isinstance(found, str) else None
        advice = f"it is meant for {option}" if option else "calibrate again"
        msg = f"{where} is a calibration of another kind, {found!r}, expected {kind!r}; {advice}"
        raise CalibrationError(msg)
    try:
        return _parsed(values, kind)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        what = f"{type(error).__name__}: {error}"
        msg = f"{where} is damaged ({what}); calibrate again"
        raise CalibrationError(msg) from error


def _parsed(values: dict[str, Any], kind: str) -> Calibration:
    subject = Subject(**_mapping(values["subject"]))
    _mapping(subject.preprocess)
    report = dict(_mapping(values.get("report", {})))
    if kind == "target":
        return TargetCalibration(
            target_error=_positive(values["target_error"]),
            percentile=_positive(values["percentile"], most=100),
            thresholds=_numbers(values["thresholds"]),
            gains=_numbers(values["gains"]),
            floor=_number(values["floor"]),
            aim=_positive(values["aim"], most=1),
            subject=subject,
            report=report,
        )
    model = _mapping(values["model"])
    coefficients = tuple(map(_finite, model["coefficients"]))
    if len(coefficients) != ORDER:
        raise ValueError(f"{len(coefficients)} coefficients where {ORDER} are expected")
    threshold = values["threshold"]
    return AccumulatedCalibration(
        threshold=_numbers(threshold) if isinstance(threshold, dict) else _number(threshold),
        model=AccumulatedError(coefficients=coefficients, reach=_positive(model["reach"])),
        subject=subject,
        report=report,
    )


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{type(value).__name__} where a mapping is expected")
    return value


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} where a number is expected")
    return float(value)


def _number(value: Any) -> float:
    number = _finite(value)
    if number < 0:
        raise ValueError(f"{value!r} where a number of at least 0 is expected")
    return number


def _positive(value: Any, *, most: float = math.inf) -> float:
    number = _number(value)
    if not 0 < number <= most:
        limit = "" if most == math.inf else f" and up to {most:g}"
        raise ValueError(f"{value!r} where a number above 0{limit} is expected")
    return number


def _numbers(values: Any) -> dict[str, float]:
    return {name: _number(value) for name, value in _mapping(values).items()}


def check_subject(calibration: Calibration, subject: Subject, *, where: str) -> None:
    """Refuses a calibration of another network.

    Raises:
        CalibrationSubjectError: names what differs.
    """
    theirs, ours = calibration.subject.to_json(), subject.to_json()
    differing = [key for key in ours if theirs.get(key) != ours[key]]
    if differing:
        what = "; ".join(f"{key} {theirs.get(key)!r}, here {ours[key]!r}" for key in differing)
        msg = f"{where} was calibrated for another network ({what}); calibrate again"
        raise CalibrationSubjectError(msg)


def check_layers(calibration: TargetCalibration, layers: Sequence[str], *, where: str) -> None:
    """Refuses a calibration whose gains are not those of a network's linear layers.

    Raises:
        CalibrationError: names a layer that is missing, or that the network has not.
    """
    if not calibration.truncates:
        return  # nothing is ever truncated, and no gain is looked at
    _check_gains(calibration.gains, layers, where=where)
    for name in calibration.gains:
        if name not in layers:
            known = ", ".join(layers[:4])
            msg = (
                f"{where} has a gain for {name!r}, which is no linear layer of this network; "
                f"expected names such as {known}; calibrate again"
            )
            raise CalibrationError(msg)


def _check_gains(gains: Mapping[str, float], layers: Sequence[str], *, where: str) -> None:
    for name in layers:
        if name not in gains:
            msg = f"{where} has no gain for layer {name!r} of this network; calibrate again"
            raise CalibrationError(msg)


def ceiling_of(percentile: float) -> float:
    """Share of the target above which no estimate is let pass."""
    return 1.0 if percentile == 100 else CEILING


def digest(calibration: Mapping[str, Any]) -> str:
    """SHA-256 of what decides results in the plain values; how they were found does not."""
    values = {key: value for key, value in calibration.items() if key != "report"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
