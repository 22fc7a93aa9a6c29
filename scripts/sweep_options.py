"""What the scripts that sweep thresholds have in common: options, running, and the table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarking import counted, machine, save_json, versions
from recognition_options import (
    add_label_options,
    add_training_options,
    labels_of,
    training_of,
    whole_number,
)
from threshold_sweep import INFINITE, ErrorControl, Point, Sweep, shown_threshold

from rrm_extract.errors import RrmError, StoreMismatchError
from rrm_extract.jobs import discover
from rrm_extract.jobs.calibration import load

__all__ = ["add_sweep_options", "error_controls", "markdown", "run_sweep", "threshold_number"]

PACKAGES = ("rrm-extract", "torch", "torchvision", "av", "numpy")
INTERRUPTED = 130

_JOB_OPTIONS = ("model", "weights", "layer", "preprocess", "policy", "chunk", "fps", "engine")


def add_sweep_options(parser: argparse.ArgumentParser, *, thresholds: Sequence[float]) -> None:
    """Videos, network, thresholds, labels and outputs."""
    parser.add_argument("--videos", type=Path, metavar="FOLDER")
    parser.add_argument(
        "--work", type=Path, metavar="FOLDER",
        help="where feature files go; what is complete there is not computed again",
    )  # fmt: skip
    add_label_options(parser, required=False)
    add_training_options(parser)
    parser.add_argument("--model", default="resnet18", help="as rrm-extract takes it")
    parser.add_argument("--weights", default="default", help="as rrm-extract takes it")
    parser.add_argument("--layer", help="as rrm-extract takes it")
    parser.add_argument("--preprocess", metavar="SPEC", help="as rrm-extract takes it")
    parser.add_argument(
        "--thresholds", nargs="+", type=threshold_number, default=list(thresholds), metavar="X",
        help="0 or more; inf: nothing is propagated after a key frame",
    )  # fmt: skip
    parser.add_argument(
        "--policy", choices=("paper", "bounded"), default="paper", help="(default: paper)"
    )
    parser.add_argument("--chunk", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--fps", default="24", metavar="RATE")
    parser.add_argument("--engine", choices=("auto", "native", "torch"), default="auto")
    parser.add_argument(
        "--workers", type=whole_number(1), default=1, metavar="N",
        help="cores, for the dense network as well (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--aecs", nargs="+", type=Path, metavar="FILE",
        help="calibrations for accumulated error control, each for the threshold it was made with",
    )  # fmt: skip
    parser.add_argument(
        "--error-limit", type=float, metavar="NUMBER", help="of accumulated error control"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")


def error_controls(arguments: argparse.Namespace) -> dict[float, ErrorControl]:
    """The control of each threshold that has a calibration; ends the program if it is wrong."""
    if arguments.aecs is None and arguments.error_limit is None:
        return {}
    if arguments.aecs is None or arguments.error_limit is None:
        sys.exit("accumulated error control takes both, --aecs FILE and --error-limit NUMBER")
    controls: dict[float, ErrorControl] = {}
    for path in arguments.aecs:
        threshold = _calibrated_threshold(path)
        if threshold not in arguments.thresholds:
            asked = " ".join(map(shown_threshold, arguments.thresholds))
            made = shown_threshold(threshold)
            sys.exit(f"{path} is for threshold {made}; expected one of --thresholds {asked}")
        controls[threshold] = ErrorControl(aecs=path, limit=arguments.error_limit)
    return controls


def _calibrated_threshold(path: Path) -> float:
    try:
        calibration = load(path, kind="accumulated")
    except RrmError as error:
        sys.exit(str(error))
    threshold = getattr(calibration, "threshold", None)
    if not isinstance(threshold, float):
        sys.exit(f"{path} is for thresholds by layer; expected one threshold for all layers")
    return threshold


def run_sweep(arguments: argparse.Namespace, points: Sequence[Point]) -> dict[str, Any]:
    """Computes what is not there yet; ends the program where a request is wrong.

    The file that ``--json`` names is written anew after each point, so that a run that is ended
    early has something to show.
    """
    if arguments.videos is None or arguments.work is None:
        sys.exit("nothing to measure: give --videos FOLDER and --work FOLDER")
    try:
        return _run(arguments, points)
    except StoreMismatchError as error:
        sys.exit(f"{error}; here that is another --work")
    except RrmError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("interrupted; what is finished is kept, the same command goes on", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _run(arguments: argparse.Namespace, points: Sequence[Point]) -> dict[str, Any]:
    folder = str(arguments.videos)
    videos = discover([folder], root=folder)
    labels = None
    if arguments.labels is not None:
        labels = labels_of(arguments, [video.video_id for video in videos])
    job = {name: value for name in _JOB_OPTIONS if (value := getattr(arguments, name)) is not None}
    sweep = Sweep(
        job,
        videos,
        arguments.work,
        root=arguments.videos,
        workers=arguments.workers,
        labels=labels,
        training=training_of(arguments),
        keep_partial=arguments.keep_partial,
    )
    result: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(PACKAGES),
        "settings": {**job, "workers": arguments.workers, "seed": arguments.seed},
        "videos": len(videos),
        "unlabelled": sweep.unlabelled,
        "labels": labels and labels.name,
        "train": None,
        "records": [],
    }
    for record in sweep.records(list(dict.fromkeys(points))):
        result["train"] = sweep.coverage and sweep.coverage.to_json()
        result["records"].append(record)
        if record["engine"] is not None:
            result["settings"]["engine"] = record["engine"]  # asked for was perhaps "auto"
        if arguments.json is not None:
            save_json(result, arguments.json)
    return result


def markdown(result: dict[str, Any]) -> str:
    """The table, and what its columns mean."""
    settings, records = result["settings"], result["records"]
    measure = next((one["accuracy"]["measure"] for one in records if one["accuracy"]), "accuracy")
    controlled = any(record["error_limit"] is not None for record in records)
    per_class = measure == "top-1"
    head = [
        "threshold",
        *(["error limit"] if controlled else []),
        "theoretical speedup (MACs)",
        "wall-clock speedup (network)",
        measure,
        *(["mean per class"] if per_class else []),
        "feature error, mean / worst frame",
        "key frames",
    ]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for record in records:
        accuracy = record["accuracy"] or {}
        cells = [
            shown_threshold(record["threshold"]),
            *([_shown(record["error_limit"], "g")] if controlled else []),
            _shown(record["speedup_theoretical"], ".2f"),
            _shown(record["speedup_wall_network"], ".2f"),
            _shown(accuracy.get("value"), ".3f"),
            *([_shown(accuracy.get("mean_class"), ".3f")] if per_class else []),
            "infinite"
            if record.get("frames_not_finite")
            else f"{_shown(record['feature_error'], '.0e')} / "
            f"{_shown(record['feature_error_max'], '.0e')}",
            f"{record['key_frames'] / record['frames']:.1%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    dense = records[0]
    ran = "" if settings["engine"] == "auto" else f", the {settings['engine']} engine"
    cores = counted(settings["workers"], "core")
    lines += [
        "",
        f"{settings['model']}, weights {settings['weights']}, policy {settings['policy']}, chunks "
        f"of {settings['chunk']:g} s{ran}; {counted(dense['videos'], 'video')}, "
        f"{counted(dense['frames'], 'frame')}.",
        "Theoretical: dense MACs over MACs done, key frames included, of the dense network; not a "
        "time. Layers that the engine chose to run dense count in full.",
        "Wall-clock: seconds of the dense network in PyTorch (fp32, channels_last, batches of 16) "
        f"over those of the recurrent one, the network alone, both on {cores}.",
    ]
    if result["labels"] is None:
        lines.append("Without labels there is no accuracy.")
    else:
        lines.append(
            f"Accuracy: {result['labels']}; a network of two layers on each video's mean feature, "
            f"learnt from the dense network's features of {result['train']['used']} videos."
        )
    if short := _left_out(result):
        lines.append(f"Left out: {short}.")
    return "\n".join(lines)


def _left_out(result: dict[str, Any]) -> str:
    """What the figures do not count, in words; empty if nothing."""
    parts = []
    if result["unlabelled"]:
        parts.append(f"{counted(len(result['unlabelled']), 'video')} without a label")
    for name in ("missing", "failed", "partial"):
        if result["train"] and (videos := result["train"][name]):
            parts.append(f"{counted(len(videos), 'video')} to learn from, {name}")
    for record in result["records"]:
        threshold = shown_threshold(record["threshold"])
        if missing := (record["test"] or {}).get("missing"):
            parts.append(f"{counted(len(missing), 'test video')} that are not there ({threshold})")
        if lost := record.get("frames_not_finite"):
            parts.append(f"errors of {counted(lost, 'frame')} without a number ({threshold})")
        if record["left_out"]:
            of = "of errors and speedups"  # accuracy has rules of its own
            lost_videos = counted(len(record["left_out"]), "video")
            parts.append(f"{lost_videos} not whole in both files, {of} ({threshold})")
    return "; ".join(parts)


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def threshold_number(text: str) -> float:
    """Reads a threshold for argparse: 0 or more, or inf."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not number >= 0:
        msg = f"{text}: expected a number of 0 or more, or inf"
        raise argparse.ArgumentTypeError(msg)
    return min(number, INFINITE)
