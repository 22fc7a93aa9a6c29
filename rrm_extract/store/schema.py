"""Names, versions and records of the feature file; `docs/format.md` is the specification."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from rrm_extract.store.taskrows import TASK_COLUMNS, Found

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
Attr: TypeAlias = "bool | int | float | str"
Array: TypeAlias = npt.NDArray[Any]

FORMAT_NAME: Final = "rrm-extract"
PART_FORMAT_NAME: Final = "rrm-extract-part"
FORMAT_VERSION: Final = "1.1"
"""Of files of features."""
TASK_FORMAT_VERSION: Final = "2.0"
"""Of files of a task, which hold no features."""
FORMAT_MAJOR: Final = 2
"""The newest that is read."""

VIDEOS: Final = "videos"
INDEX: Final = "index"
FAILURES: Final = "failures"
LAYERS: Final = "layers"
PART_VIDEO: Final = "video"

ROW_TYPES: Final[Mapping[str, str]] = {
    "timestamps": "float64",
    "pts": "int64",
    "frame_index": "int64",
    "key_frame": "bool",
    "work": "float32",
}
"""The members of shape (T,), and the type each is stored in."""

LAYER_ROWS: Final = ("density_t", "density_delta_t")
"""The members of `layers` of shape (T, L), stored as float16."""

MEMBERS: Final = ("features", *ROW_TYPES, LAYERS)
"""Everything a video's group always holds."""

AUDIT: Final = "audit"
"""What is known of the features' errors; there if anything is."""

AUDIT_ROWS: Final = ("error", "estimate")
"""The members of `audit`, of shape (T,), stored as float32."""

RESERVED: Final = (*MEMBERS, AUDIT)
"""What a video's group may hold, so that no nested video can have the name."""

TASK_RESERVED: Final = (*RESERVED, *TASK_COLUMNS)
"""The same in a file of a task."""

STATUSES: Final = ("ok", "partial")
FEATURE_TYPES: Final = ("float32", "float16")

OWN_ATTRS: Final = ("status", "n_frames", "source_size", "source_mtime_ns")
"""Attributes of a video's group that the store sets; a caller gives the others."""

VOLATILE: Final = frozenset(
    {
        "created_utc",
        "config_json",
        "tool_version",
        "versions_json",
        "attempts",
        "source_mtime_ns",
        "speedup_wall",
    }
)
VOLATILE_PREFIX: Final = "seconds_"

KERNEL_ISA: Final = "kernel_isa"
MAKERS: Final = frozenset({KERNEL_ISA, "model"})
"""What made the features, but may be called otherwise by the next run: the processor, a path."""


def version_of(task: str | None) -> str:
    """Format version of a file of this task; None means features."""
    return FORMAT_VERSION if task is None else TASK_FORMAT_VERSION


def is_volatile(name: str) -> bool:
    """Whether an attribute or column says how a run went rather than what came out of it."""
    return name in VOLATILE or name.startswith(VOLATILE_PREFIX)


def canonical_json(value: Mapping[str, JSON]) -> str:
    """The one spelling of `value` that `config_sha256` is taken of.

    Raises:
        ValueError: A number is NaN or infinite.
        TypeError: A value has no JSON form.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256_of(text: str) -> str:
    """Lower-case hexadecimal SHA-256 of the UTF-8 bytes of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()


def storable(text: str) -> str:
    """`text` with what HDF5 strings cannot hold (lone surrogates, NUL) as backslash escapes."""
    whole = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return whole.replace("\0", "\\x00")


def file_behind(output: Path) -> Path:
    """Where an output really lies: a link's target, there or not.

    Raises:
        OSError: The folder may not be looked into, or the link leads back to itself.
    """
    if not output.is_symlink():
        return output
    try:
        output.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:  # of which resolve() says nothing, or no OSError
            raise
    return output.resolve()


def parts_dir_of(output: Path) -> Path:
    """The folder beside `output` where unfinished work is kept."""
    return output.parent / f"{output.name}.parts"  # "." and "/" have no name, and are refused later


@dataclass(frozen=True, kw_only=True, eq=False)
class ChunkResult:
    """What was computed for one chunk of a clip: t sampled frames, in order; t may be 0."""

    index: int
    """Ordinal of the chunk in its clip, from 0."""
    features: npt.NDArray[np.float32]
    """(t, D) float32, one flattened feature per frame; D is 0 where ``found`` takes its place."""
    timestamps: npt.NDArray[np.float64]
    """(t,) float64, seconds from the stream's start."""
    pts: npt.NDArray[np.int64]
    """(t,) int64, in the stream's time base."""
    frame_index: npt.NDArray[np.int64]
    """(t,) int64, ordinal of the decoded frame shown at that time."""
    key_frame: npt.NDArray[np.bool_]
    """(t,) bool, computed densely."""
    work: npt.NDArray[np.float32]
    """(t,) float32, share of the dense MACs done."""
    density: npt.NDArray[np.float32]
    """(t, L) float32, share of non-zeros of each layer's plain input."""
    density_delta: npt.NDArray[np.float32]
    """(t, L) float32, share of non-zeros of each layer's delta."""
    audit_error: npt.NDArray[np.float32] | None = None
    """(t,) float32, relative L2 error of the feature, NaN where it was not measured."""
    estimate: npt.NDArray[np.float32] | None = None
    """(t,) float32, the same as predicted, NaN where nothing predicts it."""
    found: Found | None = None
    """What a task found in the frames; None where they have features."""
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    """Whatever the caller wants to find again beside the chunk."""
    damage: str = ""
    """Why the chunk ends early; empty when it is sound."""


@dataclass(frozen=True)
class FailureRecord:
    """One video that could not be used, or not whole."""

    video_id: str
    """Path relative to the input root."""
    stage: str
    """Where it failed, such as "decode"."""
    error_type: str
    """Name of the exception."""
    message: str
    """One line for the user."""
    attempts: int
    """How often it was tried."""
    source_size: int = -1
    """Size of the video file at that time, bytes; -1 when unknown."""
    source_mtime_ns: int = -1
    """Its modification time, nanoseconds since 1970; -1 when unknown."""


@dataclass(frozen=True)
class Source:
    """One video file as it is on disk: features of it count only while this stays the same."""

    video_id: str
    """Path relative to the input root, `/` between components, extension included."""
    size: int
    """Bytes."""
    mtime_ns: int
    """Modification time, nanoseconds since 1970."""
