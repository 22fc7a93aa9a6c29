"""Keeps the feature's error under a target while a clip runs. Needs no torch.

The estimate of :mod:`rrm_extract.rrm.estimate` is watched frame by frame. Where it leaves room, all
thresholds grow by a factor, where it comes close to the target they shrink, and a frame whose
estimate is far over the target is computed again as a key frame. Now and then the true error is
measured, which corrects the estimate for this clip.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rrm_extract.rrm.estimate import ErrorEstimate

__all__ = ["Governor"]

FIRST_SCALE = 0.75
"""Where a chunk begins: what holds for other clips may be too much for this one."""

LEAST_SCALE, MOST_SCALE = 1 / 256, 64.0
"""Limits of the factor by which thresholds are multiplied."""

FASTEST_GROWTH, FASTEST_FALL = 1.25, 0.25
"""Of the factor, from one batch to the next."""

FIRST_PROBE = 8
"""Frames after the beginning from which on the true error is measured: soon, for the estimate may
be off for this clip."""

SHORTEST_GAP, LONGEST_GAP = 8, 128
"""Frames from one measurement to the next."""

LONGER = 2
"""Times the last gap is the next one, as long as the estimate is right."""

SURPRISE = 1.5
"""True over estimated error from which on it is measured again soon."""

TRUST = 0.7
"""How far one measured error lowers the correction, as an exponent of true over estimated; it is
raised the whole way, for what is too low does not keep the target."""

OLD = 32
"""Frames after a key frame from which on a low error is trusted that far, before in proportion:
what is held back long has the same sign in many places, and bears more upon the feature than
its energy tells."""

LEAST_CORRECTION, MOST_CORRECTION = 0.25, 8.0
"""Limits of the correction."""

WORTH_A_PROBE = 0.1
"""Share of the target below which an estimate, its floor apart, says nothing of the errors near the
target, unless the true error is over it."""


class Governor:
    """Decides about the batches of one chunk, in order.

    Args:
        estimate: predicts the feature's relative L2 error.
        target: what the error shall not exceed.
        aim: share of the target that the mean estimate of a batch is steered to.
        ceiling: share of the target above which no estimate is let pass; 1 where every frame has to
            keep the target.

    Attributes:
        scale: factor for all thresholds of the next batch.
    """

    def __init__(
        self, estimate: ErrorEstimate, *, target: float, aim: float, ceiling: float = 1.0
    ) -> None:
        self._estimate = estimate
        self._target = target
        self._ceiling = ceiling
        self._aim = aim
        self.reset()

    def reset(self) -> None:
        """A chunk begins: nothing is known of it."""
        self.scale = FIRST_SCALE
        self._correction = 1.0
        self._judged_with = 1.0
        self._is_blind = self._is_lowered = False
        self._frames = 0
        self._gap = SHORTEST_GAP
        self._next_probe = FIRST_PROBE

    def judge(self, truncated: NDArray[np.float64]) -> tuple[int, NDArray[np.float64]]:
        """Looks at a batch that was computed with :attr:`scale`, and sets the next scale.

        Args:
            truncated: (T, L) float64, sums of squares of what each layer holds back.

        Returns:
            How many of the frames may stay, at least 1 if the first of them is a key frame; and
            (T,) the estimated errors. The frame after those that stay is to be a key frame.
        """
        self._judged_with = self._correction
        self._is_lowered = False
        errors = self._estimate.of(truncated, correction=self._correction)
        over = np.flatnonzero(errors > self._ceiling * self._target)
        keep = int(over[0]) if len(over) else len(errors)
        truncating = errors[truncated.any(axis=1)]
        usual = self._estimate.beside_floor(float(truncating.mean())) if len(truncating) else 0.0
        wanted = self._estimate.beside_floor(self._aim * self._target)
        self._rescale(wanted / usual if usual > 0 else np.inf, bool(len(over)))
        return keep, errors

    def _rescale(self, room: float, over: bool) -> None:
        # Errors grow somewhat faster than thresholds: the whole way down, half of the way up.
        factor = room if room < 1 or over else room**0.5
        fastest = 0.9 if over else 1.0 if self._is_blind else FASTEST_GROWTH
        factor = min(max(factor, FASTEST_FALL), fastest)
        self.scale = min(max(self.scale * factor, LEAST_SCALE), MOST_SCALE)

    def probe_is_due(self, frames: int, *, key_frame: bool) -> bool:
        """Whether the true error is to be measured at the last of ``frames`` frames that stay.

        To be called once for each batch.

        Args:
            frames: how many stay.
            key_frame: whether the last of them is one. It has no error to be measured: the next
                batch is asked.
        """
        self._frames += frames
        if frames == 0 or key_frame or self._frames < self._next_probe:
            return False
        self._gap = min(LONGER * self._gap, LONGEST_GAP)
        self._next_probe = self._frames + self._gap
        return True

    def with_floor(self, distance: float) -> float:
        """The error of a frame at that relative distance from one which has the floor's error."""
        return float(np.hypot(distance, np.sqrt(self._estimate.floor)))

    def measured(self, *, true: float, estimated: float, age: int) -> bool:
        """Learns from the true error of a frame of the last batch.

        Args:
            true: its relative L2 error.
            estimated: what :meth:`judge` has predicted for it.
            age: frames since its key frame.

        Returns:
            Whether the error is over the target.
        """
        held, predicted = map(self._estimate.beside_floor, (true, estimated))
        tells = predicted > WORTH_A_PROBE * self._target
        if (tells or true > self._target) and predicted > 0 and held > 0:
            # Other frames of the batch may have corrected the same prediction already.
            known = predicted * self._correction / self._judged_with
            if held > SURPRISE * known:
                self._gap = SHORTEST_GAP
                self._next_probe = self._frames + SHORTEST_GAP
            trust = TRUST * min(1.0, age / OLD)
            change = held / known if held > known else (held / known) ** trust
            before = self._correction
            self._correction = min(max(before * change, LEAST_CORRECTION), MOST_CORRECTION)
            if change > 1:
                # To a prediction that says nothing the ratio may be anything: there no further than
                # the correction goes, or the error is over the target.
                target = self._estimate.beside_floor(self._target)
                beyond = held / target if target > 0 and not self._is_lowered else 1.0
                self._is_lowered = True
                taken = change if tells else max(1.0, self._correction / before, beyond)
                self.scale = max(self.scale / taken, LEAST_SCALE)
        # No estimate leaves room where none can be corrected as far as the errors are off.
        self._is_blind = true > self._target and self._correction == MOST_CORRECTION
        return true > self._target
