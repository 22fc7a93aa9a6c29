"""The ordinary network beside the recurrent one, on the same frames."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rrm_extract.config import JobConfig
from rrm_extract.engine import NativeNetwork, Network
from rrm_extract.engine.seen import Seen, seen_of
from rrm_extract.errors import ClipDamagedError
from rrm_extract.graph import Program, default_layer, fold, select
from rrm_extract.jobs import (
    Recipe,
    all_notes,
    batches,
    make_recipe,
    network_input,
    pooled,
    sampling_of,
)
from rrm_extract.jobs.channels import channels_first
from rrm_extract.jobs.control import ControlledNetwork, relative_errors
from rrm_extract.jobs.recipe import load_job_model
from rrm_extract.models import LoadedModel
from rrm_extract.printable import printable
from rrm_extract.report.audit import error_percentile
from rrm_extract.report.delta_frames import delta_frame_lines
from rrm_extract.report.setting import processor_text, refuse_target, setting_text
from rrm_extract.report.table import number, table
from rrm_extract.rrm import OrdinaryNetwork, RecurrentNetwork
from rrm_extract.video import ClipReader, SampledFrame, count_chunks, scan_clip

__all__ = ["Verification", "Verifier", "overall", "verification_text"]


_MEASURES = (
    "relative_l2_mean",
    "relative_l2_p95",
    "relative_l2_max",
    "cosine_min",
    "top1_agreement",
    "top5_agreement",
    "density",
    "speedup_theoretical",
)


@dataclass(frozen=True, kw_only=True)
class Verification:
    """How far the recurrent network's features are from the ordinary network's.

    Attributes:
        clip: its path.
        frames: number of frames compared.
        relative_l2_mean, relative_l2_p95, relative_l2_max: ``|rrm - ordinary| / |ordinary|`` over
            frames; p95 is their 95th percentile.
        cosine_min: smallest cosine between the two features of a frame.
        worst_frame, worst_timestamp: the frame with the largest error, and its seconds.
        top1_agreement: share of frames with the same best class; None without a classifier, and
            with a layer that is not what a fully-connected classifier reads.
        top5_agreement: mean share of the five best classes in common; None as well.
        delta_frames: number of them that were not key frames.
        density: MAC-weighted density of the deltas over these, of the layers up to the feature.
        speedup_theoretical: dense MACs over MACs done, key frames included.
        seconds_ordinary, seconds_rrm: time in the two networks, batch by batch in turn.
        damage: why the clip ends early; empty when it is sound.
    """

    clip: str
    frames: int
    relative_l2_mean: float
    relative_l2_p95: float
    relative_l2_max: float
    cosine_min: float
    worst_frame: int
    worst_timestamp: float
    top1_agreement: float | None
    top5_agreement: float | None
    delta_frames: int
    density: float
    speedup_theoretical: float
    seconds_ordinary: float
    seconds_rrm: float
    damage: str = ""

    def to_json(self) -> dict[str, Any]:
        """All of it; None for what does not exist."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(self).items()
        }


