"""What decides about key frames and thresholds while a clip runs. Needs no torch."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rrm_extract.engine.seen import Seen, joined
from rrm_extract.rrm.aecs import AccumulatedError, accumulated
from rrm_extract.rrm.cuts import CutDetector
from rrm_extract.rrm.estimate import ErrorEstimate
from rrm_extract.rrm.governor import Governor

__all__ = [
    "EVENTS",
    "AccumulatedControl",
    "Control",
    "ControlledNetwork",
    "Core",
    "TargetControl",
    "Watch",
    "relative_errors",
]

EVENTS = ("cuts", "refreshes", "rounds", "recomputed", "breaches", "audited", "beyond_data")
"""What is counted: scene cuts, refreshes, ends of rounds, frames that were computed twice, true
errors over the target, frames audited, rounds that ended where the calibration's data end."""

LONGEST_SPAN = 1 << 20
"""Frames that are computed before one looks at their errors; more than any call has."""

ROUNDING = 1e-6
"""Seconds by which two frames may be less apart than they are meant to be."""

DRAW_BYTES = 4
"""Of the hash that decides whether a frame is audited."""

Outputs = tuple[NDArray[np.float32], ...]


class Core(Protocol):
    """A recurrent network with a state of its own, as it is without control."""

    def reset(self) -> None:
        """Forgets the past: the next frame is a key frame."""

    def key_frame(self) -> None:
        """The next frame is a key frame; what is known of the clip is not forgotten."""

    def run(self, x: Any, /) -> tuple[Outputs, Seen]:
        """Of (T, C, h, w) inputs: (T, ...) outputs, the feature first, and what layers saw."""

    def track(self) -> None:
        """Has what is truncated counted."""

    def scale_thresholds(self, factor: float, /) -> None:
        """All thresholds times a factor, from the next frame on."""

    def exact(self, x: Any, /) -> NDArray[np.float32]:
        """The dense network's feature of each frame, in fp32."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetControl:
    """A target for the feature's error; see :class:`rrm_extract.rrm.governor.Governor`."""

    estimate: ErrorEstimate
    target: float
    aim: float
    ceiling: float


@dataclass(frozen=True, kw_only=True)
class AccumulatedControl:
    """The paper's accumulated-error control; see :mod:`rrm_extract.rrm.aecs`."""

    model: AccumulatedError
    limit: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Control:
    """How a network is controlled.

    Attributes:
        cuts: whether scene cuts and flashes become key frames.
        refresh: seconds after which a frame becomes a key frame at the latest; None for never.
        audit: share of frames, chosen at random, whose true error is measured.
        scheme: what watches the error; None for nothing.
        target: what audited errors are held against where nothing is steered; None for nothing.
    """

    cuts: bool = True
    refresh: float | None = None
    audit: float = 0.0
    scheme: TargetControl | AccumulatedControl | None = None
    target: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Watch:
    """What was found out about the errors of some frames.

    Attributes:
        estimate: (T,) float32, predicted relative L2 error of the feature; NaN where nothing
            predicts it.
        audit_error: (T,) float32, true relative L2 error; NaN where it was not measured.
    """

    estimate: NDArray[np.float32]
    audit_error: NDArray[np.float32]

    @staticmethod
    def joined(parts: Sequence[Watch]) -> Watch:
        """The same for the frames of several calls."""
        return Watch(
            estimate=np.concatenate([part.estimate for part in parts]),
            audit_error=np.concatenate([part.audit_error for part in parts]),
        )


