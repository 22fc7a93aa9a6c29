"""Table 2 on generated clips and a tiny network."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import table2_sparsity
import torch
from datasets import find_datasets
from sparsity import measure_sparsity
from subjects import clip_frames, load_subject
from timed_clips import kept_errors, verdict

from rrm_extract.rrm import RecurrentNetwork, overall_sparsity
from rrm_extract.video.synthetic import write_demo_clip
from tests.clips import write_clip
from tests.engines import AVAILABLE
from tests.tiny import MODEL

THRESHOLDS = (0.0, 0.1)
OPTIONS = (
    "--models", MODEL, "--thresholds", *map(str, THRESHOLDS), "--engine", "torch", "--repeats", "1",
    "--timed-frames", "4", "--dense", "torch",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets: moving shapes, with a broken video, and a picture that stands still."""
    folder = tmp_path_factory.mktemp("table2")
    for name in ("moving", "still"):
        (folder / name).mkdir()
    for seed in range(2):
        path = folder / "moving" / f"{seed}.mp4"
        write_demo_clip(path, seconds=1, size=(64, 48), seed=seed)
    (folder / "moving" / "broken.mp4").write_bytes(b"no video")
    write_clip(folder / "still" / "one.mp4", n_frames=3)
    return folder


def run(
    patch: pytest.MonkeyPatch, *arguments: str | Path, options: Sequence[str] = OPTIONS
) -> None:
    patch.setattr(sys, "argv", ["table2_sparsity.py", *map(str, arguments), *options])
    table2_sparsity.main()


@pytest.fixture(scope="module")
def made(folder: Path) -> Path:
    """The folder of the outputs."""
    pytest.importorskip("matplotlib")
    outputs = folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        run(
            patch, folder / "moving", folder / "still", "--max-frames", "6",
            "--json", outputs / "t.json", "--markdown", outputs / "t.md",
            "--svg", outputs / "t.svg",
        )  # fmt: skip
    return outputs


def rows_of(made: Path) -> dict[tuple[str, float], Any]:
    result = json.loads((made / "t.json").read_text(encoding="utf-8"))
    return {(row["key"]["dataset"], row["key"]["threshold"]): row for row in result["rows"]}


def test_a_row_for_each_dataset_network_and_threshold(made: Path) -> None:
    rows = rows_of(made)
    assert list(rows) == [(name, one) for name in ("moving", "still") for one in THRESHOLDS]
    for (name, _), row in rows.items():
        assert row["key"]["model"] == MODEL
        assert row["weights"] == f"factory:{MODEL}"
        assert (row["videos_used"], row["frames"]) == ((2, 12) if name == "moving" else (1, 3))
        assert [one["video"] for one in row["videos_broken"]] == (
            ["broken.mp4"] if name == "moving" else []
        )
        for weight in ("macs", "elements"):
            improvement = row[f"sparsity_delta_{weight}"] - row[f"sparsity_input_{weight}"]
            assert row[f"improvement_{weight}"] == pytest.approx(improvement)
        assert row["speedup_theoretical"] == pytest.approx(1 / (1 - row["sparsity_delta_macs"]))
        assert row["speedup_theoretical_over_sparse_input"] == pytest.approx(
            (1 - row["sparsity_input_macs"]) / (1 - row["sparsity_delta_macs"])
        )
    assert rows["moving", 0.1]["sparsity_delta_macs"] > rows["moving", 0.0]["sparsity_delta_macs"]


def test_what_is_measured_stands_beside_its_error(made: Path) -> None:
    for (name, threshold), row in rows_of(made).items():
        measured = row["measured"]
        assert measured["clips"] == ({"0.mp4": 4} if name == "moving" else {"one.mp4": 3})
        assert set(measured["dense"]) == set(measured["speedup_over"]) == {"torch"}
        for runtime, dense in measured["dense"].items():
            ratio = measured["frames_per_second"] / dense["frames_per_second"]
            assert measured["speedup_over"][runtime] == pytest.approx(ratio)
            assert dense["feature_error"] < 1e-5
        assert (measured["feature_error"] < 1e-5) == (threshold == 0)


def test_a_feature_that_is_only_kept_is_called_frozen(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """At such a threshold nothing is propagated: the error is that of computing nothing."""
    pytest.importorskip("matplotlib")
    path, drawing = tmp_path / "t.json", tmp_path / "t.svg"
    run(monkeypatch, folder / "moving", "--thresholds", "0", "1e6", "--json", path,
        "--svg", drawing, options=[one for one in OPTIONS if one not in ("--thresholds", "0.0",
        "0.1")])  # fmt: skip
    exact, frozen = (row["measured"] for row in json.loads(path.read_text())["rows"])
    assert frozen["feature_error"] == pytest.approx(frozen["feature_error_kept"], rel=1e-4)
    assert exact["feature_error_kept"] == frozen["feature_error_kept"] > 1e-3
    assert (verdict(exact), verdict(frozen)) == ("", "frozen")
    cells = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| moving")]
    assert ["frozen" in line for line in cells] == [False, True]
    assert b"frozen" in drawing.read_bytes()


def test_keeping_a_feature_is_judged_by_its_own_key_frame() -> None:
    reference = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 4.0], [0.0, 5.0]])
    expected = torch.tensor([0.0, 0.5, 0.0, 0.2], dtype=torch.float64)
    torch.testing.assert_close(kept_errors(reference, chunk=2), expected)


