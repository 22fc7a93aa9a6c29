"""The recurrence on compressed networks, as in Table 4.

    python scripts/table4_compressed.py configs/charades.yaml configs/ucf101.yaml \
        --models alexnet vgg16 --weights default --thresholds 1e-4 1e-2 --work work \
        --json table4.json --markdown table4.md --svg table4.svg

A row for each dataset, network and threshold (arXiv 1802.09723, Table 4: Deep Compression's AlexNet
and VGG-16). Networks are compressed as ``rrm-extract compress`` does it, at the paper's densities
(arXiv 1510.00149) or at ``--density``, without training, into .dcz files in ``--work``; a .dcz or
.net file among the models is taken as it is.

*Counted*, over all videos: the share of the weights that are kept; the sparsity of what the layers
would read without the recurrence, and that of the deltas (Eq. 9), by MACs and by elements.
*Theoretical*, no times of a machine that exists: MACs whose weight and delta are both not zero
against those of the dense network, and against those whose weight and plain input are not zero,
which is what the compressed network needs without the recurrence; and microseconds and speedup on
EIE (docs/eie.md), at its peak and by cycles. *Measured*, on a few clips of each dataset: frames/s
of the native engine, which reads compressed fully-connected layers as they are, over those of dense
runtimes on the same weights, and over the same engine with these layers uncompressed; the network
alone on decoded frames, with as many threads, in rounds in which each has its turn, medians; and
the feature's relative error in that very run, beside that of computing nothing.

``--json`` keeps each row as it is finished; the same command goes on there.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarking import counted, say
from charts import grouped_bars, new_figure, save_svg
from compressed_models import COMPRESSED, compressed_file, origin_of, weight_densities
from datasets import Dataset
from network_bench import PACKAGES
from peers import Peer
from peers.rrm_peer import RrmPeer
from sparsity import Sparsity, measure_sparsity
from subjects import Subject
from sweep_options import threshold_number
from table2_sparsity import clips_of, counted_values, measured_values, settings_in_words
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
    error_column,
    measuring_settings,
    subject_of,
    timed_clips,
    timing_plan,
    verdict,
)

from rrm_extract.engine import lower as lowering
from rrm_extract.engine.backend import choose_engine
from rrm_extract.report.eie import model_on_eie

NAME = "table4_compressed"
MODELS = ("alexnet", "vgg16")
THRESHOLDS = (1e-4, 1e-2)
UNCOMPRESSED = "rrm-native, uncompressed"

NOTES = (
    "Weights kept: of the layers up to the feature.",
    "Counted over all videos: overall sparsity (Eq. 9) of what layers read without the recurrence "
    "(all frames), and of the deltas (all but key frames); by MACs, and in brackets by elements.",
    "Theoretical speedups by MACs are ratios of those whose weight and delta are both not zero: "
    "the dense network's MACs over them, and the compressed network's without the recurrence (its "
    "weight and plain input are not zero) over them.",
    "EIE: modelled microseconds for a frame, delta frames, without and with the recurrence; at the "
    "machine's peak, and simulated cycle by cycle. Their ratios are theoretical speedups, too.",
    "Measured speedups are wall-clock, the network alone on decoded frames, key frames included, "
    "fp32 with as many threads, in the same rounds; medians. Over dense runtimes with the best of "
    "the settings that were tried, on the same pruned weights; and over the same engine with "
    "uncompressed layers. "
    "Errors are those to dense PyTorch on the compressed weights.",
    ERROR_NOTE,
)


class UncompressedPeer(RrmPeer):
    """The recurrent network with fully-connected layers that are read uncompressed."""

    def __init__(self, subject: Subject, options: argparse.Namespace, threshold: float) -> None:
        super().__init__(
            subject.recipe,
            engine="native",
            threshold=threshold,
            precision="fp32",
            threads=options.threads,
            chunk=None,  # each clip sets its own
        )
        self.runtime = UNCOMPRESSED

    def prepare(self) -> None:
        """See :meth:`Peer.prepare`."""
        with mock.patch.object(lowering, "codebook_of", return_value=None):
            super().prepare()


def main() -> None:
    """Makes the rows that are missing, and the table."""
    parser = table_parser(__doc__)
    add_model_options(parser, models=MODELS)
    parser.add_argument(
        "--thresholds", nargs="+", type=threshold_number, default=list(THRESHOLDS), metavar="X"
    )
    parser.add_argument(
        "--density", metavar="SPEC",
        help="weights to keep, as rrm-extract compress takes it; by default the published ones",
    )  # fmt: skip
    parser.add_argument(
        "--work", type=Path, default=Path("work"), metavar="FOLDER",
        help="of the compressed networks, which are used again (default: work)",
    )  # fmt: skip
    add_measuring_options(parser)
    options = parser.parse_args()
    run_table(
        options,
        name=NAME,
        packages=PACKAGES,
        settings={**measuring_settings(options), "density": options.density or "published"},
        fill=partial(fill, options),
        page=page,
        draw=draw,
    )


def fill(options: argparse.Namespace, table: RowFile, datasets: Sequence[Dataset]) -> None:
    """All rows, network by network."""
    thresholds = list(dict.fromkeys(options.thresholds))
    for spec in options.models:
        networks = CompressedNetworks(spec, options, thresholds)
        name = shown_spec(spec.partition("=")[0])
        for dataset in datasets:
            keys = [
                {"dataset": dataset.name, "model": name, "threshold": threshold}
                for threshold in thresholds
            ]
            source = made_from(dataset, spec, options.weights, options.preprocess or "")
            table.rows(keys, source, partial(networks.rows, dataset))


class CompressedNetworks:
    """Makes the rows of one network; it is compressed and loaded when first needed.

    Args:
        spec: NAME or NAME=WEIGHTS, or a compressed file.
        options: of the script.
        thresholds: one row for each.
    """

    def __init__(self, spec: str, options: argparse.Namespace, thresholds: Sequence[float]) -> None:
        self._spec, self._options, self._thresholds = spec, options, thresholds
        self._subjects: dict[str, Subject] = {}
        self._timers: dict[str, Timer] = {}
        self._origin = ""

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
        densities = weight_densities(subject.recipe.program)
        speeds = self._speeds(subject, reading.unbroken(dataset))
        return [
            {
                "weights": self._origin,
                **reading.to_json(),
                **counted_values(sparsity),
                **compressed_values(subject, sparsity, densities),
                "measured": compressed_speeds(speeds, threshold),
            }
            for threshold, sparsity in zip(self._thresholds, sparsities, strict=True)
        ]

    def _subject(self, fps: str) -> Subject:
        if fps not in self._subjects:
            options = self._options
            name, _, own_weights = self._spec.partition("=")
            if Path(name).suffix.lower() in COMPRESSED:
                path, spec = Path(name), name
            else:
                path = compressed_file(
                    name,
                    own_weights or options.weights,
                    options.work,
                    density=options.density,
                    preprocess=options.preprocess,
                )
                spec = f"{name}={path}"
            self._origin = origin_of(path)
            self._subjects[fps] = subject_of(spec, options, fps=fps)
        return self._subjects[fps]

    def _speeds(self, subject: Subject, dataset: Dataset) -> list[Record]:
        options = self._options
        clips, _ = timed_clips(dataset, subject, options)
        if not clips:
            return []
        if dataset.fps not in self._timers:
            extra: list[Peer] = []
            if choose_engine(options.engine).engine == "native":
                extra = [UncompressedPeer(subject, options, one) for one in self._thresholds]
            for peer in extra:
                peer.prepare()
            plan = timing_plan(options, self._thresholds)
            self._timers[dataset.fps] = Timer(subject, plan, extra=extra)
        speeds = self._timers[dataset.fps].speeds(clips)
        for speed in speeds:
            speed["clips"] = {name: len(frames) for name, frames in clips.items()}
        return speeds


def compressed_values(subject: Subject, sparsity: Sparsity, densities: dict[str, float]) -> Record:
    """What weights that are zero add: to MACs, and on EIE."""
    layers = sparsity.layers
    sizes = {
        name: op.linear_map.weight.numel()
        for op, name in zip(
            subject.recipe.program.linear_ops,
            subject.recipe.program.linear_names().values(),
            strict=True,
        )
    }
    kept = sum(sizes[name] * densities[name] for name in sizes)
    dense = sum(layer.macs for layer in layers)
    plain = sum(layer.macs * densities[layer.name] * layer.density for layer in layers)
    delta = sum(layer.macs * densities[layer.name] * layer.density_delta for layer in layers)
    on_eie = model_on_eie(
        layers,
        frames=sparsity.frames,
        delta_frames=sparsity.frames - sparsity.key_frames,
        weight_density=densities,
        cycles=True,
    )
    return {
        "weights_kept": kept / sum(sizes.values()),
        "weight_densities": densities,
        "compressed_speedup_theoretical": dense / delta if delta else float("inf"),
        "compressed_speedup_theoretical_over_compression": plain / delta if delta else float("inf"),
        "eie": on_eie.totals(),
    }


def compressed_speeds(speeds: Sequence[Record], threshold: float) -> Record | None:
    """The engine beside dense runtimes and beside itself uncompressed; None without times."""
    others = [one for one in speeds if one["runtime"] == UNCOMPRESSED]
    values = measured_values([one for one in speeds if one not in others], threshold)
    plain = next((one for one in others if one["threshold"] == threshold), None)
    if values is None or plain is None:
        return values
    ratio = values["frames_per_second"] / plain["frames_per_second"]
    return {**values, "uncompressed": plain, "speedup_over_uncompressed": ratio}


def _weights_of(row: Record) -> str:
    """Where a network's weights come from; a file that is the network itself has its own."""
    spec, default = row["made_from"]["weights"][:2]
    name, _, own = spec.partition("=")
    return str(name if Path(name).suffix.lower() in COMPRESSED else own or default)


