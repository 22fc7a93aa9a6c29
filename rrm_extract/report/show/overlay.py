"""From a clip to the clip with what was recomputed painted over it."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rrm_extract.config import JobConfig
from rrm_extract.errors import ClipDamagedError, ConfigError
from rrm_extract.jobs import Recipe, all_notes, batches, make_recipe, sampling_of
from rrm_extract.jobs.control import ControlledNetwork
from rrm_extract.jobs.progress import Progress
from rrm_extract.models import LoadedModel, load_model
from rrm_extract.report.setting import refuse_target, setting_text
from rrm_extract.report.show.canvas import Canvas
from rrm_extract.report.show.found import Found, found_by
from rrm_extract.report.show.network import PaintedNetwork
from rrm_extract.report.show.sink import ClipWriter, Encoder, check_output, write_picture
from rrm_extract.report.show.work import WorkSoFar
from rrm_extract.report.table import number
from rrm_extract.video import (
    ClipInfo,
    ClipReader,
    SampledFrame,
    count_chunks,
    expected_frames,
    scan_clip,
)

__all__ = ["Moment", "Overlay", "OverlaySummary"]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Which frame a picture is made of: exactly one of these is given.

    Attributes:
        frame: number of the sampled frame, from 0.
        seconds: the frame shown at this time since the clip's first frame.
    """

    frame: int | None = None
    seconds: float | None = None

    def is_found(self, frame: SampledFrame, fps: Fraction | None) -> bool:
        """Whether a frame is the one that is meant, whatever comes after it.

        Args:
            frame: one that is not past it.
            fps: sampled frames per second; None for native, where only the next frame tells.
        """
        if self.frame is not None:
            return frame.sample_index >= self.frame
        if self.seconds is None or fps is None:
            return False
        return float((frame.sample_index + 1) / fps) > self.seconds

    def is_past(self, frame: SampledFrame) -> bool:
        """Whether a frame comes after the one that is meant."""
        if self.frame is not None:
            return frame.sample_index > self.frame
        return self.seconds is not None and frame.timestamp > self.seconds

    @property
    def text(self) -> str:
        """As it was asked for."""
        return f"--at {self.seconds:g}" if self.frame is None else f"--frame {self.frame}"


@dataclass(frozen=True, kw_only=True)
class OverlaySummary:
    """What was written, and what the network did meanwhile.

    Attributes:
        output: the file.
        work: of the frames up to the last one shown, in the clip's order.
        is_picture: it is one picture, of the last of these frames.
        width, height: of a picture, pixels.
        encoder: how the clip was compressed, and why not as it is best; empty for a picture.
        computed: frames that the network ran on, at times some more, for it takes whole batches.
        seconds_network: time in the network for these, in plain PyTorch.
        damage: why the clip ends early; empty when it is sound.
    """

    output: Path
    work: WorkSoFar
    is_picture: bool
    width: int
    height: int
    encoder: str
    computed: int
    seconds_network: float
    damage: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Seen:
    """One frame, and what the network made of it."""

    frame: SampledFrame
    raw: NDArray[np.float32]  # (D,)
    density: NDArray[np.float32]  # (h, w)
    share: float
    is_key_frame: bool


