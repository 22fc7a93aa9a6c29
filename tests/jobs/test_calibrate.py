"""From a wanted error to features that keep it, and the paper's control of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from rrm_extract import FeatureFile
from rrm_extract.cli import main
from rrm_extract.config import JobConfig
from rrm_extract.errors import (
    CalibrationError,
    InputError,
    StoreFormatError,
    StoreMismatchError,
    StoreWriteError,
)
from rrm_extract.jobs import ChunkExtractor, make_recipe
from rrm_extract.jobs import calibrate_target as calibrate_target_module
from rrm_extract.jobs import run as run_module
from rrm_extract.jobs.calibrate import check_output, run_calibration
from rrm_extract.jobs.calibrate_accumulated import calibrate_accumulated
from rrm_extract.jobs.calibrate_target import (
    ENOUGH,
    _held_for_told,
    _rounded_up,
    calibrate_target,
)
from rrm_extract.jobs.calibration import (
    AccumulatedCalibration,
    TargetCalibration,
    digest,
    load,
    save,
)
from rrm_extract.jobs.control import relative_errors
from rrm_extract.jobs.discover import discover
from rrm_extract.jobs.kept_calibration import calibration_path, has_calibration
from rrm_extract.jobs.recipe import Recipe, RecipeNetwork, network_input, sampling_of, subject_of
from rrm_extract.jobs.run import _calibrate
from rrm_extract.jobs.samples import Sample, take_samples
from rrm_extract.models import load_model
from rrm_extract.report.calibration import calibration_text
from rrm_extract.rrm.estimate import ErrorEstimate
from rrm_extract.store.job import Job
from rrm_extract.store.place import OutputPlace
from rrm_extract.store.schema import FORMAT_VERSION
from rrm_extract.video import ClipReader, scan_clip
from rrm_extract.video.synthetic import write_demo_clip
from tests.clips import decode_all, write_pictures
from tests.engines import AVAILABLE, ENGINES, needs_native
from tests.jobs import branching
from tests.tiny import MODEL

TARGET = 0.01
JOB: dict[str, Any] = {"model": MODEL, "fps": 12, "chunk": 10}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To calibrate on."""
    folder = tmp_path_factory.mktemp("videos")
    for seed in range(3):
        write_demo_clip(folder / f"{seed}.mp4", seconds=3, size=(64, 48), seed=seed)
    return folder


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """To keep the target on: longer than what is calibrated on."""
    folder = tmp_path_factory.mktemp("others")
    return [
        write_demo_clip(folder / f"{seed}.mp4", seconds=10, size=(64, 48), seed=seed)
        for seed in range(9, 19)
    ]


@pytest.fixture(scope="module")
def unseen(others: list[Path]) -> Path:
    return others[0]


def job(videos: Path, **options: object) -> JobConfig:
    return JobConfig.from_mapping({**JOB, "inputs": [str(videos)], **options})


def true_errors(clip: Path, features: np.ndarray) -> np.ndarray:
    """Of all frames of a clip, beside the dense network."""
    config = job(clip)
    recipe = make_recipe(load_model(MODEL), config)
    info = scan_clip(clip)
    with ClipReader(info, sampling_of(config)) as reader:
        frames = list(reader.read(0))
    return relative_errors(features, recipe.open().exact(network_input(frames, recipe)))


def silent(_: str) -> None:
    pass


# A target.


