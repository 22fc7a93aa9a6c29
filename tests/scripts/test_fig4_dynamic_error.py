"""Predicted and true error as clips run, on generated clips and a tiny network."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import fig4_dynamic_error
import numpy as np
import pytest

from rrm_extract import FeatureFile
from rrm_extract.cli import main
from rrm_extract.rrm.aecs import AccumulatedError
from rrm_extract.video.synthetic import write_demo_clip
from tests.closeness import EXACT_RECURRENCE
from tests.tiny import MODEL

LIMIT = 0.02
OPTIONS = ("--model", MODEL, "--threshold", "0.1", "--engine", "torch")


@dataclass(frozen=True)
class Figure:
    """What the script has made of two clips."""

    clips: list[Path]
    result: Any
    svg: bytes


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("fig4")
    return [
        write_demo_clip(folder / f"clip{seed}.mp4", seconds=1, size=(64, 48), seed=seed)
        for seed in range(2)
    ]


@pytest.fixture(scope="module")
def figure(clips: list[Path]) -> Figure:
    pytest.importorskip("matplotlib")
    path, drawing = clips[0].with_name("f.json"), clips[0].with_name("f.svg")
    with pytest.MonkeyPatch.context() as patch:
        run(patch, "--videos", *clips, "--error-limit", LIMIT, "--json", path, "--svg", drawing)
    return Figure(clips, json.loads(path.read_text(encoding="utf-8")), drawing.read_bytes())


def run(patch: pytest.MonkeyPatch, *arguments: str | Path | float) -> None:
    patch.setattr(sys, "argv", ["fig4_dynamic_error.py", *OPTIONS, *map(str, arguments)])
    fig4_dynamic_error.main()


def runs_of(figure: Figure) -> list[tuple[Any, str]]:
    return [(clip, key) for clip in figure.result["clips"] for key in ("without_control",
            "with_control")]  # fmt: skip


def test_each_frame_has_its_figures(figure: Figure) -> None:
    assert [clip["clip"] for clip in figure.result["clips"]] == ["clip0.mp4", "clip1.mp4"]
    for clip, key in runs_of(figure):
        assert clip["frames"] == list(range(24))
        assert clip["seconds"] == pytest.approx([number / 24 for number in range(24)], abs=1e-3)
        for values in (clip[key]["accumulated"], clip[key]["predicted"], clip[key]["true"]):
            assert len(values) == 24


def test_errors_accumulate_from_key_frame_to_key_frame(figure: Figure) -> None:
    for clip, key in runs_of(figure):
        values = clip[key]
        begins = {one["frame"] for one in values["key_frames"]}
        for number, (before, after) in enumerate(pairwise(values["accumulated"]), 1):
            assert after == 0 if number in begins else after >= before
        for number in begins:
            assert values["predicted"][number] == 0
            assert values["true"][number] < EXACT_RECURRENCE
        others = [error for number, error in enumerate(values["true"]) if number not in begins]
        assert min(others) > EXACT_RECURRENCE


def test_control_ends_rounds_where_the_prediction_passes_the_limit(figure: Figure) -> None:
    for clip in figure.result["clips"]:
        free, limited = clip["without_control"], clip["with_control"]
        assert free["key_frames"] == [{"frame": 0, "why": "start"}]
        first, *others = limited["key_frames"]
        assert first == {"frame": 0, "why": "start"}
        assert others, "the limit is such that rounds end"
        assert {one["why"] for one in others} == {"limit"}
        assert max(limited["predicted"]) <= LIMIT < max(free["predicted"])
        # The first round ends just where the prediction would have passed the limit.
        where = next(i for i, value in enumerate(free["predicted"]) if value > LIMIT)
        assert others[0]["frame"] == where
        assert limited["true"][:where] == free["true"][:where]
        assert limited["work"] > free["work"]


def test_the_prediction_is_the_fitted_polynomial(figure: Figure) -> None:
    fitted = figure.result["calibration"]["model"]
    model = AccumulatedError(coefficients=tuple(fitted["coefficients"]), reach=fitted["reach"])
    for clip, key in runs_of(figure):
        expected = model.predict(np.array(clip[key]["accumulated"]))
        assert clip[key]["predicted"] == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert figure.result["calibration"]["source"] == "the clips shown"
    assert figure.result["calibration"]["report"]["clips"] == ["clip0.mp4", "clip1.mp4"]


def test_it_is_what_an_extraction_does(figure: Figure, clips: list[Path], tmp_path: Path) -> None:
    aecs, output = tmp_path / "aecs.json", tmp_path / "feats.h5"
    common = [*OPTIONS, "--policy", "paper"]
    paths = [str(path) for path in clips]
    assert main(["calibrate", *paths, *common, "-o", str(aecs)]) == 0
    assert main([
        *paths, *common, "--aecs", str(aecs), "--error-limit", str(LIMIT), "--workers", "1",
        "-o", str(output),
    ]) == 0  # fmt: skip
    with FeatureFile(output) as file:
        for clip in figure.result["clips"]:
            (video,) = (one for name, one in file.items() if Path(name).name == clip["clip"])
            begins = [one["frame"] for one in clip["with_control"]["key_frames"]]
            assert np.flatnonzero(video.key_frame).tolist() == begins


def test_a_calibration_from_a_file_and_one_of_other_clips_agree(
    clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aecs = tmp_path / "aecs.json"
    assert main([
        "calibrate", str(clips[1]), *OPTIONS, "--policy", "paper", "-o", str(aecs),
    ]) == 0  # fmt: skip
    shown = ("--videos", clips[0], "--error-limit", LIMIT)
    results = []
    for number, source in enumerate((("--aecs", aecs), ("--calibrate-on", clips[1]))):
        path = tmp_path / f"{number}.json"
        run(monkeypatch, *shown, *source, "--json", path)
        results.append(json.loads(path.read_text(encoding="utf-8")))
    file, other = results
    assert (file["calibration"]["source"], other["calibration"]["source"]) == (
        "a file", "other clips",
    )  # fmt: skip
    model = file["calibration"]["model"]
    assert model["reach"] == pytest.approx(other["calibration"]["model"]["reach"], rel=1e-4)
    for one in results:
        assert [clip["clip"] for clip in one["clips"]] == ["clip0.mp4"]
        assert str(tmp_path) not in json.dumps(one)
        assert str(clips[0].parent) not in json.dumps(one)


def test_beyond_the_data_nothing_is_predicted(
    clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With control a round ends there all the same."""
    aecs, path = tmp_path / "aecs.json", tmp_path / "f.json"
    assert main([
        "calibrate", str(clips[0]), *OPTIONS, "--policy", "paper", "--frames", "12", "-o",
        str(aecs),
    ]) == 0  # fmt: skip
    run(monkeypatch, "--videos", clips[0], "--aecs", aecs, "--error-limit", "10", "--json", path)
    (clip,) = json.loads(path.read_text(encoding="utf-8"))["clips"]
    predicted = clip["without_control"]["predicted"]
    assert predicted[-1] is None
    # The data end with the twelfth frame: rounding decides on which side of the end it is.
    assert None not in predicted[:11]
    assert None not in clip["with_control"]["predicted"]
    assert {one["why"] for one in clip["with_control"]["key_frames"]} == {"start", "beyond data"}


