"""Measures from which density on a layer should run dense, for each kernel and precision.

    python scripts/measure_break_even.py [--json FILE]

One layer at a time, between random frames of which a given share of the numbers changes: on lists
of deltas and dense, in turn, medians of several repeats on one thread. The density where the two
take the same time is what the numbers in rrm_extract/engine/forms.py should say, a little lower
where the layers differ, for a job on another processor must not lose much either. Layers of few
products for an input, and how they do between others: see break_even_in_networks.py.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarking import machine, median, save_json, versions
from every_layer_dense import every_layer_dense
from torch import nn

from rrm_extract.engine.native import NativeNetwork
from rrm_extract.graph import BinaryConv2d, Sign, fold, trace

LAYERS: dict[
    str, tuple[str, int, int, Callable[[], nn.Module]]
] = {  # kernel: (channels, size, the layer)
    "window 64": ("window", 64, 56, lambda: nn.Conv2d(64, 64, 3, padding=1)),
    "window 256": ("window", 256, 14, lambda: nn.Conv2d(256, 256, 3, padding=1)),
    "window 512": ("window", 512, 7, lambda: nn.Conv2d(512, 512, 3, padding=1)),
    "window 64 to 32": ("window", 64, 28, lambda: nn.Conv2d(64, 32, 3, padding=1)),
    "1x1": ("taps", 256, 28, lambda: nn.Conv2d(256, 128, 1)),
    "1x1 to 64": ("taps", 384, 14, lambda: nn.Conv2d(384, 64, 1)),
    "1x1 to 24": ("taps", 96, 56, lambda: nn.Conv2d(96, 24, 1)),
    "1x1 from 16": ("taps", 16, 112, lambda: nn.Conv2d(16, 96, 1)),
    "connected": ("whole taps", 4096, 1, lambda: nn.Conv2d(4096, 4096, 1)),
    "codes connected": ("codes", 4096, 1, lambda: _coded(4096, 4096, density=0.09)),
    "codes to 1000": ("codes", 4096, 1, lambda: _coded(4096, 1000, density=0.25)),
    "1x1 wide": ("taps", 64, 28, lambda: nn.Conv2d(64, 256, 1)),
    "3x3 stride 2": ("taps", 128, 28, lambda: nn.Conv2d(128, 256, 3, stride=2, padding=1)),
    "5x5": ("taps", 64, 27, lambda: nn.Conv2d(64, 192, 5, padding=2)),
    "first 7x7": ("columns", 3, 224, lambda: nn.Conv2d(3, 64, 7, stride=2, padding=3)),
    "first 3x3": ("columns", 3, 224, lambda: nn.Conv2d(3, 64, 3, padding=1)),
    "signs 64": ("very narrow xnor", 64, 56, lambda: _binary(64, 64)),
    "signs 128": ("narrow xnor", 128, 28, lambda: _binary(128, 128)),
    "signs 256": ("xnor", 256, 14, lambda: _binary(256, 256)),
    "signs 512": ("xnor", 512, 7, lambda: _binary(512, 512)),
    "signs 256 to 384": ("xnor", 256, 13, lambda: _binary(256, 384)),
    "signs 5x5": ("xnor", 96, 27, lambda: _binary(96, 256, 5)),
    "signs connected": ("whole xnor", 4096, 1, lambda: _binary(4096, 4096, 1)),
}
DENSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
FLIPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15)
"""Densities of binary layers, whose dense kernel is the quicker one much earlier."""


def main() -> None:
    """Prints a table; with --json also writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", nargs="+", default=list(LAYERS), choices=LAYERS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--json", metavar="FILE", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    records = [
        measure(name, precision, options.frames, options.repeats)
        for name in options.layers
        for precision in options.precisions
        if precision == "fp32" or not LAYERS[name][0].endswith("xnor")  # bits have no precision
    ]
    if options.json:
        found = {"machine": machine(), "versions": versions(["torch"]), "records": records}
        save_json(found, options.json)


