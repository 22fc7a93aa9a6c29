"""`stats --eie`: modelled times from a small feature file."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest

from rrm_extract.cli import main
from rrm_extract.report.eie import model_on_eie
from rrm_extract.rrm import Channels, LayerCost
from rrm_extract.store import FeatureFile
from rrm_extract.video.synthetic import write_demo_clip
from tests.command import extraction


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eie")
    clip = write_demo_clip(folder / "clip.mp4", seconds=2, size=(64, 48))
    path = folder / "feats.h5"
    assert main([str(part) for part in extraction(clip, path, "--workers", "1")]) == 0
    return path


def output_of(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["stats", *(str(argument) for argument in arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    code, out, err = output_of(capsys, *arguments, "--json")
    assert code == 0, err
    values: dict[str, Any] = json.loads(out)
    return values


def test_the_file_knows_its_channels(features: Path) -> None:
    with FeatureFile(features) as file:
        columns = file["clip.mp4"].layers
    # The layer that is the feature is the last one: what the classifier would read.
    assert columns["in_channels"].tolist() == [3, 8, 8]
    assert columns["out_channels"].tolist() == [8, 8, 16]
    assert columns["groups"].tolist() == [1, 1, 1]


def test_without_it_nothing_is_said_of_eie(
    features: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "eie" not in as_json(capsys, features)
    assert "EIE" not in output_of(capsys, features)[1]
    assert "eie" not in output_of(capsys, features, "--csv")[1]


def test_theoretical_times_are_macs_at_the_peak(
    features: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = as_json(capsys, features, "--eie")
    eie = values["eie"]
    assert eie["kind"] == "modelled, not measured"
    for layer, modelled in zip(values["layers"], eie["layers"], strict=True):
        dense = layer["macs"] / 64 / 800
        assert modelled["theoretical_us_dense"] == pytest.approx(dense)
        assert modelled["theoretical_us_input"] == pytest.approx(dense * layer["density"])
        assert modelled["theoretical_us_delta"] == pytest.approx(dense * layer["density_delta"])
        assert "simulated_us_input" not in modelled
    totals = eie["totals"]
    plain = sum(layer["theoretical_us_input"] for layer in eie["layers"])
    delta = sum(layer["theoretical_us_delta"] for layer in eie["layers"])
    assert totals["theoretical_us_input"] == pytest.approx(plain)
    assert totals["theoretical_us_mean"] == pytest.approx((2 * plain + 14 * delta) / 16)
    assert totals["theoretical_speedup_delta_frames"] == pytest.approx(
        values["totals"]["speedup_theoretical_over_sparse_input"]
    )


def test_simulated_times_are_never_under_the_peak(
    features: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    eie = as_json(capsys, features, "--eie", "--eie-cycles")["eie"]
    for layer in eie["layers"]:
        # 8 or 16 channels on 64 elements: most of them have nothing to do.
        assert layer["simulated_us_input"] > 3 * layer["theoretical_us_input"]
        assert layer["simulated_us_delta_error"] >= 0
    totals = eie["totals"]
    assert totals["simulated_us_delta"] < totals["simulated_us_mean"] < totals["simulated_us_input"]
    assert totals["simulated_speedup"] > 1
    again = as_json(capsys, features, "--eie", "--eie-cycles")["eie"]
    assert again == eie, "its random numbers are always the same"


def test_text_says_that_nothing_was_measured(
    features: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = output_of(capsys, features, "--eie", "--eie-cycles")
    assert code == 0
    for words in ("theoretical, not measured", "simulated us", "±", "key frames", "Eq. 6"):
        assert words in out
    code, out, _ = output_of(capsys, features, "--eie")
    assert "simulated" not in out


def test_csv_has_the_same_numbers(features: Path, capsys: pytest.CaptureFixture[str]) -> None:
    eie = as_json(capsys, features, "--eie", "--eie-cycles")["eie"]
    _, out, _ = output_of(capsys, features, "--eie", "--eie-cycles", "--csv", "--per-video")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["video_id"] for row in rows] == ["clip.mp4"] * len(eie["layers"])
    for row, layer in zip(rows, eie["layers"], strict=True):
        for name in ("theoretical_us_delta", "simulated_us_delta", "simulated_us_input_error"):
            assert float(row[f"eie_{name}"]) == pytest.approx(layer[name])
    _, out, _ = output_of(capsys, features, "--eie", "--csv")
    assert "eie_theoretical_us_input" in out
    assert "simulated" not in out


def test_weight_density_of_all_layers_and_by_name(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dense = as_json(capsys, features, "--eie")["eie"]
    tenth = as_json(capsys, features, "--eie", "--weight-density", "0.1")["eie"]
    assert tenth["totals"]["theoretical_us_delta"] == pytest.approx(
        dense["totals"]["theoretical_us_delta"] / 10
    )
    assert tenth["totals"]["theoretical_us_dense"] == dense["totals"]["theoretical_us_dense"]
    densities = tmp_path / "weights.json"
    densities.write_text(json.dumps({"features.2": 0.25}), encoding="utf-8")
    named = as_json(capsys, features, "--eie", "--weight-density", densities)["eie"]
    assert [layer["weight_density"] for layer in named["layers"]] == [1.0, 0.25, 1.0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--eie-cycles"], ["--eie-cycles", "without --eie"]),
        (["--weight-density", "0.5"], ["--weight-density", "without --eie"]),
        (["--eie", "--weight-density", "1.5"], ["features.0", "1.5", "expected 0 to 1"]),
        (["--eie", "--weight-density", "nan"], ["nan", "expected 0 to 1"]),
        (["--eie", "--weight-density", "none.json"], ["none.json", "neither a number nor"]),
        (["--eie", "--weight-density", "{json}"], ["'nowhere'", "features.0"]),
        (["--eie", "--weight-density", "{list}"], ["no object of numbers by layer"]),
    ],
)
def test_wrong_usage_says_what_to_do(
    features: Path,
    options: list[str],
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    unknown, listed = tmp_path / "unknown.json", tmp_path / "list.json"
    unknown.write_text('{"nowhere": 0.5}', encoding="utf-8")
    listed.write_text("[0.5]", encoding="utf-8")
    given = [option.format(json=unknown, list=listed) for option in options]
    code, out, err = output_of(capsys, features, *given)
    assert (code, out) == (2, "")
    for word in words:
        assert word in err


def test_a_file_of_an_earlier_version(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old.h5"
    shutil.copy(features, old)
    with h5py.File(old, "r+") as file:
        for name in ("in_channels", "out_channels", "groups"):
            del file[f"videos/clip.mp4/layers/{name}"]
    assert as_json(capsys, old, "--eie")["layers"][0]["channels"] is None
    code, _, err = output_of(capsys, old, "--eie", "--eie-cycles")
    assert code == 2
    assert "how many channels features.0 has" in err
    assert "extract its features again" in err


def test_key_frames_alone_have_no_time_on_deltas() -> None:
    layer = LayerCost(
        name="fc",
        macs=4096,
        input_elements=64,
        output_elements=64,
        density=0.5,
        density_delta=math.nan,
        channels=Channels(64, 64, 1),
    )
    model = model_on_eie([layer], frames=2, delta_frames=0, cycles=True)
    totals = model.totals()
    assert math.isnan(totals["simulated_us_delta"])
    assert totals["simulated_us_mean"] == totals["simulated_us_input"] > 0
    assert totals["theoretical_speedup"] == 1
    assert "fc" in model.to_text()
