"""The datasets of a table, as its command line names them, and what of them can be read."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from benchmarking import say

from rrm_extract.config import JobConfig, load_job
from rrm_extract.errors import ClipError, InputError
from rrm_extract.jobs import Video, discover

__all__ = ["DATASET_HELP", "Dataset", "Reading", "find_datasets"]

T = TypeVar("T")

DATASET_HELP = (
    "NAME=FOLDER, a folder, a single clip (or NAME=CLIP), a list or glob of clips, or a job file "
    "of configs/, of which inputs, root, include and fps are read"
)

_JOB_EXTENSIONS = (".yaml", ".yml")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Videos under one name.

    Attributes:
        name: as the table calls it.
        videos: those that are looked at.
        found: how many there are.
        fps: frames per second that are sampled, as ``rrm-extract --fps`` takes it.
        given: what the command line said.
    """

    name: str
    videos: tuple[Video, ...]
    found: int
    fps: str
    given: str

    def identity(self) -> dict[str, Any]:
        """What a row that was made from it depends on, of types that JSON has."""
        digest = hashlib.sha256()
        for video in self.videos:
            size = video.path.stat().st_size if video.path.exists() else -1
            digest.update(f"{video.video_id}\0{size}\0".encode(errors="surrogateescape"))
        return {
            "videos": len(self.videos),
            "videos_found": self.found,
            "videos_sha256": digest.hexdigest(),
            "fps": self.fps,
        }


def find_datasets(
    given: Sequence[str], *, max_videos: int | None = None, fps: str | None = None
) -> list[Dataset]:
    """The datasets that a command line names.

    Args:
        given: at least one, see :data:`DATASET_HELP`.
        max_videos: most of each dataset, evenly spread over all of it; None takes all.
        fps: frames per second for all; None takes a job file's, and else the product's default.

    Raises:
        InputError: nothing was given, nothing is there, or two datasets have one name.
        ConfigError: a job file or the frame rate is wrong.
    """
    if not given:
        msg = f"no dataset was given; expected {DATASET_HELP}"
        raise InputError(msg)
    datasets: dict[str, Dataset] = {}
    for text in given:
        dataset = _found(text, max_videos, fps)
        if (other := datasets.setdefault(dataset.name, dataset)) is not dataset:
            msg = (
                f"{other.given} and {text} would both be called {dataset.name!r} in the table; "
                "give one of them another name, as in NAME=FOLDER"
            )
            raise InputError(msg)
    return list(datasets.values())


def _found(text: str, max_videos: int | None, fps: str | None) -> Dataset:
    name, equals, place = text.partition("=")
    if not equals or not name or "/" in name or Path(text).exists():
        if glob.has_magic(text) and not Path(text).exists():
            msg = f"glob {text} has no name; expected NAME={text}"
            raise InputError(msg)
        whole = Path(text).resolve()
        name, place = whole.name if whole.is_dir() else whole.stem, text
    if place.lower().endswith(_JOB_EXTENSIONS) and not Path(place).is_dir():
        job = load_job(place)
        videos = discover(job.inputs, root=job.root, include=job.include)
    else:
        job = JobConfig(inputs=(place,))
        videos = discover(job.inputs, root=place if Path(place).is_dir() else None)
    rate = job if fps is None else job.replace(fps=fps)
    chosen = videos
    if max_videos is not None and max_videos < len(videos):
        places = np.linspace(0, len(videos) - 1, max_videos).round().astype(int)
        chosen = [videos[place] for place in places.tolist()]
    return Dataset(name=name, videos=tuple(chosen), found=len(videos), fps=rate.fps, given=text)


@dataclass
class Reading:
    """Reads the videos of a dataset, and counts those that cannot be read.

    Attributes:
        used: videos that could be read so far.
        broken: the others, each with its reason.
    """

    used: int = 0
    broken: list[dict[str, str]] = field(default_factory=list)

    def each(self, dataset: Dataset, read: Callable[[Path], T]) -> Iterator[tuple[Video, T]]:
        """Each video that ``read`` can read, with what it made of it.

        Args:
            dataset: whose videos.
            read: from a path; what it raises as ClipError makes the video a broken one.
        """
        for video in dataset.videos:
            try:
                value = read(video.path)
            except ClipError as error:
                self.drop(video, error)
                continue
            self.used += 1
            yield video, value

    def drop(self, video: Video, error: ClipError) -> None:
        """Counts a video that cannot be used."""
        # The table names it as the dataset does: its path is another one on every machine.
        reason = str(error).replace(str(video.path), video.video_id)
        say(f"  broken: {reason}")
        self.broken.append({"video": video.video_id, "error": reason})

    def unbroken(self, dataset: Dataset) -> Dataset:
        """The dataset without the videos that were dropped."""
        broken = {one["video"] for one in self.broken}
        videos = tuple(video for video in dataset.videos if video.video_id not in broken)
        return replace(dataset, videos=videos)

    def to_json(self) -> dict[str, Any]:
        """For a row: ``videos_used`` and ``videos_broken``."""
        return {"videos_used": self.used, "videos_broken": self.broken}
