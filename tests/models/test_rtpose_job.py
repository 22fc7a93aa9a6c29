"""OpenPose's network through the commands, from a clip to people in its frames."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rrm_extract import FeatureFile
from rrm_extract.config import JobConfig
from rrm_extract.jobs import make_recipe, sampling_of
from rrm_extract.models import load_model
from rrm_extract.tasks import PoseEstimator
from rrm_extract.video import ClipReader, scan_clip
from rrm_extract.video.synthetic import write_demo_clip
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.command import called, rrm_extract

PREPROCESS = "letterbox=48/64"
HEIGHT, WIDTH = 64, 90


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rtpose")
    return write_demo_clip(folder / "c.mp4", seconds=1, size=(WIDTH, HEIGHT))


def job(*options: str | Path) -> list[str | Path]:
    return [
        "--model", "rtpose", "--weights", "random:0", "--preprocess", PREPROCESS, "--fps", "8",
        *options,
    ]  # fmt: skip


def test_from_a_clip_to_people(clip: Path) -> None:
    model = load_model("rtpose", weights="random:0", preprocess=PREPROCESS)
    output = clip.with_name("raw.h5")
    done = rrm_extract(
        clip, *job("--layer", "net_output", "--pool", "none", "--threshold", "0", "-o", output),
        cwd=clip.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with FeatureFile(output) as file:
        assert file.attrs["model"] == "rtpose"
        assert file.attrs["weights_sha256"] == model.weights_sha256
        assert json.loads(file.attrs["preprocess_json"]) == model.preprocess
        stored = np.array(file["c.mp4"].features)
    estimator = PoseEstimator.of(model)
    assert stored.shape == (8, estimator.features) == (8, 57 * 6 * 8)
    with ClipReader(scan_clip(clip), sampling_of(JobConfig(fps="8"))) as reader:
        images = np.stack([frame.image for frame in reader.read(0)])
    raw = model.module(model.transform(torch.from_numpy(images).permute(0, 3, 1, 2)))
    assert relative_l2(torch.from_numpy(stored), raw.flatten(1)) < EXACT_RECURRENCE
    found = estimator(stored, height=HEIGHT, width=WIDTH)
    assert [(one.height, one.width) for one in found] == [(HEIGHT, WIDTH)] * 8


def test_verify(clip: Path) -> None:
    done = called(
        "verify", clip, *job("--layer", "net_output", "--pool", "none"), "--threshold", "0",
        "--max-error", "1e-5", "--json", cwd=clip.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["relative_l2_max"] < 1e-5


def test_models(clip: Path) -> None:
    done = called("models", cwd=clip.parent)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("rtpose ")]
    assert "none: --weights pose_iter_440000.caffemodel" in line
    assert "52.3" in line
    pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")
    explained = called(
        "models", "rtpose", "--preprocess", PREPROCESS, "--explain", "--json", cwd=clip.parent
    )
    assert explained.returncode == 0, explained.stderr
    assert json.loads(explained.stdout)["islands"] == []


def test_no_weights_fail(clip: Path) -> None:
    done = rrm_extract(clip, "--model", "rtpose", "-o", "g.h5", cwd=clip.parent)
    assert done.returncode == 2
    assert "rtpose comes without weights: give --weights pose_iter_440000.caffemo" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (clip.parent / "g.h5").exists()


def test_a_damaged_file_fails(clip: Path) -> None:
    (clip.parent / "bad.caffemodel").write_bytes(b"\xa2\x06\xff\xff\x01")
    done = rrm_extract(
        clip, "--model", "rtpose", "--weights", "bad.caffemodel", "-o", "g.h5", cwd=clip.parent
    )
    assert done.returncode == 2
    assert "'bad.caffemodel' is damaged or no .caffemodel file: it has a field at" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_workers_take_torch_for_the_letterbox() -> None:
    pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")
    config = JobConfig(model="rtpose", weights="random:0", preprocess=PREPROCESS)
    model = load_model(config.model, weights=config.weights, preprocess=config.preprocess)
    recipe = make_recipe(model, config)
    assert recipe.engine == "native"
    assert recipe.compiled is not None
    assert recipe.without_torch() is None