def compressed_by(result: Record) -> list[str]:
    """Who compressed the networks, and how."""
    models = {row["key"]["model"]: _weights_of(row) for row in result["rows"]}
    files = {
        model: weights
        for model, weights in models.items()
        if Path(weights).suffix.lower() in COMPRESSED
    }
    notes = []
    if models.keys() - files.keys():
        notes.append(
            "Networks are compressed after Deep Compression without training: pruned to the "
            f"densities ({result['settings']['density']}), weights shared by 8 bits in "
            "convolutions and 5 in fully-connected layers."
        )
    if files:
        notes.append(f"Taken as they are: {', '.join(sorted(files.values()))}.")
    return notes


def page(result: Record) -> str:
    """The table and what its columns mean."""
    about = settings_in_words(result["settings"], clips_of(result["rows"]))
    return table_page(
        result,
        columns_of(result),
        title="Table 4: the recurrence on compressed networks",
        notes=[*compressed_by(result), *NOTES, about],
    )


def columns_of(result: Record) -> list[Column]:
    """Of the page; a measured speedup for each dense runtime."""

    def measured(row: Record, name: str, *inner: str) -> Any:
        value = (row["measured"] or {}).get(name)
        for part in inner:
            value = (value or {}).get(part)
        return value

    def over(runtime: str) -> Column:
        return Column(
            title=f"speedup over {RUNTIMES.get(runtime, runtime)} fp32",
            cell=lambda row: shown(measured(row, "speedup_over", runtime)),
            kind="measured",
        )

    def both(name: str) -> Any:
        return lambda row: (
            f"{shown(row[f'{name}_macs'], '.3f')} ({shown(row[f'{name}_elements'], '.3f')})"
        )

    def on_eie(kind: str) -> Column:
        how = "at its peak" if kind == "theoretical" else "by cycles"
        names = [f"{kind}_us_input", f"{kind}_us_delta", f"{kind}_speedup_delta_frames"]

        def cell(row: Record) -> str:
            plain, delta, speedup = (row["eie"].get(name) for name in names)
            return f"{shown(plain, '.0f')} / {shown(delta, '.0f')}: {shown(speedup)}"

        return Column(title=f"EIE {how}, us and speedup", cell=cell, kind="theoretical")

    return [
        *key_columns("dataset", "model"),
        weights_column(),
        videos_column(),
        Column(title="threshold", cell=lambda row: f"{row['key']['threshold']:g}"),
        Column(title="weights kept", cell=lambda row: f"{row['weights_kept']:.1%}", kind="counted"),
        Column(title="sparsity of inputs", cell=both("sparsity_input"), kind="counted"),
        Column(title="sparsity of deltas", cell=both("sparsity_delta"), kind="counted"),
        Column(
            title="speedup over dense, MACs",
            cell=lambda row: shown(row["compressed_speedup_theoretical"]),
            kind="theoretical",
        ),
        Column(
            title="over compression alone, MACs",
            cell=lambda row: shown(row["compressed_speedup_theoretical_over_compression"]),
            kind="theoretical",
        ),
        on_eie("theoretical"),
        on_eie("simulated"),
        *(over(runtime) for runtime in result["settings"]["dense_runtimes"]),
        Column(
            title="speedup over uncompressed layers",
            cell=lambda row: shown(measured(row, "speedup_over_uncompressed")),
            kind="measured",
        ),
        error_column(),
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
        grouped_bars(left, datasets, sparsity_bars(own, datasets))
        series = speedup_bars(own, datasets, result["settings"]["dense_runtimes"])
        grouped_bars(
            right,
            datasets,
            series,
            hatched=[name for name in series if "theoretical" in name],
            labels=verdict_labels(own, datasets, series),
        )
        right.axhline(1.0, color="black", linewidth=0.8)
        left.set_title(f"{model}, weights {weights_text(weights)}", loc="left", fontsize="small")
    grid[0, 0].set_ylim(0, 1)
    grid[0, 1].set_yscale("log")
    for axes, words in zip(grid[-1], ("sparsity by MACs", "times as fast"), strict=True):
        axes.set_xlabel(words, fontsize="small")
    for axes, place in zip(grid[0], ("lower right", "upper left"), strict=True):
        axes.legend(fontsize="x-small", loc=place)
    save_svg(figure, path)


def sparsity_bars(rows: Sequence[Record], datasets: Sequence[str]) -> dict[str, list[float | None]]:
    """Of plain inputs, and of deltas at each threshold."""
    thresholds = sorted({row["key"]["threshold"] for row in rows})
    # What is not propagated changes later layers' inputs a little: those of the least threshold.
    series = {"plain inputs": bars(rows, datasets, thresholds[0], ("sparsity_input_macs",))}
    for threshold in thresholds:
        name = f"deltas at {threshold:g}"
        series[name] = bars(rows, datasets, threshold, ("sparsity_delta_macs",))
    return series


def speedup_bars(
    rows: Sequence[Record], datasets: Sequence[str], runtimes: Sequence[str]
) -> dict[str, list[float | None]]:
    """Over compression alone on EIE, and over a dense runtime on this machine."""
    series = {}
    for threshold in sorted({row["key"]["threshold"] for row in rows}):
        name = f"on EIE by cycles, theoretical, at {threshold:g}"
        series[name] = bars(rows, datasets, threshold, ("eie", "simulated_speedup_delta_frames"))
        for runtime in runtimes[:1]:
            name = f"measured over {RUNTIMES.get(runtime, runtime)} at {threshold:g}"
            series[name] = bars(rows, datasets, threshold, ("measured", "speedup_over", runtime))
    return series


def verdict_labels(
    rows: Sequence[Record], datasets: Sequence[str], series: Collection[str]
) -> dict[str, list[str]]:
    """What stands above measured speedups that are those of not computing."""
    judged = [{**row, "verdict": verdict(row["measured"] or {})} for row in rows]
    return {
        name: [str(word or "") for word in bars(judged, datasets, threshold, ("verdict",))]
        for threshold in sorted({row["key"]["threshold"] for row in rows})
        for name in series
        if name.startswith("measured") and name.endswith(f" at {threshold:g}")
    }


def bars(
    rows: Sequence[Record], datasets: Sequence[str], threshold: float, path: Sequence[str]
) -> list[float | None]:
    """A value of each dataset's row; None where there is none."""
    values: dict[str, Any] = {}
    for row in rows:
        if row["key"]["threshold"] == threshold:
            value: Any = row
            for name in path:
                value = (value or {}).get(name)
            values[row["key"]["dataset"]] = value
    return [values.get(dataset) for dataset in datasets]


if __name__ == "__main__":
    main()
