"""Speed at somebody else's error."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import frontier
import pytest
from speed_curve import ROUNDING, Point, SpeedCurve


def curve(*points: tuple[float, float]) -> SpeedCurve:
    return SpeedCurve(Point(error=error, rate=rate) for error, rate in points)


def record(runtime: str, error: float, rate: float, threshold: float | None = None) -> Any:
    return {
        "model": "net",
        "weights": "random:0",
        "clip": "clip.mp4",
        "threads": 1,
        "runtime": runtime,
        "precision": "fp32",
        "threshold": threshold,
        "feature_error": error,
        "frames_per_second": rate,
    }


RECORDS = [
    record("openvino", 1e-7, 100),
    record("rrm-native", 1e-6, 150, threshold=0.0),
    record("rrm-native", 1e-2, 600, threshold=1e-2),
]


def test_between_points_logarithms_are_linear() -> None:
    c = curve((1e-4, 100), (1e-2, 400))
    assert c.rate_at(1e-4) == pytest.approx(100)
    assert c.rate_at(1e-3) == pytest.approx(200)
    assert c.rate_at(1e-4 * 10**0.5) == pytest.approx(100 * math.sqrt(2))
    assert c.rate_at(1e-2) == pytest.approx(400)


def test_beyond_its_ends_a_curve_is_flat_or_not_there() -> None:
    c = curve((1e-4, 100), (1e-2, 400))
    assert c.rate_at(1.0) == pytest.approx(400)
    assert c.rate_at(0.9e-4) is None
    assert c.factor_over(Point(error=0.9e-4, rate=1)) is None


def test_points_that_are_slower_and_no_more_exact_do_not_count() -> None:
    c = curve((1e-2, 400), (1e-3, 90), (1e-4, 100), (1e-4, 80))
    assert [point.rate for point in c.points] == [100, 400]
    assert c.rate_at(1e-3) == pytest.approx(200)


def test_errors_of_rounding_are_all_the_same() -> None:
    c = curve((4e-6, 100), (1e-2, 400))
    assert c.rate_at(0.0) == c.rate_at(ROUNDING) == pytest.approx(100)
    assert c.factor_over(Point(error=3e-7, rate=50)) == pytest.approx(2)


def test_a_curve_without_points_fails() -> None:
    with pytest.raises(ValueError, match="at least one point"):
        curve()


def test_each_dense_point_is_compared_with_each_curve() -> None:
    other = {**record("rrm-native", 1e-3, 50, threshold=1e-3), "precision": "bf16"}
    elsewhere = {**record("openvino", 1e-3, 10), "clip": "other.mp4"}
    comparisons = frontier.compare([*RECORDS, other, elsewhere])
    assert [(c["dense"], c["curve"], c["factor"]) for c in comparisons] == [
        ("openvino fp32", "rrm-native fp32", pytest.approx(1.5)),
        ("openvino fp32", "rrm-native bf16", None),
    ]
    assert frontier.in_words(comparisons[0]).endswith("the curve lies above, 1.50 times as fast")
    assert frontier.in_words(comparisons[1]).endswith("the curve is never as exact")


def test_published_comparisons_are_those_of_the_records_beside_them() -> None:
    path = Path(__file__).parents[2] / "docs" / "benchmarks" / "frontier.json"
    published = json.loads(path.read_text(encoding="utf-8"))
    assert published["comparisons"] == frontier.compare(published["records"])


def test_measured_figures_are_compared_and_drawn_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    source, drawing = tmp_path / "f.json", tmp_path / "f.svg"
    source.write_text(json.dumps({"records": RECORDS}), encoding="utf-8")
    argv = ["frontier.py", "--from", str(source), "--json", str(source), "--svg", str(drawing)]
    monkeypatch.setattr(sys, "argv", argv)
    frontier.main()
    assert "the curve lies above, 1.50 times as fast" in capsys.readouterr().out
    assert json.loads(source.read_text(encoding="utf-8"))["comparisons"][0]["threads"] == 1
    first = drawing.read_bytes()
    frontier.main()
    assert first.startswith(b"<?xml")
    assert drawing.read_bytes() == first
