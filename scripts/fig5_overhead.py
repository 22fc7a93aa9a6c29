"""Total wall-clock speedup against sparsity, and where the time goes, as in Fig. 5 of the paper.

    python scripts/fig5_overhead.py configs/ucf101.yaml --weights default \
        --thresholds 0 1e-4 1e-3 1e-2 --changed 0 0.02 0.1 0.3 1 \
        --json fig5.json --markdown fig5.md --svg fig5.svg

A point for each dataset, network and threshold, on a few clips; and, at threshold 0, for pictures
of noise in which a square of a given share of the pixels is new in each frame (``--changed``).
Sparsity turns into time only where the rest of a network does not take it all: layers that are not
linear, and the comparing and listing that the recurrence adds.

*Counted*: the overall sparsity of the deltas, by MACs (Eq. 9). *Theoretical*: MACs of the dense
network over those of the deltas, and the same with all other layers at the share that they have of
the ordinary network's time in PyTorch, which no sparsity makes shorter. *Measured*, in rounds in
which each has its turn: the whole network on the native engine, over the same engine with every
layer dense, and over dense runtimes, fp32, with as many threads; the feature's error in that run;
and where the engine's time went. All speedups include key frames.

Batch normalisation is folded into the layer before it, in the engine and for dense runtimes alike,
and takes no time of its own; the ordinary network's shares are those of PyTorch with nothing folded
or fused. Where lists do not pay the engine runs a layer dense, and never compares it in full.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarking import say
from charts import legend_below, new_figure, save_svg
from datasets import Dataset, Reading
from layer_times import KINDS, ordinary_times
from network_bench import PACKAGES
from peers import Peer
from peers.base import consecutive_parts
from peers.rrm_peer import SPLIT
from sparsity import sparsity_of_clips
from subjects import Clip, Subject, noise_frames
from sweep_options import threshold_number
from table2_sparsity import measured_values, settings_in_words
from table_page import (
    Column,
    key_columns,
    markdown_row,
    shown,
    table_page,
    weights_column,
    weights_text,
)
from table_rows import Record, RowFile
from tables import (
    add_model_options,
    made_from,
    network_stamps,
    run_table,
    shown_spec,
    table_parser,
)
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
from torch import Tensor

from rrm_extract.engine.backend import choose_engine
from rrm_extract.rrm import overall_sparsity

NAME = "fig5_overhead"
MODELS = ("alexnet", "vgg16", "resnet18")
THRESHOLDS = (0.0, 1e-4, 1e-3, 1e-2)
CHANGED = (0.0, 0.02, 0.1, 0.3, 1.0)
SQUARE = "changing square"
DENSE_ENGINE = "rrm-native dense"
NOISE_FRAMES = 16

COLORS = {
    "linear": "#1f77b4",
    "lists": "#ff7f0e",
    "activation": "#2ca02c",
    "pooling": "#9467bd",
    "other": "#7f7f7f",
}

NOTES = (
    f'Clips of datasets at several thresholds; "{SQUARE}": noise at threshold 0, of which a square '
    "of that share of the pixels is new in each frame.",
    "Counted: overall sparsity of the deltas by MACs (Eq. 9) over frames that are no key frames, "
    "in a run of its own on the same frames in which every layer takes deltas: a layer that runs "
    "dense compares only some frames.",
    "Theoretical, no times, key frames included: MACs of the dense network over those of the "
    "deltas; and with all other layers, batch normalisation among them, at their share of the "
    "ordinary network's time in PyTorch (below).",
    "Measured: total wall-clock of the network alone on decoded frames, key frames included, over "
    "the same engine with every layer dense (on noise, for it computes nothing twice), and over "
    "dense runtimes with the best of the settings that were tried; fp32, as many threads, the same "
    "rounds, medians.",
    ERROR_NOTE,
    "Time of the engine (measured, in runs of their own, by shares): *linear*: layers' sums, of "
    "deltas, or dense where lists do not pay; *lists*: comparing, truncating and listing; "
    "*activation*: ReLU and residual sums, and the pooling that is fused to a first layer; "
    "*pooling* elsewhere; *other*: moves, and handing frames in and features out. Batch "
    "normalisation is folded into the layer before it, and takes none.",
)


def main() -> None:
    """Makes the points that are missing, the table and the figure."""
    parser = table_parser(__doc__)
    add_model_options(parser, models=MODELS)
    parser.add_argument(
        "--thresholds", nargs="*", type=threshold_number, default=list(THRESHOLDS), metavar="X",
        help="on the datasets' clips",
    )  # fmt: skip
    parser.add_argument(
        "--changed", nargs="*", type=_share, default=list(CHANGED), metavar="SHARE",
        help="of the pixels of generated pictures that are new in each frame, 0 to 1",
    )  # fmt: skip
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


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        msg = f"{text}: expected a share from 0 to 1"
        raise argparse.ArgumentTypeError(msg)
    return number


def fill(options: argparse.Namespace, table: RowFile, datasets: Sequence[Dataset]) -> None:
    """All points, network by network; those of one dataset in the same rounds."""
    thresholds = list(dict.fromkeys(options.thresholds))
    for spec in options.models:
        name = shown_spec(spec.partition("=")[0])
        network = TimedNetwork(spec, options, thresholds)
        weights = (spec, options.weights, options.preprocess or "")
        for dataset in datasets if thresholds else ():
            keys = [_key(dataset.name, name, threshold, None) for threshold in thresholds]
            table.rows(keys, made_from(dataset, *weights), partial(network.of_dataset, dataset))
        for changed in dict.fromkeys(options.changed):
            key = _key(SQUARE, name, 0.0, changed)
            source: Record = {
                "pictures": "noise, seed 0",
                "weights": [shown_spec(w) for w in weights],
            }
            if stamps := network_stamps(*weights):
                source["files"] = stamps
            table.row(key, source, partial(network.of_square, changed))


def _key(dataset: str, model: str, threshold: float, changed: float | None) -> Record:
    return {"dataset": dataset, "model": model, "threshold": threshold, "changed": changed}


class TimedNetwork:
    """Makes the points of one network; it is loaded when first needed.

    Args:
        spec: NAME or NAME=WEIGHTS.
        options: of the script.
        thresholds: of the points on clips.
    """

    def __init__(self, spec: str, options: argparse.Namespace, thresholds: Sequence[float]) -> None:
        self._spec, self._options, self._thresholds = spec, options, thresholds
        self._prepared: dict[str, tuple[Subject, Timer, Record]] = {}

    def of_dataset(self, dataset: Dataset) -> list[Record]:
        """A row for each threshold."""
        subject, timer, ordinary = self._ready(dataset.fps)
        say(f"{subject.name}, {dataset.name}")
        clips, reading = timed_clips(dataset, subject, self._options)
        speeds = timer.speeds(clips, thresholds=self._thresholds, split=True)
        return [
            self._row(subject, clips, reading, speeds, threshold, ordinary)
            for threshold in self._thresholds
        ]

    def of_square(self, changed: float) -> Record:
        """The row of generated pictures."""
        subject, timer, ordinary = self._ready("24")
        say(f"{subject.name}, {SQUARE} of {changed:g}")
        frames = changing_square(
            noise_frames(subject, count=self._options.timed_frames), changed=changed
        )
        clips = {f"{changed:g}": Clip(frames=frames, chunk=subject.sampling.frames_per_chunk)}
        speeds = timer.speeds(clips, thresholds=[0.0], split=True)
        return self._row(subject, clips, Reading(), speeds, 0.0, ordinary)

    def _ready(self, fps: str) -> tuple[Subject, Timer, Record]:
        if fps not in self._prepared:
            options = self._options
            subject = subject_of(self._spec, options, fps=fps)
            noise = noise_frames(subject, count=NOISE_FRAMES)
            extra: list[Peer] = []
            if choose_engine(options.engine).engine == "native":
                from peers.dense_engine_peer import DenseEnginePeer

                extra = [DenseEnginePeer(subject.recipe, noise, threads=options.threads)]
            for peer in extra:
                peer.prepare()
            plan = timing_plan(options, list(dict.fromkeys([*self._thresholds, 0.0])))
            torch.set_num_threads(options.threads)
            ordinary = ordinary_times(subject.ordinary, noise[:8], repeats=options.repeats)
            self._prepared[fps] = (subject, Timer(subject, plan, extra=extra), ordinary)
        return self._prepared[fps]

    def _row(
        self,
        subject: Subject,
        clips: Mapping[str, Clip],
        reading: Reading,
        speeds: Sequence[Record],
        threshold: float,
        ordinary: Record,
    ) -> Record:
        measured = measured_values(speeds, threshold)
        row = {
            "weights": subject.weights_id,
            **reading.to_json(),
            "frames": sum(map(len, clips.values())),
            "clips": {name: len(frames) for name, frames in clips.items()},
            "ordinary_milliseconds": ordinary,
        }
        if measured is None:  # no video of the dataset can be read
            return {**row, "sparsity": None, **theory(None, ordinary), "measured": None}
        for one in measured["dense"].values():
            if one["runtime"] == DENSE_ENGINE:  # of other pictures: it has no error
                one["feature_error"] = one["feature_error_max"] = None
                one["feature_error_kept"] = None
        # Each thread has a part of a clip, which begins with a key frame.
        parts = [
            Clip(frames=part, chunk=clip.chunk)
            for clip in clips.values()
            for part in consecutive_parts(clip.frames, self._options.threads)
        ]
        sparsity = sparsity_of_clips(subject, parts, threshold, engine=self._options.engine)
        return {
            **row,
            "sparsity": overall_sparsity(sparsity.layers),
            **theory(sparsity.work, ordinary),
            "measured": measured,
        }


def theory(work: float | None, ordinary: Mapping[str, float]) -> Record:
    """What a sparsity is worth by MACs, and with all other layers at their share of the time.

    Args:
        work: share of the dense MACs, key frames included; None where nothing was counted.
        ordinary: milliseconds of the ordinary network by kind of layer.
    """
    if work is None:
        return {"speedup_theoretical": None, "speedup_theoretical_with_other_layers": None}
    others = 1 - ordinary["linear"] / sum(ordinary.values())
    return {
        "speedup_theoretical": 1 / work,
        "speedup_theoretical_with_other_layers": 1 / (others + (1 - others) * work),
    }


def changing_square(noise: Tensor, *, changed: float) -> Tensor:
    """Pictures of which a square, at another place each time, is new in each frame.

    Args:
        noise: (T, C, H, W) float32.
        changed: share of the pixels that are in the square, 0 to 1.

    Returns:
        (T, C, H, W) float32, the first frame as it was.
    """
    generator = torch.Generator().manual_seed(0)
    height, width = noise.shape[2:]
    rows, columns = round(height * changed**0.5), round(width * changed**0.5)
    frames = noise.clone()
    for number in range(1, len(frames)):
        top = int(torch.randint(height - rows + 1, (), generator=generator))
        left = int(torch.randint(width - columns + 1, (), generator=generator))
        place = (slice(None), slice(top, top + rows), slice(left, left + columns))
        frames[number] = frames[number - 1]
        frames[number][place] = noise[number][place]
    return frames


def page(result: Record) -> str:
    """The table, what its columns mean, and the ordinary networks' shares."""
    clips = [row["clips"] for row in result["rows"] if row["key"]["changed"] is None]
    table = table_page(
        result,
        columns_of(result),
        title="Fig. 5: total speedup against sparsity, and where the time goes",
        notes=[*NOTES, settings_in_words(result["settings"], clips)],
    )
    return table + "\n" + _ordinary_table(result["rows"])


