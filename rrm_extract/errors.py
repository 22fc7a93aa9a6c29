"""Every error that rrm-extract raises on purpose.

    RrmError                          anything this package refuses or reports
    ├── UsageError (ValueError)       the request is wrong: exit code 2
    │   ├── ConfigError               an option or a key of a job file
    │   ├── InputError                no such video, or nothing to read in it
    │   ├── ModelError                no such model
    │   ├── WeightsError              weights missing, unreadable or not fitting
    │   ├── LayerError                no such layer in the model
    │   ├── PreprocessError           no, or an unusable, description of the network's input
    │   ├── TraceError                the network cannot be turned into a Program
    │   ├── EngineError               the native engine is missing, or cannot do what was asked
    │   └── CalibrationError          no, or an unusable, calibration of thresholds or of errors
    ├── ClipError (OSError)           one video cannot be used: it is listed, the run goes on
    │   ├── ClipOpenError             not a video, no video stream, empty, unreadable
    │   └── ClipDamagedError          decoding failed part of the way
    ├── WorkerError (RuntimeError)    a worker process died or fell silent
    └── StoreError (OSError)          the output cannot be used: exit code 3
        ├── StoreFormatError          not a feature file of ours, or a damaged one
        ├── StoreLockedError          another process is writing this output
        ├── StoreMismatchError        the output was made with another configuration
        └── StoreWriteError           writing failed: disk full, no permission

A message names what was given, what was expected and what to do next, in one line.
"""

from __future__ import annotations

__all__ = [
    "CalibrationError",
    "ClipDamagedError",
    "ClipError",
    "ClipOpenError",
    "ConfigError",
    "EngineError",
    "InputError",
    "LayerError",
    "ModelError",
    "PreprocessError",
    "RrmError",
    "StoreError",
    "StoreFormatError",
    "StoreLockedError",
    "StoreMismatchError",
    "StoreWriteError",
    "TraceError",
    "UsageError",
    "WeightsError",
    "WorkerError",
]


class RrmError(Exception):
    """Base of every error this package raises on purpose."""


class UsageError(RrmError, ValueError):
    """The request is wrong; nothing was done."""


class ConfigError(UsageError):
    """An option or a key of a job file is unknown or has an impossible value."""


class InputError(UsageError):
    """An input names no video."""


class ModelError(UsageError):
    """No model of that name can be had."""


class WeightsError(UsageError):
    """Weights are missing, unreadable, or do not fit the model."""


class LayerError(UsageError):
    """The model has no such layer."""


class PreprocessError(UsageError):
    """The description of the network's input is missing or unusable."""


class TraceError(UsageError):
    """The network cannot be turned into a Program."""


class EngineError(UsageError):
    """The native engine is not part of this installation, or an engine cannot do what was asked."""


class CalibrationError(UsageError):
    """A calibration is missing, unreadable, does not fit the job, or cannot be made."""


class CalibrationSubjectError(CalibrationError):
    """A calibration was made for another network than the one that is to run."""


class ClipError(RrmError, OSError):
    """One video cannot be used; other videos are not concerned."""


class ClipOpenError(ClipError):
    """The file is no video that can be opened."""


class ClipDamagedError(ClipError):
    """Decoding failed part of the way; the frames before the damage were delivered."""


class WorkerError(RrmError, RuntimeError):
    """A worker process died or fell silent."""


class StoreError(RrmError, OSError):
    """The output cannot be used."""


class StoreFormatError(StoreError):
    """The file is not a feature file, or it is damaged."""


class StoreLockedError(StoreError):
    """Another process is writing this output."""


class StoreMismatchError(StoreError):
    """The output was made with another configuration."""


class StoreWriteError(StoreError):
    """Writing failed, for want of space or permission."""


class FeatureRangeError(StoreError):
    """A feature does not fit the type that it was to be stored in."""