class ControlledNetwork:
    """A recurrent network whose key frames and thresholds are decided upon as it runs.

    The decisions of a chunk depend on this chunk alone.

    Args:
        core: the network.
        control: what decides.

    Attributes:
        events: how often what happened since :meth:`begin`, see :data:`EVENTS`.
    """

    def __init__(self, core: Core, control: Control) -> None:
        self.events: Counter[str] = Counter()
        self._core = core
        self._control = control
        self._detector = CutDetector() if control.cuts else None
        self._governor: Governor | None = None
        self._probe: tuple[NDArray[np.float32], float, int] | None = None
        scheme = control.scheme
        if isinstance(scheme, TargetControl):
            self._governor = Governor(
                scheme.estimate, target=scheme.target, aim=scheme.aim, ceiling=scheme.ceiling
            )
        self._accumulated = scheme if isinstance(scheme, AccumulatedControl) else None
        if scheme is not None:
            core.track()
        self._total = 0.0
        self._age = 0
        self._key_time: float | None = None
        self._again = False
        self._span = LONGEST_SPAN
        self._video_id = ""

    def begin(self, video_id: str) -> None:
        """A chunk begins: the next frame is a key frame.

        Args:
            video_id: decides with a frame's number whether the frame is audited. A file's name
                would not do: clips of one name in many folders would all have the same frames
                audited.
        """
        self._core.reset()
        if self._detector is not None:
            self._detector.reset()
        if self._governor is not None:
            self._governor.reset()
            self._core.scale_thresholds(self._governor.scale)
        self._probe = None
        self._total = 0.0
        self._age = 0
        self._key_time = None
        self._again = False
        self._span = LONGEST_SPAN
        self._video_id = video_id
        self.events.clear()

    def run(
        self, x: Any, *, samples: Sequence[int], timestamps: Sequence[float]
    ) -> tuple[Outputs, Seen, Watch]:
        """The outputs for T consecutive frames.

        Args:
            x: (T, C, h, w) inputs.
            samples: (T,) the frames' numbers in the clip.
            timestamps: (T,) seconds.
        """
        count = len(x)
        cuts = set() if self._detector is None else set(self._detector.cuts(x))
        self.events["cuts"] += len(cuts)
        parts: list[tuple[Outputs, Seen, Watch]] = []
        wasted = 0.0
        begin = 0
        while begin < count:
            self._begin_at(timestamps[begin], is_cut=begin in cuts)
            end = min(self._next_key_frame(begin, cuts, timestamps), begin + self._span)
            outputs, seen = self._core.run(x[begin:end])
            self._learn(outputs[0])
            ages = _ages(seen.key_frame, self._age)
            keep, estimate, again = self._judge(seen)
            if keep == 0 and seen.key_frame[0]:
                keep = 1  # nothing is nearer to the truth than a key frame
            if self._is_probed(keep, seen):
                # The last frame that stays is computed again, as a key frame that shows its error.
                keep, again = keep - 1, True
                self._probe = (outputs[0][keep : keep + 1], float(estimate[keep]), int(ages[keep]))
            if wasted:
                seen.work[0] += wasted  # frames that were computed for nothing are work as well
            wasted = float(seen.work[keep:].sum())
            if keep > 0:
                outputs = tuple(output[:keep] for output in outputs)
                span = slice(begin, begin + keep)
                audit = self._audit(x[span], outputs[0], estimate[:keep], ages, samples[span])
                self._age = int(ages[keep - 1])
                watch = Watch(
                    estimate=estimate[:keep].astype(np.float32),
                    audit_error=audit.astype(np.float32),
                )
                parts.append((outputs, seen.first(keep), watch))
            self._limit_waste(end - begin, keep)
            self.events["recomputed"] += end - begin - keep
            begin += keep
            self._again = again
            if self._governor is not None:
                self._core.scale_thresholds(self._governor.scale)
        outputs = tuple(
            np.concatenate(some) for some in zip(*(part[0] for part in parts), strict=True)
        )
        return outputs, joined([part[1] for part in parts]), Watch.joined([p[2] for p in parts])

    def _limit_waste(self, computed: int, keep: int) -> None:
        """After frames that were computed for nothing fewer are computed at once, and then more."""
        if computed - keep > 1:  # one is what a probe takes
            self._span = max(keep, 1)
        elif keep == computed:
            self._span = min(self._span + 1, LONGEST_SPAN)

    def _is_probed(self, frames: int, seen: Seen) -> bool:
        if self._governor is None:
            return False
        return self._governor.probe_is_due(frames, key_frame=bool(seen.key_frame[frames - 1]))

    def _learn(self, features: NDArray[np.float32]) -> None:
        """The first of the features is a key frame's: tells how far it was off before."""
        if self._probe is None or self._governor is None:
            return
        (before, estimated, age), self._probe = self._probe, None
        # In bfloat16 the key frame is not exact itself. Weights are rounded alike in both, so that
        # their distance is what truncation makes of the error, beside the floor.
        distance = float(relative_errors(before, features[:1])[0])
        true = self._governor.with_floor(distance)
        if self._governor.measured(true=true, estimated=estimated, age=age):
            self.events["breaches"] += 1

    def _begin_at(self, timestamp: float, *, is_cut: bool) -> None:
        """Makes the next frame a key frame if it has to be one."""
        is_due = self._is_due(timestamp) and not (is_cut or self._again)
        self.events["refreshes"] += int(is_due)
        if is_due or is_cut or self._again or self._key_time is None:
            if self._key_time is not None:  # else nothing was computed since the last reset
                self._core.key_frame()
            self._total = 0.0
            self._key_time = timestamp
            self._again = False

    def _is_due(self, timestamp: float) -> bool:
        """Whether the last key frame is too long ago."""
        refresh = self._control.refresh
        return (
            refresh is not None
            and self._key_time is not None
            and timestamp - self._key_time >= refresh - ROUNDING
        )

    def _next_key_frame(self, begin: int, cuts: Container[int], timestamps: Sequence[float]) -> int:
        """Position after ``begin`` that becomes a key frame whatever the error is; T if none."""
        for position in range(begin + 1, len(timestamps)):
            if position in cuts or self._is_due(timestamps[position]):
                return position
        return len(timestamps)

    def _judge(self, seen: Seen) -> tuple[int, NDArray[np.float64], bool]:
        """How many frames stay, the estimated errors, and whether a key frame follows."""
        count = len(seen)
        nothing = np.full(count, np.nan)
        if seen.truncated is None:
            return count, nothing, False
        if self._governor is not None:
            keep, estimate = self._governor.judge(seen.truncated)
            return keep, estimate, keep < count
        if self._accumulated is not None:
            total = accumulated(seen.truncated, key_frame=seen.key_frame, before=self._total)
            model, limit = self._accumulated.model, self._accumulated.limit
            over = np.flatnonzero(model.over(total, limit))
            keep = int(over[0]) if len(over) else count
            self._total = float(total[keep - 1]) if keep else self._total
            if keep < count:
                self.events["rounds"] += 1
                self.events["beyond_data"] += int(total[keep] > model.reach)
            return keep, model.predict(total), keep < count
        return count, nothing, False

    def _audit(
        self,
        x: Any,
        features: NDArray[np.float32],
        estimate: NDArray[np.float64],
        ages: NDArray[np.int64],
        samples: Sequence[int],
    ) -> NDArray[np.float64]:
        """True errors, NaN where they are not measured."""
        errors = np.full(len(features), np.nan)
        for position, sample in enumerate(samples):
            if not self._is_audited(sample):
                continue
            exact = self._core.exact(x[position : position + 1])
            errors[position] = relative_errors(features[position : position + 1], exact)[0]
            self.events["audited"] += 1
            self.events["breaches"] += self._is_breach(
                float(errors[position]), float(estimate[position]), int(ages[position])
            )
        return errors

    def _is_breach(self, error: float, estimate: float, age: int) -> bool:
        """Whether an audited error is over the target, which whoever watches it learns from."""
        if self._governor is not None:
            return self._governor.measured(true=error, estimated=estimate, age=age)
        return self._control.target is not None and error > self._control.target

    def _is_audited(self, sample: int) -> bool:
        """The same frames whoever computes them, in whatever order."""
        name = f"{self._video_id}\0{sample}".encode("utf-8", "surrogateescape")
        draw = int.from_bytes(hashlib.blake2b(name, digest_size=DRAW_BYTES).digest(), "big")
        return draw < self._control.audit * (1 << 8 * DRAW_BYTES)


def _ages(key_frame: NDArray[np.bool_], before: int) -> NDArray[np.int64]:
    """Frames since the key frame of each; ``before``: of the frame before them."""
    position = np.arange(len(key_frame))
    last = np.maximum.accumulate(np.where(key_frame, position, -1 - before))
    return position - last


def relative_errors(
    features: NDArray[np.float32], reference: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Relative L2 error of each frame, ``|feature - reference| / |reference|``.

    Args:
        features: (T, ...) floats.
        reference: (T, ...) floats.

    Returns:
        (T,) float64; 0 where both are equal, infinite where only the reference is zero, or where
        either has NaN or, otherwise than the other, infinities.
    """
    a = features.reshape(len(features), -1).astype(np.float64)
    b = reference.reshape(len(reference), -1).astype(np.float64)
    error = np.full(len(a), np.inf)
    with np.errstate(invalid="ignore"):
        distance, scale = np.linalg.norm(a - b, axis=1), np.linalg.norm(b, axis=1)
        np.divide(distance, scale, out=error, where=scale > 0)
    # NaN would be what was not measured, and no error would be worse than the target.
    error[np.isnan(error)] = np.inf
    error[(a == b).all(axis=1)] = 0.0
    return error
