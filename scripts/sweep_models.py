"""Tries the recurrence on every classification network of torchvision, and tables the result.

    python scripts/sweep_models.py VIDEO [--models NAME...] [--frames 8]
                                   [--json FILE] [--markdown docs/models.md] [--retry]

Each network has untrained weights (`random:0`) and its own transform and input size. It takes the
first frames of the video, at 24 frames per second, as an ordinary network, as a recurrent one at
thresholds 0, 1e-4 and 1e-2, and on the native engine at 0 and 1e-2. Each runs in a process of its
own: one that crashes, or that has not enough memory, is a row with its reason. Rows that the JSON
file has already are not made again, but with --retry those that have failed are; remove the file
to begin anew.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from benchmarking import versions
from torch import Tensor, nn

from rrm_extract.engine import NativeNetwork
from rrm_extract.errors import EngineError, TraceError
from rrm_extract.graph import Program, default_layer, fold, select, trace
from rrm_extract.models import LoadedModel, ModelEntry, list_models, load_model
from rrm_extract.rrm import RecurrentNetwork, overall_density
from rrm_extract.video import ClipReader, Sampling, scan_clip

WEIGHTS = "random:0"
FPS = Fraction(24)
THRESHOLDS = (0.0, 1e-4, 1e-2)
NATIVE_THRESHOLD = 1e-2
"""At which the native engine has to select what the readable one does."""
EXACT = 1e-5
"""Relative L2 distance at threshold 0 below which a network counts as exact."""
TIME_BATCH = 4
"""Frames taken through the network together: the widest inputs need gigabytes for more."""
SHARE_OF_MEMORY = 0.8
"""Of the free memory: what one network may take, so that it fails before the machine does."""

Row = dict[str, Any]


def main() -> None:
    """Fills the table, network by network, the smallest first."""
    options = _options()
    if options.one is not None:
        _limit_memory()
        print(json.dumps(measure(_entries([options.one])[0], options.video, options.frames)))
        return
    table = _load(options.json, _settings(options))
    rows: dict[str, Row] = {row["name"]: row for row in table["rows"]}
    wanted = _entries(options.models)
    for number, entry in enumerate(wanted, 1):
        if entry.name not in rows or (options.retry and rows[entry.name]["reason"]):
            rows[entry.name] = _in_a_process(entry, options)
            table["rows"] = [rows[name] for name in sorted(rows)]
            table["seconds"] += rows[entry.name]["seconds"]
            _replace(options.json, json.dumps(table, indent=1) + "\n")
        _say(f"{number}/{len(wanted)} {entry.name}: {_in_words(rows[entry.name])}")
    if options.markdown is not None:
        _replace(options.markdown, to_markdown(table))


def _options() -> argparse.Namespace:
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(description=lines[0])
    parser.add_argument("video", type=Path, help="any video file")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="these networks only")
    parser.add_argument("--frames", type=int, default=8, help="of the video (default: 8)")
    parser.add_argument("--json", type=Path, default=Path("sweep.json"), help="the result so far")
    parser.add_argument("--markdown", type=Path, help="where the table goes when all is done")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds for one network")
    parser.add_argument("--retry", action="store_true", help="make rows that failed again")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # what the processes are started with
    return parser.parse_args()


def _entries(names: Sequence[str] | None) -> list[ModelEntry]:
    entries = {entry.name: entry for entry in list_models() if entry.source == "torchvision"}
    unknown = sorted(set(names or ()) - set(entries))
    if unknown:
        sys.exit(f"torchvision has no classification network {unknown[0]!r}")
    chosen = [entries[name] for name in names or entries]
    return sorted(chosen, key=lambda entry: (entry.n_parameters or 0) * entry.input_shape[1] ** 2)


# --- one network ---------------------------------------------------------------------------------


def measure(entry: ModelEntry, video: Path, frames: int) -> Row:
    """One row of the table.

    Args:
        entry: the network.
        video: a video file.
        frames: how many of its frames to take.
    """
    begin = time.monotonic()
    model = load_model(entry.name, weights=WEIGHTS)
    row = _empty_row(entry)
    try:
        whole = trace(model.module)
    except TraceError as error:
        return {**row, "reason": str(error), "seconds": time.monotonic() - begin}
    layer = default_layer(whole)
    program = fold(select(whole, (layer, whole.outputs[0])))
    row |= {"traced": True, "layer": layer, "recurrent_layers": len(program.linear_ops)}

    inputs = model.transform(first_frames(video, frames))
    reference = _ordinary(model, whole, inputs)
    row["change"] = _relative_l2(reference[0][1:], reference[0][:-1])
    for threshold in THRESHOLDS:
        row["at"][f"{threshold:g}"] = _recurrent(program, inputs, threshold, reference, row)
    row["native"] = _native(program, inputs, reference)
    del program
    # How far the ordinary network itself is from the truth: what rounding alone amounts to.
    last = [value[-1:] for value in reference]
    model.module.double()
    exact = _ordinary(model, whole, inputs[-1:].double())
    row["rounding"] = _errors(last, exact)
    return {**row, "seconds": time.monotonic() - begin}


def first_frames(video: Path, count: int) -> Tensor:
    """(T, 3, H, W) uint8 RGB: the first frames of a clip at 24 frames per second."""
    with ClipReader(scan_clip(video), Sampling(fps=FPS)) as reader:
        images = [frame.image for frame in islice(reader.read(0), count)]
    if len(images) < count:
        sys.exit(f"{video}: has {len(images)} frames; expected at least {count}")
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


@torch.inference_mode()
def _ordinary(model: LoadedModel, whole: Program, inputs: Tensor) -> list[Tensor]:
    """The module's own feature (T, ...) and output (T, classes), without our graph."""
    features: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        features.append(args[0])

    # The penultimate feature is what the last layer reads.
    head = model.module.get_submodule(whole.linear_ops[-1].source)
    handle = head.register_forward_pre_hook(keep)
    outputs = [model.module(batch) for batch in torch.split(inputs, TIME_BATCH)]
    handle.remove()
    return [torch.cat(features), torch.cat(outputs)]


