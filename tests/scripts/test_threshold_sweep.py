"""Thresholds against speedup and accuracy, on a generated dataset and real extractions."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import fig3_accuracy
import numpy as np
import pytest
import table3_thresholds
from dense_features import extract_dense
from feature_error import compare_features
from subjects import clip_frames, load_subject
from sweep_options import markdown
from threshold_sweep import INFINITE, ErrorControl, Point, Sweep

from rrm_extract import FeatureFile
from rrm_extract.config import JobConfig
from rrm_extract.engine.backend import choose_engine
from rrm_extract.errors import InputError
from rrm_extract.jobs import Video, discover
from rrm_extract.jobs.calibration import AccumulatedCalibration, Subject, save
from rrm_extract.rrm.aecs import AccumulatedError
from rrm_extract.store import OutputStore
from tests.scripts.actions import CLASSES, write_action, write_actions
from tests.scripts.published import write_ucf101
from tests.scripts.test_action_recognition import flat_labels, write_features
from tests.store.helpers import IDENTITY, ROOT, GuardedWrites, source, write_video
from tests.tiny import MODEL

OPTIONS = ["--model", MODEL, "--fps", "8", "--engine", "torch", "--workers", "1"]
CHANCE = 1 / len(CLASSES)


@dataclass(frozen=True)
class Figure:
    """What the script for Fig. 3 has made."""

    videos: Path
    work: Path
    result: Any
    markdown: str


@pytest.fixture(scope="module")
def figure(tmp_path_factory: pytest.TempPathFactory) -> Figure:
    folder = tmp_path_factory.mktemp("figure")
    videos = write_actions(folder / "videos")
    (folder / "videos" / "lonely.avi").write_bytes(b"no folder, so no label")
    with pytest.MonkeyPatch.context() as patch:
        run(
            fig3_accuracy, patch, "--videos", videos, "--labels", "folders", *OPTIONS,
            "--work", folder / "work", "--thresholds", "1e-2",
            "--json", folder / "f.json", "--markdown", folder / "f.md",
        )  # fmt: skip
    result = json.loads((folder / "f.json").read_text(encoding="utf-8"))
    return Figure(videos, folder / "work", result, (folder / "f.md").read_text(encoding="utf-8"))


def run(script: Any, patch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    patch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, arguments)])
    script.main()


def times_of(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.h5")}


def test_the_dense_network_recognises_well_above_chance(figure: Figure) -> None:
    dense, small, infinite = figure.result["records"]
    assert dense["threshold"] is None
    assert dense["accuracy"]["top1"] >= 2.5 * CHANCE
    assert small["accuracy"]["top1"] >= 2.5 * CHANCE
    assert infinite["accuracy"]["videos"] == 8
    assert figure.result["train"]["used"] == 16
    assert figure.result["unlabelled"] == ["lonely.avi"]


def test_an_infinite_threshold_propagates_nothing(figure: Figure) -> None:
    _, small, infinite = figure.result["records"]
    assert infinite["infinite"]
    assert infinite["key_frames"] == infinite["videos"] == 8
    # Key frames alone are computed, one of the 8 frames of each clip, and they count.
    assert infinite["speedup_theoretical"] == pytest.approx(8)
    assert 1 <= small["speedup_theoretical"] < 8
    with FeatureFile(figure.work / "threshold-inf.h5") as file:
        assert file.identity["policy"] == "paper"
        for video in file.values():
            rows = video.features
            np.testing.assert_allclose(rows, np.broadcast_to(rows[0], rows.shape), rtol=1e-6)


def test_errors_and_speedups_are_over_the_dense_network(figure: Figure) -> None:
    dense, small, infinite = figure.result["records"]
    assert (dense["speedup_theoretical"], dense["speedup_wall_network"]) == (1, 1)
    assert dense["feature_error"] == dense["feature_error_max"] == 0
    assert 0 < small["feature_error"] < infinite["feature_error"]
    assert infinite["feature_error_by_age"][0] < 1e-5  # the key frame
    assert min(infinite["feature_error_by_age"][1:]) > 1e-4
    for record in (small, infinite):
        assert record["speedup_wall_network"] == pytest.approx(
            dense["core_seconds_network"] / record["core_seconds_network"]
        )
        assert record["frames"] == 64


def test_the_table_names_both_speedups(figure: Figure) -> None:
    lines = figure.markdown.splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == [
        "threshold",
        "theoretical speedup (MACs)",
        "wall-clock speedup (network)",
        "top-1",
        "mean per class",
        "feature error, mean / worst frame",
        "key frames",
    ]
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["dense", "0.01", "inf"]
    assert "Left out: 1 video without a label." in figure.markdown


def test_what_is_complete_is_not_computed_again(
    figure: Figure, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = times_of(figure.work)
    run(
        table3_thresholds, monkeypatch, "--videos", figure.videos, "--labels", "folders", *OPTIONS,
        "--work", figure.work, "--thresholds", "inf",
    )  # fmt: skip
    assert times_of(figure.work) == before
    lines = figure.markdown.splitlines()
    assert capsys.readouterr().out.splitlines()[:4] == [*lines[:3], lines[4]]


@pytest.mark.parametrize("keep_partial", [True, False])
def test_partial_videos_count_where_both_ended_there(tmp_path: Path, keep_partial: bool) -> None:
    """A worker may be lost where the dense network's process was not."""
    names = ("whole.mp4", "same.mp4", "other.mp4", "lost.mp4")
    chunks = ((2, 2), (1, 1), (1, 2), (0, 2))  # of two
    for which, path in enumerate((tmp_path / "own.h5", tmp_path / "dense.h5")):
        with OutputStore(path, IDENTITY) as store:
            there = {name: count[which] for name, count in zip(names, chunks, strict=True)}
            sources = [source(name) for name, count in there.items() if count]
            for one in sources:
                count = there[one.video_id]
                status = "ok" if count == 2 else "partial"
                write_video(store, one, chunks=count, status=status)
            store.finish(sources, [], ROOT, complete=True)
    sweep: Any = Sweep.__new__(Sweep)
    sweep._keep_partial = keep_partial
    sweep._asked = [Video(name, tmp_path / name) for name in names]
    counted, left_out = sweep._usable(tmp_path / "own.h5", tmp_path / "dense.h5")
    assert counted == (["whole.mp4", "same.mp4"] if keep_partial else ["whole.mp4"])
    assert sorted([*counted, *left_out]) == sorted(names)