class Overlay:
    """Runs a network over clips and draws where it computed.

    The readable engine runs it, whose deltas can be looked at: what it counts is what any engine
    would have to compute, and its time is nobody's.

    Args:
        config: model, weights, thresholds, policy, control, sampling and device. Its engine, layer
            and pool are not looked at: the network runs up to the feature that an extraction has
            by default, and a detector or a pose network to its end. Nor are its threads: PyTorch
            takes as many as it is set to. It has no target error, for which there are no thresholds
            before it is calibrated for.
        layer: whose deltas are painted, as for thresholds; None for all, weighted by their MACs.
        min_score: smallest score of the boxes or people that are drawn; None for the task's own.

    Raises:
        UsageError: the request is wrong.
    """

    def __init__(
        self, config: JobConfig, *, layer: str | None = None, min_score: float | None = None
    ) -> None:
        refuse_target(config)
        model = load_model(config.model, weights=config.weights, preprocess=config.preprocess)
        self._found: Found | None = found_by(model, min_score)
        changes: dict[str, object] = {"engine": "torch", "precision": "fp32", "layer": None}
        if self._found is not None:
            changes |= {"layer": model.trace().outputs[0], "pool": "none"}
        self.config = config.replace(**changes)
        self.model: LoadedModel = model
        self.recipe: Recipe = make_recipe(model, self.config, layer_can_be_chosen=False)
        self.painted = "all layers, by their MACs" if layer is None else f"input of {layer}"
        self._input_size = _size(model)
        self._core = PaintedNetwork(self.recipe, layer, self._input_size)
        self._sampling = sampling_of(self.config)
        self._seconds, self._computed = 0.0, 0

    @property
    def captions(self) -> tuple[str, ...]:
        """What every picture says: the network, its weights, its threshold, what is painted."""
        network = (
            f"{self.config.model_name}, weights {self.model.weights_text}, "
            f"{setting_text(self.config, self.recipe.calibration)}"
        )
        drawn = "" if self._found is None else f"; {self._found.caption}"
        if self._found is not None and self.model.is_untrained:
            drawn += ", of an untrained network: they mean nothing"
        return network, f"painted: {self.painted}{drawn}"

    def notes(self) -> tuple[str, ...]:
        """What a user should know about how the weights fit the network."""
        return all_notes(self.model, self.recipe)

    def write_clip(
        self, path: Path, output: Path, *, max_frames: int | None = None
    ) -> OverlaySummary:
        """Writes an overlay of a clip. A damaged clip's ends where the damage is.

        Args:
            path: the clip.
            output: file to write; one that is there is replaced.
            max_frames: stop after so many sampled frames.

        Raises:
            ConfigError: the output's ending is none of a clip's, or it is the clip itself.
            ClipError: the clip cannot be opened, or no frame of it could be decoded.
            StoreWriteError: the output cannot be written.
        """
        check_output(output, source=path, overwrite=True, is_picture=False)
        info = scan_clip(path)
        encoder = Encoder.choose()
        rate, clock = self._timing(info)
        work, damage = WorkSoFar(), ""
        with (
            self._progress(info, max_frames) as progress,
            closing(self._seen(info, max_frames)) as seen,
        ):
            first = self._first(seen, path)
            canvas = self._canvas(first.frame)
            with ClipWriter(
                output,
                width=canvas.width,
                height=canvas.height,
                rate=rate,
                time_base=clock,
                encoder=encoder,
            ) as clip:
                one: _Seen | None = first
                while one is not None:
                    _count(one, work, progress)
                    clip.write(
                        canvas.draw(one.frame, one.density, one.raw, work), one.frame.timestamp
                    )
                    try:
                        one = next(seen, None)
                    except ClipDamagedError as reason:
                        one, damage = None, str(reason)
        note = f" ({encoder.note})" if encoder.note else ""
        return self._summary(output, canvas, work, encoder=f"{encoder.name}{note}", damage=damage)

    def write_frame(self, path: Path, output: Path, moment: Moment) -> OverlaySummary:
        """Writes one frame of the overlay as a picture: the same that the clip would have.

        Args:
            path: the clip; it is computed from its beginning on.
            output: file to write; one that is there is replaced.
            moment: which frame.

        Raises:
            ConfigError: the clip has no such frame, or the output's ending is none of a picture's.
            ClipError: the clip cannot be opened, or is damaged before that frame.
            StoreWriteError: the output cannot be written.
        """
        check_output(output, source=path, overwrite=True, is_picture=True)
        info = scan_clip(path)
        if moment.seconds is not None and moment.seconds >= info.duration:
            raise ConfigError(
                f"{moment.text} is past the end: {path} lasts {float(info.duration):.3f} s"
            )
        count = None if moment.frame is None else moment.frame + 1
        if moment.seconds is not None and self._sampling.fps is not None:
            count = int(moment.seconds * self._sampling.fps) + 2  # at most, however it rounds
        work = WorkSoFar()
        with (
            self._progress(info, count) as progress,
            # In whole batches: where one is cut short, other frames could be computed twice.
            closing(self._seen(info, None)) as seen,
        ):
            meant = self._first(seen, path)  # before it nothing else is shown
            one: _Seen | None = None
            canvas = self._canvas(meant.frame)  # laid out by the first frame, as the clip's
            _count(meant, work, progress)
            # Nothing behind it is asked for: the clip may be damaged there.
            while not moment.is_found(meant.frame, self._sampling.fps):
                one = next(seen, None)
                if one is None or moment.is_past(one.frame):
                    break
                meant = one
                _count(meant, work, progress)
        if moment.frame not in (None, meant.frame.sample_index):
            raise ConfigError(f"{moment.text} {_absence(moment, path, meant.frame, one)}")
        write_picture(output, canvas.draw(meant.frame, meant.density, meant.raw, work))
        return self._summary(output, canvas, work)

    def _first(self, seen: Iterator[_Seen], path: Path) -> _Seen:
        reason = "it is empty"
        try:
            first = next(seen, None)
        except ClipDamagedError as damage:
            first, reason = None, str(damage)
        if first is None:
            msg = f"{path}: no frame could be decoded ({reason}); expected a video"
            raise ClipDamagedError(msg)
        return first

    def _seen(self, info: ClipInfo, max_frames: int | None) -> Generator[_Seen, None, None]:
        """Frame by frame; the network is reset where a chunk begins, as in extraction.

        Raises:
            ClipDamagedError: after the frames before the damage.
        """
        self._seconds, self._computed = 0.0, 0
        network = ControlledNetwork(self._core, self.recipe.control)
        left = max_frames
        with ClipReader(info, self._sampling) as reader:
            for index in range(count_chunks(info, self._sampling)):
                network.begin(info.path.name)
                for batch in batches(islice(reader.read(index), left), self.recipe.time_batch):
                    yield from self._batch(network, batch)
                    left = None if left is None else left - len(batch)
                if left is not None and left <= 0:
                    return

    def _batch(self, network: ControlledNetwork, batch: list[SampledFrame]) -> Iterator[_Seen]:
        x = self._core.input(batch)
        began = time.perf_counter()
        (raw, density), seen, _ = network.run(
            x,
            samples=[frame.sample_index for frame in batch],
            timestamps=[frame.timestamp for frame in batch],
        )
        self._seconds += time.perf_counter() - began
        self._computed += len(batch)
        for position, frame in enumerate(batch):
            yield _Seen(
                frame=frame,
                raw=raw[position],
                density=density[position],
                share=float(seen.work[position]),
                is_key_frame=bool(seen.key_frame[position]),
            )

    def _canvas(self, first: SampledFrame) -> Canvas:
        height, width = first.image.shape[:2]
        return Canvas(
            height=height,
            width=width,
            transform=self.model.transform,
            input_size=self._input_size,
            found=self._found,
            captions=self.captions,
        )

    def _timing(self, info: ClipInfo) -> tuple[Fraction, Fraction]:
        """Frames per second to declare, and the clock on which the frames' times lie."""
        if self._sampling.fps is not None:
            return self._sampling.fps, 1 / self._sampling.fps
        return info.average_rate or Fraction(25), info.time_base

    def _progress(self, info: ClipInfo, max_frames: int | None) -> Progress:
        progress = Progress(videos=1, show=self.config.progress, json_log=None)
        expected = expected_frames(info, self._sampling)
        progress.expect(expected if max_frames is None else min(expected, max_frames))
        return progress

    def _summary(
        self,
        output: Path,
        canvas: Canvas,
        work: WorkSoFar,
        *,
        encoder: str = "",
        damage: str = "",
    ) -> OverlaySummary:
        return OverlaySummary(
            output=output,
            work=work,
            is_picture=not encoder,
            width=canvas.width,
            height=canvas.height,
            encoder=encoder,
            computed=self._computed,
            seconds_network=self._seconds,
            damage=damage,
        )


