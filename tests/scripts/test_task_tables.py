"""Tables 5, 6 and 7 on generated clips, small networks and small inputs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import av
import numpy as np
import pytest
import table2_sparsity
import table5_pose
import table6_detection
import table7_agreement
import torch

from rrm_extract.models import load_model
from rrm_extract.tasks import Detector, PoseEstimator
from rrm_extract.video.synthetic import write_demo_clip
from tests.models.darknet import REGION, cfg, conv

pytest.importorskip("pycocotools", reason="pycocotools is not installed")

WIDTH, HEIGHT = 64, 48
SMALL = ("--weights", "random:0", "--engine", "torch")
POSE = ("--models", "rtpose", "--preprocess", "letterbox=32")
TIMING = ("--timed-frames", "2", "--repeats", "1", "--dense", "torch")
NOT_TRAINED = "random:0: not trained"

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two clips and a broken one, and a detector of three classes."""
    folder = tmp_path_factory.mktemp("task_tables")
    (folder / "clips").mkdir()
    for seed in range(2):
        path = folder / "clips" / f"clip{seed}.mp4"
        write_demo_clip(path, seconds=1, size=(WIDTH, HEIGHT), seed=seed)
    (folder / "clips" / "broken.mp4").write_bytes(b"no video")
    layers = [conv(8), "[maxpool] size=2 stride=2", conv(8), "[maxpool] size=2 stride=2"]
    text = cfg(*layers, conv(16, 1, activation="linear"), REGION, side=32)
    (folder / "tiny.cfg").write_text(text)
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a script and returns what it wrote as JSON."""

    def runs(script: ModuleType, *arguments: str | Path, path: Path | None = None) -> Any:
        path = path or tmp_path / "table.json"
        words = [f"{script.NAME}.py", *arguments, *SMALL, "--json", path]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        script.main()
        return json.loads(path.read_text(encoding="utf-8"))

    return runs


def detector(folder: Path) -> tuple[str, str]:
    return "--models", f"darknet:{folder}/tiny.cfg"


# --- Tables 5 and 6 ------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [table5_pose, table6_detection])
def test_sparsity_and_speed(
    folder: Path, tmp_path: Path, run: Run, script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    # The pose network is as large as it is: one threshold has to do.
    models, thresholds = (
        (POSE, [0.05]) if script is table5_pose else (detector(folder), [0.0, 0.05])
    )
    drawing = tmp_path / "t.svg"
    options = ("--thresholds", *map(str, thresholds), "--max-frames", "3", *TIMING)
    result = run(script, folder / "clips", *models, *options, "--svg", drawing)
    assert [row["key"]["threshold"] for row in result["rows"]] == thresholds
    for row in result["rows"]:
        assert (row["weights"], row["videos_used"], row["frames"]) == ("random:0", 2, 6)
        assert [video["video"] for video in row["videos_broken"]] == ["broken.mp4"]
        assert row["speedup_theoretical"] == pytest.approx(1 / (1 - row["sparsity_delta_macs"]))
        # All weights count, so that what EIE saves is what its inputs leave out.
        shares = row["eie_ms_delta"] / row["eie_ms_input"]
        expected = 1 / row["speedup_theoretical_over_sparse_input"]
        assert shares == pytest.approx(expected, rel=0.35)
        assert set(row["measured"]["speedup_over"]) == {"torch"}
        # The error is that of the whole raw output, and there is none where nothing is truncated.
        assert (row["measured"]["feature_error"] < 1e-5) == (row["key"]["threshold"] == 0)
    text = capsys.readouterr().out
    assert f"| {NOT_TRAINED} |" in text
    for head in ("speedup over dense (theoretical)", "speedup over PyTorch fp32 (measured)",
                 "EIE, ms a frame: inputs, deltas (theoretical)"):  # fmt: skip
        assert f"| {head} |" in text
    assert drawing.read_bytes().startswith(b"<?xml")


def test_dense_runtimes_are_tried_at_all_batches(
    folder: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """OpenVINO takes whole batches alone, also when it wakes up."""
    pytest.importorskip("openvino", reason="openvino is not installed")
    options = ("--thresholds", "0", "--max-frames", "16", "--repeats", "1", "--dense", "openvino")
    result = run(table6_detection, folder / "clips" / "clip0.mp4", *detector(folder), *options)
    said = capsys.readouterr()
    assert "6 settings of openvino fp32" in said.err, "two hints, three batches"
    assert result["settings"]["dense_batches"] == [1, 8, 16]
    assert "Dense runtimes were tried at batches of 1, 8 and 16 frames" in said.out


@pytest.mark.parametrize("script", [table6_detection, table7_agreement])
def test_a_dataset_without_a_usable_video_has_a_row_without_figures(
    folder: Path, tmp_path: Path, run: Run, script: ModuleType
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    broken, drawing = folder / "clips" / "broken.mp4", tmp_path / "t.svg"
    result = run(script, broken, *detector(folder), "--thresholds", "0", "--svg", drawing)
    (row,) = result["rows"]
    assert (row["frames"], row["videos_used"], len(row["videos_broken"])) == (0, 0, 1)
    names = ("raw_error", "with_dense") if script is table7_agreement else ("measured", "work")
    assert [row[name] for name in names] == [None, None]


@pytest.mark.parametrize(
    ("script", "model", "words"),
    [
        (table5_pose, "resnet18", "resnet18 does not find people; expected rtpose"),
        (table6_detection, "rtpose", "rtpose does not find objects; expected yolov2"),
        (table7_agreement, "resnet18", "resnet18 finds neither objects nor people; expected yolo"),
    ],
)
def test_a_network_of_another_kind_is_refused(
    folder: Path, run: Run, script: ModuleType, model: str, words: str
) -> None:
    with pytest.raises(SystemExit, match=words):
        run(script, folder / "clips" / "clip0.mp4", "--models", model)


# --- Table 7 -------------------------------------------------------------------------------------


def own_boxes(folder: Path, frames: dict[str, list[int]], *, score: float) -> list[str]:
    """Rows of YouTube-BoundingBoxes that say what the dense network finds.

    Args:
        folder: of the dataset.
        frames: which sampled frames of which clip.
        score: smallest score.
    """
    model = load_model(f"darknet:{folder}/tiny.cfg", weights="random:0")
    read = Detector.of(model, threshold=score)
    rows = []
    for name, places in frames.items():
        images = images_of(folder / "clips" / f"{name}.mp4")
        with torch.inference_mode():
            raw = model.module(model.transform(images))
        for place in places:
            (found,) = read(raw[place][None], height=HEIGHT, width=WIDTH)
            for (left, top, right, bottom), kind in zip(
                found.boxes.tolist(), found.classes.tolist(), strict=True
            ):
                where = f"{left:.6f},{right:.6f},{top:.6f},{bottom:.6f}"
                rows.append(f"{name},{round(1000 * place / 24)},0,class {kind},0,present,{where}")
    return rows


def images_of(path: Path) -> torch.Tensor:
    with av.open(str(path)) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def test_agreement_of_boxes_with_both_truths(
    folder: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    score = 0.2
    rows = own_boxes(folder, {"clip0": [0, 3], "clip1": [2]}, score=score)
    late = "clip0,900,0,class 0,0,absent,-1,-1,-1,-1"
    (tmp_path / "marks.csv").write_text("\n".join([*rows, late]))
    drawing = tmp_path / "t.svg"
    result = run(
        table7_agreement, folder / "clips", *detector(folder), "--thresholds", "0", "0.2",
        "--max-frames", "4", "--score", score, "--annotations", tmp_path / "marks.csv",
        "--svg", drawing,
    )  # fmt: skip
    exact, rough = result["rows"]
    # Something moves: what the first frame has is not what the others have.
    assert exact["with_dense_kept"] == rough["with_dense_kept"]
    assert 0 < exact["with_dense_kept"]["ap"] < 0.999
    assert exact["raw_error_kept"] == rough["raw_error_kept"] > 1e-3
    for row in result["rows"]:
        assert (row["weights"], row["task"], row["frames"]) == ("random:0", "detect", 8)
        assert row["with_dense"]["truths"] > 8
        marks = row["with_annotations"]
        assert (marks["frames"], marks["frames_between"], marks["frames_beyond"]) == (3, 0, 1)
        assert marks["dense"]["truths"] == len(rows)
        # The dense network was taken at its word.
        assert marks["dense"]["ap"] == pytest.approx(1)
    assert 0 < rough["work"] < exact["work"] <= 1
    assert exact["raw_error"] < 1e-5
    assert exact["with_dense"]["ap"] == pytest.approx(1)
    assert exact["with_annotations"]["own"]["ap"] == pytest.approx(1)
    assert rough["raw_error"] > 1e-3
    assert rough["with_dense"]["ap"] < 0.999
    assert rough["with_annotations"]["own"]["ap"] < 0.999
    text = capsys.readouterr().out
    assert f"| {NOT_TRAINED} |" in text
    assert "Objects have a score above 0.2" in text
    assert "speedup over dense as the engine ran (theoretical)" in text
    assert "What a network finds that is not trained is noise" in text
    assert "AP (.50) beside annotations, with the recurrence (measured)" in text
    assert "3 annotated frames looked at, 0 between sampled frames, 1 after" in text
    assert drawing.read_bytes().startswith(b"<?xml")


def test_annotated_classes_that_the_detector_cannot_know_are_named(
    folder: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network of a .cfg file alone has only numbered classes."""
    where = "0.1,0.5,0.1,0.5"
    (tmp_path / "marks.csv").write_text(f"clip0,0,0,dog,0,present,{where}\n")
    (row,) = run(
        table7_agreement, folder / "clips" / "clip0.mp4", *detector(folder), "--thresholds", "0",
        "--max-frames", "1", "--score", "0.2", "--annotations", tmp_path / "marks.csv",
    )["rows"]  # fmt: skip
    marks = row["with_annotations"]
    assert (marks["dense"]["ap"], marks["own"]["ap"], marks["frames"]) == (None, None, 1)
    assert marks["unknown_classes"] == ["dog"]
    text = capsys.readouterr().out
    assert "annotated classes that this network does not know do not count: dog." in text
    assert "nothing can be scored" in text


