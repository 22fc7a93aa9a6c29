"""The main job, through the real command."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from rrm_extract import FeatureFile
from rrm_extract.config import JobConfig
from rrm_extract.jobs import run_job
from rrm_extract.jobs.network_cache import VARIABLE
from rrm_extract.jobs.progress import Progress
from rrm_extract.store import same_content
from rrm_extract.video.synthetic import write_demo_clip
from tests.command import environment, extraction, rrm_extract
from tests.jobs.single import LOUD
from tests.tiny import MODEL


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_demo_clip(folder / "a.mp4", seconds=3.5, size=(64, 48))
    write_demo_clip(folder / "sub/b.avi", seconds=1.25, size=(96, 64), seed=1)
    write_demo_clip(folder / "sub/c d é.mkv", seconds=0.1, size=(64, 48), seed=2)
    return folder


@pytest.fixture(scope="module")
def output(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The features of one run with one worker."""
    path = tmp_path_factory.mktemp("out") / "feats.h5"
    arguments = extraction(videos, path, "--workers", "1")
    done = rrm_extract(*arguments, cwd=path.parent, extra={VARIABLE: "off"})
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "quiet when not a terminal"
    assert "loading the network took" in done.stdout
    for words in ("3 videos", "39 frames", "sparsity", "theoretical speedup", "decode", "weights"):
        assert words in done.stdout
    return path


def test_three_lines_of_h5py(output: Path) -> None:
    with h5py.File(output) as f:
        x = f["videos/sub/b.avi/features"][:]
        t = f["videos/sub/b.avi/timestamps"][:]
    assert x.shape == (10, 16)
    assert x.dtype == np.float32
    assert t.tolist() == pytest.approx([k / 8 for k in range(10)])


def test_the_file_says_what_was_done(output: Path) -> None:
    with FeatureFile(output) as file:
        assert file.complete
        assert list(file) == ["a.mp4", "sub/b.avi", "sub/c d é.mkv"]
        assert file.failures == []
        video = file["a.mp4"]
        assert len(video.features) == 28
        assert video.key_frame.nonzero()[0].tolist() == [0, 8, 16, 24], "one a second"
        assert (video.work[video.key_frame] == 1).all()
        assert (video.work[~video.key_frame] < 1).all()
        assert video.attrs["n_decoded"] == 84
        assert video.attrs["codec"] in {"h264", "mpeg4"}
        assert list(video.layers["name"]) == ["features.0", "features.2", "features.4"]
        assert video.layers["macs"][0] == 32 * 32 * 8 * 27
        assert file.config["threshold"] == 0.01
        assert file.attrs["weights_id"] == "factory:tests.tiny:network"


def test_results_do_not_depend_on_the_number_of_workers(videos: Path, output: Path) -> None:
    other = output.with_name("three.h5")
    done = rrm_extract(*extraction(videos, other, "--workers", "3"), cwd=output.parent)
    assert done.returncode == 0, done.stderr
    assert same_content(output, other) == []
    with FeatureFile(output) as one, FeatureFile(other) as three:
        for video_id in one:
            assert one[video_id].features.tobytes() == three[video_id].features.tobytes()


def test_running_again_does_nothing(videos: Path, output: Path) -> None:
    before = output.stat().st_mtime_ns
    done = rrm_extract(*extraction(videos, output), cwd=output.parent)
    assert done.returncode == 0, done.stderr
    assert "3 done before" in done.stdout
    assert output.stat().st_mtime_ns == before


def test_another_configuration_is_refused_by_name(videos: Path, output: Path) -> None:
    done = rrm_extract(*extraction(videos, output, "--policy", "paper"), cwd=output.parent)
    assert done.returncode == 3
    assert "policy" in done.stderr
    assert "bounded" in done.stderr
    assert "threshold" not in done.stderr


