"""Whole-process speed: from video files to a feature file, beside a plain PyTorch loop.

    python scripts/bench_e2e.py --videos clips/*.mp4 --models resnet18 --thresholds 0 1e-2 \
        --threads 2 --json docs/benchmarks/e2e.json

Both sides run as processes of their own on the same clips with the same number of cores in the
same run, all clips in one process, repeats interleaved; figures are medians. ``--each`` measures
every clip by itself as well: a clip of one chunk then keeps one worker busy.

``frames_per_second`` counts the wall-clock time of the whole process, imports included. Each record
of the tool has its features' error: the relative L2 distance to the plain loop's features of the
same frames.
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
STAGES = ("decode", "preprocess", "network")


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


def run_plain(
    clips: list[Path], model: str, weights: str, threads: int, output: Path
) -> dict[str, Any]:
    """One run of the plain loop; its own report with the process's wall-clock seconds."""
    script = Path(__file__).with_name("plain_loop.py")
    arguments = ["--model", model, "--weights", weights, "--threads", str(threads)]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(script), *arguments, "-o", str(output), *map(str, clips)],
        check=True,
        capture_output=True,
        text=True,
    )
    return {**json.loads(done.stdout), "wall": time.perf_counter() - began}


def run_tool(
    clips: list[Path],
    model: str,
    weights: str,
    threads: int,
    threshold: float,
    output: Path,
    chunk: float,
) -> float:
    """One run of the tool; wall-clock seconds."""
    output.unlink(missing_ok=True)
    began = time.perf_counter()
    subprocess.run(
        [
            *(sys.executable, "-m", "rrm_extract", *map(str, clips), "-o", str(output)),
            *("--model", model, "--weights", weights, "--threshold", str(threshold)),
            *("--workers", str(threads), "--threads", "1", "--chunk", str(chunk)),
        ],
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - began


def feature_errors(output: Path, plain: Path) -> list[float]:
    """Relative L2 to the plain loop's features, for every row that shows the same frame."""
    errors: list[float] = []
    with FeatureFile(output) as file, np.load(plain) as loaded:
        for name, video in file.items():
            ordinals = loaded[f"{name}/frame_index"]
            reference = dict(zip(ordinals.tolist(), loaded[f"{name}/features"], strict=True))
            for ordinal, row in zip(video.frame_index.tolist(), video.features, strict=True):
                if ordinal in reference:
                    expected = reference[ordinal].reshape(-1)
                    errors.append(float(np.linalg.norm(row - expected) / np.linalg.norm(expected)))
    return errors


def read_run(output: Path) -> tuple[int, dict[str, float], float]:
    """Frames, seconds by stage, and the deltas' density by MACs, of one run of the tool."""
    stages = dict.fromkeys(STAGES, 0.0)
    frames, weighted = 0, 0.0
    with FeatureFile(output) as file:
        for video in file.values():
            for name in STAGES:
                stages[name] += float(video.attrs.get(f"seconds_{name}", 0.0))
            frames += video.n_frames
            weighted += video.n_frames * float(video.attrs["density_delta"])
    return frames, stages, weighted / frames


def bench(arguments: argparse.Namespace, model: str, clips: list[Path]) -> list[dict[str, Any]]:
    """All records of one network on some clips in one process."""
    plain, tool = Runs(), {threshold: Runs() for threshold in arguments.thresholds}
    errors: dict[float, list[float]] = {}
    density: dict[float, float] = {}
    threads, weights = arguments.threads, arguments.weights
    with tempfile.TemporaryDirectory() as folder:
        reference, output = Path(folder, "plain.npz"), Path(folder, "feats.h5")
        for _ in range(arguments.repeats):
            report = run_plain(clips, model, weights, threads, reference)
            plain.add(report["frames"], report["wall"], report["seconds"])
            for threshold, runs in tool.items():
                seconds = run_tool(
                    clips, model, weights, threads, threshold, output, arguments.chunk
                )
                frames, stages, density[threshold] = read_run(output)
                runs.add(frames, seconds, stages)
                errors[threshold] = feature_errors(output, reference)
    common = {
        "model": model,
        "weights": arguments.weights,
        "clip": " + ".join(clip.name for clip in clips),
        "threads": arguments.threads,
        "precision": "fp32",
    }
    base = {**common, "runtime": "torch", "threshold": None, **plain.record()}
    records = [base]
    for threshold, runs in tool.items():
        record = {**common, "runtime": "rrm-torch", "threshold": threshold, **runs.record()}
        record["feature_error"] = float(np.mean(errors[threshold]))
        record["feature_error_max"] = float(np.max(errors[threshold]))
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
    parser.add_argument("--each", action="store_true", help="measure each clip by itself too")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    groups = [list(arguments.videos)]
    if arguments.each and len(arguments.videos) > 1:
        groups += [[clip] for clip in arguments.videos]
    records = [
        record
        for model in arguments.models
        for clips in groups
        for record in bench(arguments, model, clips)
    ]
    write_json(
        {"machine": machine(), "versions": versions(PACKAGES), "records": records}, arguments.json
    )


if __name__ == "__main__":
    main()