def test_without_labels_all_videos_count_and_there_is_no_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        write_action(tmp_path / "v" / f"{number}.avi", "Rings", seed=number)
    (tmp_path / "v" / "broken.avi").write_bytes(b"no video")
    run(
        table3_thresholds, monkeypatch, "--videos", tmp_path / "v", *OPTIONS, "--work",
        tmp_path / "w", "--thresholds", "0", "--markdown", tmp_path / "t.md",
    )  # fmt: skip
    shown = capsys.readouterr().out
    rows = [line.split("|")[1:-1] for line in shown.splitlines()[:4]]
    assert [cell.strip() for cell in rows[0]][3] == "accuracy"
    assert [cells[3].strip() for cells in rows[2:]] == ["-", "-"]
    assert float(rows[3][4].split("/")[1]) < 1e-5
    assert "2 videos, 16 frames." in shown
    assert "Without labels there is no accuracy." in shown
    assert "1 video not whole in both files, of errors and speedups (dense); 1 video" in shown
    assert (tmp_path / "t.md").read_text(encoding="utf-8") == shown


def test_the_engine_that_ran_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_action(tmp_path / "v" / "1.avi", "Rings", seed=0, frames=2)
    run(
        table3_thresholds, monkeypatch, "--videos", tmp_path / "v", *OPTIONS, "--engine", "auto",
        "--work", tmp_path / "w", "--thresholds", "0", "--json", tmp_path / "t.json",
    )  # fmt: skip
    engine = choose_engine("auto").engine
    result = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert result["settings"]["engine"] == engine
    assert [record["engine"] for record in result["records"]] == [None, engine]
    assert f"chunks of 10 s, the {engine} engine; 1 video" in capsys.readouterr().out


