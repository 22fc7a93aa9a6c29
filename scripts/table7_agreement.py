"""What the recurrence costs in objects and people that are found, as in Table 7 of the paper.

    python scripts/table7_agreement.py configs/youtube_bb.yaml --models yolov2=yolov2.weights \
        --annotations yt_bb_detection_validation.csv --thresholds 0 1e-4 1e-3 1e-2 --max-videos 50 \
        --score 0.005 --json table7.json --markdown table7.md --svg table7.svg

A row for each dataset, network and threshold. What the dense network finds is always taken as true
once: mAP of boxes, or OKS-mAP of key points, of what the recurrent network finds in the same frames
(COCO's evaluation by pycocotools). With ``--annotations`` (docs/annotations.md) people's marks are
true, and both networks are asked. Beside them stands the relative error of the raw output.

``--score`` is the smallest score of an object, ``--part-score`` the smallest height of a heat map
at a part. Scores of networks that are not trained hardly pass the usual ones; a low one then makes
truths of what is noise, on which small errors of the raw output tell most.

``--json`` keeps each row as it is finished; the same command goes on there.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from agreement import Agreement, ClipAgreement
from annotation_files import read_annotations
from annotations import AnnotationError, Annotations, video_key
from average_precision import MOST_BOXES, MOST_PEOPLE
from benchmarking import counted, require, say
from charts import grouped_bars, legend_below, new_figure, save_svg
from datasets import Dataset, Reading
from network_bench import PACKAGES
from sweep_options import threshold_number
from table_page import (
    NOT_TRAINED,
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
from task_networks import INPUT_HELP, TaskNetwork, load_task_network

from rrm_extract.engine.backend import choose_engine
from rrm_extract.jobs import Video
from rrm_extract.tasks.detect import THRESHOLD as SCORE
from rrm_extract.tasks.pose import THRESHOLD as PART_SCORE

NAME = "table7_agreement"
MODELS = ("yolov2", "tiny_yolov2", "rtpose")
THRESHOLDS = (0.0, 1e-4, 1e-3, 1e-2)

NOTES = (
    "AP: mean over overlaps of .50, .55, ... .95 and over classes, in brackets at .50 alone, as "
    "COCO has it: for detectors mAP of boxes, for pose networks OKS-AP of COCO's 17 parts. A "
    "class of which nothing is true does not count.",
    "Beside the dense network: what it finds in each frame is taken as true, the "
    f"{MOST_BOXES} objects or {MOST_PEOPLE} people with the highest scores, and the same number "
    "of the recurrent network's is looked at. At threshold 0 nothing is truncated: what is missing "
    "to 1 comes from rounding.",
    "Theoretical speedup as the engine ran: the dense network's multiply-accumulates over those "
    "that it did, key frames included. Layers that it chose to run dense count in full, so it is "
    "less than what the zeros of the deltas allow. That, and speedups in time beside dense "
    "runtimes with the best of the settings that were tried, are in Tables 5 and 6.",
    "Error: relative L2 distance of the raw output to dense PyTorch, mean and worst frame.",
    "Kept: the same if every frame of a chunk had just what the dense network finds in the first. "
    "Agreement no better than that is no merit of the recurrence.",
)

NOISE_NOTE = (
    "What a network finds that is not trained is noise, and some of them find nothing above the "
    "usual scores: hence a low one. Hundreds of boxes, or of people who are put together from "
    "chance peaks, then have nearly the same scores, and the least error changes which of them are "
    "among those that count. Little follows from that for trained networks."
)


def main() -> None:
    """Makes the rows that are missing, and the table."""
    parser = table_parser(__doc__)
    add_model_options(parser, models=MODELS, preprocess=INPUT_HELP)
    parser.add_argument(
        "--thresholds", nargs="+", type=threshold_number, default=list(THRESHOLDS), metavar="X"
    )
    parser.add_argument(
        "--annotations", nargs="+", default=[], metavar="[DATASET=]FILE",
        help="people's marks, for one dataset or for all; docs/annotations.md",
    )  # fmt: skip
    parser.add_argument(
        "--score", type=float, default=SCORE, metavar="X", help=f"of objects (default: {SCORE})"
    )
    parser.add_argument(
        "--part-score", type=float, default=PART_SCORE, metavar="X",
        help=f"of parts of bodies (default: {PART_SCORE})",
    )  # fmt: skip
    parser.add_argument(
        "--policy", choices=("paper", "bounded"), default="bounded", help="(default: bounded)"
    )
    parser.add_argument("--chunk", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--engine", choices=("auto", "native", "torch"), default="auto")
    options = parser.parse_args()
    if options.source is None:
        require("pycocotools.cocoeval")  # rather now than after minutes of work
    run_table(
        options,
        name=NAME,
        packages=(*PACKAGES, "pycocotools"),
        settings={
            "policy": options.policy,
            "chunk": options.chunk,
            "engine": choose_engine(options.engine).engine,
            "score": options.score,
            "part_score": options.part_score,
            "preprocess": options.preprocess,
        },
        fill=partial(fill, options),
        page=page,
        draw=draw,
    )


def fill(options: argparse.Namespace, table: RowFile, datasets: Sequence[Dataset]) -> None:
    """All rows, network by network."""
    thresholds = list(dict.fromkeys(options.thresholds))
    files = annotation_files(options.annotations, datasets)
    for path in dict.fromkeys(files.values()):
        refuse_one_name(path, [one for one in datasets if files.get(one.name) == path])
    # Read at once: a wrong file is told of before hours of work.
    wanted = {video_key(video.video_id) for dataset in datasets for video in dataset.videos}
    marks = {
        path: read_annotations(Path(path), wanted=wanted) for path in dict.fromkeys(files.values())
    }
    for spec in options.models:
        networks = _Networks(spec, options, thresholds)
        model = shown_spec(spec.partition("=")[0])
        for dataset in datasets:
            keys = [
                {"dataset": dataset.name, "model": model, "threshold": threshold}
                for threshold in thresholds
            ]
            file = files.get(dataset.name)
            source = made_from(
                dataset, spec, options.weights, options.preprocess or "", *([file] if file else [])
            )
            annotations = marks[file] if file else None
            table.rows(keys, source, partial(networks.rows, dataset, annotations))


def annotation_files(given: Sequence[str], datasets: Sequence[Dataset]) -> dict[str, str]:
    """The file of each dataset that has one.

    Raises:
        AnnotationError: a dataset is given two.
    """
    names = [dataset.name for dataset in datasets]
    files: dict[str, str] = {}
    for text in given:
        name, equals, file = text.partition("=")
        is_named = bool(equals) and name in names
        for dataset in [name] if is_named else names:
            if dataset in files:
                msg = f"annotations {files[dataset]} and {text} are both of {dataset}; expected one"
                raise AnnotationError(msg)
            files[dataset] = file if is_named else text
    return files


def refuse_one_name(file: str, datasets: Sequence[Dataset]) -> None:
    """Two videos of one name would get the same marks; one that is in two datasets may.

    Args:
        file: of annotations.
        datasets: those that it is of.

    Raises:
        AnnotationError: there are two such videos.
    """
    called: dict[str, Video] = {}
    for video in (video for dataset in datasets for video in dataset.videos):
        name = video_key(video.video_id)
        other = called.setdefault(name, video)
        if other.path.resolve() != video.path.resolve():
            msg = (
                f"annotations {file}: both {other.video_id!r} and {video.video_id!r} are called "
                f"{name!r} without folders and extension; expected each name once"
            )
            raise AnnotationError(msg)


class _Networks:
    """Makes the rows of one network; it is loaded when first needed.

    Args:
        spec: NAME or NAME=WEIGHTS.
        options: of the script.
        thresholds: one row for each.
    """

    def __init__(self, spec: str, options: argparse.Namespace, thresholds: Sequence[float]) -> None:
        self._spec, self._options, self._thresholds = spec, options, thresholds
        self._loaded: dict[str, tuple[TaskNetwork, Agreement]] = {}

    def rows(self, dataset: Dataset, annotations: Annotations | None) -> list[Record]:
        """A row for each threshold; all of them look at the same frames."""
        network, agreement = self._network(dataset.fps)
        say(f"{network.subject.name}, {dataset.name}: {counted(len(dataset.videos), 'video')}")
        reading, seen = Reading(), ClipAgreement()
        for video in dataset.videos:
            marks = () if annotations is None else annotations.of(video.video_id)
            clip = partial(agreement.clip, count=self._options.max_frames, annotated=marks)
            one = Dataset(
                name=dataset.name, videos=(video,), found=1, fps=dataset.fps, given=dataset.given
            )
            for _, found in reading.each(one, clip):
                seen.join(found)
        beside_people = self._beside_people(agreement, seen, annotations)
        kept = agreement.with_dense(seen, seen.kept).to_json() if seen.frames else None
        return [
            {
                "weights": network.subject.weights_id,
                "task": network.task,
                "frames": seen.frames,
                **reading.to_json(),
                "work": seen.work[threshold] / seen.frames if seen.frames else None,
                "raw_error": _mean(seen.errors.get(threshold, [])),
                "raw_error_max": max(seen.errors.get(threshold, []), default=math.nan),
                "raw_error_kept": _mean(seen.errors_kept),
                "with_dense": agreement.with_dense(seen, seen.own[threshold]).to_json()
                if seen.frames
                else None,
                "with_dense_kept": kept,
                "with_annotations": beside_people
                and {
                    **beside_people,
                    "own": agreement.with_annotations(
                        seen, annotations, seen.own.get(threshold, [])
                    ).to_json(),
                }
                if annotations is not None
                else None,
            }
            for threshold in self._thresholds
        ]

    def _beside_people(
        self, agreement: Agreement, seen: ClipAgreement, annotations: Annotations | None
    ) -> Record | None:
        """What the rows of all thresholds have in common."""
        if annotations is None:
            return None
        return {
            "name": annotations.name,
            "frames": len(seen.annotated),
            "frames_between": seen.between,
            "frames_beyond": seen.beyond,
            "unknown_classes": agreement.unknown_classes(seen),
            "dense": agreement.with_annotations(seen, annotations, seen.dense).to_json(),
        }

    def _network(self, fps: str) -> tuple[TaskNetwork, Agreement]:
        if fps not in self._loaded:
            options = self._options
            network = load_task_network(
                self._spec, options, fps=fps, score=options.score, part_score=options.part_score
            )
            self._loaded[fps] = (network, Agreement(network, self._thresholds))
        return self._loaded[fps]


def page(result: Record) -> str:
    """The table and what its columns mean."""
    settings = result["settings"]
    about = [
        f"Objects have a score above {settings['score']:g}, parts of bodies one above "
        f"{settings['part_score']:g}; the product's own are {SCORE:g} and {PART_SCORE:g}.",
        f"Policy {settings['policy']}, chunks of {settings['chunk']:g} s, the "
        f"{settings['engine']} engine.",
    ]
    if settings["preprocess"]:
        about.append(f"Networks' input: {settings['preprocess']}.")
    if any(NOT_TRAINED in weights_text(row["weights"]) for row in result["rows"]):
        about.append(NOISE_NOTE)
    about += _annotated_notes(result["rows"])
    return table_page(
        result,
        columns_of(result),
        title="Table 7: what is found, beside the dense network",
        notes=[*NOTES, *about],
    )


def columns_of(result: Record) -> list[Column]:
    """Of the page; those of annotations where there are any."""

    def beside_dense(name: str) -> Any:
        return lambda row: _count(row["with_dense"], name)

    columns = [
        *key_columns("dataset", "model"),
        weights_column(),
        videos_column(),
        Column(title="threshold", cell=lambda row: f"{row['key']['threshold']:g}"),
        Column(title="true (dense)", cell=beside_dense("truths"), kind="counted"),
        Column(title="found", cell=beside_dense("found"), kind="counted"),
        Column(
            title="AP (.50) beside the dense network",
            cell=lambda row: _precision(row["with_dense"]),
            kind="measured",
        ),
        Column(
            title="if the first frame's were kept",
            cell=lambda row: _precision(row["with_dense_kept"]),
            kind="measured",
        ),
        Column(title="speedup over dense as the engine ran", cell=_speedup, kind="theoretical"),
        Column(title="raw output's error: mean / worst / kept", cell=_errors, kind="measured"),
    ]
    if any(row["with_annotations"] for row in result["rows"]):
        columns += [
            Column(
                title=f"AP (.50) beside annotations, {title}",
                cell=partial(_beside_annotations, name=name),
                kind="measured",
            )
            for name, title in (("dense", "dense network"), ("own", "with the recurrence"))
        ]
    return columns


def draw(result: Record, path: Path) -> None:
    """A row of panels for each network: precision, and the raw output's error."""
    rows = result["rows"]
    models = list(dict.fromkeys((row["key"]["model"], row["weights"]) for row in rows))
    datasets = list(dict.fromkeys(row["key"]["dataset"] for row in rows))
    figure = new_figure(max(8.0, 2.0 + 1.5 * len(datasets)), 2.6 * len(models) + 0.6)
    grid = figure.subplots(len(models), 2, squeeze=False, sharey="col")
    for (left, right), (model, weights) in zip(grid, models, strict=True):
        own = [row for row in rows if (row["key"]["model"], row["weights"]) == (model, weights)]
        least = min(row["key"]["threshold"] for row in own)
        some = [row for row in own if row["key"]["threshold"] == least]
        for axes, name, value in ((left, "with_dense", _ap), (right, "raw_error", _error)):
            kept = _bars(some, datasets, partial(value, name=f"{name}_kept"))
            series = {"first frame kept": next(iter(kept.values()))}
            series |= _bars(own, datasets, partial(value, name=name))
            grouped_bars(axes, datasets, series, colors={"first frame kept": "#b0b0b0"})
        left.set_title(f"{model}, weights {weights_text(weights)}", loc="left", fontsize="small")
    grid[0, 0].set_ylim(0, 1)
    if any(_error(row, name="raw_error") for row in rows):
        grid[0, 1].set_yscale("log")
    words = ("AP, the dense network being true", "relative error of the raw output")
    for axes, text in zip(grid[-1], words, strict=True):
        axes.set_xlabel(text, fontsize="small")
    legend_below(figure, columns=1 + len({row["key"]["threshold"] for row in rows}))
    save_svg(figure, path)


