"""What the file of a task has in place of features: rows for each object or person of a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Tail: TypeAlias = tuple[int, ...]

ANY: Final = -1
"""An extent of a column that the network decides: the parts of a body."""

TASK_COLUMNS: Final[Mapping[str, Mapping[str, tuple[Tail, str]]]] = {
    "detect": {
        "boxes": ((4,), "float32"),
        "scores": ((), "float32"),
        "classes": ((), "int64"),
    },
    "pose": {
        "keypoints": ((ANY, 3), "float32"),
        "scores": ((), "float32"),
    },
}
"""By task, which is also the name of its group in a video: the columns, one row for each object or
person, with the shape of a row and the type it is stored in."""

FINDS: Final[Mapping[str, str]] = {"detect": "objects", "pose": "people"}
"""What each task finds, for messages."""

TASK_ATTRS: Final[Mapping[str, tuple[str, ...]]] = {
    "detect": ("n_classes",),
    "pose": ("keypoint_names", "limbs"),
}
"""By task, the attributes of the file without which its rows cannot be understood."""

OFFSETS: Final = "offsets"
"""(T + 1,) int64: frame i has the rows offsets[i] to offsets[i + 1]."""

FRAME_SIZE: Final = "frame_size"
"""(T, 2) int32: height and width of each frame as it is shown, pixels."""


@dataclass(frozen=True, kw_only=True)
class TaskRows:
    """What the frames of one file have.

    Attributes:
        task: a key of ``TASK_COLUMNS``.
        parts: of a body, for "pose".
    """

    task: str
    parts: int = 0

    @property
    def columns(self) -> dict[str, tuple[Tail, str]]:
        """Shape of a row and type, by column."""
        return {
            name: (tuple(self.parts if extent == ANY else extent for extent in tail), dtype)
            for name, (tail, dtype) in TASK_COLUMNS[self.task].items()
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What was found in t frames: m objects or people, in the order of the frames."""

    counts: npt.NDArray[np.int64]
    """(t,) int64, how many in each frame; m together."""
    frame_size: npt.NDArray[np.int32]
    """(t, 2) int32, height and width of each frame as it is shown, pixels."""
    columns: Mapping[str, npt.NDArray[Any]]
    """(m, ...) by name, see ``TASK_COLUMNS``."""

    @staticmethod
    def joined(parts: Sequence[Found]) -> Found:
        """The same for the frames of all parts, of which there is at least one."""
        return Found(
            counts=np.concatenate([part.counts for part in parts]),
            frame_size=np.concatenate([part.frame_size for part in parts]),
            columns={
                name: np.concatenate([part.columns[name] for part in parts])
                for name in parts[0].columns
            },
        )