@pytest.mark.parametrize(
    ("error", "kept", "expected"),
    [
        (0.04, 0.1, ""),
        (0.06, 0.1, "frozen"),
        (0.1, 0.1, "frozen"),
        (0.2, 0.1, "worse than kept"),
        (1e-7, 1e-7, ""),
        (0.0, 0.0, ""),
        (None, None, ""),
    ],
)
def test_an_error_is_judged_beside_that_of_keeping(
    error: float | None, kept: float | None, expected: str
) -> None:
    assert verdict({"feature_error": error, "feature_error_kept": kept}) == expected


def test_sparsities_are_the_readable_engines(folder: Path) -> None:
    """Summed by hand over both clips; each engine is asked."""
    subject = load_subject(MODEL)
    (dataset,) = find_datasets([str(folder / "moving")])
    network = RecurrentNetwork(subject.recipe.program, threshold=0.0)
    for video in dataset.videos[:2]:
        network.reset()
        network.run(clip_frames(video.path, subject, count=5))
    for engine in AVAILABLE:
        (found,), reading = measure_sparsity(subject, dataset, [0.0], max_frames=5, engine=engine)
        assert (found.frames, found.key_frames, reading.used) == (10, 2, 2)
        for of in ("input", "delta"):
            assert overall_sparsity(found.layers, of=of) == pytest.approx(
                overall_sparsity(network.stats(), of=of), abs=1e-3
            )
        macs = torch.tensor([layer.macs for layer in found.layers], dtype=torch.float64)
        delta = torch.tensor([layer.density_delta for layer in found.layers])
        work = (2 + 8 * float((macs * delta).sum() / macs.sum())) / 10
        assert found.work == pytest.approx(work, rel=1e-6)


def test_page_and_drawing_are_made_anew_from_the_rows(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, drawing = tmp_path / "t.md", tmp_path / "t.svg"
    run(monkeypatch, "--from", made / "t.json", "--markdown", page, "--svg", drawing)
    assert page.read_bytes() == (made / "t.md").read_bytes()
    assert drawing.read_bytes() == (made / "t.svg").read_bytes()
    text = page.read_text(encoding="utf-8")
    for head in ("sparsity of deltas (counted)", "speedup over dense (theoretical)",
                 "speedup over PyTorch fp32 (measured)",
                 "feature error: mean / worst / kept (measured)"):  # fmt: skip
        assert f"| {head} |" in text
    assert "1 round, the first 3 to 4 frames of 1 clip of each dataset." in text
    assert "Broken, and not counted: 1 video." in text
    assert "- moving: broken.mp4" in text


def test_finished_rows_are_kept_and_others_added(
    folder: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.json"
    path.write_bytes((made / "t.json").read_bytes())
    before = json.loads(path.read_text())["rows"]
    run(monkeypatch, folder / "moving", f"again={folder}/still", "--max-frames", "6",
        "--json", path)  # fmt: skip
    after = json.loads(path.read_text())["rows"]
    assert after[:4] == before
    assert [row["key"]["dataset"] for row in after[4:]] == ["again"] * len(THRESHOLDS)


def test_a_dataset_without_a_usable_video_has_a_row_without_figures(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "t.json"
    run(monkeypatch, folder / "moving" / "broken.mp4", "--json", path, "--svg", tmp_path / "t.svg")
    for row in json.loads(path.read_text())["rows"]:
        assert (row["videos_used"], row["measured"], row["speedup_theoretical"]) == (0, None, None)
    assert capsys.readouterr().err.count("broken.mp4: ") == 1, "named once"


def test_a_video_that_breaks_late_is_not_timed(
    breaking_late: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first frames could be."""
    path = tmp_path / "t.json"
    run(monkeypatch, breaking_late, "--json", path)
    for row in json.loads(path.read_text())["rows"]:
        assert [one["video"] for one in row["videos_broken"]] == ["a.mp4"]
        assert row["measured"]["clips"] == {"b.mp4": 4}


def test_nothing_is_timed_unless_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, folder / "still", "--timed-videos", "0", "--policy", "paper")
    assert "| - / - / - |" in capsys.readouterr().out


def test_native_frames_are_chunked_at_each_clips_own_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clips").mkdir()
    for rate in (8, 24):
        write_clip(tmp_path / "clips" / f"{rate}.mp4", n_frames=8, rate=rate)
    path = tmp_path / "t.json"
    words = ("--fps", "native", "--chunk", "0.25", "--timed-videos", "2", "--timed-frames", "8")
    run(monkeypatch, tmp_path / "clips", "--json", path, options=(*OPTIONS, *words))
    for row in json.loads(path.read_text())["rows"]:
        # Chunks of 2 and of 6 frames.
        assert (row["frames"], row["key_frames"]) == (16, 4 + 2)
        assert row["measured"]["work"] > (4 + 2) / 16
        assert row["measured"]["feature_error_kept"] > 0


@pytest.mark.parametrize("threads", ["1", "2"])
def test_what_is_kept_is_that_of_each_threads_part(
    threads: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At such a threshold nothing is propagated: the error is that of computing nothing."""
    pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")
    path = tmp_path / "t.json"
    options = ("--models", MODEL, "--thresholds", "1e6", "--repeats", "1", "--timed-frames", "8")
    more = ("--dense", "torch", "--threads", threads, "--json", path)
    run(monkeypatch, folder / "moving", *more, options=options)
    (row,) = (row["measured"] for row in json.loads(path.read_text())["rows"])
    assert row["feature_error"] == pytest.approx(row["feature_error_kept"], rel=1e-3)
    assert verdict(row) == "frozen"
