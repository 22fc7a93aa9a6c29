"""Draws the README's chart of network-only speed from the committed figures.

    python scripts/chart_benchmarks.py docs/benchmarks/engine.json -o docs/benchmarks/engine.svg

One panel for each network and number of threads, one group of bars for each clip: how many times
as fast as OpenVINO in fp32, with the feature's error beside it. Options choose what is drawn.
``--markdown`` prints the same as tables instead.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarking import counted, read_json, require
from charts import caption, network_titles, new_figure, save_svg

Record = dict[str, Any]

BAR_INCHES = 0.24
DENSE_COLOR = "#b0b0b0"
CURVE_COLORS = {"fp32": "Blues", "bf16": "Oranges"}
"""Colour maps of the recurrent network's bars: darker means a larger threshold."""


def main() -> None:
    """Reads one file and writes the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, nargs="?", default=Path("docs/benchmarks/engine.json"))
    parser.add_argument("-o", "--output", type=Path, help="by default beside it, as .svg")
    parser.add_argument("--runtimes", nargs="+", default=["rrm-native", "openvino"])
    parser.add_argument("--precisions", nargs="+", help="by default all there are")
    parser.add_argument("--thresholds", nargs="+", type=float, help="by default all there are")
    parser.add_argument("--threads", nargs="+", type=int, help="by default all there are")
    parser.add_argument("--markdown", action="store_true", help="print tables, draw nothing")
    arguments = parser.parse_args()
    result = read_json(arguments.source)
    records = chosen(
        result["records"],
        runtime=arguments.runtimes,
        precision=arguments.precisions,
        threshold=arguments.thresholds and [None, *arguments.thresholds],
        threads=arguments.threads,
    )
    if not records:
        sys.exit(
            f"{arguments.source}: no record of {', '.join(arguments.runtimes)} with a ratio to "
            "OpenVINO fp32; measure with --baselines openvino, or choose other --runtimes"
        )
    if arguments.markdown:
        print(markdown(records))
        return
    draw(records, result, arguments.output or arguments.source.with_suffix(".svg"))


def markdown(records: Sequence[Record]) -> str:
    """A table for each network and number of threads: clips down, series across."""
    lines: list[str] = []
    title_of = _titles(records)
    for title in dict.fromkeys(map(title_of, records)):
        own = [one for one in records if title_of(one) == title]
        series = list(dict.fromkeys(series_of(one) for one in own))
        cells = {
            (one["clip"], series_of(one)): f"{one['ratio_to_openvino_fp32']:.2f} "
            f"({one['feature_error']:.0e})"
            for one in own
        }
        lines += ["", f"| {title} | {' | '.join(series)} |"]
        lines.append("|---" * (len(series) + 1) + "|")
        for clip in dict.fromkeys(one["clip"] for one in own):
            row = [Path(clip).stem, *(cells.get((clip, name), "") for name in series)]
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines[1:])


def _titles(records: Sequence[Record]) -> Callable[[Record], str]:
    """What stands together: a network with its weights, and a number of threads."""
    titles = network_titles((one["model"], one["weights"]) for one in records)

    def title(record: Record) -> str:
        network = titles[record["model"], record["weights"]]
        return f"{network}, {counted(record['threads'], 'thread')}"

    return title


def chosen(records: Sequence[Record], **wanted: Sequence[Any] | None) -> list[Record]:
    """The records that become bars; OpenVINO fp32 is the line at 1 and none of them.

    Args:
        records: of the file.
        wanted: for a field its values that are drawn, None for all of them.
    """
    return [
        record
        for record in records
        if record["ratio_to_openvino_fp32"] is not None
        and (record["runtime"], record["precision"]) != ("openvino", "fp32")
        and all(values is None or record[field] in values for field, values in wanted.items())
    ]


def label_of(record: Record) -> str:
    """What stands beside a bar: the ratio and the error it is had at."""
    return f"{record['ratio_to_openvino_fp32']:.2f}x  error {record['feature_error']:.0e}"


def series_of(record: Record) -> str:
    """What a bar is."""
    if record["threshold"] is None:
        return f"{record['runtime']} {record['precision']}"
    return f"{record['runtime']} {record['precision']}, threshold {record['threshold']:g}"


def draw(records: Sequence[Record], result: Record, path: Path) -> None:
    """Bars by network, clip and series."""
    panels: dict[str, dict[str, list[Record]]] = {}
    title_of = _titles(records)
    for record in records:
        clips = panels.setdefault(title_of(record), {})
        clips.setdefault(record["clip"], []).append(record)
    series = list(dict.fromkeys(series_of(record) for record in records))
    colors = _colors({series_of(record): record for record in records})
    heights = [sum(len(bars) + 1 for bars in clips.values()) for clips in panels.values()]
    figure = new_figure(8.5, BAR_INCHES * (sum(heights) + 4 * len(panels)) + 0.2 * len(series))
    grid = figure.subplots(
        len(panels), 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights}
    )
    largest = max(record["ratio_to_openvino_fp32"] for record in records)
    for axes, (title, clips) in zip(grid[:, 0], panels.items(), strict=True):
        _draw_panel(axes, clips, colors)
        axes.set_title(title, loc="left")
        axes.set_xlim(0, 1.3 * max(1.0, largest))  # room for the labels
    grid[-1, 0].set_xlabel(
        "frames/s of the network alone, relative to dense OpenVINO fp32 with as many threads\n"
        f"{result['machine'].get('processor', '')}, OpenVINO "
        f"{result['versions'].get('openvino', '')}",
        fontsize="small",
    )
    patches = require("matplotlib.patches")
    figure.legend(
        handles=[patches.Patch(color=colors[name], label=name) for name in series],
        loc="outside upper center",
        ncols=2,
        frameon=False,
        fontsize="small",
    )
    save_svg(figure, path)


def _draw_panel(axes: Any, clips: dict[str, list[Record]], colors: dict[str, Any]) -> None:
    ticks, names, place = [], [], 0.0
    for clip, bars in clips.items():
        ticks.append(place + (len(bars) - 1) / 2)
        names.append(caption(clip))
        for record in bars:
            ratio = record["ratio_to_openvino_fp32"]
            axes.barh(place, ratio, height=0.9, color=colors[series_of(record)])
            axes.annotate(
                label_of(record),
                (ratio, place),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
            place += 1
        place += 1
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_yticks(ticks, names, fontsize="small")
    axes.set_ylim(place - 1, -1)  # the first on top
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _colors(series: dict[str, Record]) -> dict[str, Any]:
    color_maps = require("matplotlib").colormaps
    colors: dict[str, Any] = {}
    for precision, color_map in CURVE_COLORS.items():
        members = sorted(
            (record["threshold"], name)
            for name, record in series.items()
            if record["threshold"] is not None and record["precision"] == precision
        )
        for rank, (_, name) in enumerate(members, 1):
            shade = 0.3 + 0.6 * rank / len(members)
            colors[name] = color_maps[color_map](shade)
    return {name: colors.get(name, DENSE_COLOR) for name in series}


if __name__ == "__main__":
    main()