def own_people(folder: Path, preprocess: str) -> dict[str, Any]:
    """A file of COCO's form that says what the dense network finds in the second frame."""
    model = load_model("rtpose", weights="random:0", preprocess=preprocess)
    image = images_of(folder / "clips" / "clip0.mp4")[1:2]
    estimator = PoseEstimator.of(model)
    with torch.inference_mode():
        (found,) = estimator(model.module(model.transform(image)), height=HEIGHT, width=WIDTH)
    assert 0 < len(found) <= 20
    people = np.nan_to_num(np.dstack([found.points, found.found]))
    return {
        "images": [{"id": 1, "video": "clip0.mp4", "frame_index": 1, "width": WIDTH,
                    "height": HEIGHT}],
        "categories": [{"id": 1, "name": "person", "keypoints": estimator.skeleton.parts}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "keypoints": one.ravel().tolist()} for one in people
        ],
    }  # fmt: skip


def test_agreement_of_people_with_both_truths(folder: Path, tmp_path: Path, run: Run) -> None:
    marks, preprocess = tmp_path / "people.json", "letterbox=96"
    marks.write_text(json.dumps(own_people(folder, preprocess)))
    result = run(
        table7_agreement, folder / "clips" / "clip0.mp4", "--models", "rtpose", "--preprocess",
        preprocess, "--thresholds", "0", "0.1", "--max-frames", "2", "--annotations",
        f"clip0={marks}",
    )  # fmt: skip
    exact, rough = result["rows"]
    assert exact["task"] == "pose"
    assert exact["with_dense"]["truths"] == rough["with_dense"]["truths"] > 0
    assert exact["with_dense"]["ap"] == pytest.approx(1)
    assert rough["with_dense"]["ap"] < 1
    assert exact["with_annotations"]["frames"] == 1
    assert exact["with_annotations"]["dense"]["ap"] == pytest.approx(1)
    assert exact["with_annotations"]["own"]["ap"] == pytest.approx(1)
    assert rough["with_annotations"]["own"]["ap"] < 1