def columns_of(result: Record) -> list[Column]:
    """Of the page."""

    def setting(row: Record) -> str:
        key = row["key"]
        if key["changed"] is None:
            return f"threshold {key['threshold']:g}"
        return f"{key['changed']:.0%} changed"

    def measured(name: str, form: str) -> Callable[[Record], str]:
        return lambda row: shown((row["measured"] or {}).get(name), form)

    def over(runtime: str) -> Column:
        name = f"{RUNTIMES.get(runtime, runtime)} fp32"
        return Column(
            title="speedup over " + ("the same engine dense" if runtime == DENSE_ENGINE else name),
            cell=lambda row: shown((row["measured"] or {}).get("speedup_over", {}).get(runtime)),
            kind="measured",
        )

    def spent(row: Record) -> str:
        split = (row["measured"] or {}).get("split")
        return "-" if split is None else " / ".join(f"{split[name]:.0%}" for name in SPLIT)

    def speedup(name: str) -> Callable[[Record], str]:
        return lambda row: shown(row[name])

    theoretical = "speedup_theoretical"
    return [
        *key_columns("dataset", "model"),
        weights_column(),
        Column(title="setting", cell=setting),
        Column(
            title="sparsity of deltas",
            cell=lambda row: shown(row["sparsity"], ".3f"),
            kind="counted",
        ),
        Column(title="speedup by MACs", cell=speedup(theoretical), kind="theoretical"),
        Column(
            title="with other layers",
            cell=speedup(f"{theoretical}_with_other_layers"),
            kind="theoretical",
        ),
        over(DENSE_ENGINE),
        *(over(runtime) for runtime in result["settings"]["dense_runtimes"]),
        error_column(),
        Column(title=f"time: {' / '.join(SPLIT)}", cell=spent, kind="measured"),
    ]


