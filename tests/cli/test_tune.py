"""``rrm-extract tune``: what it measures, and what it says of it."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rrm_extract.cli import main
from rrm_extract.config import JobConfig
from rrm_extract.graph import trace
from rrm_extract.jobs import tuning as tuning_module
from rrm_extract.jobs.discover import discover
from rrm_extract.jobs.recipe import make_recipe
from rrm_extract.jobs.samples import take_samples
from rrm_extract.jobs.tuning import TriedThreshold, Tuning, try_thresholds
from rrm_extract.models import load_model
from rrm_extract.report import tuning_plot
from rrm_extract.report.tuning import tuning_json, tuning_text
from rrm_extract.video.synthetic import write_demo_clip
from tests.clips import write_clip
from tests.closeness import EXACT_RECURRENCE
from tests.engines import ENGINES
from tests.jobs import single
from tests.tiny import MODEL

MADE_BY = {"engine": "native", "weights": "random:0"}
TINY = ("--model", MODEL, "--frames", "16", "--repeats", "2")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_clip(tmp_path_factory.mktemp("tune") / "clip.mp4", seconds=1, size=(64, 48))


def output_of(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def tried(threshold: float, *errors: float, seconds: float = 1.0) -> TriedThreshold:
    return TriedThreshold(
        threshold=threshold,
        errors=np.array(errors),
        density=0.5,
        work=0.25,
        key_frames=1,
        seconds=(seconds, 10 * seconds, seconds),
    )


def tuning_of(*some: TriedThreshold) -> Tuning:
    return Tuning(
        tried=some, seconds_dense=(4.0, 4.0, 50.0), dense_batch=2, frames=2, clips=("clip.mp4",)
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("policy", ["bounded", "paper"])
def test_errors_grow_and_work_shrinks_with_the_threshold(
    clip: Path, engine: str, policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = output_of(
        capsys, "tune", clip, *TINY, "--try", "1e-1,1e-3", "--engine", engine, "--policy", policy,
        "--json",
    )  # fmt: skip
    assert code == 0
    assert "round 2 of 2" in err
    values = json.loads(out)
    assert (values["engine"], values["policy"]) == (engine, policy)
    assert (values["frames"], values["clips"]) == (16, ["clip.mp4"])
    exact, small, large = values["thresholds"]
    assert [each["threshold"] for each in (exact, small, large)] == [0, 1e-3, 1e-1]
    assert exact["error_max"] < EXACT_RECURRENCE < small["error_max"] < large["error_mean"]
    assert exact["speedup_theoretical"] < large["speedup_theoretical"]
    assert 0 < large["density"] < small["density"] < 1
    for each in (exact, small, large):
        assert each["error_mean"] <= each["error_p95"] <= each["error_max"]
        assert each["key_frames"] >= 1
        assert len(each["seconds"]) == 2
        assert each["speedup_wall_over_dense"] == pytest.approx(
            each["frames_per_second"] / values["dense"]["frames_per_second"]
        )
    assert exact["speedup_wall_over_threshold_0"] == 1


def test_the_error_is_that_of_verify(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A single chunk, of which both look at the same frames."""
    common = ("--model", MODEL, "--engine", "torch")
    _, out, _ = output_of(
        capsys, "tune", clip, *common, "--frames", "16", "--try", "5e-2", "--json"
    )
    mine = json.loads(out)["thresholds"][1]
    _, out, _ = output_of(
        capsys, "verify", clip, *common, "--max-frames", "16", "--threshold", "5e-2", "--json"
    )
    theirs = json.loads(out)
    assert mine["error_max"] == pytest.approx(theirs["relative_l2_max"], rel=1e-4)
    assert mine["error_mean"] == pytest.approx(theirs["relative_l2_mean"], rel=1e-4)
    # There the classifier counts as well, the smallest layer by far.
    assert mine["density"] == pytest.approx(theirs["density"], rel=1e-3)
    assert mine["speedup_theoretical"] == pytest.approx(theirs["speedup_theoretical"], rel=1e-3)


