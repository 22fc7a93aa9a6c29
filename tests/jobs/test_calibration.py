"""The file of a calibration: what comes back, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rrm_extract.errors import CalibrationError, StoreWriteError
from rrm_extract.jobs.calibration import (
    AccumulatedCalibration,
    Calibration,
    Subject,
    TargetCalibration,
    ceiling_of,
    check_layers,
    check_subject,
    digest,
    load,
    parse,
    save,
)
from rrm_extract.jobs.fit_plot import save_figure
from rrm_extract.rrm.aecs import AccumulatedError

SUBJECT = Subject(
    model="resnet18",
    weights_sha256="12ab",
    layer="flatten",
    pool="avg",
    precision="fp32",
    preprocess={"resize": 256, "mean": [0.5, 0.5, 0.5]},
    engine="native",
)
TARGET = TargetCalibration(
    target_error=0.01,
    percentile=95.0,
    thresholds={"default": 1 / 3},
    gains={"conv1": 1e-5, "fc": 0.1},
    floor=1e-14,
    aim=0.6,
    subject=SUBJECT,
    report={"frames": 9},
)
ACCUMULATED = AccumulatedCalibration(
    threshold=0.01,
    model=AccumulatedError(coefficients=(0.1, -0.2, 1e-300, 4.0), reach=123.4),
    subject=SUBJECT,
    report={"r2": 0.9},
)
BY_LAYER = replace(ACCUMULATED, threshold={"default": 0.01, "conv1": 0.0})
BOTH = [TARGET, ACCUMULATED, BY_LAYER]


@pytest.mark.parametrize("calibration", BOTH)
def test_a_calibration_comes_back(tmp_path: Path, calibration: Calibration) -> None:
    path = tmp_path / "c.json"
    save(calibration, path)
    assert load(path, kind=calibration.kind) == calibration
    assert [each.name for each in tmp_path.iterdir()] == ["c.json"]


@pytest.mark.parametrize("calibration", BOTH)
def test_only_what_decides_results_is_digested(tmp_path: Path, calibration: Calibration) -> None:
    save(replace(calibration, report={"frames": 10, "seconds": 3.5}), tmp_path / "c.json")
    again = load(tmp_path / "c.json", kind=calibration.kind)
    assert digest(again.to_json()) == digest(calibration.to_json())
    other = replace(calibration, subject=replace(SUBJECT, layer="layer4"))
    assert digest(other.to_json()) != digest(calibration.to_json())
    changed = (
        replace(calibration, floor=2e-14)
        if isinstance(calibration, TargetCalibration)
        else replace(calibration, model=replace(calibration.model, reach=1.0))
    )
    assert digest(changed.to_json()) != digest(calibration.to_json())


def test_infinite_numbers_of_a_report_do_not_stop_it(tmp_path: Path) -> None:
    report = {"errors": {"governed": np.inf, "all": [1.0, np.nan]}, "n": 3}
    save(replace(TARGET, report=report), tmp_path / "c.json")
    found = load(tmp_path / "c.json", kind="target")
    assert found.report == {"errors": {"governed": None, "all": [1.0, None]}, "n": 3}


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StoreWriteError, match="No such file"):
        save(TARGET, tmp_path / "nowhere/c.json")
    (tmp_path / "c.json").mkdir()
    with pytest.raises(StoreWriteError, match=r"c\.json"):
        save(TARGET, tmp_path / "c.json")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no JSON"),
        (b"threshold: 1", "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "is no calibration"),
        (b"null", "is no calibration"),
        (b'{"format": "another"}', "is no calibration"),
        (b'{"format": "rrm-extract-calibration"}', "version None"),
    ],
)
def test_what_is_no_calibration_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=words) as caught:
        load(path, kind="target")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"none\.json cannot be read: No such file"):
        load(tmp_path / "none.json", kind="target")
    with pytest.raises(CalibrationError, match="directory"):
        load(tmp_path, kind="target")


def set_at(*keys: str | int, value: Any) -> Callable[[Any], None]:
    def change(values: Any) -> None:
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = value

    return change


def without(key: str) -> Callable[[Any], None]:
    return lambda values: values.pop(key)


ANY_DAMAGE = [
    (set_at("version", value=2), "version 2"),
    (set_at("version", value=[1]), "version"),
    (set_at("kind", value="other"), "another kind, 'other'"),
    (set_at("kind", value=["target"]), "another kind"),
    (without("kind"), "another kind, None"),
    (without("subject"), "KeyError"),
    (set_at("subject", value=[]), "mapping is expected"),
    (set_at("subject", "colour", value=1), "colour"),
    (set_at("subject", value={"model": "resnet18"}), "missing"),
    (set_at("subject", "preprocess", value=3), "int where a mapping is expected"),
    (set_at("report", value=None), "NoneType where a mapping is expected"),
    (set_at("report", value=[["a", 1]]), "list where a mapping is expected"),
]
NO_NUMBER = [float("nan"), float("inf"), -0.1, "0.1", True, None, [], 10**400]


@pytest.mark.parametrize("calibration", [TARGET, ACCUMULATED])
@pytest.mark.parametrize(("change", "words"), ANY_DAMAGE)
def test_damage_is_refused(
    calibration: Calibration, change: Callable[[Any], None], words: str
) -> None:
    refuse(calibration, change, words)


@pytest.mark.parametrize("value", NO_NUMBER)
def test_a_number_that_is_none_is_refused(value: object) -> None:
    for place in (
        ("target_error",), ("percentile",), ("floor",), ("aim",), ("thresholds", "default"),
        ("gains", "fc"),
    ):  # fmt: skip
        refuse(TARGET, set_at(*place, value=value), "damaged")
    for place in (("threshold",), ("model", "reach")):
        refuse(ACCUMULATED, set_at(*place, value=value), "damaged")
    refuse(BY_LAYER, set_at("threshold", "conv1", value=value), "damaged")
    if value != -0.1:
        refuse(ACCUMULATED, set_at("model", "coefficients", 2, value=value), "damaged")


@pytest.mark.parametrize(
    ("calibration", "change", "words"),
    [
        (TARGET, set_at("target_error", value=0), "above 0"),
        (TARGET, set_at("percentile", value=101), "up to 100"),
        (TARGET, set_at("aim", value=7), "up to 1"),
        (TARGET, set_at("gains", value=[1, 2]), "list where a mapping"),
        (TARGET, set_at("thresholds", value=0.1), "float where a mapping"),
        (TARGET, without("aim"), "KeyError: 'aim'"),
        (ACCUMULATED, set_at("model", value=[1]), "list where a mapping"),
        (ACCUMULATED, set_at("model", "reach", value=0), "above 0"),
        (ACCUMULATED, set_at("model", "coefficients", value=[1, 2, 3]), "3 coefficients where 4"),
        (ACCUMULATED, set_at("model", "coefficients", value=4), "not iterable"),
    ],
)
def test_values_that_make_no_sense_are_refused(
    calibration: Calibration, change: Callable[[Any], None], words: str
) -> None:
    refuse(calibration, change, words)


def refuse(calibration: Calibration, change: Callable[[Any], None], words: str) -> None:
    values = json.loads(json.dumps(calibration.to_json()))
    parse(values, where="c.json", kind=calibration.kind)
    change(values)
    with pytest.raises(CalibrationError, match=words) as caught:
        parse(values, where="c.json", kind=calibration.kind)
    assert str(caught.value).startswith("c.json ")
    assert "calibrate" in str(caught.value), "what to do next"


def test_the_other_kind_is_refused_with_its_option() -> None:
    with pytest.raises(CalibrationError, match=r"'accumulated', expected 'target'.*--aecs"):
        parse(ACCUMULATED.to_json(), where="c.json", kind="target")
    with pytest.raises(CalibrationError, match=r"'target', expected 'accumulated'.*--thresholds"):
        parse(TARGET.to_json(), where="c.json", kind="accumulated")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "vgg16"}, r"model 'resnet18', here 'vgg16'\)"),
        ({"precision": "bf16", "layer": "fc"}, r"layer 'flatten', here 'fc'; precision 'fp32'"),
        ({"preprocess": {"resize": 224}}, "preprocess .*256.*here .*224"),
        ({"engine": "torch"}, "engine 'native', here 'torch'"),
    ],
)
def test_another_network_is_refused_by_what_differs(change: dict[str, Any], words: str) -> None:
    for calibration in BOTH:
        check_subject(calibration, SUBJECT, where="c.json")
        with pytest.raises(CalibrationError, match=rf"c\.json was calibrated for another.*{words}"):
            check_subject(calibration, replace(SUBJECT, **change), where="c.json")


def test_gains_are_those_of_the_networks_layers() -> None:
    check_layers(TARGET, ["fc", "conv1"], where="c.json")
    with pytest.raises(CalibrationError, match=r"c\.json has no gain for layer 'conv2'"):
        check_layers(TARGET, ["fc", "conv1", "conv2"], where="c.json")
    with pytest.raises(CalibrationError, match=r"c\.json has a gain for 'conv1', .* such as fc;"):
        check_layers(TARGET, ["fc"], where="c.json")
    nothing = replace(TARGET, thresholds={"default": 0.0})
    check_layers(nothing, ["other"], where="c.json")


def test_control_of_both() -> None:
    control = TARGET.control(["fc", "conv1"])
    np.testing.assert_array_equal(control.estimate.gains, [0.1, 1e-5])
    assert (control.target, control.aim, control.estimate.floor) == (0.01, 0.6, 1e-14)
    assert control.ceiling == ceiling_of(95) > 1
    assert replace(TARGET, percentile=100.0).control(["fc"]).ceiling == 1
    with pytest.raises(CalibrationError, match="no gain for layer 'conv2'"):
        TARGET.control(["fc", "conv2"])
    assert ACCUMULATED.control(0.3).limit == 0.3
    assert ACCUMULATED.control(0.3).model == ACCUMULATED.model


@pytest.mark.parametrize("name", ["fit.svg", "fit.SVG", "fit.png", "fit.pdf"])
def test_equal_figures_give_equal_files(tmp_path: Path, name: str) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    figure.subplots().plot([0, 1], [1, 0])
    written = []
    for time in ("1000000000", "2000000000"):  # what matplotlib takes for now
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SOURCE_DATE_EPOCH", time)
            save_figure(figure, tmp_path / name)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]