@pytest.fixture(scope="module", autouse=True)
def worth_it() -> Iterator[None]:
    """Whether errors win time with so small a network depends on what else the machine does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrate_target_module, "WORTH", float("inf"))
        yield


@pytest.fixture(scope="module")
def target_file(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibration") / "thresholds.json"
    run_calibration(job(videos, target_error=TARGET), path, say=silent)
    return path


def test_the_threshold_is_the_largest_that_keeps_the_target(
    videos: Path, target_file: Path
) -> None:
    calibration = load(target_file, kind="target")
    assert isinstance(calibration, TargetCalibration)
    assert (calibration.target_error, calibration.percentile) == (TARGET, 95)
    (threshold,) = calibration.thresholds.values()

    def percentile(threshold: float) -> float:
        config = job(videos, threshold=threshold)
        recipe = make_recipe(load_model(MODEL), config)
        samples = take_samples(discover([str(videos)]), config, recipe, clips=8, frames=48)
        assert [len(sample) for sample in samples] == [36] * 3
        core = RecipeNetwork(recipe)
        errors = []
        for sample in samples:
            core.reset()
            errors.append(relative_errors(core.run(sample.x)[0][0], sample.exact))
        return float(np.percentile(np.concatenate(errors), 95))

    assert 0.5 * TARGET < percentile(threshold) <= TARGET
    assert percentile(1.5 * threshold) > TARGET
    report = calibration.report
    assert report["error_percentile"]["governed"] <= TARGET
    assert 0.3 < report["estimate_over_true"]["median"] < 3
    assert list(calibration.gains) == ["features.0", "features.2", "features.4"]
    text = calibration_text(calibration, target_file)
    assert f"threshold {threshold:.3g} for all layers keeps a feature error of 0.01" in text
    assert f"--thresholds {target_file}" in text


def test_times_off_the_cpu_are_what_passed(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clocks: list[object] = []

    def run(*_: object, clock: object) -> tuple[object, object, float]:
        clocks.append(clock)
        return np.zeros((1, 5)), SimpleNamespace(work=np.ones(1), truncated=None), 1.0

    monkeypatch.setattr(calibrate_target_module, "run_controlled", run)
    recipe = make_recipe(load_model(MODEL), job(videos, target_error=TARGET, engine="torch"))
    sample: Any = SimpleNamespace(exact=np.zeros((1, 5)))
    for device in ("cpu", "meta"):
        calibrate_target_module.Bench(replace(recipe, device=device), [sample]).uniform(0.0)
    assert clocks == [time.process_time, time.perf_counter]


@pytest.mark.parametrize(
    ("device", "where"), [("cpu", "one core"), ("cpu:0", "one core"), ("cuda:0", "cuda:0")]
)
def test_times_name_what_they_were_taken_on(target_file: Path, device: str, where: str) -> None:
    calibration = load(target_file, kind="target")
    assert isinstance(calibration, TargetCalibration)
    assert calibration.report["device"] == "cpu"
    made = replace(calibration, report={**calibration.report, "device": device})
    assert f"milliseconds a frame on {where}: " in calibration_text(made, target_file)


@needs_native  # with the other engine none wins any
def test_errors_that_win_no_time_are_not_made(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate_target_module, "WORTH", 0.0)
    path = tmp_path / "c.json"
    made = run_calibration(job(videos, target_error=TARGET), path, clips=1, frames=16, say=silent)
    assert isinstance(made, TargetCalibration)
    assert made.thresholds == {"default": 0.0}
    assert made.report["threshold"] > 0
    assert "nothing is won here" in calibration_text(made, path)
    recipe = make_recipe(load_model(MODEL), job(videos, thresholds=str(path)))
    assert recipe.control.scheme is None
    assert recipe.threshold == {"default": 0.0}


@pytest.mark.parametrize(("threshold", "lines"), [(0.0, 1), (0.1, 0)])
def test_a_job_says_that_errors_win_no_time(
    threshold: float,
    lines: int,
    videos: Path,
    target_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = load(target_file, kind="target")
    assert isinstance(made, TargetCalibration)

    def calibrated(config: JobConfig, output: Path, *, say: object) -> None:
        save(replace(made, thresholds={"default": threshold}), output)

    monkeypatch.setattr(run_module, "calibrate_apart", calibrated)
    _calibrate(job(videos, target_error=TARGET), tmp_path / "f.h5.calibration.json")
    err = capsys.readouterr().err
    assert err.count("\n") == err.count("nothing is won here by being less exact") == lines


def test_a_smaller_target_has_a_smaller_threshold(videos: Path, tmp_path: Path) -> None:
    found = []
    for target, percentile in ((0.02, 95), (0.002, 95), (0.02, 100)):
        config = job(videos, target_error=target, percentile=percentile, engine="torch")
        made = run_calibration(config, tmp_path / "c.json", clips=1, frames=16, say=silent)
        assert isinstance(made, TargetCalibration)
        assert made.report["clips"] == ["0.mp4"]
        assert made.report["error_percentile"]["uniform"] <= target
        found.append(made.thresholds["default"])
    assert found[1] < 0.3 * found[0]
    assert found[2] <= found[0]


@needs_native  # the other engine has no bf16
def test_a_target_under_the_rounding_is_refused(videos: Path, tmp_path: Path) -> None:
    config = job(videos, target_error=1e-5, precision="bf16")
    with pytest.raises(CalibrationError, match=r"1e-05.*already.*bf16; expected --precision fp32"):
        run_calibration(config, tmp_path / "c.json", frames=8, say=silent)
    assert list(tmp_path.iterdir()) == []


def test_video_in_which_nothing_changes_is_refused(tmp_path: Path) -> None:
    still = decode_all(write_demo_clip(tmp_path / "a.mp4", seconds=0.1, size=(64, 48)))[:1]
    config = job(tmp_path / "a.mp4", target_error=0.01)
    recipe = make_recipe(load_model(MODEL), config)
    write_pictures(tmp_path / "a.mp4", still * 24)
    samples = take_samples(discover(config.inputs), config, recipe, clips=1, frames=12)
    for sample in samples:
        sample.x[:] = sample.x[:1].clone()  # without what the encoder changes
        sample.exact[:] = sample.exact[:1]
    subject = subject_of(load_model(MODEL), config, recipe.layer, recipe.engine)
    with pytest.raises(CalibrationError, match="nothing was truncated in any layer"):
        calibrate_target(recipe, samples, subject=subject, target=0.01, percentile=95, say=silent)


@pytest.mark.parametrize(
    ("engine", "groups"),
    [
        # A layer by channel has no list: it is dense where the others truncate.
        pytest.param("native", [["stem.0"], ["depthwise"], ["point", "other"]], marks=needs_native),
        ("torch", [["stem.0"], ["depthwise", "point", "other"]]),
    ],
)
def test_what_layers_hold_back_together_is_counted_once(
    engine: str, groups: list[list[str]], videos: Path
) -> None:
    model = load_model(branching.MODEL)
    config = job(videos, model=branching.MODEL, target_error=TARGET, engine=engine)
    recipe = make_recipe(model, config)
    samples = take_samples(discover(config.inputs), config, recipe, clips=2, frames=36)
    for sample in samples:
        with_growing_noise(sample, recipe)
    bench = calibrate_target_module.Bench(recipe, samples)
    assert bench.shared_snapshots() == groups
    subject = subject_of(model, config, recipe.layer, recipe.engine)
    made = calibrate_target(
        recipe, samples, subject=subject, target=TARGET, percentile=95, say=silent
    )
    held = np.concatenate(bench.uniform(made.report["threshold"]).truncated)
    columns = dict(zip((op.name for op in recipe.program.linear_ops), held.T, strict=True))
    for first, *others in groups:
        assert made.gains[first] > 0
        for other in others:
            assert made.gains[other] == 0
            np.testing.assert_array_equal(columns[other], columns[first])
    if engine == "native":
        assert (columns["point"][columns["depthwise"] == 0] > 0).any()


def with_growing_noise(sample: Sample, recipe: Recipe) -> None:
    """A still picture with noise, from none to as much as the picture."""
    generator = torch.Generator().manual_seed(0)
    picture = torch.randn(sample.x.shape[1:], generator=generator)
    for number, frame in enumerate(sample.x):
        noise = torch.randn(picture.shape, generator=generator)
        frame.copy_(picture + number / len(sample) * noise)
    sample.exact[:] = RecipeNetwork(recipe).exact(sample.x)


def with_a_frame_of_nan(samples: list[Sample], recipe: Recipe) -> None:
    """As a frame of one colour becomes where pictures are divided by their own deviation."""
    sample = samples[0]
    sample.x[5] = float("nan")
    sample.exact[:] = RecipeNetwork(recipe).exact(sample.x)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_frame_that_is_not_finite_spoils_no_calibration(
    engine: str, videos: Path, tmp_path: Path
) -> None:
    config = job(videos, target_error=TARGET, engine=engine)
    recipe = make_recipe(load_model(MODEL), config)
    samples = take_samples(discover(config.inputs), config, recipe, clips=1, frames=36)
    with_a_frame_of_nan(samples, recipe)
    subject = subject_of(load_model(MODEL), config, recipe.layer, recipe.engine)
    made = calibrate_target(
        recipe, samples, subject=subject, target=TARGET, percentile=95, say=silent
    )
    save(made, tmp_path / "c.json")
    assert made.thresholds["default"] > 0
    assert all(gain > 0 for gain in made.gains.values())


@pytest.mark.parametrize("engine", ENGINES)
def test_a_frame_that_is_not_finite_spoils_no_fit(
    engine: str, videos: Path, tmp_path: Path
) -> None:
    config = job(videos, policy="paper", threshold=0.05, engine=engine)
    recipe = make_recipe(load_model(MODEL), config)
    samples = take_samples(discover(config.inputs), config, recipe, clips=2, frames=36)
    with_a_frame_of_nan(samples, recipe)
    subject = subject_of(load_model(MODEL), config, recipe.layer, recipe.engine)
    made, _ = calibrate_accumulated(recipe, samples, subject=subject, threshold=0.05)
    save(made, tmp_path / "c.json")
    assert made.report["held_out"]["pairs"] > 40


def test_videos_that_cannot_be_used_are_replaced(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    write_demo_clip(tmp_path / "b.mp4", seconds=0.1, size=(64, 48))
    said: list[str] = []
    config = job(tmp_path, target_error=0.01)
    recipe = make_recipe(load_model(MODEL), config)
    with pytest.raises(InputError, match="none of 2 videos has 4 sampled frames"):
        take_samples(discover(config.inputs), config, recipe, clips=1, frames=8, say=said.append)
    assert len(said) == 1
    assert "a.mp4" in said[0]
    write_demo_clip(tmp_path / "c.mp4", seconds=1, size=(64, 48))
    (sample,) = take_samples(discover(config.inputs), config, recipe, clips=1, frames=8)
    assert (sample.name, len(sample)) == ("c.mp4", 8)


@pytest.mark.parametrize(("fps", "chunk"), [("0.2", 10.0), ("1", 3.0)])
def test_chunks_of_few_frames_are_told_of(
    fps: str, chunk: float, videos: Path, tmp_path: Path
) -> None:
    config = job(videos, target_error=TARGET, fps=fps, chunk=chunk)
    with pytest.raises(InputError, match="3 can be decoded, try a higher --fps or a longer"):
        run_calibration(config, tmp_path / "c.json", say=silent)


def test_videos_that_begin_with_a_still_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate_target_module, "GAIN_WORK", 1)  # as with a large network
    monkeypatch.setattr(calibrate_target_module, "FEWEST_GAIN_FRAMES", 4)
    pictures = decode_all(write_demo_clip(tmp_path / "moving.mp4", seconds=2, size=(64, 48)))
    path = write_pictures(tmp_path / "still.mp4", [pictures[0]] * 12 + pictures)
    config = job(path, target_error=TARGET, fps="24")
    made = run_calibration(config, tmp_path / "c.json", frames=48, say=silent)
    assert isinstance(made, TargetCalibration)
    assert sum(made.gains.values()) > 0


def test_the_readable_engine_truncates_though_it_wins_no_time(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate_target_module, "WORTH", 0.0)
    config = job(videos, target_error=TARGET, engine="torch")
    made = run_calibration(config, tmp_path / "c.json", clips=1, frames=16, say=silent)
    assert isinstance(made, TargetCalibration)
    assert made.thresholds["default"] == made.report["threshold"] > 0


def test_a_missing_folder_is_found_before_the_work(videos: Path, tmp_path: Path) -> None:
    config = job(videos, target_error=0.01, model="tests.nothing:at_all")
    with pytest.raises(StoreWriteError, match="nowhere is no folder"):
        run_calibration(config, tmp_path / "nowhere/c.json", say=silent)
    with pytest.raises(StoreWriteError, match=r"cannot write .*aaa/c\.json: .*another place"):
        run_calibration(config, tmp_path / ("a" * 300) / "c.json", say=silent)


def test_a_file_that_may_not_be_looked_at_is_not_written_over(tmp_path: Path) -> None:
    with pytest.raises(StoreWriteError, match="File name too long"):
        check_output(tmp_path / ("a" * 300))
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "none.json", tmp_path / "file" / "below.json"):
        check_output(path)
    with pytest.raises(StoreWriteError, match="is there already and is no calibration"):
        check_output(tmp_path / "file")


def arguments(inputs: Path, output: Path, *options: object) -> list[str]:
    given = [inputs, "-o", output, "--model", MODEL, "--fps", 12, "--chunk", 10, *options]
    return [str(argument) for argument in given]


def test_a_target_is_calibrated_for_once(
    videos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, kept = tmp_path / "f.h5", tmp_path / "f.h5.calibration.json"
    run = arguments(videos, path, "--workers", 1)
    assert main([*run, "--target-error", str(TARGET)]) == 0
    assert "calibrating on 108 frames of 3 of 3 videos" in capfd.readouterr().err
    calibration = kept.read_bytes()

    # The same command does nothing more.
    before = path.read_bytes()
    assert main([*run, "--target-error", str(TARGET)]) == 0
    captured = capfd.readouterr()
    assert "3 done before" in captured.out
    assert "calibrating" not in captured.err
    assert path.read_bytes() == before
    assert kept.read_bytes() == calibration

    # Another target is refused, and nothing is lost by it.
    for options in (["0.02"], [str(TARGET), "--percentile", "99"]):
        assert main([*run, "--target-error", *options]) == 3
        err = capfd.readouterr().err
        assert "--target-error was 0.01" in err
        assert "--overwrite" in err
        assert "calibrating" not in err
    assert kept.read_bytes() == calibration
    assert path.read_bytes() == before
    with FeatureFile(path) as file:
        assert file.identity["target_error"] == TARGET

    # Told to begin again, it calibrates again.
    assert main([*run, "--target-error", "0.02", "--overwrite"]) == 0
    assert "calibrating" in capfd.readouterr().err
    assert json.loads(kept.read_text())["target_error"] == 0.02
    with FeatureFile(path) as file:
        assert file.identity["target_error"] == 0.02


def test_an_output_goes_on_without_the_file_beside_it(
    videos: Path, target_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, kept = tmp_path / "f.h5", tmp_path / "f.h5.calibration.json"
    run = arguments(videos / "0.mp4", path, "--workers", 1)
    assert main([*run, "--thresholds", str(target_file)]) == 0
    before = path.read_bytes()

    def goes_on(*options: object) -> tuple[int, str]:
        code = main([*run, *map(str, options)])
        captured = capfd.readouterr()
        assert "calibrating" not in captured.err
        assert path.read_bytes() == before
        return code, captured.err

    # The output has its own, where the file is missing or damaged.
    for damage in (kept.unlink, partial(kept.write_text, "{")):
        kept.write_text("")
        damage()
        assert goes_on("--target-error", TARGET)[0] == 0
        assert load(kept, kind="target") == load(target_file, kind="target")
    # Another target is refused before anything is calibrated, and both are named.
    kept.unlink()
    code, err = goes_on("--target-error", 0.02)
    assert (code, kept.exists()) == (3, False)
    assert "--target-error was 0.01 (--percentile 95), is now 0.02 (95)." in err
    other = json.loads(target_file.read_text()) | {"target_error": 0.02}
    kept.write_text(json.dumps(other))
    code, err = goes_on("--target-error", 0.02)
    assert code == 3
    assert "was 0.01" in err
    assert f"{kept} is for --target-error 0.02 (95)" in err
    code, err = goes_on("--target-error", TARGET)
    assert code == 3
    assert f"{path} was made with another calibration, for --target-error 0.01 (95)" in err
    assert f"Move {kept} away" in err


def test_an_output_without_a_target_is_refused_before_calibrating(
    videos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = arguments(videos / "0.mp4", tmp_path / "f.h5", "--workers", 1)
    assert main(run) == 0
    capfd.readouterr()
    assert main([*run, "--target-error", str(TARGET)]) == 3
    err = capfd.readouterr().err
    assert "--target-error was not given, is now 0.01 (95)" in err
    assert "calibrating" not in err


def test_unfinished_work_needs_the_file_beside_it(
    videos: Path, target_file: Path, tmp_path: Path
) -> None:
    path, kept = tmp_path / "f.h5", tmp_path / "f.h5.calibration.json"
    calibration = load(target_file, kind="target")
    made = job(videos, target_error=TARGET)
    identity = {**made.identity(), "calibration": digest(calibration.to_json())}
    parts = tmp_path / "f.h5.parts"
    parts.mkdir()
    place, anew = OutputPlace(path), made.replace(overwrite=True)
    assert not has_calibration(made, place, kept), "nothing there belongs to a run"
    Job.of_this_process(
        identity_json=json.dumps(identity), overwrite=False, format_version=FORMAT_VERSION
    ).save(parts)
    lost = rf"unfinished work in {parts} cannot be continued: {kept}, .* is missing or damaged"
    with pytest.raises(StoreMismatchError, match=lost):
        has_calibration(made, place, kept)
    kept.write_text(json.dumps(calibration.to_json() | {"aim": 0.25}))
    with pytest.raises(StoreMismatchError, match=r"is another one, for --target-error 0\.01"):
        has_calibration(made, place, kept)
    save(calibration, kept)
    assert has_calibration(made, place, kept)
    assert not has_calibration(anew, place, kept), "what lies there is to be overwritten"
    Job.of_this_process(
        identity_json=json.dumps(identity), overwrite=True, format_version=FORMAT_VERSION
    ).save(parts)
    assert has_calibration(anew, place, kept), "an interrupted run that was to overwrite it, too"
    assert not has_calibration(anew.replace(percentile=99), place, kept)
    assert not has_calibration(anew.replace(fps="5"), place, kept), "frames differ more"
    (parts / "job.json").write_text("{")
    assert not has_calibration(anew, place, kept)
    with pytest.raises(StoreFormatError, match=r"job\.json is damaged"):
        has_calibration(made, place, kept)


def test_a_link_is_the_file_that_it_points_at(
    videos: Path, target_file: Path, tmp_path: Path
) -> None:
    output, link = tmp_path / "disk" / "f.h5", tmp_path / "link.h5"
    output.parent.mkdir()
    link.symlink_to(output)
    calibration = load(target_file, kind="target")
    save(calibration, tmp_path / "link.h5.calibration.json")
    parts = output.with_name("f.h5.parts")
    parts.mkdir()
    identity = {
        "target_error": TARGET, "percentile": 95.0, "calibration": digest(calibration.to_json()),
    }  # fmt: skip
    Job.of_this_process(
        identity_json=json.dumps(identity), overwrite=False, format_version=FORMAT_VERSION
    ).save(parts)
    assert has_calibration(
        job(videos, target_error=TARGET), OutputPlace(link), calibration_path(link)
    )


def test_another_network_needs_another_output_or_to_overwrite(
    videos: Path, target_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, kept = tmp_path / "f.h5", tmp_path / "f.h5.calibration.json"
    calibration = load(target_file, kind="target")
    save(calibration, kept)
    parts = tmp_path / "f.h5.parts"
    parts.mkdir()
    identity = {
        **job(videos, target_error=TARGET).identity(), "calibration": digest(calibration.to_json())
    }  # fmt: skip
    run = arguments(videos / "0.mp4", path, "--workers", 1, "--target-error", TARGET)
    run = [*run, "--layer", "features", "--pool", "avg"]
    for overwrite in (False, True):
        Job.of_this_process(
            identity_json=json.dumps(identity), overwrite=overwrite, format_version=FORMAT_VERSION
        ).save(parts)
        capfd.readouterr()
        code = main([*run, "--overwrite"] if overwrite else run)
        err = capfd.readouterr().err
        assert code == (0 if overwrite else 3), err
        assert ("calibrating" in err) == overwrite
        if not overwrite:
            assert "was made with another configuration" in err
            assert "use --overwrite to replace it, or another -o" in err
            assert load(kept, kind="target") == calibration


def test_features_keep_the_target_from_end_to_end(
    videos: Path, others: list[Path], target_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "f.h5"
    run = arguments(videos, path, "--workers", 1, "--thresholds", target_file)
    assert main(run) == 0
    # The file alone says the same, whatever the number of workers; other clips keep the target.
    inputs = [*map(str, others), *arguments(videos, tmp_path / "g.h5", "--root", "/")]
    assert main([*inputs, "--workers", "2", "--thresholds", str(target_file)]) == 0
    errors, work = [], []
    with FeatureFile(path) as one, FeatureFile(tmp_path / "g.h5") as two:
        assert one.identity == two.identity
        assert one.identity["target_error"] == TARGET
        for video_id, video in one.items():
            other = two[f"{str(videos)[1:]}/{video_id}"]
            np.testing.assert_array_equal(video.features, other.features)
            for known in ("estimate", "error"):
                np.testing.assert_array_equal(video.audit[known], other.audit[known])
        for clip in others:
            video = two[str(clip)[1:]]
            errors.append(true_errors(clip, video.features))
            work.append(video.work)
            assert int(video.key_frame.sum()) > 1, "the governor looks now and then"
            assert np.isnan(video.audit["error"]).all(), "nobody asked for an audit"
            assert np.isfinite(video.audit["estimate"]).all()
    # Drawn clips and a tiny network are harder than real ones (docs/accuracy.md): their errors
    # jump between one measurement and the next.
    assert np.percentile(np.concatenate(errors), 95) <= 1.5 * TARGET
    assert np.median(np.concatenate(errors)) > 0.1 * TARGET, "the room is used"
    assert np.concatenate(work).mean() < 0.4, "it is not all computed densely"


def test_the_file_and_its_stats_name_the_thresholds_that_were_used(
    videos: Path, target_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, used = tmp_path / "f.h5", json.loads(target_file.read_text())["thresholds"]
    assert main(arguments(videos, path, "--workers", 1, "--thresholds", target_file)) == 0
    with FeatureFile(path) as file:
        assert json.loads(file.attrs["threshold"]) == used
    with h5py.File(path, "r+") as file:  # as it was written once: a default that was not used
        file.attrs["threshold"] = 1e-4
    capfd.readouterr()
    assert main(["stats", str(path)]) == 0
    head = capfd.readouterr().out.splitlines()[0]
    assert head.endswith("target error 0.01 (95 %), thresholds calibrated and steered")
    assert main(["stats", str(path), "--json"]) == 0
    values = json.loads(capfd.readouterr().out)
    assert json.loads(values["threshold"]) == used
    assert (values["target_error"], values["percentile"]) == (TARGET, 95)


def test_stats_name_the_threshold_of_each_layer(
    videos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for threshold, words in (("0.1", "0.1"), ("0.1,features.0=0.2", "0.1,features.0=0.2")):
        path = tmp_path / f"{threshold}.h5"
        options = ("--workers", 1, "--threshold", threshold)
        assert main(arguments(videos / "0.mp4", path, *options)) == 0
        capfd.readouterr()
        assert main(["stats", str(path)]) == 0
        assert capfd.readouterr().out.splitlines()[0].endswith(f", threshold {words} (bounded)")
        assert main(["stats", str(path), "--json"]) == 0
        values = json.loads(capfd.readouterr().out)
        assert (values["target_error"], values["percentile"]) == (None, None)


def test_a_calibration_without_its_output_is_made_again(videos: Path, tmp_path: Path) -> None:
    """It may be of another network, and nothing depends on it."""
    left = tmp_path / "f.h5.calibration.json"
    config = job(videos, target_error=TARGET, layer="features")
    run_calibration(config, left, clips=1, frames=8, say=silent)
    with pytest.raises(CalibrationError, match=r"layer 'features\.5', here 'flatten'"):
        make_recipe(load_model(MODEL), job(videos, thresholds=str(left)))
    run = arguments(videos / "0.mp4", tmp_path / "f.h5", "--workers", 1, "--target-error", TARGET)
    assert main(run) == 0
    assert json.loads(left.read_text())["subject"]["layer"] == "flatten"


# The paper's control.


@pytest.fixture(scope="module")
def paper_file(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("paper") / "aecs.json"
    config = job(videos, policy="paper", threshold=0.05)
    plot = path.with_suffix(".svg")
    pytest.importorskip("matplotlib")
    run_calibration(config, path, plot=plot, say=silent)
    drawn = plot.read_text(encoding="utf-8")
    assert "<svg" in drawn
    assert f"weights factory:{MODEL}, " in drawn
    assert load(path, kind="accumulated").report["weights"] == f"factory:{MODEL}"
    return path


def test_accumulated_errors_are_limited(paper_file: Path, unseen: Path) -> None:
    def extracted(**options: object) -> tuple[Any, np.ndarray]:
        config = job(unseen, policy="paper", threshold=0.05, cuts="ignore", **options)
        with ClipReader(scan_clip(unseen), sampling_of(config)) as reader:
            extractor = ChunkExtractor(make_recipe(load_model(MODEL), config))
            result = extractor.extract(reader, 0, unseen.name)
        return result, true_errors(unseen, result.features)

    free, free_errors = extracted()
    assert free.key_frame.nonzero()[0].tolist() == [0]
    limit = float(np.quantile(free_errors, 0.3))
    held, errors = extracted(aecs=str(paper_file), error_limit=limit)
    resets = held.key_frame.nonzero()[0]
    assert len(resets) > 2
    assert len(resets) - 1 == held.attrs["n_rounds"]
    assert held.attrs["n_recomputed"] > 0
    assert errors[resets].max() < 1e-5
    assert held.estimate is not None
    assert held.estimate.max() <= np.float32(limit)
    # The last frame before a round ends is nearly at the limit, as far as the polynomial is right.
    last = errors[resets[1:] - 1]
    assert 0.3 * limit < np.median(last) < 2.5 * limit
    assert errors.max() < free_errors.max()
    # Whatever the portions, the same frames.
    again, _ = extracted(aecs=str(paper_file), error_limit=limit, time_batch=3)
    np.testing.assert_array_equal(again.key_frame, held.key_frame)


def test_stats_tell_the_limit_of_the_error(
    paper_file: Path, videos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, options = tmp_path / "f.h5", ("--policy", "paper", "--threshold", 0.05, "--workers", 1)
    for control, words in (
        (("--aecs", paper_file, "--error-limit", 0.02), "(paper, error limit 0.02)"),
        (("--overwrite",), "(paper)"),
    ):
        assert main(arguments(videos / "0.mp4", path, *options, *control)) == 0
        capfd.readouterr()
        assert main(["stats", str(path)]) == 0
        assert capfd.readouterr().out.splitlines()[0].endswith(f", threshold 0.05 {words}")
        assert main(["stats", str(path), "--json"]) == 0
        limit = 0.02 if "--aecs" in control else None
        assert json.loads(capfd.readouterr().out)["error_limit"] == limit


def test_the_fit_says_how_good_it_is(paper_file: Path, tmp_path: Path, videos: Path) -> None:
    calibration = load(paper_file, kind="accumulated")
    assert isinstance(calibration, AccumulatedCalibration)
    assert calibration.threshold == 0.05
    report = calibration.report
    assert report["clips"] == ["0.mp4", "1.mp4", "2.mp4"]
    assert report["pairs"] > 80
    assert 0 < report["r2"] <= 1
    assert report["held_out"]["pairs"] + report["held_out"]["beyond_data"] == report["pairs"]
    text = calibration_text(calibration, paper_file)
    assert "on clips that it has not seen: R2" in text
    assert f"--policy paper --threshold 0.05 --aecs {paper_file} --error-limit" in text
    # Layers of their own; and two clips of which none is enough by itself.
    config = job(videos, policy="paper", threshold="0.05,features.0=0.1", chunk=0.5)
    made = run_calibration(config, tmp_path / "c.json", clips=2, say=silent)
    text = calibration_text(made, tmp_path / "c.json")
    assert "--threshold 0.05,features.0=0.1 --aecs" in text
    assert "too few clips" in text


def test_a_fit_needs_something_truncated(videos: Path, tmp_path: Path) -> None:
    config = job(videos, policy="paper", threshold=0)
    with pytest.raises(CalibrationError, match="0 frames have truncated something"):
        run_calibration(config, tmp_path / "c.json", clips=1, frames=8, say=silent)


def test_the_plot_does_not_cost_the_calibration(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    wanted = ["--policy", "paper", "--threshold", "0.05", "--plot"]

    def calibrate(file: str, plot: str, *options: str) -> tuple[int, str]:
        given = [*wanted, str(tmp_path / plot), *options]
        code = main(["calibrate", *arguments(videos, tmp_path / file, *given)])
        return code, capsys.readouterr().err

    code, err = calibrate("c.json", "x" * 300 + ".svg")
    assert code == 3
    assert "cannot write" in err
    assert load(tmp_path / "c.json", kind="accumulated")
    there = tmp_path / "fit.svg"
    there.write_bytes(b"another picture")
    for plot, expected, words in (
        ("fit.xyz", 2, "expected a name in .svg"),
        ("none/fit.svg", 3, "none is no folder"),
        ("fit.svg", 3, "fit.svg would be written over; use --overwrite or another --plot"),
    ):
        code, err = calibrate("d.json", plot)
        assert code == expected
        assert words in err
        assert not (tmp_path / "d.json").exists(), "found before the work"
    assert there.read_bytes() == b"another picture"
    assert calibrate("c.json", "fit.svg", "--overwrite")[0] == 0, "both are there already"
    assert there.read_bytes().startswith(b"<?xml")


# The command line.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--threshold", "0.1", "--thresholds", "{target}"], ["--thresholds and --threshold"]),
        (["--threshold", "0.1", "--target-error", "1"], ["--target-error and --threshold"]),
        (["--target-error", "1", "--thresholds", "{target}"], ["--thresholds and --target-error"]),
        (["--policy", "paper", "--target-error", "1"], ["--target-error needs --policy bounded"]),
        (["--policy", "paper", "--thresholds", "{target}"], ["--thresholds needs --policy"]),
        (["--aecs", "{paper}", "--error-limit", "1"], ["need --policy paper"]),
        (["--policy", "paper", "--aecs", "{paper}"], ["--aecs was given without --error-limit"]),
        (["--policy", "paper", "--error-limit", "1"], ["--error-limit was given without --aecs"]),
        (["--percentile", "99"], ["--percentile needs --target-error"]),
        (["--thresholds", "{target}", "--percentile", "99"], ["--percentile", "the file's own"]),
        (["--target-error", "0"], ["--target-error", "'0'"]),
        (["--target-error", "nan"], ["--target-error", "'nan'"]),
        (["--target-error", "1", "--percentile", "0"], ["--percentile", "up to 100"]),
        (["--audit", "1.5"], ["--audit", "from 0 to 1"]),
        (["--refresh", "0"], ["--refresh", "above 0"]),
        (["--cuts", "maybe"], ["--cuts", "'ignore'"]),
    ],
)
def test_options_that_do_not_go_together(
    options: list[str],
    words: list[str],
    videos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [option.format(target="t.json", paper="p.json") for option in options]
    assert main(arguments(videos, tmp_path / "f.h5", *given)) == 2
    check_refusal(capsys.readouterr().err, words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["--target-error NUMBER, or --policy paper"]),
        (["--target-error", "0.1", "--plot", "fit.svg"], ["--plot", "--policy paper"]),
        (["--policy", "paper", "--target-error", "1"], ["needs --policy bounded"]),
        (["--policy", "paper", "--threshold", "0.1", "--layer", "relu"], ["relu"]),
    ],
)
def test_what_calibrate_cannot_do(
    options: list[str],
    words: list[str],
    videos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["calibrate", *arguments(videos, tmp_path / "c.json", *options)]) == 2
    check_refusal(capsys.readouterr().err, words)
    assert list(tmp_path.iterdir()) == []


def test_errors_of_rounding_do_not_correct_the_estimate() -> None:
    """In bfloat16 most frames may have less error than the mean without truncation."""
    estimate = ErrorEstimate(gains=np.ones(1), floor=0.0025**2)
    held_back = np.array([[5e-6], [5e-6], [1e-9], [1e-9], [1e-9]])
    errors = np.array([0.0033, 0.0034, 0.0024, 0.0024, 0.0026])
    assert 0.9 < _held_for_told(estimate, held_back, errors) < 1.1
    assert _held_for_told(estimate, held_back[2:], errors[2:]) == 1


def test_a_calibration_and_its_plot_are_two_files(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fit.svg"
    again = tmp_path / "none" / ".." / "fit.svg"
    options = ("--policy", "paper", "--threshold", "0.1", "--plot", again)
    assert main(["calibrate", *arguments(videos, path, *options)]) == 2
    check_refusal(capsys.readouterr().err, ["--plot and -o are both"])
    assert list(tmp_path.iterdir()) == []


def check_refusal(err: str, words: list[str]) -> None:
    for word in words:
        assert word in err
    assert err.count("\n") == 1, "one line"


def test_files_for_something_else_are_refused(
    videos: Path, target_file: Path, paper_file: Path, tmp_path: Path
) -> None:
    def refused(words: str, **options: object) -> None:
        with pytest.raises(CalibrationError, match=words):
            make_recipe(load_model(MODEL), job(videos, **options))

    limited = {"policy": "paper", "error_limit": 0.1}
    refused("meant for --aecs", thresholds=str(paper_file))
    refused("meant for --thresholds", aecs=str(target_file), **limited)
    refused(
        "with --threshold 0.05, here it is 0.06", aecs=str(paper_file), threshold=0.06, **limited
    )
    refused("here it is 0.05,features.0=0.1", aecs=str(paper_file),
            threshold="0.05,features.0=0.1", **limited)  # fmt: skip
    if "native" in AVAILABLE:
        refused("engine 'native', here 'torch'", thresholds=str(target_file), engine="torch")
        refused("precision 'fp32', here 'bf16'", thresholds=str(target_file), precision="bf16")
    refused("cannot be read", thresholds="none.json")
    values = json.loads(target_file.read_text())
    other = tmp_path / "other.json"
    for gains, words in (
        ({**values["gains"], "fc9": 1.0}, r"other\.json has a gain for 'fc9'"),
        ({}, r"other\.json has no gain for layer 'features\.0'"),
    ):
        other.write_text(json.dumps({**values, "gains": gains}))
        refused(words, thresholds=str(other))


def test_refresh_and_audit_in_a_long_chunk(unseen: Path, tmp_path: Path) -> None:
    options = ["--chunk", 60, "--refresh", 2.5, "--audit", "1/4", "--threshold", 0.02]
    assert main(arguments(unseen, tmp_path / "f.h5", *options, "--workers", 1)) == 0
    with FeatureFile(tmp_path / "f.h5") as file:
        video = file[unseen.name]
        assert video.key_frame.nonzero()[0].tolist() == [0, 30, 60, 90]
        assert video.attrs["n_refreshes"] == 3
        assert "n_cuts" not in video.attrs
        error = video.audit["error"]
        audited = ~np.isnan(error)
        assert video.attrs["n_audited"] == audited.sum()
        assert 15 < audited.sum() < 60
        assert np.isnan(video.audit["estimate"]).all()
        errors = true_errors(unseen, video.features)
        np.testing.assert_allclose(error[audited], errors[audited], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("least", [0.00944, 0.0105, 0.9, 1.23e-5])
def test_the_target_that_is_advised_is_not_refused(least: float) -> None:
    advised = float(f"{_rounded_up(least / ENOUGH):g}")
    assert least <= ENOUGH * advised
    assert advised < 1.11 * least / ENOUGH