class Verifier:
    """Compares the two networks on clips.

    Args:
        config: model, weights, layer, thresholds, policy, control, sampling, device and threads;
            no target error, which has no thresholds before it is calibrated for.

    Raises:
        UsageError: the request is wrong.
    """

    def __init__(self, config: JobConfig) -> None:
        refuse_target(config)
        self.config = config
        self.model: LoadedModel = load_job_model(config)
        self.recipe: Recipe = make_recipe(self.model, config)
        whole = self.model.trace()
        self.lacks_classifier = False
        # The feature, and the classifier's output where that one can be trusted.
        logits = self._classifier(whole)
        outputs = (self.recipe.layer,) if logits is None else (self.recipe.layer, logits)
        ordinary = select(whole, outputs)
        if config.pool == "avg":
            ordinary = channels_first(ordinary, self.model.input_shape)
        device = torch.device(config.device)
        recurrent = fold(ordinary)
        if device.type != "cpu":
            ordinary = ordinary.to(device)
            recurrent = recurrent.to(device)
        self.ordinary = OrdinaryNetwork(ordinary)
        self.recurrent: Program = recurrent
        self.sampling = sampling_of(config)
        self._native: NativeNetwork | None = None
        self._is_cold = device.type != "cpu"  # kernels are loaded and chosen at first use

    def notes(self) -> tuple[str, ...]:
        """What a user should know about the weights and the engine."""
        return all_notes(self.model, self.recipe)

    def _network(self) -> Network:
        """A recurrent network with a fresh state; weights are packed once for all clips."""
        if self.recipe.engine == "torch":
            return RecurrentNetwork(
                self.recurrent, threshold=self.recipe.threshold, policy=self.recipe.policy
            )
        if self._native is None:
            self._native = NativeNetwork(
                self.recurrent,
                input_shape=self.recipe.input_shape,
                threshold=self.recipe.threshold,
                policy=self.recipe.policy,
                precision=self.config.precision,
                batch=self.config.time_batch,
            )
        return self._native.fork()

    def _classifier(self, whole: Program) -> str | None:
        """The output that says the best class, where next to nothing lies before it.

        That is a fully-connected layer. More would count in the work and in the time.
        """
        if default_layer(whole) == whole.outputs[0]:
            return None
        behind = {op.name for op in whole.linear_ops}
        behind -= {op.name for op in select(whole, (self.recipe.layer,)).linear_ops}
        if len(behind) > 1 or any(whole.op(name).kind != "linear" for name in behind):
            return None
        used = {name for op in whole.ops for name in op.parameters}
        if used & self.model.missing_keys:
            self.lacks_classifier = True
            return None
        if len(whole.outputs) != 1:
            return None
        frame = torch.zeros(1, *self.model.input_shape, dtype=torch.float32, device="cpu")
        (output,) = select(whole, whole.outputs)(frame)
        classes = isinstance(output, Tensor) and output.dim() == 2 and output.shape[1] > 1
        return whole.outputs[0] if classes else None

    def clip(self, path: Path, *, max_frames: int | None = None) -> Verification:
        """Compares on one clip.

        Args:
            path: the clip.
            max_frames: stop after so many sampled frames.

        Raises:
            ClipError: the clip cannot be opened, or no frame of it could be decoded.
        """
        names = [op.name for op in self.recurrent.linear_ops]
        known = [names.index(op.name) for op in self.recipe.program.linear_ops]
        core = _Core(self._network(), self.ordinary, self.config.pool, known)
        network = ControlledNetwork(core, self.recipe.control)
        errors: list[Tensor] = []
        cosines: list[Tensor] = []
        top1: list[Tensor] = []
        top5: list[Tensor] = []
        timestamps: list[float] = []
        work = seconds_ordinary = seconds_rrm = 0.0
        delta_frames = 0
        deltas = np.zeros(len(known))  # sum of densities over them
        damage = ""
        source = self._frames(path, network, max_frames)
        while True:
            try:
                batch = next(source, None)
            except ClipDamagedError as reason:
                damage = str(reason)
                break
            if batch is None:
                break
            x = network_input(batch, self.recipe)
            if self._is_cold:
                self._ordinary_outputs(x)
                self._is_cold = False
            began = time.perf_counter()
            expected = self._ordinary_outputs(x)
            seconds_ordinary += time.perf_counter() - began
            began = time.perf_counter()
            outputs, seen, _ = network.run(
                x,
                samples=[frame.sample_index for frame in batch],
                timestamps=[frame.timestamp for frame in batch],
            )
            seconds_rrm += time.perf_counter() - began
            result = [torch.from_numpy(output) for output in outputs]
            error, cosine = _distance(result[0], expected[0])
            errors.append(error)
            cosines.append(cosine)
            if len(result) == 2:
                top1.append(_agreement(result[1], expected[1], 1))
                top5.append(_agreement(result[1], expected[1], min(5, expected[1].shape[1])))
            timestamps.extend(frame.timestamp for frame in batch)
            work += float(seen.work.sum())
            is_delta = ~seen.key_frame
            delta_frames += int(is_delta.sum())
            deltas += seen.density_delta[is_delta][:, known].sum(axis=0)
        if not errors:
            msg = f"{path}: no frame could be decoded ({damage or 'it is empty'}); expected a video"
            raise ClipDamagedError(msg)
        error = torch.cat(errors)
        worst = int(error.argmax())
        macs = np.array([layer.macs for layer in self.recipe.layers], np.float64)
        counts = delta_frames > 0 and macs.any()
        return Verification(
            clip=str(path),
            frames=len(error),
            relative_l2_mean=float(error.mean()),
            relative_l2_p95=error_percentile(error.numpy(), 95) or 0.0,
            relative_l2_max=float(error.max()),
            cosine_min=float(torch.cat(cosines).min()),
            worst_frame=worst,
            worst_timestamp=timestamps[worst],
            top1_agreement=float(torch.cat(top1).mean()) if top1 else None,
            top5_agreement=float(torch.cat(top5).mean()) if top5 else None,
            delta_frames=delta_frames,
            density=float(deltas @ macs / (delta_frames * macs.sum())) if counts else math.nan,
            speedup_theoretical=len(error) / work if work else math.inf,
            seconds_ordinary=seconds_ordinary,
            seconds_rrm=seconds_rrm,
            damage=damage,
        )

    def _frames(
        self, path: Path, network: ControlledNetwork, max_frames: int | None
    ) -> Iterator[list[SampledFrame]]:
        """Batches of frames; the network is reset where a chunk begins, as in extraction."""
        info = scan_clip(path)
        left = max_frames
        with ClipReader(info, self.sampling) as reader:
            for index in range(count_chunks(info, self.sampling)):
                network.begin(path.name)
                for batch in batches(islice(reader.read(index), left), self.recipe.time_batch):
                    yield batch
                    left = None if left is None else left - len(batch)
                if left is not None and left <= 0:
                    return

    def _ordinary_outputs(self, x: Tensor) -> list[Tensor]:
        """(T, ...) outputs of the ordinary network, on the CPU: whoever times it has waited."""
        feature, *others = self.ordinary(x)
        return [output.cpu() for output in (pooled(feature, self.config.pool), *others)]


