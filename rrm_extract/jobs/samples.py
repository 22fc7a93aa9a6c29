"""Stretches of some of the videos, kept in memory, to try a network on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rrm_extract.config import JobConfig
from rrm_extract.engine.seen import Seen, joined
from rrm_extract.errors import ClipDamagedError, ClipError, InputError, RrmError
from rrm_extract.jobs.control import ControlledNetwork
from rrm_extract.jobs.discover import Video
from rrm_extract.jobs.extractor import batches
from rrm_extract.jobs.recipe import Recipe, RecipeNetwork, network_input
from rrm_extract.jobs.sampling import sampling_of
from rrm_extract.video import ClipReader, count_chunks, scan_clip

__all__ = ["Sample", "portions", "run_controlled", "take_samples"]

Reads = Callable[[str | None], None]

FEWEST_FRAMES = 4
"""A stretch shorter than that shows nothing of what changes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """Consecutive sampled frames of one video.

    Attributes:
        name: the video's id.
        x: (T, C, h, w) float32, the network's input.
        exact: (T, D) float32, the dense network's features.
        numbers: (T,) the frames' numbers among the sampled frames of the video.
        timestamps: (T,) seconds from the video's start.
    """

    name: str
    x: Tensor
    exact: NDArray[np.float32]
    numbers: tuple[int, ...]
    timestamps: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.x)

    def first(self, frames: int) -> Sample:
        """Its first frames."""
        return Sample(
            name=self.name,
            x=self.x[:frames],
            exact=self.exact[:frames],
            numbers=self.numbers[:frames],
            timestamps=self.timestamps[:frames],
        )


def take_samples(
    videos: Sequence[Video],
    config: JobConfig,
    recipe: Recipe,
    *,
    clips: int,
    frames: int,
    say: Callable[[str], None] | None = None,
    without: Collection[str] = (),
    reads: Reads | None = None,
) -> list[Sample]:
    """The first frames of the middle chunk of some videos, spread evenly over all of them.

    Args:
        videos: to choose from.
        config: how frames are sampled.
        recipe: the network.
        clips: how many videos are taken at most.
        frames: how many frames of each.
        say: is told of videos that cannot be used; others take their place.
        without: ids of videos that are not looked at.
        reads: is told which video is being read, again and again as long as something moves, and
            None when it has been.

    Raises:
        InputError: no video has a few frames that can be decoded.
    """
    dense = RecipeNetwork(recipe)
    samples: list[Sample] = []
    sound = 0  # videos that can be decoded, but have few frames there
    # The chosen ones first, then the others, for those that cannot be used.
    places = np.linspace(0, len(videos) - 1, min(clips, len(videos))).round().astype(int).tolist()
    order = [*dict.fromkeys(places), *(i for i in range(len(videos)) if i not in places)]
    for place in order:
        if len(samples) == clips:
            break
        video = videos[place]
        if video.video_id in without:
            continue
        try:
            x, numbers, timestamps = _stretch(video, config, recipe, frames, reads)
        except Exception as error:
            if isinstance(error, RrmError) and not isinstance(error, ClipError):
                raise  # of the network, or the request
            if say is not None:
                say(_why(video, error))
            continue
        finally:
            if reads is not None:
                reads(None)
        if len(x) < FEWEST_FRAMES:
            sound += 1
            continue
        exact = np.concatenate([dense.exact(part) for part in portions(x, recipe.time_batch)])
        samples.append(
            Sample(
                name=video.video_id,
                x=x,
                exact=exact,
                numbers=tuple(numbers),
                timestamps=tuple(timestamps),
            )
        )
    if not samples:
        msg = (
            f"none of {len(videos)} videos has {FEWEST_FRAMES} sampled frames that can be decoded "
            "in its middle chunk; expected videos to try the network on"
            + (f": {sound} can be decoded, try a higher --fps or a longer --chunk" if sound else "")
        )
        raise InputError(msg)
    return samples


def _why(video: Video, error: Exception) -> str:
    if isinstance(error, ClipError):
        return str(error)
    return f"{video.path}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"


def portions(x: Tensor, size: int) -> Iterator[Tensor]:
    """(T, ...) in parts of at most ``size`` frames."""
    for begin in range(0, len(x), size):
        yield x[begin : begin + size]


def run_controlled(
    network: ControlledNetwork, sample: Sample, size: int, *, clock: Callable[[], float]
) -> tuple[NDArray[np.float32], Seen, float]:
    """A sample from a key frame on, ``size`` frames at a time.

    Returns:
        (T, D) features, what the layers saw, and what ``clock`` says the network took.
    """
    network.begin(sample.name)
    features, seen = [], []
    seconds = 0.0
    for begin in range(0, len(sample), size):
        some = slice(begin, begin + size)
        began = clock()
        (output, *_), densities, _ = network.run(
            sample.x[some], samples=sample.numbers[some], timestamps=sample.timestamps[some]
        )
        seconds += clock() - began
        features.append(output)
        seen.append(densities)
    return np.concatenate(features), joined(seen), seconds


def _stretch(
    video: Video, config: JobConfig, recipe: Recipe, frames: int, reads: Reads | None
) -> tuple[Tensor, list[int], list[float]]:
    def moves() -> None:
        if reads is not None:
            reads(video.video_id)

    moves()
    info = scan_clip(video.path, on_packet=moves)
    sampling = sampling_of(config)
    parts: list[Tensor] = []
    numbers: list[int] = []
    timestamps: list[float] = []
    with ClipReader(info, sampling) as reader:
        chunk = (count_chunks(info, sampling) - 1) // 2
        try:
            for batch in batches(islice(reader.read(chunk), frames), recipe.time_batch):
                moves()
                parts.append(network_input(batch, recipe))
                numbers += [frame.sample_index for frame in batch]
                timestamps += [frame.timestamp for frame in batch]
        except ClipDamagedError:
            if not parts:  # what comes before the damage is as good as any
                raise
    return torch.cat(parts) if parts else torch.empty(0), numbers, timestamps
