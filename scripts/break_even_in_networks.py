r"""Measures what lists and dense kernels cost each layer of a network, between its neighbours.

    python scripts/break_even_in_networks.py --videos CLIP... --models NAME[=WEIGHTS]... \
        --thresholds 1e-3 1e-2 [--precision bf16] [--json FILE]

The whole network runs with lists in every layer, and dense in every layer, on real clips, one
thread. Of a layer counts its own time, what is fused to its end, and what the step before it spends
on finding and listing what has changed. One line for each layer: its dense products for an input,
and for each clip and threshold the density and the time on lists over that of dense frames. Where
this passes 1 is what rrm_extract/engine/forms.py should say; measure_break_even.py asks the same of
single layers, which the caches serve better, and random changes. Branches that read the same input
have the time of its list with the first of them.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

import torch
from bench_options import add_subject_options
from benchmarking import machine, save_json, versions
from every_layer_dense import every_layer_dense
from subjects import Subject, clip_frames, load_subject
from torch import Tensor

from rrm_extract.engine.native import NativeNetwork
from rrm_extract.errors import RrmError
from rrm_extract.rrm import LayerCost


def main() -> None:
    """Prints a table for each network; with --json also writes them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_subject_options(parser)
    parser.add_argument("--thresholds", nargs="+", type=float, default=[1e-3, 1e-2], metavar="X")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    arguments = parser.parse_args()
    if not arguments.videos:
        sys.exit("no clip to measure: give --videos")
    torch.set_num_threads(1)
    try:
        records = [record for name in arguments.models for record in measure(name, arguments)]
    except RrmError as error:
        sys.exit(str(error))
    if arguments.json:
        found = {"machine": machine(), "versions": versions(["torch"]), "records": records}
        save_json(found, arguments.json)


def measure(name: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The layers of one network, on all clips at all thresholds."""
    subject = load_subject(
        name,
        weights=arguments.weights,
        preprocess=arguments.preprocess,
        chunk=arguments.chunk,
        time_batch=arguments.time_batch,
    )
    layers: dict[str, dict[str, Any]] = {}
    for path in arguments.videos:
        frames = clip_frames(path, subject, count=arguments.frames)
        for threshold in arguments.thresholds:
            seen = _both_ways(subject, frames, threshold, arguments)
            for layer, cost in seen.items():
                record = layers.setdefault(
                    layer,
                    {
                        "model": subject.name,
                        "layer": layer,
                        "products": cost["products"],
                        "runs": [],
                    },
                )
                record["runs"].append({"clip": path.name, "threshold": threshold, **cost["run"]})
    for layer, record in layers.items():
        runs = sorted(record["runs"], key=lambda run: run["density"])
        shown = " ".join(f"{run['density']:.2f}:{run['list_over_dense']:.2f}" for run in runs)
        print(f"{subject.name} {layer:32} {record['products']:6.0f}  {shown}", flush=True)
    return list(layers.values())


def _both_ways(
    subject: Subject, frames: Tensor, threshold: float, arguments: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    costs: dict[str, dict[str, float]] = {}
    layers: dict[str, LayerCost] = {}
    for way in ("lists", "dense"):
        with contextlib.nullcontext() if way == "lists" else every_layer_dense():
            network = NativeNetwork(
                subject.recipe.program,
                input_shape=subject.input_shape,
                threshold=threshold,
                precision=arguments.precision,
                batch=subject.recipe.time_batch,
                adaptive=way == "dense",
            )
        network.run(frames)
        rounds = []
        for _ in range(arguments.repeats):
            network.split_times(True)
            before = network.profile_split()
            network.run(frames)
            after = network.profile_split()
            network.split_times(False)
            rounds.append(_layer_seconds(before, after))
        costs[way] = {step: min(one[step] for one in rounds) for step in rounds[0]}
        if way == "lists":
            layers = {layer.name: layer for layer in network.stats()}
    # Steps have the names of operations: with a batch-norm folded into it, a layer has that one's.
    return {
        name: {
            "products": layers[name].macs / layers[name].input_elements,
            "run": {
                "density": layers[name].density_delta,
                "list_over_dense": costs["lists"][step] / costs["dense"][step],
                "milliseconds_dense": 1000 * costs["dense"][step] / len(frames),
            },
        }
        for step, name in subject.recipe.program.linear_names().items()
        if step in costs["lists"]  # what runs in islands has no step
    }


def _layer_seconds(
    before: dict[str, dict[str, float]], after: dict[str, dict[str, float]]
) -> dict[str, float]:
    """Of each step, with the lists that the step before it makes."""
    result = {}
    lists = 0.0
    for step, shares in after.items():
        spent = {share: seconds - before[step][share] for share, seconds in shares.items()}
        result[step] = spent["own"] + spent["finish"] + lists
        lists = spent["lists"]
    return result


if __name__ == "__main__":
    main()