# --- wrong requests ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --videos FOLDER and --work FOLDER"),
        (["--videos", "no", "--work", "w"], "input no does not exist"),
        (["--videos", "v", "--work", "w", "--aecs", "a.json"], "takes both, --aecs FILE and"),
        (["--videos", "v", "--work", "w", "--error-limit", "1"], "takes both"),
        (["--videos", "v", "--work", "w", "--labels", "no"], "labels no: it does not exist"),
        (["--videos", "v", "--work", "w", "--chunk", "0"], "chunk"),
        (["--videos", "v", "--work", "w", "--model", "resnet19"], "resnet19"),
    ],
)
def test_wrong_requests_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_action(tmp_path / "v" / "Rings" / "1.avi", "Rings", seed=0, frames=2)
    with pytest.raises(SystemExit, match=message):
        run(table3_thresholds, monkeypatch, *arguments)


@pytest.mark.parametrize("threshold", ["-1", "nan", "much"])
def test_thresholds_that_are_none_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], threshold: str
) -> None:
    with pytest.raises(SystemExit):
        run(table3_thresholds, monkeypatch, f"--thresholds={threshold}")
    assert f"{threshold}: expected a number of 0 or more, or inf" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["machine", "versions"])
def test_seconds_of_another_machine_or_build_fail(
    figure: Figure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    work = shutil.copytree(figure.work, tmp_path / "work")
    found = json.loads((work / "machine.json").read_text(encoding="utf-8"))
    found[name] = {**found[name], next(iter(found[name])): "another"}
    (work / "machine.json").write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"seconds of another machine, .*give another --work"):
        run(table3_thresholds, monkeypatch, "--videos", figure.videos, "--work", work, *OPTIONS)


def test_another_network_in_the_same_folder_fails(
    figure: Figure, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--videos", figure.videos, "--work", figure.work, *OPTIONS, "--chunk", "0.5"]
    with pytest.raises(
        SystemExit,
        match=r"dense\.h5 was made with another .*chunk was 10.0.*here that is another --work",
    ):
        run(table3_thresholds, monkeypatch, *arguments)


def test_labels_without_a_test_video_fail(figure: Figure, tmp_path: Path) -> None:
    videos = discover([str(figure.videos)], include=["*Rings*"])
    labels = flat_labels(["a/1"], ["b/1"])
    with pytest.raises(InputError, match="none of the 6 videos is a test video of made up"):
        Sweep({}, videos, tmp_path, root=figure.videos, workers=1, labels=labels)


def test_classes_that_cannot_be_learnt_fail_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    lists = write_ucf101(tmp_path / "lists")
    for group in ("g08", "g01"):
        write_action(tmp_path / "v" / f"v_Archery_{group}_c01.avi", "Rings", seed=0, frames=2)
    arguments = ["--videos", tmp_path / "v", "--labels", lists, "--work", work, *OPTIONS]
    with pytest.raises(SystemExit, match="1 classes have a video to learn from"):
        run(table3_thresholds, monkeypatch, *arguments)
    assert not work.exists()


def test_figures_of_another_script_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"records": [], "settings": {}}', encoding="utf-8")
    with pytest.raises(SystemExit, match=r"expected a file that scripts/fig3_accuracy\.py wrote"):
        run(fig3_accuracy, monkeypatch, "--from", path)


# --- error control -------------------------------------------------------------------------------


def test_options_of_error_control_are_passed_on_only_where_asked_for() -> None:
    control = ErrorControl(aecs=Path("a.json"), limit=0.25)
    assert Point(threshold=0.1).options == {"threshold": 0.1}
    assert Point(threshold=0.1, control=control).options == {
        "threshold": 0.1,
        "aecs": "a.json",
        "error_limit": 0.25,
    }
    assert Point(threshold=0.1, control=control).file_name == "threshold-0.1-limit-0.25.h5"
    assert Point(threshold=INFINITE).file_name == "threshold-inf.h5"