def _ordinary_table(rows: Sequence[Record]) -> str:
    networks = {(row["key"]["model"], row["weights"]): row for row in rows}
    lines = [
        "Dense PyTorch, nothing folded or fused: where its time goes, by kind of layer (measured).",
        "",
        markdown_row(["model", *KINDS, "not linear"]),
        markdown_row("---" for _ in range(len(KINDS) + 2)),
    ]
    for (model, _), row in networks.items():
        times = row["ordinary_milliseconds"]
        shares = [times[kind] / sum(times.values()) for kind in KINDS]
        cells = [f"{share:.1%}" for share in (*shares, 1 - shares[0])]
        lines.append(markdown_row([model, *cells]))
    return "\n".join(lines) + "\n"


def draw(result: Record, path: Path) -> None:
    """For each network total speedup against sparsity, and the shares of the time below it."""
    rows = [row for row in result["rows"] if row["sparsity"] is not None]
    networks = list(dict.fromkeys((row["key"]["model"], row["weights"]) for row in rows))
    figure = new_figure(4.2 * max(1, len(networks)), 7.4)
    grid = figure.subplots(2, max(1, len(networks)), squeeze=False)
    runtimes = [DENSE_ENGINE, *result["settings"]["dense_runtimes"][:1]]
    for column, (model, weights) in enumerate(networks):
        own = sorted(
            (row for row in rows if (row["key"]["model"], row["weights"]) == (model, weights)),
            key=lambda row: row["sparsity"],
        )
        _draw_speedups(grid[0, column], own, runtimes)
        _draw_times(grid[1, column], own)
        grid[0, column].set_title(f"{model}, weights {weights_text(weights)}", fontsize="small")
    for row, words in zip(grid, ("times as fast", "share of the engine's time"), strict=True):
        row[0].set_ylabel(words, fontsize="small")
    legend_below(figure, columns=min(3, len(networks) + 1))
    save_svg(figure, path)