def _recurrent(
    program: Program, inputs: Tensor, threshold: float, reference: list[Tensor], row: Row
) -> Row:
    network = RecurrentNetwork(program, threshold=threshold)
    batches = [network.run(batch)[0] for batch in torch.split(inputs, TIME_BATCH)]
    layers = network.stats()
    row["gmacs"] = sum(layer.macs for layer in layers) / 1e9
    if threshold == 0:  # what is truncated changes what later layers read
        row["density_input"] = overall_density(layers, of="input")
    results = [torch.cat(values) for values in zip(*batches, strict=True)]
    return {
        "density": overall_density(layers),
        "errors": _errors(results, reference),
    }


def _native(program: Program, inputs: Tensor, reference: list[Tensor]) -> Row:
    """The native engine at threshold 0, and the operations that it leaves to PyTorch.

    "at" is what :func:`_recurrent` says of the readable engine, at NATIVE_THRESHOLD and without
    layers that run dense. What goes wrong is part of the table: "reason" says it.
    """
    channels, height, width = inputs.shape[1:]
    shape = (channels, height, width)
    row: Row = {"isa": "", "islands": {}, "errors": None, "at": {}, "reason": ""}
    try:
        network = NativeNetwork(program, input_shape=shape, threshold=0)
        row |= {"isa": network.isa, "islands": dict(network.islands)}
        results, _ = network.run(inputs)
        row["errors"] = _errors(results, reference)
        packed = network.packed
        del network  # the widest inputs leave no room for two
        network = NativeNetwork(
            program, input_shape=shape, threshold=NATIVE_THRESHOLD, adaptive=False, packed=packed
        )
        truncated, _ = network.run(inputs)
    except (EngineError, RuntimeError) as error:
        return {**row, "reason": f"{type(error).__name__}: {error}".splitlines()[0]}
    row["at"][f"{NATIVE_THRESHOLD:g}"] = {
        "density": overall_density(network.stats()),
        "errors": _errors(truncated, reference),
    }
    return row


def _errors(results: Sequence[Tensor], reference: Sequence[Tensor]) -> list[float]:
    return [_relative_l2(a, b) for a, b in zip(results, reference, strict=True)]


def _relative_l2(result: Tensor, reference: Tensor) -> float:
    """The largest relative L2 distance over frames."""
    difference = (result - reference).flatten(1).norm(dim=1)
    # Vision transformers begin with a head of zeros.
    return float((difference / reference.flatten(1).norm(dim=1).clamp_min(1e-30)).max())


