"""Which threshold keeps a target for the feature's error, and how to tell the error as it runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrm_extract.device import is_cpu
from rrm_extract.errors import CalibrationError
from rrm_extract.jobs.calibration import Subject, TargetCalibration, ceiling_of
from rrm_extract.jobs.control import ControlledNetwork, TargetControl, relative_errors
from rrm_extract.jobs.recipe import Recipe, RecipeNetwork
from rrm_extract.jobs.samples import Sample, run_controlled
from rrm_extract.rrm.estimate import ErrorEstimate

__all__ = ["Bench", "calibrate_target", "kept_by", "largest_threshold"]

Floats = NDArray[np.float64]

FIRST_THRESHOLD = 1e-3
LEAST_THRESHOLD, MOST_THRESHOLD = 1e-8, 1e4
"""Where the threshold is looked for; inputs of layers are of order one."""

STEPS = 12
CLOSE = 0.95
"""Most trials, and the share of the target that ends them."""

SLOPE = 1.25
"""Errors grow about with this power of the threshold."""

LOWEST_AIM, HIGHEST_AIM, AIM_STEP = 0.2, 0.56, 0.02
"""Limits of where the governor is steered to, as a share of the target."""

ENOUGH = 0.9
"""Share of the target that may be used up at threshold 0, by bfloat16 say."""

GAIN_WORK = 1e12
"""Multiply-accumulates that measuring the gains may take; each layer is run on some frames."""

FEWEST_GAIN_FRAMES = 24
"""Frames that each layer's gain is measured on at least."""

REPEATS = 3
"""Timings of which the median counts, in turn."""

WORTH = 1.02
"""Times the time at threshold 0 above which errors win nothing; in samples, which are short, key
frames and probes weigh more than they do in a run."""


@dataclass
class Trial:
    """What one run over all samples gave."""

    errors: list[Floats] = field(default_factory=list)  # of each sample
    truncated: list[Floats] = field(default_factory=list)
    seconds: float = 0.0
    work: float = 0.0

    def percentile(self, percentile: float) -> float:
        """Of the errors of all frames."""
        return kept_by(np.concatenate(self.errors), percentile)

    def frames(self) -> int:
        """How many there were."""
        return sum(map(len, self.errors))


def kept_by(errors: Floats, percentile: float) -> float:
    """The least error that this share of frames, in percent, keeps; some may be infinite."""
    return float(np.percentile(errors, percentile, method="inverted_cdf"))


class Bench:
    """A network whose thresholds are all one, times a scale: any uniform threshold."""

    def __init__(self, recipe: Recipe, samples: Sequence[Sample]) -> None:
        self.recipe = recipe
        self.samples = samples
        self.names = recipe.program.linear_names()
        self._uniform = self.core({"default": 1.0})
        self._uniform.track()
        # Elsewhere the CPU's time is that of giving orders, or of waiting.
        self._clock = time.process_time if is_cpu(recipe.device) else time.perf_counter

    def core(self, threshold: Mapping[str, float]) -> RecipeNetwork:
        """The network with some thresholds; weights are shared."""
        return RecipeNetwork(replace(self.recipe, threshold=threshold))

    def shared_snapshots(self) -> list[list[str]]:
        """Names of the linear operations, those together that always hold back the same."""
        return self._uniform.shared_snapshots()

    def uniform(self, threshold: float, samples: Sequence[Sample] | None = None) -> Trial:
        """All layers with one threshold."""
        self._uniform.scale_thresholds(threshold)
        return self.run(self._uniform, self.samples if samples is None else samples)

    def run(
        self,
        core: RecipeNetwork,
        samples: Sequence[Sample],
        scheme: TargetControl | None = None,
    ) -> Trial:
        """A network over some samples, each from a key frame on; with what watching takes."""
        control = replace(self.recipe.control, audit=0.0, scheme=scheme)
        network = ControlledNetwork(core, control)
        trial = Trial()
        for sample in samples:
            features, seen, seconds = run_controlled(
                network, sample, self.recipe.time_batch, clock=self._clock
            )
            trial.seconds += seconds
            trial.work += float(seen.work.sum())
            trial.errors.append(relative_errors(features, sample.exact))
            trial.truncated.append(np.empty((0, 0)) if seen.truncated is None else seen.truncated)
        return trial

    def governed(self, scheme: TargetControl | None, threshold: float) -> Trial:
        """All layers with one threshold to begin with, steered if there is a scheme."""
        return self.run(self.core({"default": threshold}), self.samples, scheme)


