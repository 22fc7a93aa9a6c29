"""Does a run keep the error that was asked for, on clips it has not seen, and at what cost?

Each network is calibrated on some clips (``rrm-extract calibrate --target-error``) and then run on
others, watched and steered as an extraction is. Beside it, in the same run and on the same frames:
the largest single threshold that has the same measured error on these clips, which a person could
only know afterwards, and threshold 0. Network-only CPU time of one thread, medians of repeats in
turn.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from benchmarking import machine, records_before, save_json, say, versions

from rrm_extract.config import JobConfig
from rrm_extract.errors import RrmError
from rrm_extract.jobs import discover, make_recipe, prepare_process
from rrm_extract.jobs.calibrate_target import (
    Bench,
    calibrate_target,
    kept_by,
    largest_threshold,
)
from rrm_extract.jobs.recipe import subject_of
from rrm_extract.jobs.samples import take_samples
from rrm_extract.models import load_model

PACKAGES = ("rrm-extract", "torch", "numpy")


def main() -> None:
    """Runs and prints, or writes, one record for each network, target and group of clips."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calibrate", nargs="+", required=True, metavar="PATH")
    parser.add_argument("--videos", nargs="+", required=True, metavar="PATH")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--preprocess", metavar="SPEC")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--targets", nargs="+", type=float, default=[0.01], metavar="E")
    parser.add_argument("--percentile", type=float, default=95.0)
    parser.add_argument("--frames", type=int, default=240, help="of each clip that is run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--add",
        action="store_true",
        help="to what FILE has already, if machine and versions are the same",
    )
    arguments = parser.parse_args()
    head: dict[str, Any] = {"machine": machine(), "versions": versions(PACKAGES)}
    adds = arguments.add and arguments.json is not None
    records = records_before(arguments.json, head) if adds else []
    for target in arguments.targets:
        try:
            record = measured(arguments, target)
        except RrmError as error:
            sys.exit(f"target_error.py: {error}")
        records = [one for one in records if _key(one) != _key(record)] + [record]
        if arguments.json is not None:
            save_json({**head, "records": records}, arguments.json)


def _key(record: Mapping[str, Any]) -> list[Any]:
    """What is asked; a record with another answer replaces the one before."""
    names = ("model", "weights", "precision", "target", "percentile", "calibrated_on")
    return [record[name] for name in names] + [sorted(record["error_by_clip"])]


def measured(arguments: argparse.Namespace, target: float) -> dict[str, Any]:
    """One record."""
    config = JobConfig.from_mapping(
        {
            "model": arguments.model,
            "weights": arguments.weights,
            "preprocess": arguments.preprocess,
            "precision": arguments.precision,
            "target_error": target,
            "percentile": arguments.percentile,
        }
    )
    prepare_process(1)
    model = load_model(config.model, weights=config.weights, preprocess=config.preprocess)
    recipe = make_recipe(model, config)
    learn = take_samples(discover(arguments.calibrate), config, recipe, clips=8, frames=48)
    calibration = calibrate_target(
        recipe,
        learn,
        subject=subject_of(model, config, recipe.layer, recipe.engine),
        target=target,
        percentile=arguments.percentile,
        say=say,
    )
    asked = discover(arguments.videos)
    samples = take_samples(asked, config, recipe, clips=len(asked), frames=arguments.frames)
    bench = Bench(recipe, samples)
    names = recipe.program.linear_names()
    control = calibration.control([names[op.name] for op in recipe.program.linear_ops])
    threshold = calibration.thresholds["default"]
    governed = bench.governed(control, threshold)
    reached = governed.percentile(arguments.percentile)
    # Where the calibration found nothing to win, the run is one at threshold 0.
    equal = largest_threshold(bench, reached, arguments.percentile) if threshold > 0 else 0.0
    uniform, exact = bench.core({"default": equal}), bench.core({"default": 0.0})
    seconds: dict[str, list[float]] = {"governed": [], "uniform": [], "threshold_0": []}
    for _ in range(arguments.repeats):
        seconds["governed"].append(bench.governed(control, threshold).seconds)
        seconds["uniform"].append(bench.run(uniform, samples).seconds)
        seconds["threshold_0"].append(bench.run(exact, samples).seconds)
    frames = governed.frames()
    record = {
        "model": Path(arguments.model).name,
        "weights": model.weights_text,
        "precision": arguments.precision,
        "target": target,
        "percentile": arguments.percentile,
        "calibrated_on": [sample.name for sample in learn],
        "threshold": threshold,
        "frames": frames,
        "error": reached,
        "error_by_clip": {
            sample.name: kept_by(errors, arguments.percentile)
            for sample, errors in zip(samples, governed.errors, strict=True)
        },
        "uniform_threshold_of_equal_error": equal,
        "uniform_error": bench.uniform(equal).percentile(arguments.percentile),
        "milliseconds": {
            name: 1000 * float(np.median(values)) / frames for name, values in seconds.items()
        },
    }
    ratio = record["milliseconds"]["uniform"] / record["milliseconds"]["governed"]
    say(
        f"{record['model']} {arguments.precision} target {target:g}: error {reached:.2g} "
        f"({reached / target:.2f} of the target) on other clips; {ratio:.2f} times as fast as the "
        f"single threshold of that error; "
        f"{record['milliseconds']['threshold_0'] / record['milliseconds']['governed']:.2f} times "
        "as fast as threshold 0"
    )
    return record


if __name__ == "__main__":
    main()
