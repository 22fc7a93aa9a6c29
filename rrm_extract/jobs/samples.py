"""Stretches of some of the videos, kept in memory, to try a network on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rrm_extract.config import JobConfig
from rrm_extract.engine.seen import Seen, joined
from rrm_extract.errors import ClipError, InputError, RrmError
from rrm_extract.jobs.control import ControlledNetwork
from rrm_extract.jobs.discover import Video
from rrm_extract.jobs.extractor import batches
from rrm_extract.jobs.recipe import Recipe, RecipeNetwork, network_input
from rrm_extract.jobs.sampling import sampling_of
from rrm_extract.jobs.worker import named_line
from rrm_extract.video import ClipReader, SampledFrame, count_chunks, scan_clip

__all__ = ["ReadingWatch", "Sample", "portions", "run_controlled", "take_samples"]

FEWEST_FRAMES = 4
"""A stretch shorter than that shows nothing of what changes."""


class ReadingWatch(Protocol):
    """Is told which video is being read, by somebody who may see that nothing moves any more."""

    def begins(self, video_id: str, moved: Callable[[], int]) -> None:
        """A video is being read; ``moved`` counts packets."""

    def ends(self) -> None:
        """It has been read, or cannot be."""


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
    watch: ReadingWatch | None = None,
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
        watch: is told which video is being read.

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
        parts: list[Tensor] = []
        numbers: list[int] = []
        timestamps: list[float] = []
        problems: list[str] = []
        for batch in _stretch(video, config, recipe.time_batch, frames, watch, problems):
            parts.append(network_input(batch, recipe))
            numbers += [frame.sample_index for frame in batch]
            timestamps += [frame.timestamp for frame in batch]
        # What comes before the damage is as good as any.
        if problems and len(numbers) < FEWEST_FRAMES:
            if say is not None:
                say(problems[0])
            continue
        x = torch.cat(parts) if parts else torch.empty(0)
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
    video: Video,
    config: JobConfig,
    size: int,
    frames: int,
    watch: ReadingWatch | None,
    problems: list[str],
) -> Iterator[list[SampledFrame]]:
    """The first frames of the middle chunk, ``size`` in each batch.

    Ends where the video cannot be read, and notes why in ``problems``.
    """
    scanned = 0
    readers: list[ClipReader] = []

    def count() -> None:
        nonlocal scanned
        scanned += 1

    if watch is not None:
        watch.begins(
            video.video_id, lambda: scanned + sum(reader.n_packets_read for reader in readers)
        )
    try:
        info = scan_clip(video.path, on_packet=count)
        sampling = sampling_of(config)
        with ClipReader(info, sampling) as reader:
            readers.append(reader)
            chunk = (count_chunks(info, sampling) - 1) // 2
            yield from batches(islice(reader.read(chunk), frames), size)
    except ClipError as error:
        problems.append(str(error))
    except (MemoryError, RrmError):
        raise  # it would be the same with any other video
    except Exception as error:  # noqa: BLE001 - a decoder may raise whatever it likes on one clip
        problems.append(f"{video.path}: {named_line(error)}")
    finally:
        if watch is not None:
            watch.ends()
