"""Accuracy on features that are made up: what is right is known beforehand."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import action_recognition
import numpy as np
import pytest
from classifier import Training, TwoLayerClassifier
from labelled_features import check_same_features, labelled_features
from labels import LabelError, Labels
from metrics import average_precisions, class_accuracies, top1
from recognition import Recogniser

from rrm_extract.errors import InputError
from rrm_extract.store import FailureRecord, OutputStore
from tests.scripts.published import write_charades, write_ucf101
from tests.store.helpers import chunk, source

IDENTITY = {
    "model": "net",
    "weights_sha256": "0" * 64,
    "layer": "flatten",
    "pool": "avg",
    "preprocess": {"crop": 32},
}
WIDTH = 8
UCF_VIDEOS = {
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi": 0,
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c02.avi": 0,
    "Archery/v_Archery_g08_c01.avi": 1,
    "HandstandPushups/v_HandstandPushups_g08_c01.avi": 2,
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi": 0,
    "Archery/v_Archery_g01_c01.avi": 1,
    "HandstandPushups/v_HandstandPushups_g01_c01.avi": 2,
}


def feature(number: int, frames: int, *, seed: int = 0) -> np.ndarray[Any, Any]:
    """(frames, WIDTH) float32: each class has a direction of its own, and frames have noise."""
    noise = np.random.default_rng([seed, number]).normal(0, 0.3, (frames, WIDTH))
    return (np.eye(WIDTH)[number] + noise).astype(np.float32)


def write_features(
    path: Path,
    videos: Mapping[str, int],
    *,
    partial: tuple[str, ...] = (),
    failed: tuple[str, ...] = (),
    make: Callable[[int, int], np.ndarray[Any, Any]] = feature,
    **identity: object,
) -> Path:
    """A feature file in which videos show that they are of a class."""
    with OutputStore(path, {**IDENTITY, **identity}) as store:
        for number, (video_id, of) in enumerate(videos.items()):
            rows = make(of, 3 + number % 4)
            part_of = chunk(video_id, frames=len(rows), width=rows.shape[1])
            with store.part(source(video_id), feature_shape=rows.shape[1:]) as part:
                part.append(replaced(part_of, rows))
                status = "partial" if video_id in partial else "ok"
                part.finish(layers={"name": ["a", "b"]}, attrs={}, status=status)
        failures = [FailureRecord(name, "scan", "ClipOpenError", "no", 1) for name in failed]
        sources = [source(video_id) for video_id in videos]
        store.finish(sources, failures, {}, complete=True)
    return path


def replaced(part: Any, rows: np.ndarray[Any, Any]) -> Any:
    return type(part)(**{**vars(part), "features": rows})


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    argv = ["action_recognition.py", *map(str, arguments)]
    monkeypatch.setattr(sys, "argv", argv)
    action_recognition.main()


def flat_labels(train: list[str], test: list[str], classes: int = 2) -> Labels:
    return Labels(
        name="made up",
        classes=tuple("abcdefgh"[:classes]),
        multi_label=False,
        train={name: (ord(name[0]) - ord("a"),) for name in train},
        test={name: (ord(name[0]) - ord("a"),) for name in test},
        keyed_by_stem=False,
    )


# --- measures ------------------------------------------------------------------------------------


def test_top1_and_its_mean_over_classes() -> None:
    scores = np.array([[2, 1, 0], [1, 0, 0], [0, 1, 0], [0, 1, 2]], np.float32)
    targets = np.eye(3, dtype=bool)[[0, 0, 0, 1]]
    assert top1(scores, targets) == 0.5
    np.testing.assert_allclose(class_accuracies(scores, targets), [2 / 3, 0, np.nan])


def test_average_precision_by_hand() -> None:
    scores = np.array([[0.9], [0.8], [0.7], [0.6]], np.float32)
    targets = np.array([[True, False], [False, False], [True, False], [True, False]])
    # The second is of no class: it comes last, and the three are the first three.
    two = np.concatenate([scores, scores], axis=1)
    np.testing.assert_allclose(average_precisions(two, targets), [1.0, np.nan])
    targets[1, 1] = True
    np.testing.assert_allclose(
        average_precisions(two, targets), [(1 / 1 + 2 / 3 + 3 / 4) / 3, 1 / 2]
    )


# --- the classifier ------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_classifier() -> None:
    x, y = feature(0, 20), np.eye(2, dtype=bool)[np.arange(20) % 2]
    scores = [
        TwoLayerClassifier(
            x, y, multi_label=False, training=Training(seed=seed, epochs=3, batch=7)
        ).scores(x)
        for seed in (3, 3, 4)
    ]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert np.abs(scores[0] - scores[2]).max() > 0


def test_it_learns_what_no_single_layer_can() -> None:
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32).repeat(8, axis=0)
    y = np.eye(2, dtype=bool)[(x[:, 0] != x[:, 1]).astype(int)]
    learnt = TwoLayerClassifier(x, y, multi_label=False, training=Training(hidden=32, epochs=200))
    assert top1(learnt.scores(x), y) == 1.0


def test_a_value_that_never_changed_says_nothing() -> None:
    x = feature(0, 20)
    x[:, 3] = 7
    y = np.eye(2, dtype=bool)[np.arange(20) % 2]
    learnt = TwoLayerClassifier(x, y, multi_label=False, training=Training(epochs=1))
    moved = x.copy()
    moved[:, 3] = 1e6
    np.testing.assert_array_equal(learnt.scores(x), learnt.scores(moved))


def test_a_class_that_nothing_is_of_is_never_the_answer() -> None:
    x, y = feature(0, 6), np.eye(3, dtype=bool)[[0, 2] * 3]
    learnt = TwoLayerClassifier(x, y, multi_label=False, training=Training(epochs=1))
    assert set(learnt.scores(x).argmax(axis=1)) <= {0, 2}


# --- videos --------------------------------------------------------------------------------------


def test_a_video_is_the_mean_of_its_frames(tmp_path: Path) -> None:
    path = write_features(tmp_path / "f.h5", {"a/1": 0, "b/1": 1})
    found = labelled_features(path, flat_labels(["a/1", "b/1"], []), {"b/1": (1,)})
    np.testing.assert_allclose(found.features, [feature(1, 4).mean(axis=0)], rtol=1e-6)
    np.testing.assert_array_equal(found.targets, [[False, True]])


def test_what_is_left_out_is_counted_and_named(tmp_path: Path) -> None:
    videos = {"a/1": 0, "a/2": 0, "b/1": 1, "b/2": 1}
    path = write_features(tmp_path / "f.h5", videos, partial=("b/2",), failed=("a/3",))
    labels = flat_labels([*videos, "a/3", "b/4"], [])
    coverage = labelled_features(path, labels, labels.train).coverage
    assert coverage.to_json() == {
        "labelled": 6,
        "used": 3,
        "missing": ("b/4",),
        "failed": ("a/3",),
        "partial": ("b/2",),
    }
    assert coverage.to_text() == (
        "3 of 6 labelled videos; 1 missing (b/4); 1 failed (a/3); 1 partial (b/2)"
    )
    kept = labelled_features(path, labels, labels.train, keep_partial=True)
    assert kept.coverage.used == 4


def test_names_that_are_no_text_can_be_printed(tmp_path: Path) -> None:
    path = write_features(tmp_path / "f.h5", {"a/1": 0})
    labels = flat_labels(["a/1", "b/\udcff"], [])
    assert r"missing (b/\udcff)" in labelled_features(path, labels, labels.train).coverage.to_text()


def test_nothing_left_fails(tmp_path: Path) -> None:
    path = write_features(tmp_path / "f.h5", {"x/1": 0}, failed=("a/1",))
    labels = flat_labels(["a/1", "b/1"], [])
    with pytest.raises(LabelError, match=r"nothing is left: 0 of 2 .*1 missing.*1 failed.*'a/1'"):
        labelled_features(path, labels, labels.train)


def test_features_that_are_not_finite_fail(tmp_path: Path) -> None:
    def broken(number: int, frames: int) -> np.ndarray[Any, Any]:
        return np.full((frames, WIDTH), np.inf, np.float32)

    path = write_features(tmp_path / "f.h5", {"a/1": 0}, make=broken)
    with pytest.raises(LabelError, match="the mean feature of 'a/1' is not finite"):
        labelled_features(path, flat_labels(["a/1"], []), {"a/1": (0,)})


def test_a_class_without_a_training_video_fails(tmp_path: Path) -> None:
    path = write_features(tmp_path / "f.h5", {"a/1": 0, "b/1": 1, "c/1": 2})
    labels = flat_labels(["a/1", "b/1"], ["c/1"], classes=3)
    train = labelled_features(path, labels, labels.train)
    test = labelled_features(path, labels, labels.test)
    recogniser = Recogniser(train, labels, Training(epochs=1))
    with pytest.raises(LabelError, match="no video to learn from for c, of which there are videos"):
        recogniser.accuracy(test)


def test_one_class_fails(tmp_path: Path) -> None:
    path = write_features(tmp_path / "f.h5", {"a/1": 0})
    labels = flat_labels(["a/1"], [])
    with pytest.raises(LabelError, match="1 classes have a video to learn from, expected at least"):
        Recogniser(labelled_features(path, labels, labels.train), labels, Training())


@pytest.mark.parametrize(
    "change",
    [{"model": "other"}, {"layer": "conv1"}, {"weights_sha256": "1"}, {"preprocess": {"crop": 8}}],
)
def test_features_of_another_network_fail(tmp_path: Path, change: dict[str, Any]) -> None:
    one = write_features(tmp_path / "one.h5", {"a/1": 0})
    other = write_features(tmp_path / "other.h5", {"a/1": 0}, **change)
    with pytest.raises(InputError, match=rf"different features: {next(iter(change))} is "):
        check_same_features(one, other)


def test_thresholds_and_engines_may_differ(tmp_path: Path) -> None:
    one = write_features(tmp_path / "one.h5", {"a/1": 0}, threshold=0.0, engine="native")
    check_same_features(one, write_features(tmp_path / "two.h5", {"a/1": 0}, threshold=0.1))


# --- the whole script ----------------------------------------------------------------------------


def test_ucf101(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = {f"UCF-101/{name}": number for name, number in UCF_VIDEOS.items()}
    path = write_features(tmp_path / "f.h5", {**videos, "UCF-101/Diving/v_Diving_g01_c01.avi": 5})
    labels = write_ucf101(tmp_path / "ucfTrainTestlist")
    outputs = []
    for _ in range(2):
        run(monkeypatch, path, "--labels", labels, "--json", tmp_path / "a.json")
        outputs.append((capsys.readouterr().out, (tmp_path / "a.json").read_text("utf-8")))
    assert outputs[0] == outputs[1]
    assert "UCF-101, split 1, 3 classes" in outputs[0][0]
    assert "top-1 accuracy 1.0000 (mean per class 1.0000), 3 videos of 3 classes" in outputs[0][0]
    assert "videos without a label: 1" in outputs[0][0]
    result = json.loads(outputs[0][1])
    assert result["accuracy"]["top1"] == result["accuracy"]["value"] == 1.0
    assert (result["train"]["used"], result["test"]["used"]) == (4, 3)
    assert result["unlabelled"] == ["UCF-101/Diving/v_Diving_g01_c01.avi"]


def test_wrong_features_are_not_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_features(tmp_path / "train.h5", UCF_VIDEOS)
    swapped = {name: (number + 1) % 3 for name, number in UCF_VIDEOS.items()}
    other = write_features(tmp_path / "test.h5", swapped)
    labels = write_ucf101(tmp_path / "ucfTrainTestlist")
    run(monkeypatch, path, "--test-features", other, "--labels", labels)
    assert "top-1 accuracy 0.0000 (mean per class 0.0000)" in capsys.readouterr().out


def test_a_part_of_ucf101(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    two = {name: number for name, number in UCF_VIDEOS.items() if number < 2}
    path = write_features(tmp_path / "f.h5", two)
    run(monkeypatch, path, "--labels", write_ucf101(tmp_path / "lists"))
    shown = capsys.readouterr().out
    assert "3 of 4 labelled videos; 1 missing (v_handstandpushups_g08_c01)" in shown
    assert "classes not counted, for want of videos: HandstandPushups" in shown
    assert "2 videos of 2 classes" in shown


def test_charades(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = {"46GP8.mp4": 0, "N11GT.mp4": 1, "YSKX3.mp4": 0, "ZZZZZ.mp4": 2}
    path = write_features(tmp_path / "f.h5", videos)
    labels = write_charades(tmp_path / "charades")
    run(monkeypatch, path, "--labels", labels, "--json", tmp_path / "a.json")
    assert "mAP 1.0000, 2 videos of 2 classes" in capsys.readouterr().out
    accuracy = json.loads((tmp_path / "a.json").read_text("utf-8"))["accuracy"]
    assert accuracy["top1"] is None
    assert accuracy["measure"] == "mAP"
    assert accuracy["not_counted"] == ["c147 Cooking something"]


def test_folders_are_split_alike_in_both_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = {f"{name}/{n}.avi": of for of, name in enumerate(["Run", "Sit"]) for n in range(10)}
    whole = write_features(tmp_path / "whole.h5", videos)
    less = dict(list(videos.items())[1:])
    other = write_features(tmp_path / "less.h5", less, failed=("Run/0.avi",))
    for test_file in (whole, other):
        run(monkeypatch, whole, "--test-features", test_file, "--labels", "folders", "--seed", "1")
    first, second = capsys.readouterr().out.split("folders, 0.3 of each for testing (seed 1)")[1:]
    assert "6 of 6 labelled videos" in first
    learnt = [line for line in first.splitlines() if line.startswith("learnt")]
    assert learnt == [line for line in second.splitlines() if line.startswith("learnt")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.h5", "--labels", "folders"], "no.h5 does not exist"),
        (["f.h5", "--labels", "nowhere"], "labels nowhere: it does not exist"),
        (["f.h5", "--labels", "folders", "--test-share", "2"], "test share 2.0"),
        (["f.h5", "--labels", "folders", "--test-features", "other.h5"], "layer is 'flatten' and"),
    ],
)
def test_wrong_requests_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_features(tmp_path / "f.h5", UCF_VIDEOS)
    write_features(tmp_path / "other.h5", UCF_VIDEOS, layer="conv1")
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, *arguments)


@pytest.mark.parametrize("option", ["--epochs", "--hidden"])
def test_numbers_that_are_none_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "f.h5", "--labels", "folders", option, "0")
    assert "0: expected a whole number, 1 or more" in capsys.readouterr().err