def _absence(moment: Moment, path: Path, nearest: SampledFrame, after: _Seen | None) -> str:
    """Why a clip has no sampled frame of a number; native ones are of packets, and some give none.

    Args:
        moment: the number that was asked for.
        path: the clip.
        nearest: the last frame before it, or the clip's first one.
        after: the next one, None where no more came.
    """
    if moment.frame is not None and nearest.sample_index > moment.frame:
        return f"gives no frame: the first sampled frame of {path} is {nearest.sample_index}"
    if after is None:
        return f"is not there: the last sampled frame of {path} is {nearest.sample_index}"
    beside = f"{nearest.sample_index} and {after.frame.sample_index}"
    return f"gives no frame: the sampled frames of {path} beside it are {beside}"


def _count(one: _Seen, work: WorkSoFar, progress: Progress) -> None:
    work.add(one.share, is_key_frame=one.is_key_frame)
    progress.advance(1, one.share)


def _size(model: LoadedModel) -> tuple[int, int]:
    """(h, w) of the network's input, whatever its layout."""
    shape = model.input_shape
    return (shape[0], shape[1]) if shape[2] == 3 and shape[0] != 3 else (shape[1], shape[2])


def overlay_text(overlay: Overlay, summary: OverlaySummary) -> str:
    """A few lines for a person."""
    frames = len(summary.work.shares)
    what = "1 picture" if summary.is_picture else f"{frames} frames"
    how = f", {summary.encoder}" if summary.encoder else ""
    return "\n".join(
        [
            f"{summary.output}: {what}, {summary.width}x{summary.height}{how}",
            *overlay.captions,
            *overlay.notes(),
            f"theoretical speedup: {number(summary.work.speedup, 2)} over the dense network (MACs, "
            "key frames included); not a time",
            f"time in the network: {summary.seconds_network:.1f} s for {summary.computed} "
            f"frame{'' if summary.computed == 1 else 's'} in plain PyTorch, which is for looking; "
            "rrm-extract tune measures speed",
        ]
    )