def verification_text(
    verifier: Verifier, clips: Mapping[str, Verification], totals: dict[str, Any]
) -> str:
    """A table of clips, for a person.

    Args:
        verifier: that compared.
        clips: by video id.
        totals: of :func:`overall`.
    """
    config, recipe = verifier.config, verifier.recipe
    head = [
        "clip",
        "frames",
        "error mean",
        "p95",
        "max",
        "at",
        "cosine min",
        "top-1",
        "top-5",
        "density",
        "speedup",
    ]
    rows = [
        [
            printable(video_id),
            str(clip.frames),
            f"{clip.relative_l2_mean:.2e}",
            f"{clip.relative_l2_p95:.2e}",
            f"{clip.relative_l2_max:.2e}",
            f"{clip.worst_timestamp:.2f} s",
            f"{clip.cosine_min:.6f}",
            _percent(clip.top1_agreement),
            _percent(clip.top5_agreement),
            number(clip.density),
            number(clip.speedup_theoretical, 2),
        ]
        for video_id, clip in clips.items()
    ]
    lines = [
        f"{config.model}, weights {verifier.model.weights_text}, layer {recipe.layer}, "
        f"{setting_text(config, recipe.calibration)}, beside the ordinary network:",
        "",
        table(head, rows),
        "",
        "error: relative L2 of the feature; density: of the deltas, by MACs; "
        "speedup: theoretical (MACs), key frames included",
    ]
    if clips and all(clip.top1_agreement is None for clip in clips.values()):
        lines.append(
            "top-1, top-5: the weights lack what makes the classes of the feature"
            if verifier.lacks_classifier
            else "top-1, top-5: compared only where one fully-connected layer, and nothing more, "
            "makes the classes of the feature"
        )
    if totals["frames"]:
        lines += delta_frame_lines(totals["frames"], totals["delta_frames"])
        lines.append(
            f"time in the networks: {totals['seconds_ordinary']:.1f} s ordinary "
            f"(torch, {processor_text(config, 'torch')}), {totals['seconds_rrm']:.1f} s recurrent "
            f"({recipe.engine}, {processor_text(config, recipe.engine)})"
        )
    lines += verifier.notes()
    lines += [
        printable(f"{video_id}: {clip.damage}") for video_id, clip in clips.items() if clip.damage
    ]
    return "\n".join(lines)


