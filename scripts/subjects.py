"""What the network-only benchmarks measure: networks by name, and clips as network input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from peers import DenseNetwork
from torch import Tensor

from rrm_extract.config import JobConfig
from rrm_extract.errors import ClipOpenError
from rrm_extract.graph import Program, select
from rrm_extract.jobs import Recipe, batches, make_recipe, network_input, pooled, sampling_of
from rrm_extract.models import LoadedModel, load_model
from rrm_extract.models.registry import is_model_file
from rrm_extract.video import ClipReader, SampledFrame, Sampling, count_chunks, scan_clip

__all__ = [
    "BATCHES",
    "LARGEST_BATCH",
    "NOISE",
    "Clip",
    "Shown",
    "Subject",
    "clip_chunks",
    "clip_frames",
    "even_sample",
    "load_clip",
    "load_subject",
    "make_subject",
    "noise_frames",
    "shown_chunks",
    "usable_batches",
]

BATCHES = (1, 8, 16)
"""Batch sizes that dense runtimes are tried with."""

LARGEST_BATCH = max(BATCHES)
"""Clips are cut to a multiple of it, so that no runtime computes frames that nobody asked for."""

NOISE = "noise"
"""Name of the clip in which every pixel is new in each frame."""

_REFERENCE_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network up to the feature.

    Attributes:
        name: of the network; of an ONNX file, the file's own without its folder.
        weights_id: where the weights come from; of a .dcz file, also what was compressed.
        recipe: the recurrent network's parts, as in an extraction.
        sampling: which frames of a clip are taken, and how many lie between two key frames.
        ordinary: the same network as it was loaded, nothing folded.
        noise_side: pixels of a square picture that the transform does not resize.
    """

    name: str
    weights_id: str
    recipe: Recipe
    sampling: Sampling
    ordinary: Program
    noise_side: int

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of one frame of network input."""
        return self.recipe.transform.output_shape

    def dense(self) -> DenseNetwork:
        """What the dense runtimes compute."""
        return DenseNetwork(
            self.recipe.program, input_shape=self.input_shape, pool=self.recipe.pool
        )

    def reference(self, frames: Tensor) -> Tensor:
        """Features by torch's dense network in fp32, (T, D)."""
        rows = [
            pooled(self.ordinary(batch)[0], self.recipe.pool).flatten(1)
            for batch in torch.split(frames, _REFERENCE_BATCH)
        ]
        return torch.cat(rows)


def load_subject(
    spec: str,
    *,
    weights: str = "default",
    preprocess: str | None = None,
    fps: str = "24",
    chunk: float = 10.0,
    time_batch: int = 8,
    policy: str = "bounded",
) -> Subject:
    """Loads a network and what is needed to run it either way.

    Args:
        spec: NAME or NAME=WEIGHTS, the name as ``rrm-extract --model`` takes it.
        weights: for networks whose spec names none; files of networks bring their own.
        preprocess: for networks that bring no transform of their own, which are ONNX files and
            ``package.module:factory``.
        fps: frames per second that are sampled, as ``rrm-extract --fps`` takes it.
        chunk: seconds between key frames.
        time_batch: frames taken through one layer before the next.
        policy: "bounded" or "paper".

    Raises:
        UsageError: there is no such network, or it cannot be used.
    """
    name, _, own_weights = spec.partition("=")
    is_file = is_model_file(name)
    is_undescribed = ":" in name or name.lower().endswith(".onnx")
    config = JobConfig(
        model=name,
        weights=own_weights or ("default" if is_file else weights),
        preprocess=preprocess if is_undescribed else None,
        fps=fps,
        chunk=chunk,
        time_batch=time_batch,
        policy=policy,
    )
    model = load_model(config.model, weights=config.weights, preprocess=config.preprocess)
    return make_subject(model, config, name=Path(name).name if is_file else name)


def make_subject(model: LoadedModel, config: JobConfig, *, name: str) -> Subject:
    """A network that is loaded already, with a job's options.

    Raises:
        UsageError: it cannot be used with them.
    """
    recipe = make_recipe(model, config)
    resize = model.preprocess.get("resize")
    return Subject(
        name=name,
        weights_id=model.weights_text,
        recipe=recipe,
        sampling=sampling_of(config),
        ordinary=select(model.trace(), (recipe.layer,)),
        noise_side=resize if isinstance(resize, int) else max(model.input_shape),
    )


