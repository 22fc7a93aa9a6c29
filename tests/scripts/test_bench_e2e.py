"""The whole-process benchmark, on a network and a clip of a second."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import bench_e2e
import pytest
from bench_e2e import Runs, main
from looped_clip import LoopError, clip_seconds, looped_clip
from watched import Watched, watched_run

from rrm_extract.video import ClipReader, Sampling, count_chunks, scan_clip
from rrm_extract.video.synthetic import write_demo_clip
from tests.command import environment
from tests.jobs import branching
from tests.tiny import MODEL


def frames_of(path: Path) -> int:
    info, sampling = scan_clip(path), Sampling(fps=None)
    with ClipReader(info, sampling) as reader:
        chunks = range(count_chunks(info, sampling))
        count = sum(1 for index in chunks for _ in reader.read(index))
        assert reader.n_decode_errors == 0
    return count


@pytest.mark.parametrize("name", ["clip.mp4", "clip.avi", "clip.mkv"])
def test_a_looped_clip_has_all_frames_so_many_times(tmp_path: Path, name: str) -> None:
    clip = write_demo_clip(tmp_path / name, seconds=1, size=(64, 48))
    longer = looped_clip(clip, tmp_path / f"x3-{name}", times=3)
    assert frames_of(longer) == 3 * frames_of(clip) == 72
    assert clip_seconds(longer) == pytest.approx(3 * clip_seconds(clip), rel=0.05)


def test_a_file_that_is_no_clip_fails(tmp_path: Path) -> None:
    (tmp_path / "empty.mkv").touch()
    with pytest.raises(LoopError, match=r"empty\.mkv"):
        looped_clip(tmp_path / "empty.mkv", tmp_path / "longer.mkv", times=2)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_memory_of_children_counts() -> None:
    child = "import time; x = bytearray(b'x') * (64 << 20); time.sleep(1.5)"
    # The parent's command line, which has all of the code in it, must not have the whole word.
    command = f"[sys.executable, '-c', {child!r}, 'pass' + 'ing']"
    code = f"import subprocess, sys; subprocess.run({command}); print('ok')"
    run = watched_run([sys.executable, "-c", code], passing="passing")
    assert run.output == "ok\n"
    peak, others = run.peak(), run.peak(passing=False)
    assert peak is not None
    assert others is not None
    assert 64 < peak < 200
    assert 0 < others < peak - 60
    assert run.peak(after=run.seconds + 1) is None


def test_a_command_that_fails() -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        watched_run([sys.executable, "-c", "raise SystemExit('no')"])
    assert caught.value.returncode == 1
    assert caught.value.stderr == "no\n"


def test_ratios_of_a_run() -> None:
    runs = Runs()
    megabytes = ((1.0, 300 << 20, 100 << 20), (3.0, 200 << 20, 110 << 20))
    stages = {"decode": 1.0, "preprocess": 1.0, "network": 12.0}
    runs.add(100, Watched(10.0, "", megabytes), stages, 2.0)
    record = runs.record(2)
    assert record["frames_per_second"] == 10
    assert record["network_frames_per_second"] == pytest.approx(100 / 6)
    assert record["of_network"] == pytest.approx(0.6)
    assert record["of_network_after_startup"] == pytest.approx(0.75)
    assert (record["memory_mb"], record["memory_startup_mb"]) == (110, 300)


def test_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_demo_clip(tmp_path / "clip.mp4", seconds=1, size=(64, 48))
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    monkeypatch.setattr(
        sys, "argv",
        ["bench_e2e.py", "--videos", str(clip), "--models", MODEL, "--weights", "default",
         "--thresholds", "0", "--engines", "torch", "--workers", "1", "--repeats", "1",
         "--chunk", "1", "--loop", "2", "--lengths", "0.05", "--json", str(tmp_path / "e2e.json")],
    )  # fmt: skip
    main()
    capsys.readouterr()
    values = json.loads((tmp_path / "e2e.json").read_text(encoding="utf-8"))
    plain, tool, length = values["records"]
    assert [record["runtime"] for record in values["records"]] == ["torch", *["rrm-torch"] * 2]
    assert plain["frames"] == tool["frames"] == 48
    assert tool["feature_error"] < 1e-5
    assert 0 < tool["startup_seconds"] < tool["seconds"]
    assert 0 < tool["of_network"] < tool["of_network_after_startup"]
    assert (length["minutes"], length["frames"]) == (0.05, 72)


def test_networks_that_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rrm_extract.engine._native", reason="those of the native engine are")
    clip = write_demo_clip(tmp_path / "clip.mp4", seconds=0.5, size=(64, 48))
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    arguments = ["--videos", str(clip), "--weights", "default", "--thresholds", "0", "--kept"]
    arguments += ["--precisions", "fp32", "--workers", "1", "--repeats", "1", "--models", MODEL]
    arguments += ["--json", str(tmp_path / "e2e.json")]
    monkeypatch.setattr(sys, "argv", ["bench_e2e.py", *arguments])
    main()
    capsys.readouterr()
    _, loaded, kept = json.loads((tmp_path / "e2e.json").read_text(encoding="utf-8"))["records"]
    assert (loaded["network"], kept["network"]) == ("loaded", "kept")
    assert kept["feature_error"] == loaded["feature_error"] < 1e-5
    job = bench_e2e.Bench(branching.MODEL, "default", (clip,), 1, 10.0, 1)
    side = bench_e2e.Side(engine="native", precision="fp32", threshold=0.0, kept=True)
    with pytest.raises(SystemExit, match="leave --kept away"):
        job.run_tool(side, tmp_path / "f.h5")


def test_a_run_that_fails_says_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--videos", str(tmp_path / "no.mp4"), "--repeats", "1", "--models", "resnet19"]
    monkeypatch.setattr(sys, "argv", ["bench_e2e.py", *arguments])
    with pytest.raises(SystemExit, match="resnet19"):
        main()


def test_the_peer_needs_to_write_something(tmp_path: Path) -> None:
    job = bench_e2e.Bench("resnet18", "default", (tmp_path / "a.mp4",), 1, 10.0, 1)
    nothing = [sys.executable, "-c", "print('no weights')"]
    with pytest.raises(SystemExit, match="wrote no features; it said:\nno weights"):
        bench_e2e.run_peer(job, nothing, tmp_path, tmp_path / "out")