def calibrate_target(
    recipe: Recipe,
    samples: Sequence[Sample],
    *,
    subject: Subject,
    target: float,
    percentile: float,
    say: Callable[[str], None],
) -> TargetCalibration:
    """Finds a threshold that keeps the target, and what watches the error.

    Where being less exact wins no time on the samples, the threshold is 0 and nothing is watched;
    but on the torch engine, which wins none in any case.
    One threshold for all layers: thresholds by layer, chosen by their measured time and error,
    were tried and won less than 5 % (docs/accuracy.md); what pays is to follow the clip, which the
    governor does with the gains that are measured here.

    Args:
        recipe: the network, with the policy "bounded".
        samples: to try it on.
        subject: what the calibration is for.
        target: relative L2 error of the feature.
        percentile: share of frames, in percent, that shall keep it.
        say: is told what is being done.

    Raises:
        CalibrationError: the target cannot be kept at all, or nothing is ever truncated.
    """
    if not sum(layer.macs for layer in recipe.layers):
        msg = f"layer {recipe.layer!r} depends on no convolution or fully-connected layer"
        raise CalibrationError(f"{msg}; choose a later --layer")
    bench = Bench(recipe, samples)
    exact = bench.uniform(0.0)
    squares = np.square(np.concatenate(exact.errors))
    floor = float(squares[np.isfinite(squares)].mean()) if np.isfinite(squares).any() else 0.0
    _check_target(exact, target, percentile, recipe)
    say("looking for the threshold")
    threshold = largest_threshold(bench, target, percentile)
    say(f"threshold {threshold:.3g} keeps {target:g}; measuring how layers bear upon the feature")
    uniform = bench.uniform(threshold)
    gains = _gains(bench, threshold, floor)
    estimate = _adjusted(ErrorEstimate(gains=gains, floor=floor), uniform)
    aim = _aim(bench, estimate, uniform, percentile, say)
    say("timing it")
    report = _report(bench, estimate, threshold, target, aim, uniform, percentile)
    names = [bench.names[op.name] for op in recipe.program.linear_ops]
    times = report["milliseconds_per_frame"]
    # The readable engine wins no time whatever is truncated: it is there to show what is saved.
    is_worth_it = recipe.engine == "torch" or times["governed"] <= WORTH * times["threshold_0"]
    return TargetCalibration(
        target_error=target,
        percentile=percentile,
        thresholds={"default": threshold if is_worth_it else 0.0},
        gains=dict(zip(names, map(float, estimate.gains), strict=True)),
        floor=floor,
        aim=aim,
        subject=subject,
        report=report,
    )


def _check_target(exact: Trial, target: float, percentile: float, recipe: Recipe) -> None:
    least = exact.percentile(percentile)
    if least > ENOUGH * target:
        if math.isinf(least):
            raise CalibrationError(
                "at threshold 0 the features of too many frames are no numbers, or zero, and no "
                "error can be kept; look at the weights and the preprocessing, and run verify"
            )
        advice = "--precision fp32, or " if recipe.precision != "fp32" else ""
        msg = (
            f"the target error is {target:g}, but at threshold 0 the error is {least:.2g} already "
            f"with --precision {recipe.precision}; expected {advice}a target above "
            f"{_rounded_up(least / ENOUGH):g}"
        )
        raise CalibrationError(msg)