def test_the_figure_has_each_threshold_with_and_without_control(tmp_path: Path) -> None:
    arguments = argparse.Namespace(thresholds=[0.1, INFINITE], aecs=None, error_limit=None)
    assert fig3_accuracy.points_of(arguments) == [Point(threshold=0.1), Point(threshold=INFINITE)]
    arguments.aecs, arguments.error_limit = [calibrated(tmp_path, 0.1)], 0.5
    points = fig3_accuracy.points_of(arguments)
    control = ErrorControl(aecs=tmp_path / "0.1.json", limit=0.5)
    assert points[2:] == [Point(threshold=0.1, control=control)]
    arguments.aecs.append(calibrated(tmp_path, INFINITE))
    points = fig3_accuracy.points_of(arguments)
    assert [(point.threshold, point.control is not None) for point in points] == [
        (0.1, False), (INFINITE, False), (0.1, True), (INFINITE, True),
    ]  # fmt: skip


def calibrated(folder: Path, threshold: float | dict[str, float]) -> Path:
    """A calibration for a threshold; what it says does not matter here."""
    path = folder / f"{threshold if isinstance(threshold, float) else 'layers'}.json"
    subject = Subject(
        model="m", weights_sha256="0", layer="l", pool="none", precision="fp32",
        preprocess={}, engine="torch",
    )  # fmt: skip
    model = AccumulatedError(coefficients=(1.0, 0.0, 0.0, 0.0), reach=1.0)
    save(AccumulatedCalibration(threshold=threshold, model=model, subject=subject), path)
    return path


def test_each_calibration_is_for_its_threshold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [calibrated(tmp_path, 0.1), calibrated(tmp_path, {"default": 0.1, "conv1": 0.2})]

    def asked(script: ModuleType, aecs: Path, *thresholds: str) -> str:
        wanted = ["--thresholds", *thresholds, "--aecs", aecs, "--error-limit", "1"]
        with pytest.raises(SystemExit) as caught:
            run(script, monkeypatch, "--videos", "v", "--work", "w", *wanted)
        return f"{caught.value}{capsys.readouterr().err}"

    assert "0.1.json is for threshold 0.1; expected one of --thresholds 0.2" in asked(
        fig3_accuracy, paths[0], "0.2"
    )
    assert "is for thresholds by layer" in asked(fig3_accuracy, paths[1], "0.1")
    assert "none.json cannot be read" in asked(fig3_accuracy, tmp_path / "none.json", "0.1")
    assert "no --aecs FILE is for threshold 0.3" in asked(table3_thresholds, paths[0], "0.1", "0.3")