def _draw_speedups(axes: Any, rows: Sequence[Record], runtimes: Sequence[str]) -> None:
    sparsities = [row["sparsity"] for row in rows]
    for name, style, label in (
        ("speedup_theoretical", "k-", "by MACs (theoretical)"),
        ("speedup_theoretical_with_other_layers", "k--", "with other layers (theoretical)"),
    ):
        axes.plot(sparsities, [row[name] for row in rows], style, linewidth=0.9, label=label)
    for runtime, marker in zip(runtimes, "os", strict=False):
        over = RUNTIMES.get(runtime, runtime)
        for what_is_shown, filled in (
            ("", True),
            (", generated", False),
            (", frozen or worse", False),
        ):
            some = [
                (row["sparsity"], row["measured"]["speedup_over"][runtime])
                for row in rows
                if _group(row) == what_is_shown and runtime in row["measured"]["speedup_over"]
            ]
            color = "#1f77b4" if runtime == DENSE_ENGINE else "#d62728"
            what = "the same engine dense" if runtime == DENSE_ENGINE else over
            axes.plot(
                [x for x, _ in some], [y for _, y in some],
                "x" if what_is_shown == ", frozen or worse" else marker, color=color, markersize=4,
                fillstyle="full" if filled else "none",
                label=f"over {what}{what_is_shown} (measured)",
            )  # fmt: skip
    axes.axhline(1.0, color="gray", linewidth=0.6)
    axes.set_yscale("log")
    axes.set_xlabel("sparsity of the deltas by MACs", fontsize="small")
    axes.tick_params(labelsize="x-small")
    axes.grid(visible=True, which="both", linewidth=0.2)


def _group(row: Record) -> str:
    """What tells a point's mark from others."""
    if verdict(row["measured"]):
        return ", frozen or worse"
    return "" if row["key"]["changed"] is None else ", generated"


def _draw_times(axes: Any, rows: Sequence[Record]) -> None:
    shown_rows = [row for row in rows if row["measured"]["split"] is not None]
    bottoms = [0.0] * len(shown_rows)
    for name in SPLIT:
        heights = [row["measured"]["split"][name] for row in shown_rows]
        axes.bar(
            range(len(heights)), heights, width=0.9, bottom=bottoms, color=COLORS[name], label=name
        )
        bottoms = [low + height for low, height in zip(bottoms, heights, strict=True)]
    axes.set_ylim(0, 1)
    axes.set_xticks(
        range(len(shown_rows)),
        [f"{row['sparsity']:.2f}" for row in shown_rows],
        rotation=90,
        fontsize="x-small",
    )
    axes.set_xlabel("points by sparsity", fontsize="small")
    axes.tick_params(axis="y", labelsize="x-small")


if __name__ == "__main__":
    main()
