"""Accuracy against threshold, with and without error control, as in Fig. 3 of the paper.

    python scripts/fig3_accuracy.py --videos UCF-101 --labels ucfTrainTestlist --model vgg16 \
        --chunk 60 --aecs vgg16-1e-3.json vgg16-1e-2.json --error-limit 0.1 --workers 2 \
        --work work/vgg16 --json fig3.json --svg fig3.svg

Measured as ``table3_thresholds.py`` does. With ``--aecs`` and ``--error-limit`` each
threshold that has a calibration is computed with and without accumulated error control. An infinite
threshold is always there: after a key frame nothing is ever propagated, as in Fig. 2 of the paper,
so every frame has the key frame's feature, and what other thresholds are worth is what they have
above it.

The chart has two panels: accuracy against threshold (the feature's error, where there are no
labels), and the feature's error against the frames since the last key frame. ``--from FILE`` draws
anew what ``--json`` wrote.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarking import read_result, require, save_text
from charts import new_figure, save_svg
from sweep_options import add_sweep_options, error_controls, markdown, run_sweep
from threshold_sweep import INFINITE, Point, Record, shown_threshold

THRESHOLDS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
COLORS = {False: "#1f77b4", True: "#d62728"}


def main() -> None:
    """Computes what is missing, prints the table, and draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_sweep_options(parser, thresholds=THRESHOLDS)
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="measure nothing")
    parser.add_argument("--svg", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.svg is not None:
        require("matplotlib")  # rather now than after an hour of measuring
    if arguments.source is not None:
        result = read_result(
            arguments.source, "fig3_accuracy", "records", "settings", "labels", "unlabelled"
        )
    else:
        result = run_sweep(arguments, points_of(arguments))
    table = markdown(result)
    print(table)
    if arguments.markdown is not None:
        save_text(table + "\n", arguments.markdown)
    if arguments.svg is not None:
        draw(result, arguments.svg)


def points_of(arguments: argparse.Namespace) -> list[Point]:
    """What is computed: the infinite threshold, the others, and those with control again."""
    controls = error_controls(arguments)
    finite = [value for value in arguments.thresholds if value < INFINITE]
    points = [Point(threshold=value) for value in [*finite, INFINITE]]
    return [*points, *(Point(threshold=value, control=controls[value]) for value in controls)]


def draw(result: dict[str, Any], path: Path) -> None:
    """Both panels."""
    records = result["records"]
    figure = new_figure(9.0, 4.5)
    left, right = figure.subplots(1, 2)
    _draw_thresholds(left, records)
    _draw_ages(right, records)
    settings = result["settings"]
    figure.suptitle(
        f"{settings['model']}, weights {settings['weights']}, policy {settings['policy']}, "
        f"chunks of {settings['chunk']:g} s",
        fontsize="medium",
    )
    save_svg(figure, path)


def _draw_thresholds(axes: Any, records: Sequence[Record]) -> None:
    labelled = records[0]["accuracy"] is not None
    value = _accuracy if labelled else _error
    if labelled:
        axes.axhline(value(records[0]), color="black", linewidth=1, label="dense network")
    for controlled in (False, True):
        own = [r for r in records[1:] if (r["error_limit"] is not None) == controlled]
        finite = sorted(
            (r for r in own if not r["infinite"] and value(r) is not None),
            key=lambda record: record["threshold"],
        )
        what = "with" if controlled else "without"
        color = COLORS[controlled]
        if finite:
            axes.plot(
                [record["threshold"] for record in finite],
                [value(record) for record in finite],
                "o-",
                color=color,
                label=f"{what} control",
            )
        for record in own:
            if record["infinite"] and value(record) is not None:
                label = f"infinite, {what} control"
                axes.axhline(
                    value(record), color=color, linewidth=1, linestyle="dashed", label=label
                )
    positive = [r["threshold"] for r in records[1:] if r["threshold"] and not r["infinite"]]
    # Linear up to the smallest threshold, so that 0 has a place.
    axes.set_xscale("symlog", linthresh=min(positive, default=1.0))
    axes.set_xlabel("threshold (control: of the accumulated error)")
    axes.set_ylabel(records[0]["accuracy"]["measure"] if labelled else "feature error")
    axes.grid(visible=True, linewidth=0.3)
    if not labelled:
        axes.set_yscale("log")
    _legend(axes)


def _draw_ages(axes: Any, records: Sequence[Record]) -> None:
    color_map = require("matplotlib").colormaps["viridis"]
    own = [r for r in records[1:] if r["error_limit"] is None]
    for number, record in enumerate(sorted(own, key=lambda record: record["threshold"])):
        known = [
            (age, error)
            for age, error in enumerate(record["feature_error_by_age"])
            if error  # a logarithmic axis has no place for 0
        ]
        color = "black" if record["infinite"] else color_map(number / len(own))
        name = f"threshold {shown_threshold(record['threshold'])}"
        axes.plot([age for age, _ in known], [error for _, error in known], color=color, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("frames since the key frame")
    axes.set_ylabel("feature error (relative L2)")
    axes.grid(visible=True, linewidth=0.3)
    _legend(axes)


def _legend(axes: Any) -> None:
    """Above the panel: inside there may be a line anywhere."""
    axes.legend(
        fontsize="x-small", frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0)
    )


def _accuracy(record: Record) -> float | None:
    accuracy: float = record["accuracy"]["value"]
    return accuracy


def _error(record: Record) -> float | None:
    error: float | None = record["feature_error"]
    return error


if __name__ == "__main__":
    main()