class _Core:
    """See :class:`rrm_extract.jobs.control.Core`: the feature, and what the classifier says."""

    def __init__(
        self, network: Network, ordinary: OrdinaryNetwork, pool: str, known: Sequence[int]
    ) -> None:
        self.network = network
        self._known = list(known)  # positions of the layers that the feature depends on
        self._ordinary = ordinary
        self._pool = pool

    def reset(self) -> None:
        """Forgets the past: the next frame is a key frame."""
        self.network.reset()

    def key_frame(self) -> None:
        """The next frame is a key frame."""
        self.network.key_frame()

    def track(self) -> None:
        """Has what is truncated counted."""
        self.network.track()

    def scale_thresholds(self, factor: float, /) -> None:
        """All thresholds times a factor, from the next frame on."""
        self.network.scale_thresholds(factor)

    def run(self, x: Tensor, /) -> tuple[tuple[NDArray[np.float32], ...], Seen]:
        """(T, ...) outputs, and what the layers saw."""
        (feature, *others), seen = self.network.run(x)
        outputs = (pooled(feature, self._pool), *others)
        counted = seen_of(seen)
        if counted.truncated is not None:
            counted = replace(counted, truncated=counted.truncated[:, self._known])
        return tuple(output.float().cpu().numpy() for output in outputs), counted

    def exact(self, x: Tensor, /) -> NDArray[np.float32]:
        """The ordinary network's features."""
        feature: NDArray[np.float32] = pooled(self._ordinary(x)[0], self._pool).cpu().numpy()
        return feature


def overall(clips: Sequence[Verification]) -> dict[str, Any]:
    """The measures over all frames of all clips; None for what does not exist."""
    if not clips:
        return {"frames": 0, "delta_frames": 0, **dict.fromkeys(_MEASURES)}
    frames = sum(clip.frames for clip in clips)

    every = [clip.frames for clip in clips]

    def mean(values: Sequence[float | None], counts: Sequence[int] = every) -> float | None:
        known = [
            (value, count)
            for value, count in zip(values, counts, strict=True)
            if value is not None and not math.isnan(value)
        ]
        total = sum(count for _, count in known)
        return sum(value * count for value, count in known) / total if total else None

    work = sum(clip.frames / clip.speedup_theoretical for clip in clips)
    delta_frames = [clip.delta_frames for clip in clips]
    return {
        "frames": frames,
        "delta_frames": sum(delta_frames),
        "relative_l2_mean": mean([clip.relative_l2_mean for clip in clips]),
        # Of clips, not of their frames together: no clip is to hide behind the others.
        "relative_l2_p95": max(clip.relative_l2_p95 for clip in clips),
        "relative_l2_max": max(clip.relative_l2_max for clip in clips),
        "cosine_min": float(np.min([clip.cosine_min for clip in clips])),  # NaN if one of them is
        "top1_agreement": mean([clip.top1_agreement for clip in clips]),
        "top5_agreement": mean([clip.top5_agreement for clip in clips]),
        "density": mean([clip.density for clip in clips], delta_frames),
        "speedup_theoretical": frames / work if work else None,
        "seconds_ordinary": sum(clip.seconds_ordinary for clip in clips),
        "seconds_rrm": sum(clip.seconds_rrm for clip in clips),
    }


def _distance(result: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Relative L2 and cosine of each frame, (T,) float64."""
    a, b = (rows.reshape(len(rows), -1).double().cpu() for rows in (result, reference))
    error = torch.from_numpy(relative_errors(result.cpu().numpy(), reference.cpu().numpy()))
    cosine = torch.where((a == b).all(dim=1), 1.0, F.cosine_similarity(a, b, dim=1))
    return error, cosine


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _agreement(result: Tensor, reference: Tensor, k: int) -> Tensor:
    """Share of the ``k`` best classes in common, (T,) float64."""
    a, b = result.topk(k, dim=1).indices, reference.topk(k, dim=1).indices
    return (a[:, :, None] == b[:, None, :]).any(dim=2).double().mean(dim=1).cpu()