def _bars(
    rows: Sequence[Record], datasets: Sequence[str], value: Any
) -> dict[str, list[float | None]]:
    """By threshold, a value for each dataset."""
    series: dict[str, list[float | None]] = {}
    for threshold in sorted({row["key"]["threshold"] for row in rows}):
        values = {
            row["key"]["dataset"]: value(row)
            for row in rows
            if row["key"]["threshold"] == threshold
        }
        series[f"threshold {threshold:g}"] = [values.get(dataset) for dataset in datasets]
    return series


def _ap(row: Record, *, name: str) -> float | None:
    return (row[name] or {}).get("ap")


def _error(row: Record, *, name: str) -> float | None:
    error: float | None = row[name]
    return error or None  # zero has no place on a logarithmic scale


def _annotated_notes(rows: Sequence[Record]) -> list[str]:
    """What was looked at of annotations, once for each dataset and frame rate."""
    notes = {
        f"{row['key']['dataset']}: annotations of {marks['name']}, "
        f"{counted(marks['frames'], 'annotated frame')} looked at, {marks['frames_between']} "
        f"between sampled frames, {marks['frames_beyond']} after the last of them. Classes and "
        "parts that nobody marks there do not count.": None
        for row in rows
        if (marks := row["with_annotations"])
    }
    for row in rows:
        key, marks = row["key"], row["with_annotations"] or {}
        if unknown := marks.get("unknown_classes"):
            note = (
                f"{key['dataset']}, {key['model']}: annotated classes that this network does not "
                f"know do not count: {', '.join(unknown)}."
            )
            if marks["dense"]["ap"] is None:
                note += " It knows no other that is annotated: nothing can be scored."
            notes[note] = None
    return list(notes)


def _speedup(row: Record) -> str:
    work = row.get("work")  # which older files lack
    return shown(1 / work if work else None)


def _errors(row: Record) -> str:
    names = ("raw_error", "raw_error_max", "raw_error_kept")
    return " / ".join(shown(row[name], ".0e") for name in names)


def _beside_annotations(row: Record, *, name: str) -> str:
    return _precision((row["with_annotations"] or {}).get(name))


def _precision(precision: Record | None) -> str:
    if precision is None:
        return "-"
    return f"{shown(precision['ap'], '.3f')} ({shown(precision['ap50'], '.3f')})"


def _count(precision: Record | None, name: str) -> str:
    return "-" if precision is None else f"{precision[name]:,}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


if __name__ == "__main__":
    main()
