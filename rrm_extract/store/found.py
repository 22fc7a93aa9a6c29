"""Reading what a task found, frame by frame or all at once."""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

from rrm_extract.store.layout import damage_named
from rrm_extract.store.schema import Array
from rrm_extract.store.taskrows import FRAME_SIZE, OFFSETS

__all__ = ["FrameDetections", "FramePeople", "StoredDetections", "StoredPeople"]

_BLOCK_FRAMES = 1 << 10  # read together when all frames are gone through


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameDetections:
    """The K objects of one frame, the highest score first."""

    boxes: npt.NDArray[np.float32]
    """(K, 4): left, top, right, bottom, pixels of the frame as it is shown."""
    scores: npt.NDArray[np.float32]
    """(K,), 0..1."""
    classes: npt.NDArray[np.int64]
    """(K,), from 0."""
    height: int
    """Of the frame, pixels."""
    width: int
    """Of the frame, pixels."""

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, kw_only=True, eq=False)
class FramePeople:
    """The P people of one frame, the highest score first, with J parts of the body each."""

    keypoints: npt.NDArray[np.float32]
    """(P, J, 3): x and y in pixels of the frame as it is shown, and the part's score; NaN, NaN and
    0 where the part was not found."""
    scores: npt.NDArray[np.float32]
    """(P,)."""
    height: int
    """Of the frame, pixels."""
    width: int
    """Of the frame, pixels."""

    def __len__(self) -> int:
        return len(self.scores)


Frame = TypeVar("Frame")


class StoredRows(Sequence[Frame], Generic[Frame]):
    """What was found in the T frames of a video: a sequence with one entry for each frame.

    The arrays over all frames are read when asked for, every time; an entry reads its rows alone.
    """

    def __init__(self, group: Any, video: object) -> None:
        self._group = group
        self._video = video  # whose file stays open for it

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """(T + 1,) int64: frame i has the rows ``offsets[i]`` to ``offsets[i + 1]``."""
        return self._column(OFFSETS)

    @property
    def frame_size(self) -> npt.NDArray[np.int32]:
        """(T, 2) int32: height and width of each frame as it is shown, pixels."""
        return self._column(FRAME_SIZE)

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """(M,) float32."""
        return self._column("scores")

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """(T,) int64: how many there are in each frame."""
        return np.diff(self.offsets)

    @property
    def total(self) -> int:
        """M, how many there are in all frames together."""
        with damage_named(self._group):
            return int(self._group["scores"].shape[0])

    def __len__(self) -> int:
        with damage_named(self._group):
            return int(self._group[FRAME_SIZE].shape[0])

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | list[Frame]:
        """What was found in one frame, or in several.

        Raises:
            IndexError: there is no such frame.
            TypeError: the index is no integer and no slice of integers.
        """
        if isinstance(index, slice):
            frames = range(*index.indices(len(self)))
            return [self[i] for i in frames]
        try:
            number = operator.index(index)
        except TypeError as error:
            raise TypeError(f"frame {index!r}: expected an integer or a slice") from error
        count = len(self)
        if not -count <= number < count:
            raise IndexError(f"frame {number} of {count}")
        begin = number % count
        return next(self._frames(begin, begin + 1))

    def __iter__(self) -> Iterator[Frame]:
        count = len(self)
        for begin in range(0, count, _BLOCK_FRAMES):
            yield from self._frames(begin, min(begin + _BLOCK_FRAMES, count))

    def _frames(self, begin: int, end: int) -> Iterator[Frame]:
        with damage_named(self._group):
            offsets = self._group[OFFSETS][begin : end + 1]
            sizes = self._group[FRAME_SIZE][begin:end]
            rows = slice(offsets[0], offsets[-1])
            columns = {name: self._group[name][rows] for name in self._columns()}
        for i, (height, width) in enumerate(sizes.tolist()):
            of_frame = slice(*(offsets[i : i + 2] - offsets[0]))
            found = {name: column[of_frame] for name, column in columns.items()}
            yield self._frame(found, height, width)

    def _column(self, name: str) -> Array:
        with damage_named(self._group):
            return np.asarray(self._group[name][...])

    @abstractmethod
    def _columns(self) -> tuple[str, ...]:
        """Names of what a frame has."""

    @abstractmethod
    def _frame(self, columns: dict[str, Array], height: int, width: int) -> Frame:
        """One frame of these columns."""


class StoredDetections(StoredRows[FrameDetections]):
    """The objects of a video; see :class:`StoredRows`."""

    @property
    def boxes(self) -> npt.NDArray[np.float32]:
        """(M, 4) float32: left, top, right, bottom, pixels of the frame as it is shown."""
        return self._column("boxes")

    @property
    def classes(self) -> npt.NDArray[np.int64]:
        """(M,) int64, from 0; ``FeatureFile.class_names`` has their names."""
        return self._column("classes")

    def _columns(self) -> tuple[str, ...]:
        return ("boxes", "scores", "classes")

    def _frame(self, columns: dict[str, Array], height: int, width: int) -> FrameDetections:
        return FrameDetections(**columns, height=height, width=width)


class StoredPeople(StoredRows[FramePeople]):
    """The people of a video; see :class:`StoredRows`."""

    @property
    def keypoints(self) -> npt.NDArray[np.float32]:
        """(M, J, 3) float32: x and y in pixels of the frame as it is shown, and the part's score.

        NaN, NaN and 0 where it was not found; ``FeatureFile.keypoint_names`` has their names.
        """
        return self._column("keypoints")

    def _columns(self) -> tuple[str, ...]:
        return ("keypoints", "scores")

    def _frame(self, columns: dict[str, Array], height: int, width: int) -> FramePeople:
        return FramePeople(**columns, height=height, width=width)