def test_a_calibration_of_another_network_fails_before_any_work(
    figure: Figure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aecs, work = calibrated(tmp_path, 0.1), tmp_path / "work"
    wanted = ["--thresholds", "0.1", "--aecs", aecs, "--error-limit", "1", "--work", work]
    for script in (fig3_accuracy, table3_thresholds):
        with pytest.raises(SystemExit, match="calibrated for another network"):
            run(script, monkeypatch, "--videos", figure.videos, *OPTIONS, *wanted)
        assert not work.exists()


def test_the_table_has_a_column_for_the_limit(figure: Figure) -> None:
    records = [dict(record) for record in figure.result["records"]]
    records[1]["error_limit"] = 0.25
    lines = markdown({**figure.result, "records": records}).splitlines()
    assert [line.split("|")[2].strip() for line in (lines[0], *lines[2:5])] == [
        "error limit",
        "-",
        "0.25",
        "-",
    ]


# --- the chart -----------------------------------------------------------------------------------


@pytest.mark.parametrize("labelled", [True, False])
def test_a_chart_is_drawn_anew(
    figure: Figure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labelled: bool
) -> None:
    pytest.importorskip("matplotlib")
    records = [dict(record) for record in figure.result["records"]]
    for record in records if not labelled else ():
        record["accuracy"] = None
    records.append({**records[1], "error_limit": 0.25})
    source = tmp_path / "f.json"
    source.write_text(json.dumps({**figure.result, "records": records}), encoding="utf-8")
    drawings = []
    for name in ("a.svg", "b.svg"):
        run(fig3_accuracy, monkeypatch, "--from", source, "--svg", tmp_path / name)
        drawings.append((tmp_path / name).read_text(encoding="utf-8"))
    assert drawings[0] == drawings[1]
    for words in ("with control", "infinite, without control", "threshold 0.01"):
        assert f"<!-- {words} -->" in drawings[0]
    assert (f"<!-- {'top-1' if labelled else 'feature error'} -->") in drawings[0]


# --- the dense network ---------------------------------------------------------------------------


def test_dense_features_are_those_of_the_ordinary_network(tmp_path: Path) -> None:
    clip = write_action(tmp_path / "v" / "a.avi", "Checks", seed=1, frames=16)
    (tmp_path / "v" / "broken.avi").write_bytes(b"no video")
    config = JobConfig(model=MODEL, engine="torch", chunk=0.5)
    videos = discover([str(tmp_path / "v")])
    output = tmp_path / "dense.h5"
    extract_dense(config, videos, output, threads=1)
    subject = load_subject(MODEL, chunk=0.5)
    expected = subject.reference(clip_frames(clip, subject, count=None)).numpy()
    with FeatureFile(output) as file:
        video = file["a.avi"]
        np.testing.assert_allclose(video.features, expected, rtol=1e-4, atol=1e-6)
        assert video.n_frames == 48
        assert video.key_frame.all()
        assert video.attrs["seconds_network"] > 0
        assert [failure.video_id for failure in file.failures] == ["broken.avi"]
    before = output.stat().st_mtime_ns
    extract_dense(config, videos, output, threads=1)
    assert output.stat().st_mtime_ns == before


def test_dense_features_are_written_where_no_interrupt_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_action(tmp_path / "v" / "a.avi", "Checks", seed=1, frames=4)
    config = JobConfig(model=MODEL, engine="torch", chunk=0.5)
    writes = GuardedWrites(monkeypatch, tmp_path)
    extract_dense(config, discover([str(tmp_path / "v")]), tmp_path / "whole.h5", threads=1)
    assert writes.count > 2
    assert writes.unguarded == 0


def test_errors_by_hand(tmp_path: Path) -> None:
    def dense(number: int, frames: int) -> np.ndarray[Any, Any]:
        return np.tile(np.array([3, 4], np.float32), (frames, 1)) * (number > 0)

    def changed(number: int, frames: int) -> np.ndarray[Any, Any]:
        return dense(number, frames) + np.arange(frames, dtype=np.float32)[:, None] * [1, 0]

    videos = {"a": 1, "b": 0, "c": 1}  # 3, 4 and 5 frames, those of the second all zero
    reference = write_features(tmp_path / "dense.h5", videos, make=dense)
    error = compare_features(
        write_features(tmp_path / "f.h5", videos, make=changed), reference, videos
    )
    assert (error.frames, error.frames_of_zeros) == (8, 4)
    assert error.worst == pytest.approx(4 / 5)
    assert error.mean == pytest.approx((0 + 1 + 2 + 0 + 1 + 2 + 3 + 4) / 5 / 8)
    np.testing.assert_allclose(error.by_age, np.arange(5) / 5)


def test_other_frames_fail(tmp_path: Path) -> None:
    one = write_features(tmp_path / "one.h5", {"a": 0})
    other = write_features(tmp_path / "other.h5", {"b": 0, "a": 0})  # one frame more
    with pytest.raises(InputError, match="do not hold the same frames of 'a'"):
        compare_features(one, other, ["a"])
