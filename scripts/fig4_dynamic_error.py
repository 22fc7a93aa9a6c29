"""The accumulated error as a clip runs, predicted and true, as in Fig. 4 of the paper.

    python scripts/fig4_dynamic_error.py --videos clips/*.mp4 --model resnet18 --threshold 1e-2 \
        --error-limit 0.02 --json fig4.json --svg fig4.svg

With the policy "paper" what is truncated is lost, and the feature's error grows from frame to frame
(Eq. 7). Accumulated error control predicts it (Eq. 8), and where the prediction passes the limit
a frame is computed densely and a new round begins. Here are both, with control and without, frame
by frame: what the network of an extraction does, beside the dense network. Frames go through it one
at a time, which decides nothing but last bits, so that it is known why each round ended.

The control is that of ``--aecs``, a file of ``rrm-extract calibrate --policy paper``, or fitted to
the clips of ``--calibrate-on``, or else to the very clips that are shown. Beyond the data that it
was fitted to nothing is predicted: with control a round ends there, without it the curve does.
``--from FILE`` draws anew what ``--json`` wrote.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarking import counted, machine, read_result, require, save_json, say, versions
from charts import caption, legend_below, new_figure, save_svg
from recognition_options import whole_number

from rrm_extract.config import JobConfig
from rrm_extract.errors import RrmError
from rrm_extract.jobs import discover, make_recipe, prepare_process
from rrm_extract.jobs.calibrate_accumulated import calibrate_accumulated
from rrm_extract.jobs.calibration import AccumulatedCalibration
from rrm_extract.jobs.control import Control, ControlledNetwork, relative_errors
from rrm_extract.jobs.recipe import Recipe, RecipeNetwork, subject_of
from rrm_extract.jobs.samples import Sample, take_samples
from rrm_extract.models import load_model
from rrm_extract.rrm.aecs import AccumulatedError, accumulated

PACKAGES = ("rrm-extract", "torch", "torchvision", "av", "numpy")
DIGITS = 6
"""Of the figures in the file: a chart shows three."""

REASONS = {"cuts": "cut", "rounds": "limit", "beyond_data": "beyond data"}
"""Events of the control that begin a round, the more telling ones last."""

COLORS = {"predicted": "#d62728", "true": "#1f77b4"}

Record = dict[str, Any]


def main() -> None:
    """Measures, says what was seen, and draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_options(parser)
    arguments = parser.parse_args()
    if arguments.svg is not None:
        require("matplotlib")  # rather now than after minutes of measuring
    if arguments.source is not None:
        result = read_result(
            arguments.source, "fig4_dynamic_error", "calibration", "clips", "settings"
        )
    else:
        try:
            result = measure(arguments)
        except RrmError as error:
            sys.exit(str(error))
    if arguments.json is not None:
        save_json(result, arguments.json)
    print(quality(result["calibration"]))
    for clip in result["clips"]:
        print(in_words(clip, result["settings"]["error_limit"]))
    if arguments.svg is not None:
        draw(result, arguments.svg)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--videos", nargs="+", metavar="PATH")
    parser.add_argument("--model", default="resnet18", help="as rrm-extract takes it")
    parser.add_argument("--weights", default="default", help="as rrm-extract takes it")
    parser.add_argument("--layer", help="as rrm-extract takes it")
    parser.add_argument("--preprocess", metavar="SPEC", help="as rrm-extract takes it")
    parser.add_argument("--threshold", default="1e-2", help="as rrm-extract takes it")
    parser.add_argument(
        "--error-limit", type=float, metavar="NUMBER", help="of accumulated error control"
    )
    parser.add_argument("--chunk", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--fps", default="24", metavar="RATE")
    parser.add_argument(
        "--frames", type=whole_number(4), default=240, metavar="N",
        help="of each clip, the first of its middle chunk; at most all of it (default: 240)",
    )  # fmt: skip
    parser.add_argument("--engine", choices=("auto", "native", "torch"), default="auto")
    control = parser.add_mutually_exclusive_group()
    control.add_argument(
        "--aecs", type=Path, metavar="FILE", help="calibration; without, one is made"
    )
    control.add_argument(
        "--calibrate-on", nargs="+", default=[], metavar="PATH",
        help="clips to fit the control to; by default those that are shown",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--svg", type=Path, metavar="FILE")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="measure nothing")


def measure(arguments: argparse.Namespace) -> Record:
    """All clips, with control and without.

    Raises:
        RrmError: the request cannot be met.
    """
    if not arguments.videos or arguments.error_limit is None:
        sys.exit("nothing to measure: give --videos PATH... and --error-limit NUMBER")
    job = {
        name: value
        for name in ("model", "weights", "layer", "preprocess", "threshold", "chunk", "fps")
        if (value := getattr(arguments, name)) is not None
    }
    config = JobConfig.from_mapping(
        {**job, "engine": arguments.engine, "policy": "paper", "time_batch": 1}
    )
    # What a job would refuse is refused here as well, with a file or without.
    limited = config.replace(aecs=str(arguments.aecs or "-"), error_limit=arguments.error_limit)
    prepare_process(config.threads)
    model = load_model(config.model, weights=config.weights, preprocess=config.preprocess)
    recipe = make_recipe(model, config if arguments.aecs is None else limited)
    samples = _samples(arguments.videos, config, recipe, arguments.frames)
    calibration, source = recipe.calibration, "a file"
    if calibration is None:
        learnt, source = samples, "the clips shown"
        if arguments.calibrate_on:
            source = "other clips"
            learnt = _samples(arguments.calibrate_on, config, recipe, arguments.frames)
        say(f"fitting the control to {counted(sum(map(len, learnt)), 'frame')}")
        calibration, _ = calibrate_accumulated(
            recipe,
            learnt,
            subject=subject_of(model, config, recipe.layer, recipe.engine),
            threshold=config.threshold,
        )
    if not isinstance(calibration, AccumulatedCalibration):
        msg = f"expected the calibration of accumulated error control, got {calibration.kind!r}"
        raise TypeError(msg)
    free = replace(recipe.control, scheme=None)
    limiting = replace(free, scheme=calibration.control(arguments.error_limit))
    clips = []
    for sample in samples:
        say(f"{Path(sample.name).name}: {counted(len(sample), 'frame')}")
        clips.append(
            {
                "clip": Path(sample.name).name,
                "frames": list(sample.numbers),
                "seconds": _rounded(sample.timestamps),
                "without_control": follow(recipe, free, sample, calibration.model),
                "with_control": follow(recipe, limiting, sample, calibration.model),
            }
        )
    return {
        "machine": machine(),
        "versions": versions(PACKAGES),
        "settings": {
            "model": calibration.subject.model,
            "weights": model.weights_text,
            "layer": recipe.layer,
            "engine": recipe.engine,
            "threshold": config.threshold,
            "error_limit": arguments.error_limit,
            "fps": config.fps,
            "chunk": config.chunk,
        },
        "calibration": {
            "source": source,
            "model": calibration.model.to_json(),
            "report": _named(dict(calibration.report)),
        },
        "clips": clips,
    }


def _samples(
    paths: Sequence[str], config: JobConfig, recipe: Recipe, frames: int
) -> Sequence[Sample]:
    videos = discover(paths)
    return take_samples(videos, config, recipe, clips=len(videos), frames=frames, say=say)


def _named(report: Record) -> Record:
    """With files' names instead of paths."""
    return {**report, "clips": [Path(name).name for name in report.get("clips", [])]}


def follow(recipe: Recipe, control: Control, sample: Sample, model: AccumulatedError) -> Record:
    """One clip, frame by frame.

    Args:
        recipe: the network, with the policy "paper".
        control: what decides about key frames.
        sample: the clip.
        model: predicts the error.

    Returns:
        ``accumulated`` truncation (Eq. 7), ``predicted`` error (Eq. 8), None beyond the model's
        data, and ``true`` error, (T,) each; ``key_frames`` that began a round, and why; and
        ``work``, the mean share of the dense MACs.
    """
    core = RecipeNetwork(recipe)
    core.track()
    network = ControlledNetwork(core, control)
    network.begin(sample.name)
    total, work = 0.0, 0.0
    totals: list[float] = []
    features = []
    key_frames: list[Record] = []
    for place in range(len(sample)):
        some = slice(place, place + 1)
        before = network.events.copy()
        (feature, *_), seen, _ = network.run(
            sample.x[some], samples=sample.numbers[some], timestamps=sample.timestamps[some]
        )
        why = "start" if place == 0 else ""
        for event, reason in REASONS.items():
            if network.events[event] > before[event]:
                why = reason
        if why:
            total = 0.0
            key_frames.append({"frame": sample.numbers[place], "why": why})
        if seen.truncated is None:
            msg = "the network counts nothing of what it truncates"
            raise TypeError(msg)
        total = float(accumulated(seen.truncated, key_frame=seen.key_frame, before=total)[-1])
        totals.append(total)
        features.append(feature)
        work += float(seen.work.sum())
    known = np.array(totals) <= model.reach
    predicted = _rounded(model.predict(np.array(totals)))
    return {
        "accumulated": _rounded(totals),
        "predicted": [
            value if inside else None for value, inside in zip(predicted, known, strict=True)
        ],
        "true": _rounded(relative_errors(np.concatenate(features), sample.exact)),
        "key_frames": key_frames,
        "work": work / len(sample),
    }


def _rounded(values: Any) -> list[float | None]:
    """To a few digits; None for what is not finite."""
    return [float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None for value in values]


def _shown(error: float) -> str:
    return "infinite" if math.isinf(error) else f"{error:.1e}"


def in_words(clip: Record, limit: float) -> str:
    """One clip as a line."""
    parts = []
    for key, name in (("without_control", "without control"), ("with_control", "with")):
        run = clip[key]
        # None is an error without a number, or an infinite one, which no other is worse than.
        true = [math.inf if value is None else value for value in run["true"]]
        reasons = [one["why"] for one in run["key_frames"][1:]]
        told = ", ".join(f"{reasons.count(why)} by {why}" for why in dict.fromkeys(reasons))
        over = sum(value > limit for value in true)
        parts.append(
            f"{name} error up to {_shown(max(true, default=0.0))}, "
            f"{counted(over, 'frame')} over the limit, "
            f"{counted(len(run['key_frames']), 'round')}{f' ({told})' if told else ''}, "
            f"{run['work']:.2f} of the dense MACs"
        )
    return f"{clip['clip']}: {'; '.join(parts)}"


def quality(calibration: Record) -> str:
    """How good the fit is where it was made, and on clips that it has not seen."""
    report = calibration["report"]
    held_out = report.get("held_out") or {}
    known = (("R²", report.get("r2")), ("on clips left out in turn", held_out.get("r2")))
    parts = [f"{name} {value:.2f}" for name, value in known if value is not None]
    return f"control fitted to {calibration['source']}{': ' if parts else ''}{', '.join(parts)}"


def draw(result: Record, path: Path) -> None:
    """A row for each clip: without control and with it."""
    clips, settings = result["clips"], result["settings"]
    figure = new_figure(9.0, 2.0 * len(clips) + 1.3)
    grid = figure.subplots(len(clips), 2, squeeze=False, sharex="row", sharey="row")
    for row, clip in zip(grid, clips, strict=True):
        for axes, key in zip(row, ("without_control", "with_control"), strict=True):
            _draw_panel(axes, clip["seconds"], clip["frames"], clip[key])
            axes.axhline(
                settings["error_limit"],
                color="gray",
                linewidth=0.8,
                linestyle="dashed",
                label="limit",
            )
            axes.set_ylim(bottom=0)
        row[0].set_ylabel(caption(clip["clip"]), fontsize="small")
    for axes, title in zip(grid[0], ("without control", "with control"), strict=True):
        axes.set_title(title, fontsize="small")
    for axes in grid[-1]:
        axes.set_xlabel("seconds", fontsize="small")
    legend_below(figure, columns=4)
    figure.suptitle(
        f"{settings['model']}, weights {settings['weights']}, policy paper, threshold "
        f"{settings['threshold']}: relative L2 error of the feature\n"
        f"{quality(result['calibration'])}",
        fontsize="medium",
    )
    save_svg(figure, path)


def _draw_panel(axes: Any, seconds: Sequence[float], frames: Sequence[int], run: Record) -> None:
    for name, color in COLORS.items():
        values = [np.nan if value is None else value for value in run[name]]
        axes.plot(seconds, values, color=color, linewidth=1, label=f"{name} error")
    where = dict(zip(frames, seconds, strict=True))
    for name, color, reasons in (
        ("end of a round", "black", ("limit", "beyond data")),
        ("cut", "#2ca02c", ("cut",)),
    ):
        places = [where[one["frame"]] for one in run["key_frames"] if one["why"] in reasons]
        if places:
            # On the axis below, whatever the errors are.
            axes.plot(
                places,
                [0.0] * len(places),
                "^",
                color=color,
                markersize=4,
                clip_on=False,
                transform=axes.get_xaxis_transform(),
                label=name,
            )
    axes.grid(visible=True, linewidth=0.3)
    axes.tick_params(labelsize="x-small")


if __name__ == "__main__":
    main()
