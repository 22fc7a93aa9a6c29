"""What some thresholds are worth, for a person to choose by eye."""

from __future__ import annotations

import math
import shlex
from typing import Any

from rrm_extract.config import FEATURES, OPTIONS, JobConfig, threshold_text
from rrm_extract.jobs.tuning import TriedThreshold, Tuning
from rrm_extract.report.delta_frames import delta_frame_lines
from rrm_extract.report.setting import processor_text
from rrm_extract.report.table import number, table

__all__ = ["PERCENT", "SMALL_ERROR", "best_of", "tuning_json", "tuning_text"]

PERCENT = 95
"""Share of frames, in percent, whose error is looked at."""

SMALL_ERROR = 0.01
"""An error that few users of features would notice: they change by 7 to 26 % from one frame to the
next."""

BUSY = 1.3
"""Rounds of one thing that differ by a larger factor say that the machine was busy."""

_CALIBRATE_OPTIONS = (
    *("root", "include", "model", "task", "weights", "layer", "pool", "preprocess", "policy"),
    *("fps", "chunk", "engine", "precision", "device", "threads", "time_batch"),
)
"""Those that calibrate is to be given as well."""


def best_of(tuning: Tuning) -> TriedThreshold | None:
    """The largest threshold with a small error on nearly all frames; None if even 0 has not."""
    small = [each for each in tuning.tried if each.error_percentile(PERCENT) < SMALL_ERROR]
    return max(small, key=lambda each: each.threshold, default=None)


def tuning_json(tuning: Tuning, config: JobConfig, *, engine: str, weights: str) -> dict[str, Any]:
    """All of it, of types that JSON has; None for what does not exist."""
    best = best_of(tuning)
    return {
        "model": config.model,
        "weights": weights,
        "policy": config.policy,
        "engine": engine,
        "precision": config.precision,
        "device": config.device,
        "threads": config.threads,
        "clips": list(tuning.clips),
        "frames": tuning.frames,
        "dense": {
            "runtime": f"PyTorch, fp32, channels_last, batches of {tuning.dense_batch}",
            "frames_per_second": tuning.frames_per_second_dense,
            "seconds": list(tuning.seconds_dense),
        },
        "thresholds": [_values(each, tuning) for each in tuning.tried],
        "largest_threshold_with_small_error": None if best is None else best.threshold,
        "small_error": SMALL_ERROR,
        "spread_of_rounds": tuning.spread,
    }


def _values(each: TriedThreshold, tuning: Tuning) -> dict[str, Any]:
    exact = tuning.tried[0]
    values = {
        "threshold": each.threshold,
        "error_mean": each.error_mean,
        f"error_p{PERCENT}": each.error_percentile(PERCENT),
        "error_max": each.error_max,
        "density": each.density,
        "speedup_theoretical": _theoretical(each),
        "key_frames": each.key_frames,
        "frames_per_second": each.frames_per_second,
        "speedup_wall_over_dense": each.frames_per_second / tuning.frames_per_second_dense,
        "speedup_wall_over_threshold_0": each.frames_per_second / exact.frames_per_second,
        "seconds": list(each.seconds),
    }
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }


def tuning_text(tuning: Tuning, config: JobConfig, *, engine: str, weights: str) -> str:
    """A table, and which threshold keeps the error small.

    Args:
        tuning: what was measured.
        config: the job.
        engine: that was measured.
        weights: where they come from, see :attr:`rrm_extract.models.LoadedModel.weights_text`.
    """
    head = [
        "threshold",
        "error mean",
        f"{PERCENT}th %",
        "worst",
        "density",
        "theoretical speedup",
        "frames/s",
        "over dense",
        "over threshold 0",
    ]
    exact = tuning.tried[0]
    rows = [
        [
            threshold_text(each.threshold),
            f"{each.error_mean:.1e}",
            f"{each.error_percentile(PERCENT):.1e}",
            f"{each.error_max:.1e}",
            number(each.density),
            number(_theoretical(each), 2),
            number(each.frames_per_second, 1),
            f"{each.frames_per_second / tuning.frames_per_second_dense:.2f}x",
            f"{each.frames_per_second / exact.frames_per_second:.2f}x",
        ]
        for each in tuning.tried
    ]
    clips = len(tuning.clips)
    lines = [
        f"{config.model}, weights {weights}, policy {config.policy}, {config.precision}, "
        f"{engine} engine: {tuning.frames} frames of {clips} video{'' if clips == 1 else 's'}",
        "",
        table(head, rows),
        "",
        "error: relative L2 of the feature, beside the dense network; density: of the deltas, by "
        "MACs",
        "theoretical speedup: dense MACs over MACs done, key frames included; not a time",
        f"frames/s: measured, the network alone, one worker ({processor_text(config, engine)}), "
        f"median of {len(exact.seconds)}; dense PyTorch (fp32, batches of {tuning.dense_batch}): "
        f"{tuning.frames_per_second_dense:.1f}",
    ]
    for each in tuning.tried:
        few = delta_frame_lines(tuning.frames, tuning.frames - each.key_frames)
        lines += [f"threshold {threshold_text(each.threshold)}: {line}" for line in few]
    if tuning.spread > BUSY:
        lines.append(
            f"the rounds of one differ by a factor of {tuning.spread:.1f}: something else was "
            "running, or the clip is too short to time; expect other frames/s"
        )
    return "\n".join([*lines, *_hint(tuning, config)])


def _theoretical(each: TriedThreshold) -> float:
    return 1 / each.work if each.work else math.inf


def _hint(tuning: Tuning, config: JobConfig) -> list[str]:
    best = best_of(tuning)
    if best is None:
        advice = "--precision fp32" if config.precision != "fp32" else "another --layer"
        return [
            f"even at threshold 0 the error is not under {SMALL_ERROR:.0%} on {PERCENT} % of the "
            f"frames; try {advice}"
        ]
    lines = [
        f"largest of these with an error under {SMALL_ERROR:.0%} on {PERCENT} % of the "
        f"frames: {threshold_text(best.threshold)}"
    ]
    given = ["rrm-extract", "calibrate", *config.inputs, *_given(config)]
    if config.policy == "paper":
        if best.threshold == 0:
            return lines
        more = ["--threshold", threshold_text(best.threshold), "-o", "aecs.json"]
        return [*lines, f"to watch it: {shlex.join([*given, *more])}"]
    more = ["--target-error", f"{SMALL_ERROR:g}", "-o", "thresholds.json"]
    return [*lines, f"to keep it on other videos as well: {shlex.join([*given, *more])}"]


def _given(config: JobConfig) -> list[str]:
    """The options that are not as by default, as on the command line."""
    arguments = []
    for option in OPTIONS:
        value = getattr(config, option.name)
        if option.name not in _CALIBRATE_OPTIONS or value == option.default:
            continue
        if option.name == "pool" and config.task != FEATURES:
            continue  # the task decides it
        values = value if isinstance(value, tuple) else (value,)
        for one in values:
            text = threshold_text(one) if isinstance(one, float) else str(one)
            arguments += [option.flags[-1], text]
    return arguments
