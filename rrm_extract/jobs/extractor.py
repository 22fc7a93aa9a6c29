"""From one chunk of a clip to its features, inside one process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from rrm_extract.errors import ClipDamagedError
from rrm_extract.jobs.recipe import Recipe, pooled
from rrm_extract.rrm import FrameDensities
from rrm_extract.store import ChunkResult
from rrm_extract.video import ClipReader, SampledFrame

__all__ = ["ChunkExtractor", "batches", "network_input"]


class ChunkExtractor:
    """Computes chunks one after the other; every chunk begins with a key frame.

    Args:
        recipe: what to compute.

    Attributes:
        frames_done: frames computed so far, over all chunks.
        work_done: sum over these of the share of the dense MACs.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.frames_done = 0
        self.work_done = 0.0
        self._network = recipe.network()

    def extract(self, reader: ClipReader, index: int) -> ChunkResult:
        """Features of chunk ``index``; ends early, with a reason, where the clip is damaged.

        Raises:
            ClipError: the clip cannot be opened.
        """
        self._network.reset()
        clock = {"decode": 0.0, "preprocess": 0.0, "network": 0.0}
        shown: list[tuple[float, int, int]] = []
        features: list[Tensor] = []
        densities: list[FrameDensities] = []
        damage, rotation = "", 0
        decoded, errors = reader.n_decoded, reader.n_decode_errors
        source = batches(reader.read(index), self.recipe.time_batch)
        while True:
            began = time.perf_counter()
            batch, ended, damage = _next(source)
            clock["decode"] += time.perf_counter() - began
            if batch:
                began = time.perf_counter()
                x = network_input(batch, self.recipe)
                clock["preprocess"] += time.perf_counter() - began
                began = time.perf_counter()
                (output,), seen = self._network.run(x)
                features.append(pooled(output, self.recipe.pool).flatten(1).float().cpu())
                clock["network"] += time.perf_counter() - began
                densities.append(seen)
                # A chunk's pixels would be its largest memory: only the times are kept.
                shown.extend((f.timestamp, f.pts, f.frame_index) for f in batch)
                rotation = batch[0].rotation
                self.frames_done += len(batch)
                self.work_done += float(seen.work.sum())
            if ended:
                break
        size, layers = int(np.prod(self.recipe.feature_shape)), len(self.recipe.layers)
        return ChunkResult(
            index=index,
            features=torch.cat(features).numpy() if features else np.empty((0, size), np.float32),
            timestamps=np.array([row[0] for row in shown], np.float64),
            pts=np.array([row[1] for row in shown], np.int64),
            frame_index=np.array([row[2] for row in shown], np.int64),
            key_frame=_joined([seen.key_frame for seen in densities], (0,), np.bool_),
            work=_joined([seen.work for seen in densities], (0,), np.float32),
            density=_joined([seen.density for seen in densities], (0, layers), np.float32),
            density_delta=_joined(
                [seen.density_delta for seen in densities], (0, layers), np.float32
            ),
            attrs={
                "seconds_decode": clock["decode"],
                "seconds_preprocess": clock["preprocess"],
                "seconds_network": clock["network"],
                "n_decoded": reader.n_decoded - decoded,
                "n_decode_errors": reader.n_decode_errors - errors,
                "rotation": rotation,
            },
            damage=damage,
        )


def network_input(batch: list[SampledFrame], recipe: Recipe) -> Tensor:
    """The network's input for consecutive frames, (T, C, h, w) on the recipe's device.

    A frame that is shown several times is transformed once; sizes may differ between frames.
    """
    transformed: dict[int, Tensor] = {}
    by_size: dict[tuple[int, ...], list[SampledFrame]] = {}
    for frame in batch:
        if id(frame.image) not in transformed:
            transformed[id(frame.image)] = torch.empty(0)
            by_size.setdefault(frame.image.shape, []).append(frame)
    for same_size in by_size.values():
        pixels = torch.from_numpy(np.stack([frame.image for frame in same_size]))
        outputs = recipe.transform(pixels.permute(0, 3, 1, 2))
        for frame, output in zip(same_size, outputs, strict=True):
            transformed[id(frame.image)] = output
    return torch.stack([transformed[id(frame.image)] for frame in batch]).to(recipe.device)


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


def _joined(parts: list[Tensor], empty: tuple[int, ...], dtype: type) -> np.ndarray:
    return torch.cat(parts).numpy().astype(dtype) if parts else np.empty(empty, dtype)