def _rounded_up(value: float) -> float:
    """To two digits, and never below: what is refused must not be advised."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / unit) * unit


def largest_threshold(bench: Bench, target: float, percentile: float) -> float:
    """The largest threshold that keeps the target on the samples."""
    low, high, threshold = LEAST_THRESHOLD, MOST_THRESHOLD, FIRST_THRESHOLD
    for _ in range(STEPS):
        share = bench.uniform(threshold).percentile(percentile) / target
        if share > 1:
            high = threshold
        else:
            low = threshold
            if share > CLOSE:
                break
        guess = threshold * (0.98 / max(share, 1e-3)) ** (1 / SLOPE)
        # Where the guess leaves what is known to be possible, halve that.
        threshold = guess if low < guess < high else float(np.sqrt(low * high))
    return low


def _gains(bench: Bench, threshold: float, floor: float) -> Floats:
    """Squared error for one unit that a layer holds back, each input truncated by itself.

    What layers with one snapshot hold back is counted for the first of them; the others have 0.
    """
    position = {op.name: place for place, op in enumerate(bench.recipe.program.linear_ops)}
    groups = bench.shared_snapshots()
    macs = sum(layer.macs for layer in bench.recipe.layers)
    each = round(GAIN_WORK / (macs * len(groups) * len(bench.samples)))
    still = dict.fromkeys(position, 0.0)  # each by its own name, also of a module called twice
    few = max(each, -(-FEWEST_GAIN_FRAMES // len(bench.samples)), 2)
    firsts = [position[names[0]] for names in groups]

    def measured(some: Sequence[Sample]) -> Floats:
        found = np.full(len(groups), np.nan)
        for number, (names, first) in enumerate(zip(groups, firsts, strict=True)):
            # The others' thresholds are 0, or they would have no snapshot of their own to differ
            # from.
            core = bench.core({**still, **dict.fromkeys(names, threshold)})
            core.track()
            trial = bench.run(core, some)
            held = np.concatenate(trial.truncated)[:, first]
            squares = np.maximum(np.square(np.concatenate(trial.errors)) - floor, 0.0)
            use = (held > 0) & np.isfinite(squares)
            if use.any():
                found[number] = squares[use].sum() / held[use].sum()
        return found

    found = measured([sample.first(few) for sample in bench.samples])
    if not np.isfinite(found).any():  # all begin with a picture that stands still
        found = measured(bench.samples)
    known = found[np.isfinite(found)]
    if not known.sum() > 0:
        msg = "nothing was truncated in any layer; expected video in which something changes"
        raise CalibrationError(msg)
    gains = np.zeros(len(position))
    gains[firsts] = np.where(np.isfinite(found), found, np.median(known))
    return gains


def _adjusted(estimate: ErrorEstimate, trial: Trial) -> ErrorEstimate:
    """The estimate such that its median is right where all layers truncate at once."""
    factor = _held_for_told(estimate, np.concatenate(trial.truncated), np.concatenate(trial.errors))
    return ErrorEstimate(gains=estimate.gains * max(factor, 1e-6), floor=estimate.floor)


def _control(
    estimate: ErrorEstimate, target: float, aim: float, percentile: float
) -> TargetControl:
    return TargetControl(estimate=estimate, target=target, aim=aim, ceiling=ceiling_of(percentile))


def _aim(
    bench: Bench,
    estimate: ErrorEstimate,
    trial: Trial,
    percentile: float,
    say: Callable[[str], None],
) -> float:
    """Where the mean estimate of a batch has to be for the asked share of frames to keep 1.

    What counts is how far a frame's error is above the mean estimate of the batch before its own,
    which is all that the governor knows when it chooses the thresholds, corrected for each clip as
    it does. Frames whose estimate is over the ceiling become key frames, and have no error.
    """
    size = bench.recipe.time_batch
    true, told = [np.empty(0)], [np.empty(0)]
    for errors, truncated in zip(trial.errors, trial.truncated, strict=True):
        known = estimate.of(truncated, correction=_correction(estimate, truncated, errors))
        for begin in range(size, len(errors), size):
            before = known[begin - size : begin]
            if (before > 0).any():
                usual = before[before > 0].mean()
                true.append(errors[begin : begin + size] / usual)
                told.append(known[begin : begin + size] / usual)
    above, estimated = np.concatenate(true), np.concatenate(told)
    if not len(above):
        say("no clip is longer than a batch: how fast errors change is not known, the aim is low")
        return LOWEST_AIM
    ceiling = ceiling_of(percentile)
    for aim in np.arange(HIGHEST_AIM, LOWEST_AIM, -AIM_STEP):
        left = np.where(aim * estimated > ceiling, 0.0, aim * above)
        if kept_by(left, percentile) <= 1:
            return float(aim)
    return LOWEST_AIM


def _correction(estimate: ErrorEstimate, truncated: Floats, errors: Floats) -> float:
    """What the governor learns of one clip: by how much its estimates are too low or too high."""
    return math.sqrt(_held_for_told(estimate, truncated, errors))


def _held_for_told(estimate: ErrorEstimate, truncated: Floats, errors: Floats) -> float:
    """Squared errors, but for the floor, over their estimates: the median; 1 without any.

    Errors that are the floor's for the most part say nothing: clips differ in it.
    """
    held = np.square(errors) - estimate.floor
    use = (held > estimate.floor / 2) & np.isfinite(errors) & (truncated.sum(axis=1) > 0)
    if not use.any():
        return 1.0
    return float(np.median(held[use] / np.maximum(truncated[use] @ estimate.gains, 1e-300)))


def _report(
    bench: Bench,
    estimate: ErrorEstimate,
    threshold: float,
    target: float,
    aim: float,
    uniform: Trial,
    percentile: float,
) -> dict[str, Any]:
    """What was found, with times of one run: CPU time, or on another device what passed."""
    truncated, errors = np.concatenate(uniform.truncated), np.concatenate(uniform.errors)
    use = errors > np.sqrt(estimate.floor)
    ratio = estimate.of(truncated[use]) / errors[use]
    control = _control(estimate, target, aim, percentile)
    plain = bench.core({"default": threshold})
    steered = bench.core({"default": threshold})
    exact = bench.core({"default": 0.0})
    cold = [sample.first(bench.recipe.time_batch) for sample in bench.samples[:1]]
    for core, scheme in ((steered, control), (plain, None), (exact, None)):
        bench.run(core, cold, scheme)  # not timed
    times: dict[str, list[float]] = {"governed": [], "uniform": [], "threshold_0": []}
    for _ in range(REPEATS):
        governed = bench.run(steered, bench.samples, control)
        times["governed"].append(governed.seconds)
        times["uniform"].append(bench.run(plain, bench.samples).seconds)
        times["threshold_0"].append(bench.run(exact, bench.samples).seconds)
    frames = uniform.frames()
    return {
        "frames": frames,
        "clips": [sample.name for sample in bench.samples],
        "threshold": threshold,
        "device": bench.recipe.device,
        "error_percentile": {
            "uniform": uniform.percentile(percentile),
            "governed": governed.percentile(percentile),
        },
        "estimate_over_true": dict(
            zip(
                ("p5", "median", "p95"),
                map(float, np.quantile(ratio, (0.05, 0.5, 0.95))),
                strict=True,
            )
        )
        if len(ratio)
        else {},
        "milliseconds_per_frame": {
            name: 1000 * float(np.median(seconds)) / frames for name, seconds in times.items()
        },
        "work": {"uniform": uniform.work / frames, "governed": governed.work / frames},
    }
