"""Whole-process speed: from video files to a feature file, beside a plain PyTorch loop.

    python scripts/bench_e2e.py --videos clips/*.mp4 --models resnet18 --thresholds 0 1e-2 \
        --threads 2 --json docs/benchmarks/e2e.json

Both sides run as processes of their own on the same clips with the same number of cores in the
same run, repeats interleaved; figures are medians. ``frames_per_second`` counts the wall-clock
time of the whole process, imports included. Each record of the tool has its features' error: the
relative L2 distance to the plain loop's features of the same frames.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from benchmarking import machine, median, versions, write_json

from rrm_extract import FeatureFile

PACKAGES = ("rrm-extract", "torch", "torchvision", "av", "h5py", "numpy")
STAGES = ("decode", "preprocess", "network", "write")


@dataclass
class Runs:
    """Repeats of one side on one clip."""

    frames: int = 0
    seconds: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in STAGES})

    def add(self, frames: int, seconds: float, stages: dict[str, float]) -> None:
        """Takes one repeat; stages are sums over workers."""
        self.frames = frames
        self.seconds.append(seconds)
        for name in STAGES:
            self.stages[name].append(stages[name])

    def record(self) -> dict[str, Any]:
        """Medians; milliseconds are a frame's, summed over workers."""
        seconds = median(self.seconds)
        return {
            "frames": self.frames,
            "seconds": seconds,
            "frames_per_second": self.frames / seconds,
            "milliseconds": {
                name: 1000 * median(values) / self.frames for name, values in self.stages.items()
            },
            "repeats": len(self.seconds),
        }


def run_plain(clip: Path, model: str, weights: str, threads: int, output: Path) -> dict[str, Any]:
    """One run of the plain loop; its own report with the process's wall-clock seconds."""
    script = Path(__file__).with_name("plain_loop.py")
    arguments = ["--model", model, "--weights", weights, "--threads", str(threads)]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(script), *arguments, "-o", str(output), str(clip)],
        check=True,
        capture_output=True,
        text=True,
    )
    return {**json.loads(done.stdout), "wall": time.perf_counter() - began}


def run_tool(
    clip: Path, model: str, weights: str, threads: int, threshold: float, output: Path, chunk: float
) -> float:
    """One run of the tool; wall-clock seconds."""
    output.unlink(missing_ok=True)
    began = time.perf_counter()
    subprocess.run(
        [
            *(sys.executable, "-m", "rrm_extract", str(clip), "-o", str(output)),
            *("--model", model, "--weights", weights, "--threshold", str(threshold)),
            *("--workers", str(threads), "--threads", "1", "--chunk", str(chunk)),
        ],
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - began


def feature_error(output: Path, clip: Path, plain: Path) -> float:
    """Mean relative L2 to the plain loop's features, over rows that show the same frame."""
    with np.load(plain) as loaded:
        reference = loaded[f"{clip.name}/features"]
        ordinals = loaded[f"{clip.name}/frame_index"]
    with FeatureFile(output) as file:
        video = file[clip.name]
        rows = video.features.reshape(len(video.features), -1)
        by_ordinal = {int(ordinal): row for ordinal, row in zip(ordinals, reference, strict=True)}
        pairs = [
            (row, by_ordinal[int(ordinal)].reshape(-1))
            for row, ordinal in zip(rows, video.frame_index, strict=True)
            if int(ordinal) in by_ordinal
        ]
    errors = [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs]
    return float(np.mean(errors)) if errors else float("nan")


def bench(arguments: argparse.Namespace, model: str, clip: Path) -> list[dict[str, Any]]:
    """All records of one network on one clip."""
    plain, tool = Runs(), {threshold: Runs() for threshold in arguments.thresholds}
    errors: dict[float, float] = {}
    density: dict[float, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        reference, output = Path(folder, "plain.npz"), Path(folder, "feats.h5")
        for _ in range(arguments.repeats):
            report = run_plain(clip, model, arguments.weights, arguments.threads, reference)
            plain.add(report["frames"], report["wall"], report["seconds"])
            for threshold, runs in tool.items():
                seconds = run_tool(
                    clip,
                    model,
                    arguments.weights,
                    arguments.threads,
                    threshold,
                    output,
                    arguments.chunk,
                )
                with FeatureFile(output) as file:
                    attrs = file[clip.name].attrs
                    frames = file[clip.name].n_frames
                stages = {name: float(attrs.get(f"seconds_{name}", 0.0)) for name in STAGES}
                runs.add(frames, seconds, stages)
                density[threshold] = float(attrs["density_delta"])
                errors[threshold] = feature_error(output, clip, reference)
    common = {
        "model": model,
        "weights": arguments.weights,
        "clip": clip.name,
        "threads": arguments.threads,
        "precision": "fp32",
    }
    base = {**common, "runtime": "torch", "threshold": None, **plain.record()}
    records = [base]
    for threshold, runs in tool.items():
        record = {**common, "runtime": "rrm-torch", "threshold": threshold, **runs.record()}
        record["feature_error"] = errors[threshold]
        record["density"] = density[threshold]
        record["speedup_over_plain_loop"] = record["frames_per_second"] / base["frames_per_second"]
        records.append(record)
    return records


def main() -> None:
    """Runs the benchmark and prints JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", nargs="+", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["resnet18"])
    parser.add_argument("--weights", default="random:0")
    parser.add_argument("--thresholds", nargs="+", type=float, default=[0.0, 1e-4, 1e-2])
    parser.add_argument("--threads", type=int, default=2, help="cores for either side")
    parser.add_argument("--chunk", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    records = [
        record
        for model in arguments.models
        for clip in arguments.videos
        for record in bench(arguments, model, clip)
    ]
    write_json(
        {"machine": machine(), "versions": versions(PACKAGES), "records": records}, arguments.json
    )


if __name__ == "__main__":
    main()
