"""The options that the network-only benchmarks have in common."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarking import machine, records_before, save_json, versions
from network_bench import PACKAGES, RRM_PRECISIONS, Plan, Record, bench_subject
from subjects import NOISE, clip_frames, load_subject, noise_frames

from rrm_extract.errors import RrmError

__all__ = ["add_options", "add_subject_options", "run_plan"]

DEFAULT_NOISE_FRAMES = 240


def add_options(parser: argparse.ArgumentParser) -> None:
    """Networks, clips and what to measure of them."""
    add_subject_options(parser)
    parser.add_argument(
        "--noise", action="store_true", help="another clip: white noise, every pixel always new"
    )
    parser.add_argument("--threads", nargs="+", type=_count, default=[1], metavar="N")
    parser.add_argument("--engines", nargs="+", choices=tuple(RRM_PRECISIONS), default=["native"])
    parser.add_argument(
        "--add",
        action="store_true",
        help="keep what FILE has of other networks, weights and numbers of threads, if machine, "
        "versions and settings are the same",
    )


def add_subject_options(parser: argparse.ArgumentParser) -> None:
    """Networks, clips, how often they are run, and where the figures go."""
    parser.add_argument("--videos", nargs="+", type=Path, default=[], metavar="PATH")
    parser.add_argument(
        "--models",
        nargs="+",
        default=["resnet18"],
        metavar="NAME[=WEIGHTS]",
        help="as rrm-extract --model takes them, each with weights of its own if need be",
    )
    parser.add_argument(
        "--weights", default="default", help="for models that name none; ONNX files need none"
    )
    parser.add_argument(
        "--preprocess",
        metavar="SPEC",
        help="for ONNX files and package.module:factory; other models bring their own",
    )
    parser.add_argument(
        "--frames", type=_count, metavar="N", help="of each clip, its first; all by default"
    )
    parser.add_argument("--chunk", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--time-batch", type=_count, default=8, metavar="N")
    parser.add_argument("--repeats", type=_count, default=5, metavar="R")
    parser.add_argument("--json", type=Path, metavar="FILE")


def run_plan(arguments: argparse.Namespace, *, baselines: list[str]) -> dict[str, Any]:
    """Measures every network on every clip; ends the program where a request is wrong.

    The file that ``--json`` names is written anew after each network, so that a run that is ended
    early has something to show.
    """
    if not arguments.videos and not arguments.noise:
        sys.exit("no clip to measure: give --videos, --noise or both")
    plan = Plan(
        thresholds=arguments.thresholds,
        threads=arguments.threads,
        baselines=baselines,
        precisions=arguments.precisions,
        engines=arguments.engines,
        repeats=arguments.repeats,
    )
    result: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(PACKAGES),
        "settings": {
            "chunk_seconds": arguments.chunk,
            "time_batch": arguments.time_batch,
            "rounds": arguments.repeats,
        },
        "records": [],
    }
    head = {name: result[name] for name in ("machine", "versions", "settings")}
    adds = arguments.add and arguments.json is not None
    before = records_before(arguments.json, head) if adds else []
    own: list[Record] = []
    for spec in arguments.models:
        own += _measure(spec, arguments, plan)
        measured = {_subject_of(record) for record in own}
        result["records"] = [one for one in before if _subject_of(one) not in measured] + own
        if arguments.json is not None:
            save_json(result, arguments.json)
    return result


def _subject_of(record: Record) -> tuple[str, str, int]:
    """What is measured together, and replaced together."""
    return record["model"], record["weights"], record["threads"]


def _measure(spec: str, arguments: argparse.Namespace, plan: Plan) -> list[Record]:
    try:
        subject = load_subject(
            spec,
            weights=arguments.weights,
            preprocess=arguments.preprocess,
            chunk=arguments.chunk,
            time_batch=arguments.time_batch,
        )
        clips = {}
        for path in arguments.videos:
            if path.name in clips:
                sys.exit(
                    f"--videos: two clips are named {path.name!r}, and records tell clips by their "
                    "names; rename one, or measure it into another file"
                )
            clips[path.name] = clip_frames(path, subject, count=arguments.frames)
        if arguments.noise:
            clips[NOISE] = noise_frames(subject, count=arguments.frames or DEFAULT_NOISE_FRAMES)
        return bench_subject(subject, clips, plan)
    except RrmError as error:
        sys.exit(f"{spec}: {error}")


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        msg = f"{number}: expected a number of at least 1"
        raise argparse.ArgumentTypeError(msg)
    return number