def measure(name: str, precision: str, frames: int, repeats: int) -> dict[str, Any]:
    """One layer at all densities."""
    form, channels, size, make = LAYERS[name]
    torch.manual_seed(0)
    program = fold(trace(nn.Sequential(make()).eval()))
    shape = (channels, size, size)
    networks = {
        kind: _network(program, shape, precision, lists=kind == "list")
        for kind in ("list", "dense")
    }
    binary = form.endswith("xnor")
    densities = FLIPS if binary else DENSITIES
    ratios = []
    for density in densities:
        clip = _signs(shape, frames, density) if binary else _clip(shape, frames, density)
        times: dict[str, list[float]] = {kind: [] for kind in networks}
        for _ in range(repeats):
            for kind, network in networks.items():
                network.reset()
                network.run(clip[:1])
                before = sum(network.profile().values())
                network.run(clip[1:])
                times[kind].append(sum(network.profile().values()) - before)
        ratios.append(median(times["list"]) / median(times["dense"]))
    crossing = crossing_of(densities, ratios)
    shown = " ".join(f"{d:g}:{r:.2f}" for d, r in zip(densities, ratios, strict=True))
    words = f"below {densities[0]:g}" if ratios[0] > 1 else f"above {densities[-1]:g}"
    words = words if crossing is None else f"{crossing:.3f}"
    print(f"{name:16} {precision}  break-even {words}   list/dense {shown}", flush=True)
    return {
        "layer": name,
        "form": form,
        "precision": precision,
        "break_even": crossing,
        "densities": list(densities),
        "list_over_dense": ratios,
    }


def crossing_of(densities: Sequence[float], ratios: Sequence[float]) -> float | None:
    """The density from which on lists take longer; None where that was not among the densities."""
    pairs = itertools.pairwise(zip(densities, ratios, strict=True))
    for (low, before), (high, after) in pairs:
        if before <= 1 < after:
            return low + (high - low) * (1 - before) / (after - before)
    return None


def _network(
    program: Any, shape: tuple[int, int, int], precision: str, *, lists: bool
) -> NativeNetwork:
    with contextlib.nullcontext() if lists else every_layer_dense():
        # Above 0, or what bf16 rounds off would count as a change of the next frame.
        return NativeNetwork(
            program, input_shape=shape, threshold=1e-3, precision=precision, adaptive=not lists
        )


def _clip(shape: tuple[int, int, int], frames: int, density: float) -> torch.Tensor:
    """Frames of which ``density`` of the numbers differ from the frame before."""
    generator = torch.Generator().manual_seed(1)
    clip = torch.rand(frames + 1, *shape, generator=generator)
    changed = torch.rand(frames + 1, *shape, generator=generator) < density
    for frame in range(1, frames + 1):
        clip[frame] = torch.where(changed[frame], clip[frame], clip[frame - 1])
    return clip


def _signs(shape: tuple[int, int, int], frames: int, density: float) -> torch.Tensor:
    """Frames of which ``density`` of the signs differ from the frame before."""
    generator = torch.Generator().manual_seed(1)
    clip = torch.randn(frames + 1, *shape, generator=generator)
    flips = torch.rand(frames + 1, *shape, generator=generator) < density
    for frame in range(1, frames + 1):
        clip[frame] = torch.where(flips[frame], -clip[frame - 1], clip[frame - 1])
    return clip


def _binary(inputs: int, outputs: int, size: int = 3) -> nn.Module:
    return nn.Sequential(Sign(), BinaryConv2d(inputs, outputs, size, padding=size // 2))


def _coded(inputs: int, outputs: int, *, density: float) -> nn.Module:
    """A layer as Deep Compression leaves it: few weights, 31 different ones."""
    layer = nn.Conv2d(inputs, outputs, 1)
    kept = torch.rand(layer.weight.shape) < density
    layer.weight.data = torch.randn(31)[torch.randint(31, layer.weight.shape)] * kept
    return layer


if __name__ == "__main__":
    main()