def _empty_row(entry: ModelEntry) -> Row:
    """What is known of a network without building it.

    Pairs of numbers are for the penultimate feature and for the logits.
    """
    return {
        "name": entry.name,
        "family": entry.family,
        "is_cnn": entry.is_cnn,
        "input_shape": list(entry.input_shape),
        "parameters": entry.n_parameters,
        "traced": False,
        "reason": "",
        "layer": "",
        "recurrent_layers": 0,
        "gmacs": None,
        "density_input": None,
        "change": None,
        "rounding": None,
        "at": {},
        "native": None,
        "seconds": 0.0,
    }


# --- processes -----------------------------------------------------------------------------------


def _in_a_process(entry: ModelEntry, options: argparse.Namespace) -> Row:
    command = [sys.executable, __file__, str(options.video), "--frames", str(options.frames)]
    begin = time.monotonic()
    try:
        done = subprocess.run(
            [*command, "--one", entry.name],
            capture_output=True,
            text=True,
            timeout=options.timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        reason = f"not finished after {options.timeout:g} s"
    else:
        if done.returncode == 0:
            row: Row = json.loads(done.stdout.splitlines()[-1])
            return row
        reason = _why(done.returncode, done.stderr)
    return {**_empty_row(entry), "reason": reason, "seconds": time.monotonic() - begin}


def _why(returncode: int, stderr: str) -> str:
    if returncode < 0:
        return f"ended by {signal.Signals(-returncode).name}"
    last = (stderr.strip().splitlines() or ["no message"])[-1]
    if "MemoryError" in last or "allocate memory" in last:
        return f"not enough memory: {last}"
    return last


def _limit_memory() -> None:
    free = int(psutil.virtual_memory().available * SHARE_OF_MEMORY)
    resource.setrlimit(resource.RLIMIT_DATA, (free, free))


def _settings(options: argparse.Namespace) -> Row:
    return {
        "weights": WEIGHTS,
        "fps": float(FPS),
        "frames": options.frames,
        "video": options.video.name,
        "video_bytes": options.video.stat().st_size,
    }


def _load(path: Path, settings: Row) -> Row:
    here = {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }
    fresh = {
        "settings": settings,
        "versions": versions(("rrm-extract", "torch", "torchvision")),
        "machine": here,
        "threads": torch.get_num_threads(),
        "seconds": 0.0,
        "rows": [],
    }
    if not path.exists():
        return fresh
    table: Row = json.loads(path.read_text(encoding="utf-8"))
    for key in ("settings", "versions", "machine", "threads"):
        if table[key] != fresh[key]:
            sys.exit(f"{path}: made with {key} {table[key]}, now {fresh[key]}; name another --json")
    return table


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- the table -----------------------------------------------------------------------------------


def to_markdown(table: Row) -> str:
    """The document with the table, from what the JSON file holds."""
    rows = sorted(table["rows"], key=lambda row: (row["family"], row["gmacs"] or 0, row["name"]))
    settings, machine, versions = table["settings"], table["machine"], table["versions"]
    cnns = [row for row in rows if row["is_cnn"]]
    others = [row for row in rows if not row["is_cnn"]]
    exact = [row for row in cnns if is_exact(row)]
    worst = [max((row["at"]["0"]["errors"][i] for row in exact), default=math.nan) for i in (0, 1)]
    short = [row for row in rows if not is_exact(row)]
    tried = ", ".join(f"{name} {number}" for name, number in versions.items() if name != "code")
    frames = settings["frames"]
    return f"""# Networks

What the recurrence does with each classification network of torchvision: whether it can be
traced, whether threshold 0 gives the ordinary network's values, and what two thresholds save.

**{len(exact)} of {len(cnns)} CNNs are exact**: at threshold 0 they equal the ordinary network
within {EXACT:g} relative L2 on {frames} real frames. The worst is {worst[0]:.1e} in the penultimate
feature and {worst[1]:.1e} in the logits.
So are {sum(map(is_exact, others))} of the {len(others)} networks that compute attention. Of those,
only the convolutions and fully-connected layers that are modules of their own become recurrent.

## How it was made

    python scripts/sweep_models.py VIDEO --frames {frames} --markdown docs/models.md

- VIDEO is a UCF-101 clip; the first {frames} frames at {settings["fps"]:g} frames per second.
- Untrained weights (`{settings["weights"]}`), each network's own transform and input size.
- {tried}.
- {machine["cpu"]}, {machine["cores"]} cores, {machine["memory_gib"]} GiB, {table["threads"]} \
thread(s); {table["seconds"] / 60:.0f} minutes in all.

The columns:

- **GMACs**: multiply-accumulates of one frame in the recurrent layers, the convolutions and
  fully-connected layers; **layers**: how many there are.
- **at 0**: relative L2 distance from the ordinary network at threshold 0, worst frame, for the
  penultimate feature and for the logits.
- **rounding**: the same distance between the ordinary network in float32 and in float64 (last
  frame): no way of computing in float32 can be expected to be closer than this.
- **change**: how far the feature moves from one frame to the next, largest. An error means
  something only beside it.
- **plain**: share of non-zeros in what the layers read, weighted by MACs, without the recurrence.
- **native**: the same distance as at 0, of the native engine; **at 1e-2**: its share of the delta
  there, which is the readable engine's but for rounding; **islands**: operations that it leaves to
  PyTorch, listed below.
- **1e-4**, **1e-2**: the same share of the delta with that threshold (its inverse is the
  theoretical speedup); **error**: worst frame, for the feature and for the logits.

The weights are untrained, so the densities and errors at a threshold say how a network's *shape*
behaves, not how its trained weights do. Those are far more sensitive: measure yours with
`rrm-extract verify`. Where an untrained network hardly answers to its input (a small **change**;
vision transformers begin with a head of zeros, so that their logits are all zero), a small error
says little. Where an error is as large as the change, next to nothing got through: the untrained
network's activations are smaller than the threshold.

`RRM_SWEEP=1 pytest tests/sweep` repeats the exactness of every CNN with weights and batch-norm
statistics that do answer.

## CNNs

{_table(cnns)}

## Networks with attention

{_table(others)}

## Operations that the native engine leaves to PyTorch

{_islands(rows)}

## Not traced, or not exact

{_reasons(short)}
"""


def is_exact(row: Row) -> bool:
    """Whether threshold 0 gave the ordinary network's values."""
    return bool(row["at"]) and all(error < EXACT for error in row["at"]["0"]["errors"])


def _table(rows: Sequence[Row]) -> str:
    engines = ("at 0", "native", "at 1e-2", "islands")
    names = ("network", "input", "GMACs", "layers", *engines, "rounding", "change")
    heads = (*names, "plain", "1e-4", "error", "1e-2", "error")
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for row in rows:
        start = [row["name"], str(row["input_shape"][1])]
        if not row["at"]:
            lines.append(f"| {' | '.join([*start, *['-'] * (len(heads) - 2)])} |")
            continue
        at = row["at"]
        cells = [
            *start,
            f"{row['gmacs']:.2f}",
            str(row["recurrent_layers"]),
            _pair(at["0"]["errors"]),
            *_native_cells(row.get("native")),
            _pair(row["rounding"]),
            f"{row['change']:.1e}",
            _share(row["density_input"]),
            _share(at["0.0001"]["density"]),
            _pair(at["0.0001"]["errors"]),
            _share(at["0.01"]["density"]),
            _pair(at["0.01"]["errors"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _native_cells(native: Row | None) -> tuple[str, str, str]:
    if native is None:  # a row that is older than the engine
        return "-", "-", "-"
    islands = str(len(native["islands"]))
    if native["errors"] is None:
        return "failed", "failed", islands
    at = native.get("at", {}).get("0.01")  # older rows have none
    return _pair(native["errors"]), "-" if at is None else _share(at["density"]), islands


def _islands(rows: Sequence[Row]) -> str:
    """For each network that has any: how many operations are no native ones, by reason."""
    lines = []
    for row in rows:
        native = row.get("native") or {"islands": {}, "reason": ""}
        reasons = Counter(native["islands"].values())
        parts = [f"{count} x {reason}" for reason, count in sorted(reasons.items())]
        if native["reason"]:
            parts.append(f"failed: {native['reason']}")
        if parts:
            lines.append(f"- `{row['name']}`: {'; '.join(parts)}")
    return "\n".join(lines) or "None."


def _pair(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.0e}" for value in values)


def _share(value: float) -> str:
    return f"{value:.2f}"


def _reasons(rows: Sequence[Row]) -> str:
    if not rows:
        return "None."
    return "\n".join(f"- `{row['name']}`: {_in_words(row)}" for row in rows)


def _in_words(row: Row) -> str:
    if row["reason"]:
        return str(row["reason"])
    feature, logits = row["at"]["0"]["errors"]
    says = f"{feature:.1e} feature, {logits:.1e} logits at threshold 0"
    if is_exact(row):
        return says
    rounding: Callable[[float], str] = "{:.1e}".format
    return f"{says}; rounding of the ordinary network {', '.join(map(rounding, row['rounding']))}"


if __name__ == "__main__":
    main()
