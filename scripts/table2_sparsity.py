"""Sparsity of plain inputs and of the recurrence's deltas, and what it is worth, as in Table 2.

    python scripts/table2_sparsity.py configs/charades.yaml configs/ucf101.yaml configs/merl.yaml \
        --weights default --thresholds 1e-4 1e-2 \
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
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarking import counted, say
from charts import grouped_bars, new_figure, save_svg
from datasets import Dataset
from network_bench import PACKAGES
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
    RUNTIMES,
    Timer,
    add_measuring_options,
    measuring_settings,
    subject_of,
    timed_clips,
    timing_plan,
)

from rrm_extract.rrm import (
    overall_sparsity,
    theoretical_speedup,
    theoretical_speedup_over_sparse_input,
)

NAME = "table2_sparsity"
MODELS = ("alexnet", "vgg16", "resnet18")
THRESHOLDS = (1e-4, 1e-2)

NOTES = (
    "Counted, over all videos and all frames but key frames: overall sparsity (Eq. 9) of what "
    "layers read without the recurrence, and of the deltas that it reads instead; by MACs, and in "
    "brackets by elements. Improvement: the difference, in points.",
    "Theoretical speedups are ratios of MACs (Eq. 10), no times: dense over those of non-zero "
    "deltas, and those of non-zero inputs (hardware that skips zeros, without the recurrence) over "
    "those of non-zero deltas.",
    "Measured speedups are wall-clock, the network alone on decoded frames, key frames included, "
    "over the dense network in that runtime with its best settings, both fp32 with as many "
    "threads, in the same rounds; medians. The error is the feature's relative L2 distance to "
    "dense PyTorch in that run, mean and worst frame.",
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


def fill(options: argparse.Namespace, table: RowFile, datasets: Sequence[Dataset]) -> None:
    """All rows, network by network."""
    thresholds = list(dict.fromkeys(options.thresholds))
    for spec in options.models:
        networks = Networks(spec, options, thresholds)
        name = shown_spec(spec.partition("=")[0])
        for dataset in datasets:
            keys = [
                {"dataset": dataset.name, "model": name, "threshold": threshold}
                for threshold in thresholds
            ]
            source = made_from(dataset, spec, options.weights, options.preprocess or "")
            table.rows(keys, source, partial(networks.rows, dataset))


class Networks:
    """Makes the rows of one network; it is loaded when first needed.

    Args:
        spec: NAME or NAME=WEIGHTS.
        options: of the script.
        thresholds: one row for each.
    """

    def __init__(self, spec: str, options: argparse.Namespace, thresholds: Sequence[float]) -> None:
        self._spec, self._options, self._thresholds = spec, options, thresholds
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
        speeds = self._speeds(subject, dataset)
        return [
            {
                "weights": subject.weights_id,
                **reading.to_json(),
                **counted_values(sparsity),
                "measured": measured_values(speeds, threshold),
            }
            for threshold, sparsity in zip(self._thresholds, sparsities, strict=True)
        ]

    def _subject(self, fps: str) -> Subject:
        if fps not in self._subjects:
            self._subjects[fps] = subject_of(self._spec, self._options, fps=fps)
        return self._subjects[fps]

    def _speeds(self, subject: Subject, dataset: Dataset) -> list[Record]:
        clips, _ = timed_clips(dataset, subject, self._options)  # the broken ones are named already
        if not clips:
            return []
        if dataset.fps not in self._timers:
            plan = timing_plan(self._options, self._thresholds)
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
    settings = result["settings"]
    about = (
        f"Policy {settings['policy']}, chunks of {settings['chunk']:g} s; timed: the "
        f"{settings['engine']} engine, {counted(settings['threads'], 'thread')}, "
        f"{counted(settings['repeats'], 'round')}, the first {settings['timed_frames']} frames of "
        f"{counted(settings['timed_videos'], 'clip')} of each dataset."
    )
    return table_page(
        result,
        columns_of(result),
        title="Table 2: sparsity, and what it is worth",
        notes=[*NOTES, about],
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

    def error(row: Record) -> str:
        measured = row["measured"] or {}
        mean, worst = measured.get("feature_error"), measured.get("feature_error_max")
        return f"{shown(mean, '.0e')} / {shown(worst, '.0e')}"

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
        Column(title="feature error", cell=error, kind="measured"),
    ]


def draw(result: Record, path: Path) -> None:
    """A row of panels for each network: sparsities, and speedups of both kinds."""
    rows = result["rows"]
    models = list(dict.fromkeys((row["key"]["model"], row["weights"]) for row in rows))
    datasets = list(dict.fromkeys(row["key"]["dataset"] for row in rows))
    figure = new_figure(2.0 + 1.4 * max(3, len(datasets)), 2.6 * len(models) + 0.6)
    grid = figure.subplots(len(models), 2, squeeze=False, sharey="col")
    for (left, right), (model, weights) in zip(grid, models, strict=True):
        own = [row for row in rows if (row["key"]["model"], row["weights"]) == (model, weights)]
        grouped_bars(left, datasets, _sparsity_bars(own, datasets))
        series = _speedup_bars(own, datasets, result["settings"]["dense_runtimes"])
        theoretical = [name for name in series if "theoretical" in name]
        grouped_bars(right, datasets, series, hatched=theoretical)
        right.axhline(1.0, color="black", linewidth=0.8)
        left.set_title(f"{model}, weights {weights_text(weights)}", loc="left", fontsize="small")
    grid[0, 0].set_ylim(0, 1)
    for axes, words in zip(grid[-1], ("sparsity by MACs", "times as fast"), strict=True):
        axes.set_xlabel(words, fontsize="small")
    for axes in grid[0]:
        axes.legend(fontsize="x-small", frameon=False, loc="upper left")
    save_svg(figure, path)


def _sparsity_bars(
    rows: Sequence[Record], datasets: Sequence[str]
) -> dict[str, list[float | None]]:
    thresholds = sorted({row["key"]["threshold"] for row in rows})
    # What is not propagated changes later layers' inputs a little: those of the least threshold.
    series = {"plain inputs": _bars(rows, datasets, thresholds[0], "sparsity_input_macs")}
    for threshold in thresholds:
        values = _bars(rows, datasets, threshold, "sparsity_delta_macs")
        series[f"deltas at {threshold:g}"] = values
    return series


def _speedup_bars(
    rows: Sequence[Record], datasets: Sequence[str], runtimes: Sequence[str]
) -> dict[str, list[float | None]]:
    series = {}
    for threshold in sorted({row["key"]["threshold"] for row in rows}):
        values = _bars(rows, datasets, threshold, "speedup_theoretical")
        series[f"theoretical at {threshold:g}"] = values
        for runtime in runtimes[:1]:
            measured = [
                {**row, "over": ((row["measured"] or {}).get("speedup_over") or {}).get(runtime)}
                for row in rows
            ]
            name = f"measured over {RUNTIMES.get(runtime, runtime)} at {threshold:g}"
            series[name] = _bars(measured, datasets, threshold, "over")
    return series


def _bars(
    rows: Sequence[Record], datasets: Sequence[str], threshold: float, name: str
) -> list[float | None]:
    values = {
        row["key"]["dataset"]: row[name] for row in rows if row["key"]["threshold"] == threshold
    }
    return [values.get(dataset) for dataset in datasets]


if __name__ == "__main__":
    main()
