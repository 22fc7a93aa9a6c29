"""Speed against error: the recurrent network over thresholds beside dense OpenVINO.

    python scripts/frontier.py --videos clips/*.mp4 --models mobilenet_v2=weights.pth \
        --threads 2 --json docs/benchmarks/frontier.json --svg docs/benchmarks/frontier.svg

A dense network can be made faster at a price in accuracy: bf16, and int8 (NNCF's post-training
quantisation; 48 frames of the clips for calibration). These are points. The recurrent network has
a curve over thresholds for each precision of its own. All of it is measured in one run, as
``bench_engine.py`` does. For each dense point it says whether the curve lies above it, faster at
the same error, and by what factor. ``--from FILE`` draws and compares anew what was measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench_options import add_options, run_plan
from benchmarking import counted, read_json, require, save_json
from charts import caption, network_titles, new_figure, save_svg
from speed_curve import ROUNDING, Point, SpeedCurve

THRESHOLDS = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 2e-2, 5e-2)
COLORS = {"fp32": "#1f77b4", "bf16": "#d62728", "int8": "#2ca02c"}

Record = dict[str, Any]


def main() -> None:
    """Measures, compares and draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument(
        "--thresholds", nargs="+", type=float, default=list(THRESHOLDS), metavar="X"
    )
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=("fp32", "bf16", "int8"),
        default=["fp32", "bf16", "int8"],
    )
    parser.add_argument("--svg", type=Path, metavar="FILE")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="measure nothing")
    arguments = parser.parse_args()
    if arguments.svg is not None:
        require("matplotlib")  # rather now than after an hour of measuring
    if arguments.source is not None:
        result = read_json(arguments.source)
    else:
        result = run_plan(arguments, baselines=["openvino"])
    result["comparisons"] = compare(result["records"])
    if arguments.json is not None:
        save_json(result, arguments.json)
    for comparison in result["comparisons"]:
        print(in_words(comparison))
    if arguments.svg is not None:
        draw(result["records"], arguments.svg)


def compare(records: Sequence[Record]) -> list[Record]:
    """For each dense point and each curve of the same network, clip and number of threads.

    Returns:
        ``factor`` is how many times as fast the curve is at the point's error, None where the
        curve is never as exact.
    """
    comparisons: list[Record] = []
    for group, members in _grouped(records, ("model", "weights", "clip", "threads")).items():
        dense = [record for record in members if record["threshold"] is None]
        curves = _grouped(
            [record for record in members if record["threshold"] is not None],
            ("runtime", "precision"),
        )
        for record in dense:
            for (runtime, precision), points in curves.items():
                curve = SpeedCurve(_point(point) for point in points)
                comparisons.append(
                    {
                        **dict(zip(("model", "weights", "clip", "threads"), group, strict=True)),
                        "dense": f"{record['runtime']} {record['precision']}",
                        "curve": f"{runtime} {precision}",
                        "feature_error": record["feature_error"],
                        "frames_per_second": record["frames_per_second"],
                        "frames_per_second_curve": curve.rate_at(record["feature_error"]),
                        "factor": curve.factor_over(_point(record)),
                    }
                )
    return comparisons


def in_words(comparison: Record) -> str:
    """One comparison as a line."""
    factor = comparison["factor"]
    if factor is None:
        verdict = "the curve is never as exact"
    else:
        place = "above" if factor > 1 else "below"
        verdict = f"the curve lies {place}, {factor:.2f} times as fast"
    return (
        f"{comparison['model']}, {comparison['clip']}, {counted(comparison['threads'], 'thread')}: "
        f"{comparison['curve']} at the error of {comparison['dense']} "
        f"({comparison['feature_error']:.1e}, {comparison['frames_per_second']:.0f} frames/s): "
        f"{verdict}"
    )


def draw(records: Sequence[Record], path: Path) -> None:
    """One panel for each network, number of threads (rows) and clip (columns)."""
    panels = _grouped(records, ("model", "weights", "threads", "clip"))
    rows = list(dict.fromkeys(key[:3] for key in panels))
    columns = list(dict.fromkeys(key[3] for key in panels))
    titles = network_titles((row[:2] for row in rows), shown=caption)
    figure = new_figure(3.6 * len(columns) + 0.6, 3.0 * len(rows) + 0.9)
    grid = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey="row")
    for (model, weights, threads, clip), members in panels.items():
        row, column = rows.index((model, weights, threads)), columns.index(clip)
        axes = grid[row][column]
        _draw_panel(axes, members)
        if row == 0:
            axes.set_title(caption(clip), fontsize="small")
        if column == 0:
            axes.set_ylabel(f"{titles[model, weights]}, {counted(threads, 'thread')}\n\nframes/s")
        if row == len(rows) - 1:
            axes.set_xlabel("feature error (relative L2)")
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False
    )
    save_svg(figure, path)


def _draw_panel(axes: Any, members: Sequence[Record]) -> None:
    for (runtime, precision), records in _grouped(members, ("runtime", "precision")).items():
        color = COLORS[precision]
        records = sorted(records, key=lambda record: record["threshold"] or 0.0)
        errors = [max(record["feature_error"], ROUNDING) for record in records]
        rates = [record["frames_per_second"] for record in records]
        if records[0]["threshold"] is None:
            axes.plot(
                errors, rates, "s", color=color, markersize=8, label=f"{runtime} {precision}, dense"
            )
            continue
        label = f"{runtime} {precision}, over thresholds"
        axes.plot(errors, rates, "o-", color=color, markersize=3, label=label)
        for record, x, y in zip(records, errors, rates, strict=True):
            axes.annotate(
                f"{record['threshold']:g}",
                (x, y),
                xytext=(3, 3),
                textcoords="offset points",
                fontsize=6,
                color=color,
            )
    axes.set_xscale("log")
    axes.margins(0.1)
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, linewidth=0.3)


def _point(record: Record) -> Point:
    return Point(error=record["feature_error"], rate=record["frames_per_second"])


def _grouped(records: Sequence[Record], keys: Sequence[str]) -> dict[tuple[Any, ...], list[Record]]:
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(record[key] for key in keys), []).append(record)
    return groups


if __name__ == "__main__":
    main()