def clip_frames(path: Path, subject: Subject, *, count: int | None) -> Tensor:
    """The first sampled frames of a clip as network input, (T, *input_shape) float32.

    Raises:
        ClipError: the clip cannot be opened or decoded.
    """
    rows = list(clip_chunks(path, subject, count=count))
    if not rows:
        msg = f"{path}: no frame can be decoded; expected a video"
        raise ClipOpenError(msg)
    return _without_remainder(torch.cat(rows))


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip as network input.

    Attributes:
        frames: (T, *input_shape) float32.
        chunk: how many of them lie between two key frames.
    """

    frames: Tensor
    chunk: int

    def __len__(self) -> int:
        return len(self.frames)


def load_clip(path: Path, subject: Subject, *, count: int | None) -> Clip:
    """The frames of :func:`clip_frames`, and where its chunks begin.

    Raises:
        ClipError: the clip cannot be opened or decoded.
    """
    frames = clip_frames(path, subject, count=count)
    sampling = subject.sampling
    if sampling.fps is None:  # each frame once: as many per second as the clip itself has
        info = scan_clip(path)
        sampling = replace(sampling, fps=info.average_rate or info.n_packets / info.duration)
    return Clip(frames=frames, chunk=sampling.frames_per_chunk)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a sampled frame shows.

    Attributes:
        seconds: when, since the clip's first frame.
        number: of the frame in display order.
        height, width: pixels, before any transform.
    """

    seconds: float
    number: int
    height: int
    width: int


def clip_chunks(path: Path, subject: Subject, *, count: int | None) -> Iterator[Tensor]:
    """The same frames chunk by chunk, each (T, *input_shape) float32, all of them.

    Raises:
        ClipError: the clip cannot be opened, or cannot be decoded from there on.
    """
    for _, frames in shown_chunks(path, subject, count=count):
        yield frames


def shown_chunks(
    path: Path, subject: Subject, *, count: int | None
) -> Iterator[tuple[list[Shown], Tensor]]:
    """As :func:`clip_chunks`, and what each of the frames shows.

    Raises:
        ClipError: the clip cannot be opened, or cannot be decoded from there on.
    """
    info = scan_clip(path)
    left = count
    with ClipReader(info, subject.sampling) as reader:
        for chunk in range(count_chunks(info, subject.sampling)):
            source = islice(reader.read(chunk), left)
            shown: list[Shown] = []
            rows: list[Tensor] = []
            for batch in batches(source, subject.recipe.time_batch):
                rows.append(network_input(batch, subject.recipe))
                shown += [_shown(frame) for frame in batch]
            if rows:
                yield shown, torch.cat(rows)
            left = None if left is None else left - len(shown)
            if left is not None and left <= 0:
                return


def _shown(frame: SampledFrame) -> Shown:
    height, width = frame.image.shape[:2]
    return Shown(seconds=frame.timestamp, number=frame.frame_index, height=height, width=width)


def noise_frames(subject: Subject, *, count: int, seed: int = 0) -> Tensor:
    """White noise through the network's transform: every pixel is new in each frame."""
    generator = torch.Generator().manual_seed(seed)
    size = (3, subject.noise_side, subject.noise_side)
    rows = [
        subject.recipe.transform(
            torch.randint(256, (1, *size), generator=generator, dtype=torch.uint8)
        )
        for _ in range(count)
    ]
    return _without_remainder(torch.cat(rows))


def even_sample(clips: Iterable[Tensor], count: int) -> Tensor:
    """At most ``count`` frames, as many from each clip as from another and evenly over it."""
    clips = list(clips)
    shares = [len(part) for part in torch.tensor_split(torch.arange(count), len(clips))]
    rows = [
        clip[torch.linspace(0, len(clip) - 1, min(share, len(clip))).round().long()]
        for clip, share in zip(clips, shares, strict=True)
    ]
    return torch.cat(rows)


def usable_batches(clips: Iterable[Tensor]) -> tuple[int, ...]:
    """The batch sizes of which every clip is a multiple."""
    counts = [len(clip) for clip in clips]
    return tuple(batch for batch in BATCHES if all(count % batch == 0 for count in counts))


def _without_remainder(frames: Tensor) -> Tensor:
    """Cut to a multiple of the largest batch; a clip shorter than that stays whole."""
    whole = len(frames) - len(frames) % LARGEST_BATCH
    return frames[: whole or len(frames)]
