"""Features of the ordinary, dense network in PyTorch, in a feature file like those of the tool.

They are of the same frames and of the same network input, so that what the recurrence changes in a
feature, and what it saves in seconds, can be read off two files. The network runs as people run it
today: fp32, channels_last, batches of 16, one process with so many threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from benchmarking import say
from labelled_features import SAME_FEATURES
from numpy.typing import NDArray
from peers.dense import DenseNetwork
from peers.torch_peer import TorchPeer, torch_module
from torch import Tensor
from tqdm import tqdm

from rrm_extract.config import JobConfig
from rrm_extract.engine.seen import Seen
from rrm_extract.errors import ClipError
from rrm_extract.given_file import kept_mtime_ns
from rrm_extract.jobs import ChunkExtractor, Recipe, Video, network_input, sampling_of
from rrm_extract.jobs.control import Control
from rrm_extract.jobs.recipe import load_plan
from rrm_extract.jobs.run import identity_of, root_attrs
from rrm_extract.signals import held_back
from rrm_extract.store import FailureRecord, OutputStore, Source
from rrm_extract.video import ClipReader, SampledFrame, Sampling, count_chunks, scan_clip

__all__ = ["BATCH", "extract_dense"]

BATCH = 16
"""Frames in a call, as in ``plain_loop.py``."""

_IDENTITY = (*SAME_FEATURES, "weights", "fps", "chunk")
"""Keys of a job's identity that decide a dense network's features too."""

_ROOT_ATTRS = (
    "weights_text",  # which only weights that were compressed have
    *("tool_version", "config_json", "versions_json", "model", "weights_id", "weights_sha256"),
    *("layer", "preprocess_json", "chunk", "fps"),
)
"""Attributes of a job's file that a dense network's has too."""


def extract_dense(
    config: JobConfig, videos: Sequence[Video], output: Path, *, threads: int
) -> None:
    """Writes the dense network's features of some videos.

    Videos that ``output`` has already are not computed again; one that cannot be read is listed
    there as failed.

    Args:
        config: the job that is compared with: model, weights, layer, preprocessing, sampling.
        videos: what to compute.
        output: the feature file; ``seconds_network`` of its videos is wall-clock time.
        threads: cores.

    Raises:
        UsageError: the network cannot be had.
        StoreError: the output cannot be used, or holds other features.
    """
    plan, recipe = load_plan(config)
    recurrent, attrs = identity_of(config, plan), root_attrs(config, plan)
    identity = {key: recurrent[key] for key in _IDENTITY}
    identity |= {"engine": "dense", "batch": BATCH, "threads": threads}
    root = {key: attrs[key] for key in _ROOT_ATTRS if key in attrs}
    sampling = sampling_of(config)
    with OutputStore(output, identity) as store:
        extractor: ChunkExtractor | None = None  # opened for the first video that needs it
        sources: list[Source] = []
        for video in tqdm(videos, desc="dense network", unit="video", disable=None):
            source = _source_of(video)
            if source.size >= 0:
                sources.append(source)
            failure = store.failure(source)
            is_back = failure is not None and failure.source_size < 0 <= source.size
            if store.status(source) == "ok" or (failure is not None and not is_back):
                continue
            if extractor is None:
                extractor = ChunkExtractor(_Dense(recipe, threads))
            try:
                damage = _extract(store, extractor, source, video.path, sampling)
            except ClipError as error:
                _fail(store, source, "open", type(error).__name__, str(error))
            else:
                if damage:
                    _fail(store, source, "decode", "ClipDamagedError", damage)
        with held_back() as let_through:  # HDF5 does not survive an interrupt while it writes
            store.finish(sources, (), root, complete=True, let_through=let_through)


def _extract(
    store: OutputStore,
    extractor: ChunkExtractor,
    source: Source,
    path: Path,
    sampling: Sampling,
) -> str:
    """Writes the part of one video; returns why it ends early, if it does."""
    info = scan_clip(path)
    seconds = dict.fromkeys(("decode", "preprocess", "network"), 0.0)
    shape = extractor.computation.feature_shape
    # HDF5 does not survive an interrupt while it writes, and it may write whenever something of it
    # is no longer needed: interrupts are heard between chunks alone.
    with (
        held_back() as let_through,
        ClipReader(info, sampling) as reader,
        store.part(source, feature_shape=shape) as part,
    ):
        damage = ""
        for index in range(count_chunks(info, sampling)):
            chunk = extractor.extract(reader, index, source.video_id)
            part.append(chunk)
            let_through()
            for stage in seconds:
                seconds[stage] += float(chunk.attrs[f"seconds_{stage}"])
            if damage := chunk.damage:
                break
        if part.n_frames == 0:
            return damage or f"{path}: no frame could be decoded"
        part.finish(
            layers={},
            attrs={f"seconds_{stage}": value for stage, value in seconds.items()},
            status="partial" if damage else "ok",
        )
    return damage


@dataclass(frozen=True)
class _Dense:
    """See :class:`rrm_extract.jobs.extractor.Computation`."""

    recipe: Recipe
    threads: int
    time_batch: int = BATCH
    n_layers: int = 0
    control: Control = field(default_factory=lambda: Control(cuts=False))
    reading: None = None

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Of one frame's feature."""
        return self.recipe.feature_shape

    def open(self) -> _DenseFrames:
        """The network."""
        return _DenseFrames(self.recipe, self.threads)


class _DenseFrames:
    """See :class:`rrm_extract.jobs.extractor.FrameNetwork`."""

    def __init__(self, recipe: Recipe, threads: int) -> None:
        network = DenseNetwork(recipe.program, input_shape=recipe.input_shape)
        self._recipe = recipe
        self._peer = TorchPeer(
            torch_module(network, "fp32"),
            input_shape=recipe.input_shape,
            precision="fp32",
            threads=threads,
            callers=1,
            batch=BATCH,
        )
        self._peer.prepare()
        self._peer.run(torch.zeros(BATCH, *recipe.input_shape))  # the first run is a slow one

    def reset(self) -> None:
        """There is nothing to forget."""

    def key_frame(self) -> None:
        """Every frame is one."""

    def input(self, batch: list[SampledFrame], /) -> Tensor:
        """(T, C, h, w) float32."""
        return network_input(batch, self._recipe)

    def track(self) -> None:
        """Nothing is ever truncated."""

    def scale_thresholds(self, factor: float, /) -> None:
        """There are none."""

    def exact(self, x: Tensor, /) -> NDArray[np.float32]:
        """The same features."""
        rows: NDArray[np.float32] = self._peer.run(x).numpy()
        return rows

    def run(self, x: Tensor, /) -> tuple[tuple[NDArray[np.float32], ...], Seen]:
        """(T, D) features; every frame counts as computed in full."""
        rows = self.exact(x)
        nothing = np.empty((len(rows), 0))
        return (rows,), Seen(
            density=nothing,
            density_delta=nothing,
            key_frame=np.ones(len(rows), np.bool_),
            work=np.ones(len(rows)),
        )


def _source_of(video: Video) -> Source:
    try:
        stat = video.path.stat()
    except OSError:
        return Source(video.video_id, -1, -1)  # opening it says why
    return Source(video.video_id, stat.st_size, kept_mtime_ns(stat))


def _fail(store: OutputStore, source: Source, stage: str, error_type: str, message: str) -> None:
    say(f"{source.video_id}: {message}")
    store.record_failure(
        FailureRecord(
            video_id=source.video_id,
            stage=stage,
            error_type=error_type,
            message=message,
            attempts=1,
            source_size=source.size,
            source_mtime_ns=source.mtime_ns,
        )
    )