class _ByDevice(nn.Module):
    """Moves its input where a buffer of its own is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("mean", torch.ones(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.to(self.mean.device) - self.mean)


def test_the_dense_network_names_no_other_device() -> None:
    recipe: Any = SimpleNamespace(
        program=trace(_ByDevice().eval()), input_shape=(3, 8, 8), device="meta", pool="none"
    )
    network = tuning_module._Dense(recipe)._network
    assert network(torch.zeros(1, 3, 8, 8, device="meta")).is_meta


def test_every_round_runs_everything_once(clip: Path) -> None:
    config = JobConfig(inputs=(str(clip),), model=MODEL, engine="torch")
    model = load_model(config.model, weights=config.weights, preprocess=config.preprocess)
    recipe = make_recipe(model, config)
    samples = take_samples(discover(config.inputs), config, recipe, clips=1, frames=10)
    said: list[str] = []
    tuning = try_thresholds(recipe, samples, [1e-2, 0.0, 1e-2], repeats=3, say=said.append)
    assert [each.threshold for each in tuning.tried] == [0, 1e-2]
    assert [len(each.seconds) for each in tuning.tried] == [3, 3] == [len(said)] * 2
    assert len(tuning.seconds_dense) == 3
    assert tuning.dense_batch == 10, "all that there are, fewer than 16"
    # Errors are of the first round alone: the others would say the same again.
    assert [len(each.errors) for each in tuning.tried] == [10, 10] == [tuning.frames] * 2


def test_the_table_labels_both_speedups_and_says_what_to_do_next(
    clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = output_of(
        capsys, "tune", clip, *TINY, "--try", "1e-4,50", "--fps", "12", "--layer", "features.4"
    )
    assert code == 0
    head, _, *rows = out.splitlines()[2:7]
    assert "theoretical speedup" in head
    assert "over dense" in head
    assert [row.split()[0] for row in rows] == ["0", "0.0001", "50"]
    assert all(row.split()[-1].endswith("x") for row in rows)
    hint = out.splitlines()[-1].partition(": ")[2]
    assert "on 95 % of the frames: 0.0001" in out.splitlines()[-2]
    assert shlex.split(hint) == [
        "rrm-extract", "calibrate", str(clip), "--model", MODEL, "--layer", "features.4",
        "--fps", "12", "--target-error", "0.01", "-o", "thresholds.json",
    ]  # fmt: skip


def test_what_is_next_with_the_policy_paper() -> None:
    config = JobConfig(inputs=("a b.mp4",), policy="paper", engine="torch", chunk=60)
    tuning = tuning_of(tried(0, 0, 0), tried(1e-3, 1e-3, 9e-3), tried(1e-2, 1e-3, 2e-2))
    text = tuning_text(tuning, config, engine="torch", weights="random:0")
    assert text.endswith(
        "to watch it: rrm-extract calibrate 'a b.mp4' --policy paper --chunk 60 --engine torch "
        "--threshold 0.001 -o aecs.json"
    )


@pytest.mark.parametrize(("task", "model"), [("detect", "tiny_yolov2"), ("pose", "rtpose")])
def test_what_is_next_with_a_task(task: str, model: str) -> None:
    config = JobConfig(inputs=("a.mp4",), task=task, model=model, weights="random:0")
    text = tuning_text(tuning_of(tried(0, 0, 0)), config, **MADE_BY)
    assert text.endswith(
        f": rrm-extract calibrate a.mp4 --model {model} --task {task} --weights random:0 "
        "--target-error 0.01 -o thresholds.json"
    )


def test_no_threshold_is_small_enough() -> None:
    tuning = tuning_of(tried(0, 0.02, 0.02), tried(1e-3, 0.1, 0.1))
    text = tuning_text(tuning, JobConfig(precision="bf16"), **MADE_BY)
    assert text.endswith("even at threshold 0 the error is not under 1% on 95 % of the frames; "
                         "try --precision fp32")  # fmt: skip
    values = tuning_json(tuning, JobConfig(), **MADE_BY)
    assert values["largest_threshold_with_small_error"] is None


def test_speeds_are_of_the_median_round() -> None:
    tuning = tuning_of(tried(0, 0, 0, seconds=2.0), tried(1e-3, 0, 0, seconds=0.5))
    values: Any = tuning_json(tuning, JobConfig(), **MADE_BY)
    assert values["dense"]["frames_per_second"] == 0.5
    exact, small = values["thresholds"]
    assert (exact["frames_per_second"], small["frames_per_second"]) == (1, 4)
    assert small["speedup_wall_over_dense"] == 8
    assert small["speedup_wall_over_threshold_0"] == 4
    assert small["speedup_theoretical"] == 4


@pytest.mark.parametrize(
    ("device", "threads", "words"),
    [("cpu", 1, "1 thread"), ("cpu:0", 2, "2 threads"), ("cuda:0", 1, "cuda:0")],
)
def test_times_name_what_they_were_taken_on(
    device: str, threads: int, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = JobConfig(engine="torch", device=device, threads=threads)
    made_by = {"engine": "torch", "weights": "random:0"}
    tuning = tuning_of(tried(0, 0, 0))
    text = tuning_text(tuning, config, **made_by)
    assert f"measured, the network alone, one worker ({words}), median of 3" in text
    values = tuning_json(tuning, config, **made_by)
    assert (values["device"], values["threads"]) == (device, threads)
    pytest.importorskip("matplotlib")
    drawn: list[Any] = []
    monkeypatch.setattr(tuning_plot, "save_figure", lambda figure, _: drawn.append(figure))
    tuning_plot.draw_tuning(tuning, config, tmp_path / "t.svg", **made_by)
    assert drawn[0].axes[0].get_ylabel() == f"frames/s of the network, {words}"


def test_rounds_that_disagree_are_mentioned() -> None:
    calm = Tuning(
        tried=(replace(tried(0, 0, 0), seconds=(1.0, 1.1, 1.2)),),
        seconds_dense=(4.0, 4.4, 4.1),
        dense_batch=2,
        frames=2,
        clips=("clip.mp4",),
    )
    assert calm.spread == pytest.approx(1.2)
    assert "something else was running" not in tuning_text(
        calm, JobConfig(), engine="native", weights="random:0"
    )
    busy = replace(calm, seconds_dense=(4.0, 4.0, 6.0))
    assert "factor of 1.5: something else" in tuning_text(
        busy, JobConfig(), engine="native", weights="random:0"
    )


def test_the_table_says_where_few_frames_have_deltas() -> None:
    many = replace(tried(0.0, *[0.0] * 8), key_frames=6)
    tuning = replace(tuning_of(many, tried(1e-3, *[1e-3] * 8)), frames=8)
    text = tuning_text(tuning, JobConfig(inputs=("a.mp4",)), **MADE_BY)
    assert "threshold 0: figures of deltas are of 2 of 8 frames" in text
    assert text.count("figures of deltas") == 1


def test_a_feature_of_zeros_has_no_relative_error() -> None:
    """It is 0 or infinite, and JSON knows no infinity."""
    tuning = tuning_of(tried(0, 0, 0), tried(1e-2, math.inf, math.inf))
    values: Any = tuning_json(tuning, JobConfig(), **MADE_BY)
    assert values["thresholds"][1]["error_mean"] is None
    assert values["thresholds"][1]["error_p95"] is None
    assert values["largest_threshold_with_small_error"] == 0
    assert " inf " in tuning_text(tuning, JobConfig(), **MADE_BY)
    json.dumps(values, allow_nan=False)


def test_several_clips_and_one_that_is_none(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [write_clip(tmp_path / f"{name}.mp4", n_frames=12, noise=20) for name in "ac"]
    bad = tmp_path / "b.mp4"
    bad.write_bytes(b"no video")
    code, out, err = output_of(
        capsys, "tune", tmp_path, *TINY, "--try", "1e-2", "--clips", "3", "--json"
    )
    assert code == 0
    assert "b.mp4" in err
    values = json.loads(out)
    assert values["clips"] == [path.name for path in good]
    assert values["frames"] == 24
    code, _, err = output_of(capsys, "tune", bad, *TINY)
    assert code == 2
    assert "none of 1 videos has 4 sampled frames that can be decoded" in err


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_plot(
    clip: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"tune{suffix}"
    path.write_bytes(b"another picture")
    options = ("--try", "1e-2", "--plot", path)
    code, out, err = output_of(capsys, "tune", clip, *TINY, *options)
    assert (code, out) == (3, "")
    assert f"{path} would be written over; use --overwrite or another --plot" in err
    assert path.read_bytes() == b"another picture"
    code, _, _ = output_of(capsys, "tune", clip, *TINY, *options, "--overwrite")
    assert code == 0
    begins = {".svg": b"<?xml", ".png": b"\x89PNG"}[suffix]
    assert path.read_bytes().startswith(begins)
    if suffix == ".svg":
        assert f"weights {load_model(MODEL).weights_text}, " in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--try", "1e-3;1e-2", "expected numbers of 0 or more"),
        ("--try", "-1", "expected numbers of 0 or more"),
        ("--try", "", "expected numbers of 0 or more"),
        ("--try", "features.0=1e-3", "expected numbers of 0 or more"),
        ("--plot", "tune.gif", "expected a name in .svg, .png, .pdf"),
        ("--frames", "3", "x>=4"),
        ("--model", "resnet19", "resnet19"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(
    clip: Path, option: str, value: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = output_of(capsys, "tune", clip, option, value)
    assert (code, out) == (2, "")
    assert words in err


def test_the_plot_needs_its_folder(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = output_of(capsys, "tune", clip, "--plot", "nowhere/tune.svg")
    assert (code, out) == (3, "")
    assert "nowhere is no folder; make it first" in err
    code, out, err = output_of(capsys, "tune", clip, "--plot", f"{'a' * 300}/tune.svg")
    assert (code, out) == (3, "")
    assert "File name too long; choose another place" in err


def test_every_option_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = output_of(capsys, "tune", "--help")
    assert code == 0
    text = " ".join(out.split())
    for option in ("--try", "--clips", "--frames", "--repeats", "--plot", "--overwrite"):
        assert f"Example: {option}" in text


def test_threads_that_one_side_has_alone_are_refused(
    clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")
    code, _, err = output_of(capsys, "tune", clip, *TINY, "--threads", "2")
    assert code == 2
    assert "--threads 2: the native engine has one thread" in err


@pytest.mark.parametrize("model", [single.TOKEN, single.SQUEEZED])
def test_networks_that_take_one_frame_at_a_time(
    model: str, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--model", model, "--fps", "24", "--frames", "17", "--repeats", "1", "--json")
    code, out, _ = output_of(capsys, "tune", clip, *options, "--try", "1e-2")
    assert code == 0
    values = json.loads(out)
    assert values["frames"] == 17
    # What is squeezed keeps the dimension of frames.
    size = 1 if model == single.TOKEN else 16
    assert values["dense"]["runtime"].endswith(f"batches of {size}")
    assert values["thresholds"][0]["error_max"] < 1e-5