def test_measured_figures_are_drawn_anew(
    figure: Figure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, drawing = tmp_path / "f.json", tmp_path / "f.svg"
    path.write_text(json.dumps(figure.result), encoding="utf-8")
    run(monkeypatch, "--from", path, "--svg", drawing)
    assert drawing.read_bytes() == figure.svg
    assert figure.svg.startswith(b"<?xml")
    out = capsys.readouterr().out
    assert "clip0.mp4: without control error up to" in out
    assert "by limit" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give --videos PATH... and --error-limit NUMBER"),
        (("--videos", "clip.mp4"), "give --videos PATH... and --error-limit NUMBER"),
        (("--videos", "clip.mp4", "--error-limit", "-1"), "a relative error above 0"),
        (("--videos", "none.mp4", "--error-limit", "1"), "none.mp4"),
        (("--videos", "clip.mp4", "--error-limit", "1", "--aecs", "none.json"), "none.json"),
        (("--from", "other.json"), "expected a file that scripts/fig4_dynamic_error.py wrote"),
    ],
)
def test_a_wrong_request_ends_the_program(
    arguments: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.json").write_text('{"table": "table2_sparsity", "settings": {}, "rows": []}')
    with pytest.raises(SystemExit, match=words):
        run(monkeypatch, *arguments)


def test_an_error_without_a_number_is_over_every_limit() -> None:
    """As where the dense network's feature is zero, and the recurrent one's is not."""
    run = {"true": [None, 0.1, 0.001], "key_frames": [{"why": "first"}], "work": 0.5}
    clip = {"clip": "a.mp4", "without_control": run, "with_control": {**run, "true": [0.001]}}
    without, controlled = fig4_dynamic_error.in_words(clip, 0.05).split("; ")
    assert "error up to infinite, 2 frames over the limit" in without
    assert "error up to 1.0e-03, 0 frames over the limit" in controlled
