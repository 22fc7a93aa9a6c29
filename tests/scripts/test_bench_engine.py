"""The whole benchmark on a tiny network, and the chart of its figures."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bench_engine
import chart_benchmarks
import pytest
from charts import network_titles

from tests.clips import write_clip
from tests.tiny import MODEL

INSTALLED = [name for name in ("openvino", "onnxruntime", "torch") if find_spec(name)]

FIELDS = {
    "model": str,
    "weights": str,
    "clip": str,
    "frames": int,
    "repeated_frames": int,
    "rivals_largest_batch": int,
    "threshold": (float, type(None)),
    "threads": int,
    "runtime": str,
    "precision": str,
    "settings": str,
    "frames_per_second": float,
    "repeats": list,
    "ratio_to_openvino_fp32": (float, type(None)),
    "feature_error": float,
    "feature_error_max": float,
    "density": (float, type(None)),
    "work": float,
    "milliseconds": dict,
}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("bench")
    clip = write_clip(folder / "clip.mp4", n_frames=6)
    argv = ["bench_engine.py", "--videos", str(clip), "--noise", "--models", MODEL]
    argv += ["--frames", "6", "--repeats", "2", "--engines", "torch", "--thresholds", "0", "0.1"]
    argv += ["--json", str(folder / "engine.json"), "--baselines", *INSTALLED]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", argv)
        bench_engine.main()
    return json.loads((folder / "engine.json").read_text(encoding="utf-8"))


def test_records_have_every_field(result: Any) -> None:
    assert {"machine", "versions", "records"} <= set(result)
    assert result["versions"]["rrm-extract"]
    for record in result["records"]:
        assert set(record) == set(FIELDS)
        for field, kinds in FIELDS.items():
            assert isinstance(record[field], kinds), field
        assert len(record["repeats"]) == 2
        assert record["frames_per_second"] == pytest.approx(sum(record["repeats"]) / 2)
        assert set(record["milliseconds"]) == {"network"}
        assert 0 <= record["feature_error"] <= record["feature_error_max"]


def test_every_runtime_is_measured_on_every_clip(result: Any) -> None:
    measured = {
        (r["clip"], r["runtime"], r["precision"], r["threshold"]) for r in result["records"]
    }
    assert len(measured) == len(result["records"])
    for clip in ("clip.mp4", "noise"):
        for runtime in INSTALLED:
            assert (clip, runtime, "fp32", None) in measured
        for threshold in (0.0, 0.1):
            assert (clip, "rrm-torch", "fp32", threshold) in measured


def test_figures_are_those_of_their_runtime(result: Any) -> None:
    for record in result["records"]:
        if record["precision"] == "fp32" and not record["threshold"]:
            assert record["feature_error_max"] < 1e-5
        if record["threshold"] == 0.1:
            assert record["feature_error"] > 1e-5
        assert (record["density"] is None) == (record["threshold"] is None)
        assert (record["work"] == 1) == (record["threshold"] is None)
        if "openvino" in INSTALLED:
            basis = next(
                r["frames_per_second"]
                for r in result["records"]
                if (r["clip"], r["runtime"], r["precision"]) == (record["clip"], "openvino", "fp32")
            )
            ratio = record["frames_per_second"] / basis
            assert record["ratio_to_openvino_fp32"] == pytest.approx(ratio)


def test_no_clip_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_engine.py"])
    with pytest.raises(SystemExit, match="no clip to measure"):
        bench_engine.main()


def test_two_clips_of_one_name_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b").mkdir()
    paths = [write_clip(tmp_path / name, n_frames=2) for name in ("a.mp4", "b/a.mp4")]
    argv = ["bench_engine.py", "--models", MODEL, "--videos", *map(str, paths)]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit, match="two clips are named 'a"):
        bench_engine.main()


def test_an_unknown_network_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_engine.py", "--noise", "--models", "no_such_net"])
    with pytest.raises(SystemExit, match="no model 'no_such_net'"):
        bench_engine.main()


def test_no_rounds_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_engine.py", "--noise", "--repeats", "0"])
    with pytest.raises(SystemExit):
        bench_engine.main()
    assert "expected a number of at least 1" in capsys.readouterr().err


# --- the chart -----------------------------------------------------------------------------------


def bar(runtime: str, ratio: float | None, threshold: float | None = None) -> Any:
    return {
        "model": "net",
        "weights": "random:0",
        "clip": "clip.mp4",
        "threads": 1,
        "runtime": runtime,
        "precision": "fp32",
        "threshold": threshold,
        "ratio_to_openvino_fp32": ratio,
        "feature_error": 4e-5,
    }


BARS = [
    bar("openvino", 1.0),
    bar("torch", 0.8),
    bar("rrm-native", 1.5, threshold=0.0),
    bar("rrm-native", 2.25, threshold=0.01),
]


def test_bars_are_chosen_and_named() -> None:
    bars = chart_benchmarks.chosen(BARS, runtime=["rrm-native", "openvino"], threads=None)
    assert [chart_benchmarks.series_of(record) for record in bars] == [
        "rrm-native fp32, threshold 0",
        "rrm-native fp32, threshold 0.01",
    ]
    assert chart_benchmarks.label_of(bars[1]) == "2.25x  error 4e-05"
    assert chart_benchmarks.chosen(BARS, threads=[2]) == []


def test_a_chart_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    source = tmp_path / "engine.json"
    content = {"machine": {}, "versions": {}, "records": BARS}
    source.write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["chart_benchmarks.py", str(source)])
    chart_benchmarks.main()
    drawing = (tmp_path / "engine.svg").read_text(encoding="utf-8")
    # Text is drawn as shapes, with the words beside them as comments.
    assert "<!-- 2.25x  error 4e-05 -->" in drawing
    assert "0.80x" not in drawing


def test_charts_say_which_networks_are_not_trained(tmp_path: Path) -> None:
    trained = [{**one, "weights": "file:net.pth", "model": "other"} for one in BARS]
    result = {"machine": {}, "versions": {}}
    chart_benchmarks.draw([*BARS[2:], *trained[2:]], result, tmp_path / "chart.svg")
    drawn = (tmp_path / "chart.svg").read_text(encoding="utf-8")
    assert "net (not trained), 1 thread" in drawn
    assert "other, 1 thread" in drawn
    assert "| net (not trained), 1 thread |" in chart_benchmarks.markdown(BARS[2:])


def test_what_was_compressed_of_generated_weights_is_not_trained() -> None:
    network = ("a.dcz", "file:a.dcz of random:12")
    assert network_titles([network]) == {network: "a.dcz (not trained)"}


def test_weights_of_one_network_are_told_apart() -> None:
    two = [{**BARS[2], "weights": name} for name in ("file:a.pth", "file:b.pth")]
    tables = chart_benchmarks.markdown([two[0], {**two[1], "ratio_to_openvino_fp32": 3.5}])
    for text in ("net, file:a.pth, 1 thread", "net, file:b.pth, 1 thread", "1.50", "3.50"):
        assert text in tables


def test_a_file_without_ratios_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "engine.json"
    records = [bar("rrm-native", None, threshold=0.0)]
    source.write_text(json.dumps({"records": records}), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["chart_benchmarks.py", str(source)])
    with pytest.raises(SystemExit, match="no record of rrm-native, openvino with a ratio"):
        chart_benchmarks.main()