def test_nothing_found_is_no_precision(
    folder: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = folder / "clips" / "clip0.mp4"
    options = ("--max-frames", "2", "--score", "1", "--thresholds", "0")
    (row,) = run(table7_agreement, clip, *detector(folder), *options)["rows"]
    assert row["with_dense"] == {"ap": None, "ap50": None, "truths": 0, "found": 0, "frames": 2}
    assert "| 0 | 0 | - (-) |" in capsys.readouterr().out


def test_native_frames_are_looked_at_chunk_by_chunk(folder: Path, run: Run) -> None:
    clip = folder / "clips" / "clip0.mp4"
    words = ("--fps", "native", "--chunk", "0.1", "--max-frames", "6", "--score", "0.2")
    (row,) = run(table7_agreement, clip, *detector(folder), "--thresholds", "0", *words)["rows"]
    assert row["frames"] == 6
    assert row["with_dense"]["ap"] == pytest.approx(1)


def test_finished_rows_are_kept(folder: Path, tmp_path: Path, run: Run) -> None:
    path = tmp_path / "t.json"
    options = (*detector(folder), "--thresholds", "0", "--max-frames", "2", "--score", "0.2")
    one = run(table7_agreement, folder / "clips" / "clip0.mp4", *options, path=path)
    both = run(
        table7_agreement, folder / "clips" / "clip0.mp4", folder / "clips" / "clip1.mp4", *options,
        path=path,
    )  # fmt: skip
    assert both["rows"][:1] == one["rows"]
    assert [row["key"]["dataset"] for row in both["rows"]] == ["clip0", "clip1"]
    # Another smallest score is another table.
    with pytest.raises(SystemExit, match=r"settings\.score is 0\.2 there, 0\.1 here"):
        run(table7_agreement, folder / "clips", *options, "--score", "0.1", path=path)


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        (["none.csv"], "none.csv cannot be read"),
        (["clip0=none.csv"], "none.csv cannot be read"),
        (["a.csv", "clip0=b.csv"], "annotations a.csv and clip0=b.csv are both of clip0"),
    ],
)
def test_wrong_annotations_end_the_program(
    folder: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, marks: list[str],
    words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    clip = folder / "clips" / "clip0.mp4"
    with pytest.raises(SystemExit, match=words):
        run(table7_agreement, clip, *detector(folder), "--annotations", *marks)


@pytest.mark.parametrize("other", ["cam2/clip0.mp4", "cam1/clip0.avi"])
def test_two_videos_of_one_name_do_not_share_marks(
    folder: Path, tmp_path: Path, run: Run, other: str
) -> None:
    for name in ("cam1/clip0.mp4", other):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((folder / "clips" / "clip0.mp4").read_bytes())
    marks = tmp_path / "marks.csv"
    marks.write_text("clip0,0,0,class 0,0,present,0.1,0.5,0.1,0.5\n")
    with pytest.raises(SystemExit, match=r"marks\.csv: both '.+' and '.+' are called 'clip0'"):
        run(table7_agreement, tmp_path, *detector(folder), "--annotations", marks)
    datasets = (f"a={tmp_path}/cam1/clip0.mp4", f"b={tmp_path}/{other}")
    with pytest.raises(SystemExit, match="are called 'clip0'"):
        run(table7_agreement, *datasets, *detector(folder), "--annotations", marks)


def test_a_video_in_two_datasets_has_its_marks_in_both(
    folder: Path, tmp_path: Path, run: Run
) -> None:
    clip, marks = folder / "clips" / "clip0.mp4", tmp_path / "marks.csv"
    marks.write_text("clip0,0,0,class 0,0,present,0.1,0.5,0.1,0.5\n")
    options = ("--thresholds", "0", "--max-frames", "1", "--annotations", marks)
    result = run(table7_agreement, f"a={clip}", f"b={clip}", *detector(folder), *options)
    assert [row["with_annotations"]["frames"] for row in result["rows"]] == [1, 1]


def test_one_network_with_two_weights_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "d").mkdir()
    write_demo_clip(tmp_path / "d" / "a.mp4", seconds=0.5, size=(64, 48))
    argv = ["table2_sparsity.py", str(tmp_path / "d"), "--models", "resnet18", "resnet18=a.pth"]
    with mock.patch.object(sys, "argv", argv), pytest.raises(SystemExit) as caught:
        table2_sparsity.main()
    assert "resnet18 twice, as 'resnet18' and 'resnet18=a.pth'" in str(caught.value)
