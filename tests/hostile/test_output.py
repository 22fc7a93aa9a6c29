"""Outputs that are not ours, not there or not writable, and numbers that are none."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from rrm_extract import FeatureFile
from rrm_extract.cli import main
from rrm_extract.jobs.progress import Progress
from rrm_extract.store import OutputStore, Source, same_content, save_chunk
from tests.command import extraction
from tests.hostile.conftest import job
from tests.hostile.jobs import events, expect_clean
from tests.hostile.networks import NAN_MODEL
from tests.store.helpers import chunk


def text(path: Path) -> None:
    path.write_text("my thesis\n")


def foreign(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["mine"] = np.arange(9)


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("make", [text, foreign, folder])
def test_what_is_not_ours_is_left_alone(
    make: Callable[[Path], None],
    overwrite: bool,
    videos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "feats.h5"
    make(output)
    before = output.read_bytes() if output.is_file() else b""
    assert _refused(job(videos, output, *["--overwrite"][: int(overwrite)]), capsys, str(output))
    assert (output.read_bytes() if output.is_file() else b"") == before
    expect_clean(tmp_path, "feats.h5")


def test_a_damaged_feature_file_is_left_alone_until_told(
    whole: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "feats.h5"
    output.write_bytes(whole.read_bytes()[:-1000])
    assert _refused(job(videos, output), capsys, str(output))
    assert output.stat().st_size == whole.stat().st_size - 1000
    assert main([str(word) for word in job(videos, output, "--overwrite")]) == 0
    assert same_content(whole, output) == []


def test_a_missing_folder_is_named(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _refused(job(videos, tmp_path / "no/feats.h5"), capsys, str(tmp_path / "no"))
    expect_clean(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "read only"
    place.mkdir(mode=0o500)
    assert _refused(job(videos, place / "feats.h5"), capsys, "ermission")


def test_unfinished_work_of_another_configuration_is_refused(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, clip = tmp_path / "feats.h5", Source("a.mp4", 1, 1)
    with OutputStore(output, {"threshold": 0.5}) as store:
        save_chunk(store.chunk_path(clip, 0), chunk("a.mp4"))
    parts = {path.name for path in store.parts_dir.iterdir()}
    arguments = job(videos / "a.mp4", output)
    assert _refused(arguments, capsys, "threshold was 0.5, is now 0.01")
    assert {path.name for path in store.parts_dir.iterdir()} == parts
    assert main([str(word) for word in [*arguments, "--overwrite"]]) == 0
    expect_clean(tmp_path, "feats.h5")


def test_an_audit_of_what_are_no_numbers_is_infinite(
    videos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "feats.h5"
    arguments = extraction(videos / "sub", output, "--model", NAN_MODEL, "--audit", "1")
    assert main([*map(str, arguments), "--workers", "1"]) == 0
    captured = capfd.readouterr()
    assert captured.err == "", "no warning of a sum"
    assert "audited error of 4 frames: median infinite" in captured.out
    with FeatureFile(output) as file:
        assert file["c.mp4"].attrs["n_audited"] == 4
        assert np.isinf(file["c.mp4"].audit["error"]).all()
    assert main(["stats", str(output), "--json"]) == 0
    audit = json.loads(capfd.readouterr().out)["audit"]
    assert (audit["audited"], audit["infinite"], audit["error_max"]) == (4, 4, None)


def test_a_network_that_gives_no_numbers_is_stored_as_it_is(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "feats.h5"
    arguments = extraction(videos / "sub", output, "--model", NAN_MODEL, "--workers", "1")
    assert main([str(word) for word in arguments]) == 0
    assert "warning: the features of 4 frames have NaN" in capsys.readouterr().out
    with FeatureFile(output) as file:
        features = file["c.mp4"].features
        assert features.shape == (4, 16)
        assert np.isnan(features).any(axis=1).all(), "no frame lost what it had"
        assert np.isfinite(features).any(axis=1).all()
        assert np.isfinite(file["c.mp4"].work).all()
    assert main([str(word) for word in arguments]) == 0


@pytest.mark.parametrize("output", [".", "/"])
def test_a_folder_without_a_name_is_a_folder(
    output: str, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert _refused(job(videos, Path(output)), capsys, "it is a folder")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        "my thesis\n",
        '{\n  "name": "package"\n}\n',
        '{"fc": 0.1}\n',
        "{}\n",
        "{" * 5000 + "\n",
        '{"a":' * 100_000,
        '["event", "time"]\n',
        '{"event": "start", "time": 1.5}',
        "\n",
    ],
    ids=["text", "package", "thresholds", "empty", "braces", "deep", "list", "cut", "line"],
)
def test_a_log_is_not_appended_to_something_else(
    content: str, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "thesis.txt"
    other.write_text(content)
    arguments = job(videos, tmp_path / "feats.h5", "--json-log", other)
    assert _refused(arguments, capsys, "is no log of JSON lines")
    assert other.read_text() == content


def test_a_log_whose_last_line_was_cut_off_goes_on_with_a_new_one(
    videos: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"event": "start", "time": 1.5}\n{"event": "vid')
    assert (
        main([str(word) for word in job(videos / "a.mp4", tmp_path / "f.h5", "--json-log", log)])
        == 0
    )
    first, torn, *others = log.read_text().splitlines()
    assert torn == '{"event": "vid'
    assert [json.loads(line)["event"] for line in (first, *others)] == [
        *("start", "start", "video", "end")
    ]


def test_a_log_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.touch()  # an empty file is as good as none
    for number in range(2):
        with Progress(videos=1, show=False, json_log=str(log)) as progress:
            progress.event("start", number=number)
    assert [event["number"] for event in events(log)] == [0, 1]


def test_a_calibration_does_not_take_the_place_of_something_else(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "feats.h5"
    other.write_bytes(whole.read_bytes())
    arguments: list[str | Path] = ["calibrate", tmp_path, "--target-error", "0.1", "-o", other]
    assert _refused(arguments, capsys, "is no calibration")
    assert other.read_bytes() == whole.read_bytes()


def _refused(arguments: list[str | Path], capsys: pytest.CaptureFixture[str], words: str) -> bool:
    """Whether the command ends with exit code 3 and one line that has these words."""
    capsys.readouterr()
    code = main([str(word) for word in arguments])
    err = capsys.readouterr().err
    return code == 3 and words in err and err.count("\n") == 1
