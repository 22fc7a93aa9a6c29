"""Whole-process speed: from video files to a feature file, beside a plain PyTorch loop.

    python scripts/bench_e2e.py --videos clips/*.avi --models resnet18 --thresholds 0 1e-4 1e-2 \
        --workers 1 2 --loop 20 --lengths 1 5 20 --json docs/benchmarks/e2e.json

All sides run as processes of their own on the same clips with the same number of cores in the same
run, all clips in one process, repeats interleaved; figures are medians. ``--each`` measures every
clip by itself as well: a clip of one chunk then keeps one worker busy. ``--loop N`` replaces each
clip by one in which it is shown N times, so that starting up does not decide.

``frames_per_second`` counts the wall-clock time of the whole process, imports included;
``startup_seconds`` of it pass before the first worker is ready. ``network_frames_per_second`` is
what the networks alone did in the same run: frames over the seconds that a worker spent in its
network, on average. ``of_network`` is the ratio of the two, ``of_network_after_startup`` the same
without the start-up. ``memory_mb`` is the largest memory of all processes together after the
start-up, shared pages counted once, but for the process that loads the network, which ends when it
has kept it for later runs; and ``memory_startup_mb`` the largest of all: what to compare with
another tool's.

``network`` is "loaded" where the run loaded its network, and with ``--kept`` "kept" where the run
before it had. ``feature_error`` is the relative L2 distance to the plain loop's features of the
same frames.

``--lengths`` measures one clip of so many minutes each, made of the first clip, with the first
threshold: the memory ought not to grow. ``--video-features PATH`` measures
github.com/v-iashin/video_features as well, of which PATH is a checkout whose requirements are
installed (``--video-features-python`` names another Python); it knows ImageNet weights only, which
have to be where torch keeps them, and takes every frame of a clip.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from benchmarking import counted, machine, median, say, versions, write_json
from looped_clip import LoopError, clip_seconds, looped_clip
from watched import Watched, watched_run

from rrm_extract import FeatureFile
from rrm_extract.jobs.network_cache import VARIABLE

PACKAGES = ("rrm-extract", "torch", "torchvision", "av", "h5py", "numpy")
STAGES = ("decode", "preprocess", "network")
PEER_BATCH = 16
LOADER = "rrm_extract.jobs.loading"
"""In the command line of the process that loads the network, and of no other."""


@dataclass(frozen=True)
class Side:
    """One way of running the tool."""

    engine: str
    precision: str
    threshold: float
    kept: bool = False
    """Whether an earlier run has left the network loaded."""


@dataclass
class Runs:
    """Repeats of one side on one set of clips."""

    frames: int = 0
    seconds: list[float] = field(default_factory=list)
    startup: list[float] = field(default_factory=list)
    memory: list[float | None] = field(default_factory=list)
    memory_startup: list[float | None] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in STAGES})

    def add(
        self, frames: int, run: Watched, stages: dict[str, float], startup: float | None = None
    ) -> None:
        """Takes one repeat; stages are sums over workers."""
        self.frames = frames
        self.seconds.append(run.seconds)
        if startup is not None:
            self.startup.append(startup)
        self.memory.append(run.peak(after=startup or 0.0, passing=False))
        self.memory_startup.append(run.peak())
        for name, values in self.stages.items():
            values.append(stages.get(name, 0.0))

    def record(self, workers: int) -> dict[str, Any]:
        """Medians; milliseconds are a frame's, summed over workers."""
        seconds = median(self.seconds)
        record: dict[str, Any] = {
            "frames": self.frames,
            "seconds": seconds,
            "frames_per_second": self.frames / seconds,
            "milliseconds": {
                name: 1000 * median(values) / self.frames for name, values in self.stages.items()
            },
            "memory_mb": _largest(self.memory),
            "memory_startup_mb": _largest(self.memory_startup),
            "repeats": len(self.seconds),
        }
        network = median(self.stages["network"])
        if self.startup and network:
            startup = median(self.startup)
            alone = workers * self.frames / network
            record["startup_seconds"] = startup
            record["network_frames_per_second"] = alone
            record["of_network"] = record["frames_per_second"] / alone
            record["of_network_after_startup"] = self.frames / (seconds - startup) / alone
        return record