def test_new_changed_and_removed_videos(videos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(videos, folder)
    arguments = extraction(folder, tmp_path / "feats.h5", "--workers", "1")
    assert rrm_extract(*arguments, cwd=tmp_path).returncode == 0
    write_demo_clip(folder / "sub/b.avi", seconds=0.5, size=(96, 64), seed=8)
    write_demo_clip(folder / "new.mp4", seconds=0.5, size=(64, 48), seed=9)
    (folder / "a.mp4").unlink()
    done = rrm_extract(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with FeatureFile(tmp_path / "feats.h5") as file:
        assert list(file) == ["a.mp4", "new.mp4", "sub/b.avi", "sub/c d é.mkv"]
        assert len(file["sub/b.avi"].features) == 4
        assert len(file["a.mp4"].features) == 28, "nothing already written is lost"


def test_a_file_of_a_broken_clock_is_read(videos: Path, tmp_path: Path) -> None:
    clip, year_2300 = tmp_path / "a.mp4", 10_413_792_000 * 10**9
    shutil.copy(videos / "sub/c d é.mkv", clip)
    os.utime(clip, ns=(year_2300, year_2300))
    if clip.stat().st_mtime_ns != year_2300:
        pytest.skip("this file system cannot hold that time")
    arguments = extraction(clip, tmp_path / "feats.h5", "--workers", "1")
    for _ in range(2):
        done = rrm_extract(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "1 done before" in done.stdout


def test_overwrite_begins_again(videos: Path, tmp_path: Path) -> None:
    path = tmp_path / "feats.h5"
    clip = videos / "sub/b.avi"
    assert rrm_extract(*extraction(clip, path, "--workers", "1"), cwd=tmp_path).returncode == 0
    done = rrm_extract(
        *extraction(clip, path, "--threshold", "0", "--overwrite", "--workers", "1"), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    with FeatureFile(path) as file:
        assert file.config["threshold"] == 0


def test_json_log_and_float16_and_native_rate(videos: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    done = rrm_extract(
        *extraction(videos / "sub", tmp_path / "f.h5", "--json-log", log, "--dtype", "float16"),
        *("--fps", "native", "--workers", "1", "--layer", "features", "--pool", "none"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [event["event"] for event in events] == ["start", "video", "video", "end"]
    assert sorted(event["frames"] for event in events[1:3]) == [2, 30]
    assert 0 < events[3]["seconds_load"] < events[3]["seconds_start"] < events[3]["seconds"]
    with FeatureFile(tmp_path / "f.h5") as file:
        video = file["b.avi"]
        assert video.dtype == np.float16
        assert video.feature_shape == (16, 16, 16)
        assert video.features.shape == (30, 16 * 16 * 16)


def test_the_log_of_a_video_without_delta_frames_is_json(tmp_path: Path) -> None:
    clip = write_demo_clip(tmp_path / "short.mp4", seconds=0.1, size=(64, 48))
    log = tmp_path / "log.jsonl"
    arguments = extraction(clip, tmp_path / "f.h5", "--workers", "1", "--json-log", log)
    assert rrm_extract(*arguments, cwd=tmp_path).returncode == 0

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    lines = log.read_text(encoding="utf-8").splitlines()
    _, video, end = (json.loads(line, parse_constant=refuse) for line in lines)
    assert video["density_delta"] is video["sparsity_macs"] is end["sparsity_macs"] is None
    assert video["speedup_theoretical"] == 1


def test_job_file(videos: Path, output: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(
        f"inputs: {videos}\noutput: {tmp_path / 'feats.h5'}\nmodel: tests.tiny:network\n"
        "threshold: 1e-2\nfps: 8\nchunk: 5\nworkers: 1\n",
        encoding="utf-8",
    )
    done = rrm_extract("run", job, "--set", "chunk=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert same_content(output, tmp_path / "feats.h5") == []


def test_clips_of_one_name_have_frames_of_their_own_audited(videos: Path, tmp_path: Path) -> None:
    drawn = {}
    for workers in ("1", "3"):
        folder, output = tmp_path / workers, tmp_path / f"{workers}.h5"
        for subject in range(6):
            (folder / f"S{subject}").mkdir(parents=True)
            shutil.copy(videos / "a.mp4", folder / f"S{subject}/cam.mp4")
        options = ("--audit", "1/4", "--workers", workers)
        done = rrm_extract(*extraction(folder, output, *options), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        with FeatureFile(output) as file:
            drawn[workers] = [
                tuple(np.flatnonzero(~np.isnan(video.audit["error"]))) for video in file.values()
            ]
    assert len(set(drawn["1"])) > 3
    assert drawn["1"] == drawn["3"], "wherever the folder lies, whoever computes them"


CODE = """
import torch
from tests.tiny import Tiny

@torch.fx.wrap
def passing(x):
    return x

class OwnError(Exception):
    pass

class Net(Tiny):
    def forward(self, x):
        return self.fc(torch.flatten(self.pool(self.features(passing(x))), 1))

def network():
    return Net()

def failing():
    raise OwnError("no such weights")
"""


SCRIPT = """
import sys
from rrm_extract.cli import main

if __name__ == "__main__":
    sys.exit(main())
"""


def test_code_in_the_current_directory_reaches_the_workers(tmp_path: Path) -> None:
    """The installed command does not have it among its folders, as ``python -m`` has."""
    (tmp_path / "own_networks.py").write_text(CODE, encoding="utf-8")
    script = tmp_path / "bin/rrm-extract"
    script.parent.mkdir()
    script.write_text(SCRIPT, encoding="utf-8")
    clip = write_demo_clip(tmp_path / "c.mp4", seconds=0.5, size=(64, 48))

    def run(name: str) -> subprocess.CompletedProcess[str]:
        options = ("--model", f"own_networks:{name}", "--workers", "1", "--fps", "8")
        return subprocess.run(
            [sys.executable, str(script), str(clip), *options, "-o", "f.h5"],
            cwd=tmp_path,
            env=environment(),
            timeout=240,
            check=False,
            capture_output=True,
            text=True,
        )

    done = run("network")
    assert done.returncode == 0, done.stderr
    done = run("failing")
    assert "OwnError: no such weights" in done.stderr
    assert "No module named" not in done.stderr


def test_what_cannot_be_removed_is_left(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that takes nothing more has an error of its own, which is not to be covered."""
    unlink = Path.unlink

    def refused(self: Path, missing_ok: bool = False) -> None:
        if "recipe" in self.name:
            raise OSError(errno.EROFS, "Read-only file system")
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    output, clip = str(tmp_path / "kept.h5"), str(videos / "a.mp4")
    summary = run_job(JobConfig(inputs=(clip,), output=output, model=MODEL, fps="8", workers=1))
    assert summary.failures == ()


def test_the_frames_that_are_expected_become_those_there_are(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(videos, tmp_path / "v")
    (tmp_path / "v/broken.mp4").write_bytes(b"no video")
    short = tmp_path / "v/short.mkv"
    write_demo_clip(short, seconds=6, size=(64, 48))
    short.write_bytes(short.read_bytes()[: short.stat().st_size * 3 // 4])
    expected: list[int] = []
    monkeypatch.setattr(Progress, "expect", lambda _, frames: expected.append(frames))
    summary = run_job(
        JobConfig(
            inputs=(str(tmp_path / "v"),),
            output=str(tmp_path / "f.h5"),
            model=MODEL,
            fps="8",
            workers=1,
        )
    )
    assert [record.video_id for record in summary.failures] == ["broken.mp4", "short.mkv"]
    with FeatureFile(tmp_path / "f.h5") as file:
        assert expected[-1] == file.n_frames
    assert len(set(expected)) > 2, "it is estimated before it is known"


def test_a_feature_that_does_not_fit_fails_its_video_alone(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    for name in "ab":
        write_demo_clip(folder / f"{name}.mp4", seconds=0.5, size=(64, 48))
    done = rrm_extract(
        *(folder, "-o", "f.h5", "--model", LOUD, "--dtype", "float16", "--workers", "1"),
        cwd=tmp_path,
    )
    assert done.returncode == 1, done.stderr
    with FeatureFile(tmp_path / "f.h5") as file:
        assert [(one.video_id, one.error_type) for one in file.failures] == [
            ("a.mp4", "FeatureRangeError"),
            ("b.mp4", "FeatureRangeError"),
        ]
        assert "does not fit float16" in file.failures[0].message
