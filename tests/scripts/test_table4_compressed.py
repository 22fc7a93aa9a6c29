"""Table 4 on generated clips and a tiny network."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import table4_compressed
import torch
from compressed_models import compressed_file, origin_of, weight_densities
from subjects import load_subject

from rrm_extract.errors import ConfigError
from rrm_extract.models.compression import read_dcz
from rrm_extract.video.synthetic import write_demo_clip
from tests.clips import write_clip
from tests.engines import AVAILABLE, needs_native
from tests.tiny import MODEL

THRESHOLDS = (0.0, 0.1)
ENGINE = AVAILABLE[0]


def run(
    patch: pytest.MonkeyPatch, folder: Path, *arguments: str | Path, density: str = "0.4,fc=0.2"
) -> None:
    options = (
        "--models", MODEL, "--density", density, "--work", folder / "work",
        "--thresholds", *THRESHOLDS, "--repeats", "1", "--timed-frames", "4", "--dense", "torch",
    )  # fmt: skip
    patch.setattr(sys, "argv", ["table4_compressed.py", *map(str, (*arguments, *options))])
    table4_compressed.main()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of clips and outputs."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("table4")
    for name in ("moving", "still"):
        (folder / name).mkdir()
    write_demo_clip(folder / "moving" / "one.mp4", seconds=1, size=(64, 48), seed=0)
    (folder / "moving" / "broken.mp4").write_bytes(b"no video")
    write_clip(folder / "still" / "one.mp4", n_frames=3)
    with pytest.MonkeyPatch.context() as patch:
        run(
            patch, folder, folder / "moving", folder / "still", "--max-frames", "6",
            "--json", folder / "t.json", "--markdown", folder / "t.md", "--svg", folder / "t.svg",
        )  # fmt: skip
    return folder


def result_of(made: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((made / "t.json").read_text(encoding="utf-8"))
    return result


def rows_of(made: Path) -> dict[tuple[str, float], Any]:
    rows = result_of(made)["rows"]
    return {(row["key"]["dataset"], row["key"]["threshold"]): row for row in rows}


def test_a_row_for_each_dataset_and_threshold(made: Path) -> None:
    rows = rows_of(made)
    assert list(rows) == [(name, one) for name in ("moving", "still") for one in THRESHOLDS]
    for (name, _), row in rows.items():
        assert row["weights"] == f"factory:{MODEL}, compressed"
        assert (row["videos_used"], row["frames"]) == ((1, 6) if name == "moving" else (1, 3))
        assert [one["video"] for one in row["videos_broken"]] == (
            ["broken.mp4"] if name == "moving" else []
        )


def test_theoretical_speedups_count_both_zeros(made: Path) -> None:
    for row in rows_of(made).values():
        densities = row["weight_densities"]
        assert all(density == pytest.approx(0.4, abs=0.01) for density in densities.values())
        assert row["weights_kept"] == pytest.approx(0.4, abs=0.01)
        # All layers have the same density here, so that the weights' factor stands alone.
        assert row["compressed_speedup_theoretical"] == pytest.approx(
            row["speedup_theoretical"] / 0.4, rel=0.02
        )
        over = row["compressed_speedup_theoretical_over_compression"]
        assert over == pytest.approx(row["speedup_theoretical_over_sparse_input"], rel=0.02)
        assert row["eie"]["theoretical_speedup_delta_frames"] == pytest.approx(over)
        assert row["eie"]["simulated_speedup_delta_frames"] > 0


@needs_native
def test_what_is_measured_stands_beside_its_error(made: Path) -> None:
    for (_, threshold), row in rows_of(made).items():
        measured = row["measured"]
        assert measured["threshold"] == threshold
        assert set(measured["speedup_over"]) == {"torch"}
        ours, plain = measured["frames_per_second"], measured["uncompressed"]["frames_per_second"]
        assert measured["speedup_over_uncompressed"] == pytest.approx(ours / plain)
        assert measured["feature_error_kept"] >= 0
        if threshold == 0:
            assert measured["feature_error"] < 1e-4


def test_page_tells_what_is_theoretical_and_what_is_measured(made: Path) -> None:
    page = (made / "t.md").read_text(encoding="utf-8")
    head = next(line for line in page.splitlines() if line.startswith("| dataset"))
    for part in (
        "speedup over dense, MACs (theoretical)",
        "EIE by cycles, us and speedup (theoretical)",
        "speedup over PyTorch fp32 (measured)",
        "feature error: mean / worst / kept (measured)",
    ):
        assert f"| {part} |" in head
    assert "1 round, the first 3 to 4 frames of 1 clip of each dataset." in page
    assert "broken.mp4" in page
    assert "<svg" in (made / "t.svg").read_text(encoding="utf-8")


def test_goes_on_where_it_was(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = result_of(made)
    monkeypatch.setattr(table4_compressed, "measure_sparsity", None)  # nothing may be measured
    inputs = (made / "moving", made / "still", "--max-frames", "6", "--json", made / "t.json")
    run(monkeypatch, made, *inputs)
    assert "there already" in capsys.readouterr().err
    assert result_of(made)["rows"] == before["rows"]


def test_a_video_that_breaks_late_is_not_timed(
    made: Path, breaking_late: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, made, breaking_late, "--engine", "torch", "--json", tmp_path / "t.json")
    for row in result_of(tmp_path)["rows"]:
        assert [one["video"] for one in row["videos_broken"]] == ["a.mp4"]
        assert row["measured"]["clips"] == {"b.mp4": 4}


def test_other_densities_are_refused_in_the_same_file(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = ("--max-frames", "6", "--json", made / "t.json")
    with pytest.raises(SystemExit, match=r"rows made otherwise.*density"):
        run(monkeypatch, made, made / "moving", *inputs, density="0.5")


def test_compressed_file_is_made_once(tmp_path: Path) -> None:
    path = compressed_file(MODEL, "default", tmp_path, density="0.3")
    stamp = path.stat().st_mtime_ns
    assert compressed_file(MODEL, "default", tmp_path, density="0.3") == path
    assert path.stat().st_mtime_ns == stamp
    other = compressed_file(MODEL, "default", tmp_path, density="0.5")
    assert other != path
    assert origin_of(path) == f"factory:{MODEL}, compressed"
    kept = {layer.name: layer.density for layer in read_dcz(path).layers}
    subject = load_subject(f"{MODEL}={path}")
    for name, density in weight_densities(subject.recipe.program).items():
        assert density == kept[f"{name}.weight"]
        assert density == pytest.approx(0.3, abs=0.01)
    assert torch.is_tensor(subject.recipe.program.linear_ops[0].linear_map.weight)


def test_unknown_density_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no density"):
        compressed_file(MODEL, "default", tmp_path, density="much")


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        (["alexnet", "vgg16"], ["pruned to the densities (0.3)"]),
        (["AlexNet_compressed.net"], ["Taken as they are: AlexNet_compressed.net."]),
        (["caffe_alexnet=mine.dcz"], ["Taken as they are: mine.dcz."]),
        (
            ["x.dcz", "alexnet"],
            ["pruned to the densities (0.3)", "Taken as they are: x.dcz."],
        ),
    ],
)
def test_a_page_says_of_each_network_who_compressed_it(
    models: list[str], expected: list[str]
) -> None:
    rows = [
        {"key": {"model": model.partition("=")[0]}, "made_from": {"weights": [model, "x.pth", ""]}}
        for model in models
    ]
    notes = table4_compressed.compressed_by({"rows": rows, "settings": {"density": "0.3"}})
    assert len(notes) == len(expected)
    assert all(part in note for part, note in zip(expected, notes, strict=True))
