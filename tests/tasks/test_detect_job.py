"""Objects of a folder of clips, through the real command."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from rrm_extract import FeatureFile
from rrm_extract.config import JobConfig
from rrm_extract.errors import ConfigError, InputError, UsageError, WeightsError
from rrm_extract.jobs import make_recipe, sampling_of
from rrm_extract.jobs.recipe import load_plan
from rrm_extract.models import load_model
from rrm_extract.models.darknet import write_weights
from rrm_extract.report.stats import read_stats
from rrm_extract.report.verify import Verifier
from rrm_extract.store import export, same_content
from rrm_extract.store.export import TASK_LAYOUTS
from rrm_extract.tasks import Detector
from rrm_extract.video import ClipReader, scan_clip
from rrm_extract.video.synthetic import write_demo_clip
from tests.closeness import assert_same_objects
from tests.command import called, rrm_extract
from tests.hostile.jobs import expect_clean, finished, started
from tests.hostile.test_kill import MARK_SECONDS, mark
from tests.models.darknet import build
from tests.tasks.jobs import DETECTOR, detection, write_detector

SIZES = {"videos/a.mp4": (64, 48), "videos/sub/b.avi": (96, 64)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detect")
    write_detector(folder)
    for number, (name, size) in enumerate(SIZES.items()):
        write_demo_clip(folder / name, seconds=2.5 - number, size=size, seed=number)
    return folder


@pytest.fixture(scope="module")
def output(folder: Path) -> Path:
    """The objects of both clips, of one worker; events are in log.jsonl beside it."""
    path = folder / "objects.h5"
    options = ["--workers", "1", "--json-log", "log.jsonl"]
    done = rrm_extract(*detection("videos", path, *options), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "found " in done.stdout
    assert " objects, " in done.stdout
    assert "task " in done.stdout
    return path


def test_three_lines_of_h5py(output: Path) -> None:
    with h5py.File(output) as f:
        found = f["videos/sub/b.avi/detect"]
        offsets, boxes, scores = (found[name][:] for name in ("offsets", "boxes", "scores"))
        times, classes = f["videos/sub/b.avi/timestamps"][:], found["classes"][:]
        assert "features" not in f["videos/sub/b.avi"]
        assert (f.attrs["format_version"], f.attrs["task"], f.attrs["n_classes"]) == (
            "2.0", "detect", 3,
        )  # fmt: skip
    assert offsets.shape == (13,)
    assert (offsets.dtype, boxes.dtype, scores.dtype, classes.dtype) == (
        np.int64, np.float32, np.float32, np.int64,
    )  # fmt: skip
    assert times.tolist() == pytest.approx([k / 8 for k in range(12)])
    assert boxes.shape == (offsets[-1], 4)
    assert scores.shape == classes.shape == (offsets[-1],)
    assert offsets[-1] > 12
    assert scores.min() > 0.25
    assert set(classes) <= {0, 1, 2}
    assert boxes.min() >= 0
    assert boxes[:, ::2].max() <= 96
    assert boxes[:, 1::2].max() <= 64
    assert (boxes[:, :2] <= boxes[:, 2:]).all()
    assert boxes[:, 2].max() > 32, "pixels of the frame, not of the network's input"
    first = scores[offsets[0] : offsets[1]]
    assert (np.diff(first) <= 0).all()


def test_the_log_says_how_much_was_found(folder: Path, output: Path) -> None:
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    logged = {event["video_id"]: event["found"] for event in events if event["event"] == "video"}
    with FeatureFile(output) as file:
        assert logged == {name: len(file[name].found.scores) for name in file}
    assert (events[-1]["event"], events[-1]["found"]) == ("end", sum(logged.values()))


def test_objects_are_those_of_the_stored_raw_output(folder: Path, output: Path) -> None:
    raw = ["--layer", "layers.4", "--pool", "none", "--workers", "1"]
    done = rrm_extract(*detection("videos", "raw.h5", *raw, task="features"), cwd=folder)
    assert done.returncode == 0, done.stderr
    detector = Detector.of(load_model(f"darknet:{folder / 'net.cfg'}", weights="random"))
    with FeatureFile(folder / "raw.h5") as raws, FeatureFile(output) as file:
        assert list(raws) == list(file) == ["a.mp4", "sub/b.avi"]
        for video_id, (width, height) in zip(file, SIZES.values(), strict=True):
            expected = detector(raws[video_id].features, height=height, width=width)
            stored = file[video_id].detections
            assert len(stored) == len(expected)
            for one, other in zip(stored, expected, strict=True):
                np.testing.assert_array_equal(one.boxes, other.pixels)
                np.testing.assert_array_equal(one.scores, other.scores)
                np.testing.assert_array_equal(one.classes, other.classes)
                assert (one.height, one.width) == (height, width)
            np.testing.assert_array_equal(file[video_id].work, raws[video_id].work)


def test_threshold_0_finds_what_the_dense_network_does(folder: Path) -> None:
    arguments = detection("videos/a.mp4", "exact.h5", "--threshold", "0", "--score-threshold")
    done = rrm_extract(*arguments, "0.3", "--overlap", "0.6", "--workers", "1", cwd=folder)
    assert done.returncode == 0, done.stderr
    model = load_model(f"darknet:{folder / 'net.cfg'}", weights=str(folder / "net.weights"))
    detector = Detector.of(model, threshold=0.3, overlap=0.6)
    images = []
    with ClipReader(scan_clip(folder / "videos/a.mp4"), sampling_of(JobConfig(fps="8"))) as reader:
        images = [frame.image for frame in reader.read(0)]
    frames = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    expected = detector(model.module(model.transform(frames)), height=48, width=64)
    with FeatureFile(folder / "exact.h5") as file:
        assert (file.identity["score_threshold"], file.identity["overlap"]) == (0.3, 0.6)
        found = file["a.mp4"].detections
        assert found.counts.tolist() == [len(one) for one in expected]
        assert found.total > 20
        for one, other in zip(found, expected, strict=True):
            assert_same_objects(one.boxes, one.scores, one.classes, other)


def test_results_do_not_depend_on_the_number_of_workers(folder: Path, output: Path) -> None:
    """And the job file says what it takes no saying."""
    (folder / "job.yaml").write_text(
        "inputs: videos\noutput: three.h5\nmodel: darknet:net.cfg\nweights: net.weights\n"
        "task: detect\nlayer: layers.4\npool: none\nscore_threshold: 0.25\nthreshold: 1e-2\n"
        "fps: 8\nchunk: 1\n",
        encoding="utf-8",
    )
    done = rrm_extract("run", "job.yaml", "--set", "workers=3", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert same_content(output, folder / "three.h5") == []


def test_running_again_does_nothing_and_other_options_are_refused(
    folder: Path, output: Path
) -> None:
    before = output.read_bytes()
    done = rrm_extract(*detection("videos", output, "--score-threshold", "0.25"), cwd=folder)
    assert done.returncode == 0, f"it is the default: {done.stderr}"
    assert "2 done before" in done.stdout
    done = rrm_extract(*detection("videos", output, "--overlap", "0.2"), cwd=folder)
    assert done.returncode == 3
    assert "another configuration: overlap was 0.45, is now 0.2." in done.stderr
    assert output.read_bytes() == before


def test_a_video_without_objects(folder: Path) -> None:
    arguments = detection("videos", "none.h5", "--score-threshold", "1", "--workers", "1")
    done = rrm_extract(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "found 0 objects, 0.00 per frame" in done.stdout
    with FeatureFile(folder / "none.h5") as file:
        found = file["a.mp4"].detections
        assert found.boxes.shape == (0, 4)
        assert found.scores.shape == found.classes.shape == (0,)
        assert found.offsets.tolist() == [0] * 21
        assert [len(frame) for frame in found] == [0] * 20
        assert found[-1].boxes.shape == (0, 4)
    (stats,) = read_stats(folder / "none.h5")
    line = "found 0 objects, 0.00 per frame, 0 at most; none in 32 of 32 frames"
    assert line in stats.to_text().splitlines()
    for layout in TASK_LAYOUTS:
        export(folder / "none.h5", folder / "none", layout=layout)
    assert json.loads((folder / "none/coco_results.json").read_text()) == []
    assert len(json.loads((folder / "none/coco_images.json").read_text())["images"]) == 32


def test_raw_outputs_that_are_no_numbers_are_told(folder: Path) -> None:
    network = build(DETECTOR)
    network.layers[4].conv.weight.fill_(3e38)  # type: ignore[union-attr, operator]
    write_weights(network, folder / "overflow.weights")
    arguments = detection(
        "videos/sub", "overflow.h5", "--weights", "overflow.weights", "--workers", "1"
    )
    done = rrm_extract(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "warning: the raw outputs of 12 frames have NaN or infinities, and what" in done.stdout


def test_a_job_killed_on_its_way_is_like_one_that_was_not(folder: Path, tmp_path: Path) -> None:
    write_detector(tmp_path)
    clip = write_demo_clip(tmp_path / "wait-late.mp4", seconds=6, size=(64, 48), seed=5)
    # One worker in each: what is computed is the same, and each imports PyTorch.
    arguments = detection(clip, tmp_path / "f.h5", "--workers", "1")
    with started(arguments, cwd=tmp_path) as run:
        run.until(lambda: len(run.chunks()) == 3)  # the fourth waits
        run.kill(group=True)
        run.expect_no_orphans()
        chunks = run.chunks()
        for chunk in chunks:
            mark(chunk)
        assert not (tmp_path / "f.h5").exists()
    assert len(chunks) == 3
    (tmp_path / "wait-late.mp4.go").touch()
    whole = tmp_path / "whole"
    whole.mkdir()
    for output in (tmp_path / "f.h5", whole / "f.h5"):
        code, _, err = finished(detection(clip, output, "--workers", "1"), cwd=tmp_path)
        assert (code, err) == (0, "")
    assert same_content(whole / "f.h5", tmp_path / "f.h5") == []
    clips = {f"wait-late.mp4{end}" for end in ("", ".go", ".waits")}
    expect_clean(tmp_path, "f.h5", "net.cfg", "net.weights", "whole", *clips)
    with FeatureFile(tmp_path / "f.h5") as file:
        assert file["wait-late.mp4"].attrs["seconds_decode"] // MARK_SECONDS == len(chunks)


def test_features_of_such_a_file_are_refused(output: Path) -> None:
    with FeatureFile(output) as file:
        video = file["a.mp4"]
        assert (file.task, video.task) == ("detect", "detect")
        for name in ("features", "feature_shape", "dtype"):
            with pytest.raises(InputError, match=r"has no features.* read detections"):
                getattr(video, name)
        with pytest.raises(InputError, match="has no features"):
            next(video.feature_blocks())
        with pytest.raises(InputError, match=r"has detections, not people; .* --task pose"):
            _ = video.people


def test_stats(output: Path, folder: Path) -> None:
    with FeatureFile(output) as file:
        counts = np.concatenate([video.detections.counts for video in file.values()])
        kinds = np.concatenate([video.detections.classes for video in file.values()])
    (stats,) = read_stats(output)
    measures = stats.to_json()["found"]
    assert (measures["total"], measures["frames"]) == (counts.sum(), 32)
    assert measures["per_frame"] == pytest.approx(counts.mean())
    assert measures["per_frame_max"] == counts.max()
    assert measures["classes"] == {
        str(kind): (kinds == kind).sum() for kind in range(3) if (kinds == kind).any()
    }
    done = called("stats", output, cwd=folder)
    assert f"found {counts.sum():,} objects, {counts.mean():.2f} per frame, " in done.stdout
    most = int(np.bincount(kinds).argmax())
    assert f"by class, {most}: {(kinds == most).sum():,}" in done.stdout
    assert "overall sparsity" in done.stdout


def test_export(output: Path, folder: Path) -> None:
    done = called("export", output, "--layout", "coco", "-o", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "out: 2 videos, 32 frames as coco" in done.stdout
    for layout in ("npz", "csv"):
        export(output, folder / "out", layout=layout)  # type: ignore[arg-type]
    with FeatureFile(output) as file:
        found = file["sub/b.avi"].detections
        total = sum(video.detections.total for video in file.values())
        before = file["a.mp4"].detections.total
        with np.load(folder / "out/sub/b.avi.npz", allow_pickle=False) as archive:
            assert {*archive} == {
                "boxes", "scores", "classes", "offsets", "frame_size", "timestamps", "frame_index",
            }  # fmt: skip
            np.testing.assert_array_equal(archive["boxes"], found.boxes)
            np.testing.assert_array_equal(archive["offsets"], found.offsets)
        with (folder / "out/objects.csv").open(newline="") as table:
            rows = list(csv.DictReader(table))
        assert len(rows) == total
        row = rows[before + int(found.offsets[3])]
        assert (row["video_id"], row["frame"]) == ("sub/b.avi", "3")
        assert float(row["right"]) == pytest.approx(found[3].boxes[0, 2], abs=1e-3)
        results = json.loads((folder / "out/coco_results.json").read_text())
        images = json.loads((folder / "out/coco_images.json").read_text())
        assert len(results) == total
        assert [image["id"] for image in images["images"]] == list(range(1, 33))
        assert [category["id"] for category in images["categories"]] == [1, 2, 3]
        result = results[before + int(found.offsets[3])]
        image = images["images"][result["image_id"] - 1]
        assert (image["video_id"], image["frame"], image["width"]) == ("sub/b.avi", 3, 96)
        left, top, right, bottom = found[3].boxes[0].tolist()
        assert result["bbox"] == pytest.approx([left, top, right - left, bottom - top], abs=2e-3)
        assert result["category_id"] == found[3].classes[0] + 1


def test_layouts_of_features_are_refused(output: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match=r"objects\.h5 has objects, .* one of npz, csv, coco$"):
        export(output, folder / "no", layout="npy")
    assert not (folder / "no").exists()


def test_the_error_is_that_of_the_raw_output(folder: Path) -> None:
    arguments = detection("videos/a.mp4", "audited.h5", "--audit", "1", "--workers", "1")
    done = rrm_extract(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    config = job_of(folder, task="detect", threshold=1e-2, fps=8, chunk=1)
    verified = Verifier(config).clip(folder / "videos/a.mp4")
    with FeatureFile(folder / "audited.h5") as file:
        error = file["a.mp4"].audit["error"]
        assert len(error) == 20
        assert error.max() > 1e-4
        assert error.max() == pytest.approx(verified.relative_l2_max, rel=1e-3)


def test_a_target_for_the_error(folder: Path) -> None:
    arguments = detection("videos", "target.h5", "--workers", "1", "--target-error", "0.05")
    arguments[arguments.index("--threshold") : arguments.index("--threshold") + 2] = []
    done = rrm_extract(*arguments, "--audit", "1/2", cwd=folder)
    assert done.returncode == 0, done.stderr
    with FeatureFile(folder / "target.h5") as file:
        assert file.identity["target_error"] == 0.05
        error = np.concatenate([video.audit["error"] for video in file.values()])
        assert np.nanpercentile(error, 90) < 0.05
        assert sum(video.detections.total for video in file.values()) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "resnet18"}, "--task detect cannot be done by resnet18, a classifier; expected "
         "--model yolov2, tiny_yolov2, or darknet:FILE.cfg with a [region] section"),
        ({"model": "timm/resnet18"}, "--task detect cannot be done by timm/resnet18"),
        ({"model": "resnet18", "task": "pose"}, "cannot be done by resnet18, a classifier; "
         "expected --model rtpose"),
        ({"task": "pose"}, "net.cfg finds no poses; expected rtpose"),
        ({"layer": "layers.2"}, "--task detect reads layer layers.4.conv, not layers.2; leave"),
        ({"pool": "avg"}, "--pool avg does not go with --task detect"),
        ({"dtype": "float16"}, "--dtype float16 is for features, which --task detect"),
        ({"preprocess": "imagenet"}, "another transform than a letterbox"),
        ({"overlap": 2}, "--overlap is 2, expected a number from 0 to 1"),
        ({"task": "faces"}, "'faces', expected 'features' or 'detect' or 'pose'"),
        ({"task": "features", "overlap": 0.2}, "--overlap needs --task detect; expected it"),
        ({"task": "features", "score_threshold": 0}, "--score-threshold needs --task detect or p"),
        ({"task": "pose", "overlap": 0.2}, "--overlap needs --task detect"),
    ],
)  # fmt: skip
def test_wrong_requests_fail(folder: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_plan(job_of(folder, **{"task": "detect", **options}))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_another_layer_is_no_advice_for_a_task(folder: Path) -> None:
    config = job_of(folder, task="detect")
    model = load_model(config.model, weights=config.weights)
    partial = replace(model, missing_keys=frozenset({"layers.4.conv.bias"}))
    with pytest.raises(WeightsError, match=r"give weights that have them$"):
        make_recipe(partial, config)


def test_a_wrong_request_is_one_line_for_the_user(folder: Path) -> None:
    done = rrm_extract(*detection("videos", "wrong.h5", "--layer", "layers.2"), cwd=folder)
    assert done.returncode == 2
    assert "--task detect reads layer layers.4.conv, not layers.2; leave" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (folder / "wrong.h5").exists()


def job_of(folder: Path, **options: object) -> JobConfig:
    files = {"model": f"darknet:{folder}/net.cfg", "weights": str(folder / "net.weights")}
    return JobConfig.from_mapping({**files, **options})
