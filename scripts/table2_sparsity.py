"""Sparsity of plain inputs and of the recurrence's deltas, and what it is worth, as in Table 2.

    python scripts/table2_sparsity.py configs/charades.yaml configs/ucf101.yaml configs/merl.yaml \
        --weights default --thresholds 1e-4 1e-3 1e-2 \
        --json table2.json --markdown table2.md --svg table2.svg

A row for each dataset, network and threshold (arXiv 1802.09723, Table 2: AlexNet, VGG-16 and
ResNet-18). *Counted*, over all videos: the sparsity of what the layers would read without the
recurrence (zeros that ReLU leaves, and the borders of pictures) and that of the deltas, overall
(Eq. 9), by MACs and by elements; the improvement is the difference. Here every layer takes deltas
whatever their density, as in the paper. *Theoretical*: MACs of the dense network over those of the
non-zero deltas (Eq. 10), and those of the non-zero plain inputs over them: what the recurrence adds
to hardware that skips zeros anyway. *Measured*, on a few clips of each dataset: frames/s of the
native engine over those of dense runtimes in fp32, the network alone on frames that are decoded,
with as many threads, in rounds in which each has its turn, medians; and beside it the feature's
relative error in that very run. There the engine runs a layer dense where lists do not pay.

``--json`` keeps each row as it is finished; the same command goes on there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarking import counted, say
from charts import grouped_bars, legend_below, new_figure, save_svg
from datasets import Dataset
from network_bench import PACKAGES, Plan
from sparsity import Sparsity, measure_sparsity
from subjects import Subject
from sweep_options import threshold_number
from table_page import (
    Column,
    key_columns,
    shown,
    table_page,
    videos_column,
    weights_column,
    weights_text,
)
from table_rows import Record, RowFile
from tables import add_model_options, made_from, run_table, shown_spec, table_parser
from timed_clips import (
    ERROR_NOTE,
    RUNTIMES,
    Timer,
    add_measuring_options,
    batches_in_words,
    error_column,
    measuring_settings,
    subject_of,
    timed_clips,
    timed_in_words,
    timing_plan,
    verdict,
)

from rrm_extract.rrm import (
    overall_sparsity,
    theoretical_speedup,
    theoretical_speedup_over_sparse_input,
)

NAME = "table2_sparsity"
MODELS = ("alexnet", "vgg16", "resnet18")
THRESHOLDS = (1e-4, 1e-3, 1e-2)
COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd")

Bars = dict[str, list[float | None]]
Colors = dict[str, str]

NOTES = (
    "Counted over all videos: overall sparsity (Eq. 9) of what layers read without the recurrence "
    "(all frames), and of the deltas that it reads instead (all but key frames); by MACs, and in "
    "brackets by elements. Improvement: the difference, in points.",
    "Theoretical speedups are ratios of MACs (Eq. 10), no times: dense over those of non-zero "
    "deltas, and those of non-zero inputs (hardware that skips zeros, without the recurrence) over "
    "those of non-zero deltas.",
    "Measured speedups are wall-clock, the network alone on decoded frames, key frames included, "
    "over the dense network in that runtime with the best of the settings that were tried, both "
    "fp32 with as many threads, in the same rounds; medians.",
    ERROR_NOTE,
)


def main() -> None:
    """Makes the rows that are missing, and the table."""
    parser = table_parser(__doc__)
    add_model_options(parser, models=MODELS)
    parser.add_argument(
        "--thresholds", nargs="+", type=threshold_number, default=list(THRESHOLDS), metavar="X"
    )
    add_measuring_options(parser)
    options = parser.parse_args()
    run_table(
        options,
        name=NAME,
        packages=PACKAGES,
        settings=measuring_settings(options),
        fill=partial(fill, options),
        page=page,
        draw=draw,
    )


def fill(
    options: argparse.Namespace,
    table: RowFile,
    datasets: Sequence[Dataset],
    *,
    networks: Callable[..., Networks] | None = None,
) -> None:
    """All rows, network by network.

    Args:
        options: of the script.
        table: where they go.
        datasets: of the command line.
        networks: makes a :class:`Networks` of a model, the options and the thresholds; by default
            one of classifiers.
    """
    thresholds = list(dict.fromkeys(options.thresholds))
    for spec in options.models:
        network = (networks or Networks)(spec, options, thresholds)
        name = shown_spec(spec.partition("=")[0])
        for dataset in datasets:
            keys = [
                {"dataset": dataset.name, "model": name, "threshold": threshold}
                for threshold in thresholds
            ]
            source = made_from(dataset, spec, options.weights, options.preprocess or "")
            table.rows(keys, source, partial(network.rows, dataset))


class Networks:
    """Makes the rows of one network; it is loaded when first needed.

    Args:
        spec: NAME or NAME=WEIGHTS.
        options: of the script.
        thresholds: one row for each.
        load: loads the network, as :func:`timed_clips.subject_of` does.
        plan: what is timed, as :func:`timed_clips.timing_plan` says.
        values: what a row has of a sparsity.
    """

    def __init__(
        self,
        spec: str,
        options: argparse.Namespace,
        thresholds: Sequence[float],
        *,
        load: Callable[..., Subject] = subject_of,
        plan: Callable[[argparse.Namespace, Sequence[float]], Plan] = timing_plan,
        values: Callable[[Sparsity], Record] | None = None,
    ) -> None:
        self._spec, self._options, self._thresholds = spec, options, thresholds
        self._load, self._plan, self._values = load, plan, values or counted_values
        self._subjects: dict[str, Subject] = {}
        self._timers: dict[str, Timer] = {}

    def rows(self, dataset: Dataset) -> list[Record]:
        """A row for each threshold, the densities of one pass and the times of the same rounds."""
        options = self._options
        subject = self._subject(dataset.fps)
        say(f"{subject.name}, {dataset.name}: {counted(len(dataset.videos), 'video')}")
        sparsities, reading = measure_sparsity(
            subject,
            dataset,
            self._thresholds,
            max_frames=options.max_frames,
            engine=options.engine,
        )
        speeds = self._speeds(subject, reading.unbroken(dataset))
        return [
            {
                "weights": subject.weights_id,
                **reading.to_json(),
                **self._values(sparsity),
                "measured": measured_values(speeds, threshold),
            }
            for threshold, sparsity in zip(self._thresholds, sparsities, strict=True)
        ]

    def _subject(self, fps: str) -> Subject:
        if fps not in self._subjects:
            self._subjects[fps] = self._load(self._spec, self._options, fps=fps)
        return self._subjects[fps]

    def _speeds(self, subject: Subject, dataset: Dataset) -> list[Record]:
        clips, _ = timed_clips(dataset, subject, self._options)
        if not clips:
            return []
        if dataset.fps not in self._timers:
            plan = self._plan(self._options, self._thresholds)
            self._timers[dataset.fps] = Timer(subject, plan)
        speeds = self._timers[dataset.fps].speeds(clips)
        for speed in speeds:
            speed["clips"] = {name: len(frames) for name, frames in clips.items()}
        return speeds


def counted_values(sparsity: Sparsity) -> Record:
    """Sparsities of both kinds, by both weights, and what follows from them."""
    layers = sparsity.layers
    values: Record = {"frames": sparsity.frames, "key_frames": sparsity.key_frames}
    for weight in ("macs", "elements"):
        plain = overall_sparsity(layers, weight=weight, of="input")
        delta = overall_sparsity(layers, weight=weight)
        values[f"sparsity_input_{weight}"] = plain
        values[f"sparsity_delta_{weight}"] = delta
        values[f"improvement_{weight}"] = delta - plain
    return {
        **values,
        "work": sparsity.work,
        "speedup_theoretical": theoretical_speedup(layers),
        "speedup_theoretical_key_frames_included": (
            1 / sparsity.work if sparsity.work else float("inf")
        ),
        "speedup_theoretical_over_sparse_input": theoretical_speedup_over_sparse_input(layers),
    }


def measured_values(speeds: Sequence[Record], threshold: float) -> Record | None:
    """The engine at one threshold beside the dense runtimes; None if nothing was timed."""
    own = next((one for one in speeds if one["threshold"] == threshold), None)
    if own is None:
        return None
    dense = {one["runtime"]: one for one in speeds if one["threshold"] is None}
    return {
        **own,
        "dense": dense,
        "speedup_over": {
            name: own["frames_per_second"] / one["frames_per_second"] for name, one in dense.items()
        },
    }


def page(result: Record) -> str:
    """The table and what its columns mean."""
    return table_page(
        result,
        columns_of(result),
        title="Table 2: sparsity, and what it is worth",
        notes=[*NOTES, settings_in_words(result["settings"], clips_of(result["rows"]))],
    )


def clips_of(rows: Sequence[Record]) -> list[Mapping[str, int]]:
    """Frames of the clips that each row was timed on, by name; none where nothing was."""
    return [(row["measured"] or {}).get("clips", {}) for row in rows]


def settings_in_words(settings: Record, clips: Sequence[Mapping[str, int]]) -> str:
    """How a table was measured.

    Args:
        settings: of the table.
        clips: of :func:`clips_of`.
    """
    return (
        f"Policy {settings['policy']}, chunks of {settings['chunk']:g} s; timed: the "
        f"{settings['engine']} engine, {counted(settings['threads'], 'thread')}, "
        f"{counted(settings['repeats'], 'round')}, {timed_in_words(clips)}. "
        f"{batches_in_words(settings)}"
    )


def columns_of(result: Record) -> list[Column]:
    """Of the page; a measured speedup for each dense runtime."""

    def over(runtime: str) -> Column:
        return Column(
            title=f"speedup over {RUNTIMES.get(runtime, runtime)} fp32",
            cell=lambda row: shown(
                ((row["measured"] or {}).get("speedup_over") or {}).get(runtime)
            ),
            kind="measured",
        )

    def both(name: str, form: str) -> Any:
        return lambda row: (
            f"{shown(row[f'{name}_macs'], form)} ({shown(row[f'{name}_elements'], form)})"
        )

    return [
        *key_columns("dataset", "model"),
        weights_column(),
        videos_column(),
        Column(title="threshold", cell=lambda row: f"{row['key']['threshold']:g}"),
        Column(title="sparsity of inputs", cell=both("sparsity_input", ".3f"), kind="counted"),
        Column(title="sparsity of deltas", cell=both("sparsity_delta", ".3f"), kind="counted"),
        Column(title="improvement", cell=both("improvement", "+.3f"), kind="counted"),
        Column(
            title="speedup over dense",
            cell=lambda row: shown(row["speedup_theoretical"]),
            kind="theoretical",
        ),
        Column(
            title="over skipping zeros",
            cell=lambda row: shown(row["speedup_theoretical_over_sparse_input"]),
            kind="theoretical",
        ),
        *(over(runtime) for runtime in result["settings"]["dense_runtimes"]),
        error_column(),
    ]


def draw(result: Record, path: Path) -> None:
    """A row of panels for each network: sparsities, and speedups of both kinds."""
    rows = result["rows"]
    models = list(dict.fromkeys((row["key"]["model"], row["weights"]) for row in rows))
    datasets = list(dict.fromkeys(row["key"]["dataset"] for row in rows))
    figure = new_figure(max(8.0, 2.0 + 1.5 * len(datasets)), 2.6 * len(models) + 1.2)
    grid = figure.subplots(len(models), 2, squeeze=False, sharey="col")
    for (left, right), (model, weights) in zip(grid, models, strict=True):
        own = [row for row in rows if (row["key"]["model"], row["weights"]) == (model, weights)]
        series, colors = _sparsity_bars(own, datasets)
        grouped_bars(left, datasets, series, colors=colors)
        series, colors = _speedup_bars(own, datasets, result["settings"]["dense_runtimes"])
        theoretical = [name for name in series if "theoretical" in name]
        judged = [{**row, "verdict": verdict(row["measured"] or {})} for row in own]
        labels = {
            name: [word or "" for word in _bars(judged, datasets, threshold, "verdict")]
            for threshold in _thresholds(own)
            for name in series
            if name.endswith(f" at {threshold:g} (measured)")
        }
        grouped_bars(right, datasets, series, hatched=theoretical, colors=colors, labels=labels)
        right.axhline(1.0, color="black", linewidth=0.8)
        left.set_title(f"{model}, weights {weights_text(weights)}", loc="left", fontsize="small")
    grid[0, 0].set_ylim(0, 1)
    # Where little moves, theoretical speedups are tens of times those of other clips.
    grid[0, 1].set_yscale("log")
    grid[0, 1].yaxis.set_major_formatter("{x:g}")
    for axes, words in zip(grid[-1], ("sparsity by MACs", "times as fast"), strict=True):
        axes.set_xlabel(words, fontsize="small")
    legend_below(figure, columns=2)
    save_svg(figure, path)


def _sparsity_bars(rows: Sequence[Record], datasets: Sequence[str]) -> tuple[Bars, Colors]:
    thresholds = _thresholds(rows)
    # What is not propagated changes later layers' inputs a little: those of the least threshold.
    name = "sparsity of plain inputs"
    series = {name: _bars(rows, datasets, thresholds[0], "sparsity_input_macs")}
    colors = {name: "#7f7f7f"}
    for threshold, color in zip(thresholds, cycle(COLORS), strict=False):
        name = f"sparsity of deltas at {threshold:g}"
        series[name] = _bars(rows, datasets, threshold, "sparsity_delta_macs")
        colors[name] = color
    return series, colors


def _speedup_bars(
    rows: Sequence[Record], datasets: Sequence[str], runtimes: Sequence[str]
) -> tuple[Bars, Colors]:
    series: Bars = {}
    colors: Colors = {}
    for threshold, color in zip(_thresholds(rows), cycle(COLORS), strict=False):
        name = f"speedup at {threshold:g} (theoretical)"
        series[name] = _bars(rows, datasets, threshold, "speedup_theoretical")
        colors[name] = color
        for runtime in runtimes[:1]:
            measured = [
                {**row, "over": ((row["measured"] or {}).get("speedup_over") or {}).get(runtime)}
                for row in rows
            ]
            name = f"over {RUNTIMES.get(runtime, runtime)} fp32 at {threshold:g} (measured)"
            series[name] = _bars(measured, datasets, threshold, "over")
            colors[name] = color
    return series, colors


def _thresholds(rows: Sequence[Record]) -> list[float]:
    return sorted({row["key"]["threshold"] for row in rows})


def _bars(
    rows: Sequence[Record], datasets: Sequence[str], threshold: float, name: str
) -> list[Any]:
    values = {
        row["key"]["dataset"]: row[name] for row in rows if row["key"]["threshold"] == threshold
    }
    return [values.get(dataset) for dataset in datasets]


if __name__ == "__main__":
    main()
