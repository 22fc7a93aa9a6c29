"""Feature error against speed, drawn."""

from __future__ import annotations

import math
from pathlib import Path

from rrm_extract.config import JobConfig
from rrm_extract.jobs.fit_plot import matplotlib_module, save_figure
from rrm_extract.jobs.tuning import Tuning
from rrm_extract.report.setting import processor_text
from rrm_extract.report.tuning import PERCENT, SMALL_ERROR

__all__ = ["draw_tuning"]

LEAST_SHOWN = 1e-7
"""A logarithmic axis has no place for 0; errors below it are rounding."""


def draw_tuning(
    tuning: Tuning, config: JobConfig, path: Path, *, engine: str, weights: str
) -> None:
    """Frames/s over the error of nearly all frames and over the mean, threshold by threshold.

    ``engine`` is the one that was measured, ``weights`` is where they come from.

    Raises:
        ConfigError: matplotlib is not installed.
        StoreWriteError: the picture cannot be written.
    """
    figure = matplotlib_module("matplotlib.figure").Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    rates = [each.frames_per_second for each in tuning.tried]
    high = [_shown(each.error_percentile(PERCENT)) for each in tuning.tried]
    axes.plot(
        [_shown(each.error_mean) for each in tuning.tried],
        rates,
        "o--",
        color="#9ecae1",
        markersize=4,
        label="mean error",
    )
    axes.plot(high, rates, "o-", color="#1f77b4", label=f"error of {PERCENT} % of the frames")
    for each, x, y in zip(tuning.tried, high, rates, strict=True):
        if math.isfinite(x):
            axes.annotate(
                f"{each.threshold:g}",
                (x, y),
                xytext=(5, -10),
                textcoords="offset points",
                fontsize=8,
            )
    axes.axhline(
        tuning.frames_per_second_dense, color="black", linewidth=1, label="dense, PyTorch fp32"
    )
    axes.axvline(
        SMALL_ERROR,
        color="gray",
        linewidth=1,
        linestyle="dotted",
        label=f"error of {SMALL_ERROR:.0%}",
    )
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.1)
    axes.grid(visible=True, linewidth=0.3)
    axes.set_xlabel("relative L2 error of the feature (beside each point: its threshold)")
    axes.set_ylabel(f"frames/s of the network, {processor_text(config, engine)}")
    axes.set_title(
        f"{Path(config.model).name}, weights {weights}, {config.precision}, "
        f"policy {config.policy}: {tuning.frames} frames",
        fontsize="medium",
    )
    axes.legend(fontsize=8)
    save_figure(figure, path)


def _shown(error: float) -> float:
    return max(error, LEAST_SHOWN)
