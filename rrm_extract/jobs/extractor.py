"""From one chunk of a clip to its features, inside one process. Needs no torch by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rrm_extract.engine.seen import Seen
from rrm_extract.errors import ClipDamagedError
from rrm_extract.jobs.accounting import count_not_finite
from rrm_extract.jobs.control import EVENTS, Control, ControlledNetwork, Core, Watch
from rrm_extract.store import ChunkResult, Found
from rrm_extract.video import ClipReader, SampledFrame

__all__ = ["ChunkExtractor", "Computation", "FrameNetwork", "Reading", "batches", "pictures"]


_NOTHING = np.empty((0, 0), np.float32)
"""Raw outputs of no frames."""


class FrameNetwork(Core, Protocol):
    """A recurrent network from pictures to features, (T, D) each, with a state of its own."""

    def input(self, batch: list[SampledFrame], /) -> Any:
        """The network's input for consecutive frames."""


class Reading(Protocol):
    """How raw outputs become what is stored in their place."""

    def __call__(self, raw: NDArray[np.float32], sizes: Sequence[tuple[int, int]], /) -> Found:
        """What is in T frames: of (T, D) raw outputs, and each frame's height and width."""


class Computation(Protocol):
    """What a worker is given: how pictures become features."""

    @property
    def time_batch(self) -> int:
        """Frames that pass a layer together."""

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Of one frame's feature, before it is flattened."""

    @property
    def n_layers(self) -> int:
        """Number of linear layers."""

    @property
    def control(self) -> Control:
        """What decides about key frames and thresholds."""

    @property
    def reading(self) -> Reading | None:
        """How features become what is stored in their place; None where they are stored."""

    def open(self) -> FrameNetwork:
        """A network with a state of its own."""


class ChunkExtractor:
    """Computes chunks one after the other; every chunk begins with a key frame.

    Args:
        computation: what to compute.

    Attributes:
        frames_done: frames computed so far, over all chunks.
        work_done: sum over these of the share of the dense MACs.
    """

    def __init__(self, computation: Computation) -> None:
        self.computation = computation
        self.frames_done = 0
        self.work_done = 0.0
        self._frames = computation.open()
        self._network = ControlledNetwork(self._frames, computation.control)

    def extract(self, reader: ClipReader, index: int, video_id: str) -> ChunkResult:
        """Features of chunk ``index``; ends early, with a reason, where the clip is damaged.

        Args:
            reader: of the clip.
            index: of the chunk.
            video_id: decides with a frame's number whether the frame is audited.

        Raises:
            ClipError: the clip cannot be opened.
        """
        self._network.begin(video_id)
        reading = self.computation.reading
        stages = ("decode", "preprocess", "network", *([] if reading is None else ["task"]))
        clock = dict.fromkeys(stages, 0.0)
        shown: list[tuple[float, int, int]] = []
        features: list[NDArray[np.float32]] = []
        found: list[Found] = []
        not_finite = 0
        densities: list[Seen] = []
        watches: list[Watch] = []
        damage, rotation = "", 0
        decoded, errors = reader.n_decoded, reader.n_decode_errors
        source = batches(reader.read(index), self.computation.time_batch)
        while True:
            began = time.perf_counter()
            batch, ended, damage = _next(source)
            clock["decode"] += time.perf_counter() - began
            if batch:
                began = time.perf_counter()
                x = self._frames.input(batch)
                clock["preprocess"] += time.perf_counter() - began
                began = time.perf_counter()
                (output, *_), seen, watch = self._network.run(
                    x,
                    samples=[frame.sample_index for frame in batch],
                    timestamps=[frame.timestamp for frame in batch],
                )
                clock["network"] += time.perf_counter() - began
                if reading is None:
                    features.append(output)
                else:
                    # Nothing of the raw output is kept, where it could be counted later.
                    not_finite += count_not_finite(output)
                    began = time.perf_counter()
                    found.append(reading(output, [_size(frame) for frame in batch]))
                    clock["task"] += time.perf_counter() - began
                densities.append(seen)
                watches.append(watch)
                # A chunk's pixels would be its largest memory: only the times are kept.
                shown.extend((f.timestamp, f.pts, f.frame_index) for f in batch)
                rotation = batch[0].rotation
                self.frames_done += len(batch)
                self.work_done += float(seen.work.sum())
            if ended:
                break
        layers = self.computation.n_layers
        if reading is None:
            size = int(np.prod(self.computation.feature_shape))
            stored = _joined(features, (0, size), np.float32)
        else:
            stored = np.empty((len(shown), 0), np.float32)
        return ChunkResult(
            index=index,
            features=stored,
            found=None if reading is None else Found.joined([reading(_NOTHING, []), *found]),
            timestamps=np.array([row[0] for row in shown], np.float64),
            pts=np.array([row[1] for row in shown], np.int64),
            frame_index=np.array([row[2] for row in shown], np.int64),
            key_frame=_joined([seen.key_frame for seen in densities], (0,), np.bool_),
            work=_joined([seen.work for seen in densities], (0,), np.float32),
            density=_joined([seen.density for seen in densities], (0, layers), np.float32),
            density_delta=_joined(
                [seen.density_delta for seen in densities], (0, layers), np.float32
            ),
            estimate=_joined([watch.estimate for watch in watches], (0,), np.float32),
            audit_error=_joined([watch.audit_error for watch in watches], (0,), np.float32),
            attrs={
                **{f"n_{event}": self._network.events[event] for event in EVENTS},
                **{f"seconds_{stage}": seconds for stage, seconds in clock.items()},
                "n_decoded": reader.n_decoded - decoded,
                "n_decode_errors": reader.n_decode_errors - errors,
                "rotation": rotation,
                **({} if reading is None else {"n_not_finite": not_finite}),
            },
            damage=damage,
        )


def pictures(batch: list[SampledFrame]) -> tuple[list[NDArray[np.uint8]], list[int]]:
    """The pictures that a batch shows, and for each frame the position of its own.

    A picture that is shown several times is there once.
    """
    positions: dict[int, int] = {}
    images: list[NDArray[np.uint8]] = []
    for frame in batch:
        if id(frame.image) not in positions:
            positions[id(frame.image)] = len(images)
            images.append(frame.image)
    return images, [positions[id(frame.image)] for frame in batch]


def _size(frame: SampledFrame) -> tuple[int, int]:
    """Height and width as it is shown, pixels."""
    height, width, _ = frame.image.shape
    return height, width


def batches(frames: Iterator[SampledFrame], size: int) -> Iterator[list[SampledFrame]]:
    """Lists of at most ``size`` frames; the frames before damage come before the error.

    Raises:
        ClipDamagedError: where ``frames`` raised it.
    """
    while True:
        batch: list[SampledFrame] = []
        damage: ClipDamagedError | None = None
        try:
            for frame in islice(frames, size):
                batch.append(frame)  # what came before an error must stay
        except ClipDamagedError as error:
            damage = error
        if batch:
            yield batch
        if damage is not None:
            raise damage
        if len(batch) < size:
            return


def _next(source: Iterator[list[SampledFrame]]) -> tuple[list[SampledFrame], bool, str]:
    """The next batch, whether it was the last, and the damage that ended the clip."""
    try:
        batch = next(source, None)
    except ClipDamagedError as error:
        return [], True, str(error)
    return (batch, False, "") if batch is not None else ([], True, "")


def _joined(parts: list[Any], empty: tuple[int, ...], dtype: type) -> NDArray[Any]:
    return np.concatenate(parts).astype(dtype) if parts else np.empty(empty, dtype)