def _largest(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None


@dataclass(frozen=True)
class Bench:
    """What is measured: a network, its clips, and the options that all runs share."""

    model: str
    weights: str
    clips: tuple[Path, ...]
    workers: int
    chunk: float
    repeats: int

    def run_plain(self, output: Path) -> tuple[int, Watched, dict[str, float]]:
        """One run of the plain loop: its frames, and the seconds of its stages."""
        script = Path(__file__).with_name("plain_loop.py")
        run = watched_run(
            [
                *(sys.executable, str(script), "--model", self.model, "--weights", self.weights),
                *("--threads", str(self.workers), "-o", str(output), *map(str, self.clips)),
            ]
        )
        report = json.loads(run.output)
        return report["frames"], run, report["seconds"]

    def run_tool(self, side: Side, output: Path) -> tuple[Watched, float]:
        """One run of the tool, and the seconds until its first worker was ready.

        Networks are kept beside the output, from one run to the next alone.
        """
        output.unlink(missing_ok=True)
        log = output.with_suffix(".jsonl")
        log.unlink(missing_ok=True)
        cache = output.with_suffix(".cache")
        if not side.kept:
            shutil.rmtree(cache, ignore_errors=True)
        run = watched_run(
            [
                *(sys.executable, "-m", "rrm_extract", *map(str, self.clips), "-o", str(output)),
                *("--model", self.model, "--weights", self.weights, "--json-log", str(log)),
                *("--engine", side.engine, "--precision", side.precision),
                *("--threshold", str(side.threshold), "--chunk", str(self.chunk)),
                *("--workers", str(self.workers), "--threads", "1"),
            ],
            environment={**os.environ, VARIABLE: str(cache)},
            passing=LOADER,
        )
        events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        begin, end = events[0], events[-1]
        if begin["network_kept"] != side.kept:
            sys.exit(f"{self.model}: networks of this kind are not kept; leave --kept away")
        # Python's own start, and its end, are not in what the tool knows.
        return run, run.seconds - end["seconds"] + end["seconds_start"]

    def common(self) -> dict[str, Any]:
        """What all records of it have."""
        return {
            "model": self.model,
            "weights": self.weights,
            "clip": " + ".join(clip.name for clip in self.clips),
            "workers": self.workers,
        }


def feature_errors(output: Path, plain: Path) -> list[float]:
    """Relative L2 to the plain loop's features, for every row that shows the same frame.

    Clips of which the two count another number of frames are left out: a clip in which an AVI is
    shown several times has frames that one decoder gives and the other loop does not.
    """
    errors: list[float] = []
    with FeatureFile(output) as file, np.load(plain) as loaded:
        for name, video in file.items():
            ordinals = loaded[f"{name}/frame_index"]
            if len(ordinals) != video.n_frames:
                continue
            reference = dict(zip(ordinals.tolist(), loaded[f"{name}/features"], strict=True))
            for ordinal, row in zip(video.frame_index.tolist(), video.features, strict=True):
                if ordinal in reference:
                    expected = reference[ordinal].reshape(-1)
                    errors.append(float(np.linalg.norm(row - expected) / np.linalg.norm(expected)))
    return errors


def read_run(output: Path) -> tuple[int, dict[str, float], float | None]:
    """Frames, seconds by stage, and the deltas' density by MACs, of one run of the tool.

    The density is a mean over frames that are no key frames, None where there are no others.
    """
    stages = dict.fromkeys(STAGES, 0.0)
    frames, delta_frames, weighted = 0, 0, 0.0
    with FeatureFile(output) as file:
        for video in file.values():
            for name in STAGES:
                stages[name] += float(video.attrs.get(f"seconds_{name}", 0.0))
            frames += video.n_frames
            own = video.n_frames - int(video.attrs["n_key_frames"])
            if own:  # what there is not has no density
                delta_frames += own
                weighted += own * float(video.attrs["density_delta"])
    return frames, stages, weighted / delta_frames if delta_frames else None


def bench(
    job: Bench, sides: Sequence[Side], peer: list[str] | None, peer_folder: Path | None
) -> list[dict[str, Any]]:
    """All records of one network on some clips in one process."""
    plain, other = Runs(), Runs()
    tool = {side: Runs() for side in sides}
    errors: dict[Side, list[float]] = {}
    density: dict[Side, float | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        reference, output = Path(folder, "plain.npz"), Path(folder, "feats.h5")
        for number in range(job.repeats):
            say(f"{job.model}, {counted(job.workers, 'worker')}: round {number + 1}")
            plain.add(*job.run_plain(reference))
            if peer is not None:
                other.add(*run_peer(job, peer, peer_folder, Path(folder, f"peer{number}")), {})
            for side, runs in tool.items():
                run, startup = job.run_tool(side, output)
                frames, stages, density[side] = read_run(output)
                runs.add(frames, run, stages, startup)
                errors[side] = feature_errors(output, reference)
    base = plain.record(job.workers)
    records = [{**job.common(), "runtime": "torch", "precision": "fp32", "threshold": None, **base}]
    if peer is not None:
        record = other.record(job.workers)
        del record["milliseconds"]  # it does not say
        names = {"runtime": "video_features", "precision": "fp32", "threshold": None}
        records.append({**job.common(), **names, **record})
    for side, runs in tool.items():
        record = {**job.common(), **_names(side), **runs.record(job.workers)}
        known = errors[side]
        record["feature_error"] = float(np.mean(known)) if known else None
        record["feature_error_max"] = float(np.max(known)) if known else None
        record["density"] = density[side]
        record["speedup_over_plain_loop"] = record["frames_per_second"] / base["frames_per_second"]
        records.append(record)
    return records


def run_peer(
    job: Bench, python: list[str], folder: Path | None, output: Path
) -> tuple[int, Watched]:
    """One run of video_features: the rows that it wrote."""
    clips = ",".join(str(clip.resolve()) for clip in job.clips)
    run = watched_run(
        [
            *(*python, "main.py", "feature_type=resnet", f"model_name={job.model}", "device=cpu"),
            *(f"batch_size={PEER_BATCH}", "on_extraction=save_numpy", f"video_paths=[{clips}]"),
            *(f"output_path={output}", f"tmp_path={output}-tmp"),
        ],
        environment={**os.environ, "OMP_NUM_THREADS": str(job.workers)},
        cwd=folder,
    )
    rows = sum(len(np.load(file)) for file in output.rglob("*_resnet.npy"))
    if rows == 0:
        sys.exit(f"video_features in {folder} wrote no features; it said:\n{run.output}")
    return rows, run


def bench_lengths(
    job: Bench, side: Side, clip: Path, minutes: Sequence[float], folder: Path
) -> list[dict[str, Any]]:
    """The tool on one clip of each length, made of ``clip``."""
    records = []
    for length in minutes:
        times = max(1, round(60 * length / clip_seconds(clip)))
        path = folder / f"{clip.stem}-{length:g}min{clip.suffix}"
        looped_clip(clip, path, times=times)
        one = Bench(job.model, job.weights, (path,), job.workers, job.chunk, 1)
        say(f"{job.model}, {counted(job.workers, 'worker')}: {length:g} minutes")
        with tempfile.TemporaryDirectory() as out:
            runs = Runs()
            run, startup = one.run_tool(side, Path(out, "feats.h5"))
            frames, stages, density = read_run(Path(out, "feats.h5"))
            runs.add(frames, run, stages, startup)
        path.unlink()
        record = {**one.common(), **_names(side), "minutes": length, **runs.record(one.workers)}
        records.append({**record, "density": density})
    return records


def _names(side: Side) -> dict[str, Any]:
    return {
        "runtime": f"rrm-{side.engine}",
        "precision": side.precision,
        "threshold": side.threshold,
        "network": "kept" if side.kept else "loaded",
    }


def main() -> None:
    """Runs the benchmark and prints JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", nargs="+", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["resnet18"])
    parser.add_argument("--weights", default="random:0")
    parser.add_argument("--thresholds", nargs="+", type=float, default=[0.0, 1e-4, 1e-2])
    parser.add_argument("--engines", nargs="+", choices=("native", "torch"), default=["native"])
    parser.add_argument(
        "--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"],
        help="of the native engine",
    )  # fmt: skip
    parser.add_argument("--workers", nargs="+", type=int, default=[2], help="cores for any side")
    parser.add_argument("--chunk", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--each", action="store_true", help="measure each clip by itself too")
    parser.add_argument(
        "--kept", action="store_true",
        help="run each side once more, with the network that its run has kept",
    )  # fmt: skip
    parser.add_argument("--loop", type=int, default=1, metavar="N", help="show each clip N times")
    parser.add_argument(
        "--lengths", nargs="*", type=float, default=[], metavar="MINUTES",
        help="clips as long as that as well, for the memory they take",
    )  # fmt: skip
    parser.add_argument("--video-features", type=Path, metavar="PATH", help="its checkout")
    parser.add_argument("--video-features-python", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sides = [
        Side(engine, precision, threshold, kept)
        for engine in arguments.engines
        for precision in (arguments.precisions if engine == "native" else ["fp32"])
        for threshold in arguments.thresholds
        for kept in ([False, True] if arguments.kept else [False])
    ]
    peer = [arguments.video_features_python] if arguments.video_features else None
    records: list[dict[str, Any]] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            clips = [_looped(clip, Path(folder), arguments.loop) for clip in arguments.videos]
            groups = [clips]
            if arguments.each and len(clips) > 1:
                groups += [[clip] for clip in clips]
            for model in arguments.models:
                for workers in arguments.workers:
                    jobs = [
                        Bench(
                            model,
                            arguments.weights,
                            tuple(group),
                            workers,
                            arguments.chunk,
                            arguments.repeats,
                        )
                        for group in groups
                    ]
                    for job in jobs:
                        records += bench(job, sides, peer, arguments.video_features)
                    if workers == max(arguments.workers):
                        records += bench_lengths(
                            jobs[0], sides[0], arguments.videos[0], arguments.lengths, Path(folder)
                        )
    except LoopError as error:
        sys.exit(str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(error.cmd)}\nended with {error.returncode}: {error.stderr}")
    write_json(
        {"machine": machine(), "versions": versions(PACKAGES), "loop": arguments.loop,
         "records": records}, arguments.json,
    )  # fmt: skip


def _looped(clip: Path, folder: Path, times: int) -> Path:
    if times == 1:
        return clip
    return looped_clip(clip, folder / f"{clip.stem}-x{times}{clip.suffix}", times=times)


if __name__ == "__main__":
    main()
