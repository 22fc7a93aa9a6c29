"""Tiny YOLOv2 through the commands, from a clip to objects in its frames."""

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
from rrm_extract.models.darknet import DarknetNetwork, write_weights
from rrm_extract.tasks import Detector
from rrm_extract.video import ClipReader, scan_clip
from rrm_extract.video.synthetic import write_demo_clip
from tests.closeness import assert_same_objects
from tests.command import called, rrm_extract

PREPROCESS = "letterbox=64/96"
HEIGHT, WIDTH = 64, 90


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("darknet")
    return write_demo_clip(folder / "c.mp4", seconds=1, size=(WIDTH, HEIGHT))


def job(*options: str | Path) -> list[str | Path]:
    return [
        "--model", "tiny_yolov2", "--preprocess", PREPROCESS, "--layer", "layers.14",
        "--pool", "none", "--fps", "8", *options,
    ]  # fmt: skip


def test_from_a_clip_to_objects(clip: Path) -> None:
    untrained = load_model("tiny_yolov2", weights="random:0", preprocess=PREPROCESS).module
    assert isinstance(untrained, DarknetNetwork)
    untrained.layers[14].conv.weight *= 8  # type: ignore[union-attr, operator]
    weights = clip.with_name("tiny.weights")  # of a network that is sure of what it sees
    write_weights(untrained, weights)
    model = load_model("tiny_yolov2", weights=str(weights), preprocess=PREPROCESS)
    output = clip.with_name("f.h5")
    done = rrm_extract(
        clip, *job("--weights", weights, "--threshold", "0", "-o", output), cwd=clip.parent
    )
    assert done.returncode == 0, done.stderr
    assert "weights file:tiny.weights" in done.stdout
    with FeatureFile(output) as file:
        assert file.attrs["model"] == "tiny_yolov2"
        assert file.attrs["weights_sha256"] == model.weights_sha256
        assert json.loads(file.attrs["preprocess_json"]) == model.preprocess
        stored = np.array(file["c.mp4"].features)
    detector = Detector.of(model, threshold=0.1)
    assert stored.shape == (8, detector.features) == (8, 425 * 2 * 3)
    sampling = sampling_of(JobConfig(fps="8"))
    with ClipReader(scan_clip(clip), sampling) as reader:
        images = np.stack([frame.image for frame in reader.read(0)])
    frames = torch.from_numpy(images).permute(0, 3, 1, 2)
    ordinary = detector(model.module(model.transform(frames)), height=HEIGHT, width=WIDTH)
    found = detector(stored, height=HEIGHT, width=WIDTH)
    assert sum(map(len, found)) > 8
    for one, other in zip(found, ordinary, strict=True):
        assert_same_objects(one.pixels, one.scores, one.classes, other)


def test_verify(clip: Path) -> None:
    done = called(
        "verify", clip, *job("--weights", "random:0", "--threshold", "0", "--max-error", "1e-5"),
        "--json", cwd=clip.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["relative_l2_max"] < 1e-5


def test_explain(clip: Path) -> None:
    (clip.parent / "net.cfg").write_text(
        "[net]\nwidth=16\nheight=16\n[convolutional]\nfilters=16\nactivation=leaky\n"
        "[reorg]\nstride=2\n[convolutional]\nfilters=8\nactivation=leaky\n"
        "[convolutional]\nfilters=4\nactivation=linear\n"
    )
    pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")
    done = called("models", "darknet:net.cfg", "--explain", "--json", cwd=clip.parent)
    assert done.returncode == 0, done.stderr
    explained = json.loads(done.stdout)
    assert explained["islands"] == []
    assert [step["kernel"] for step in explained["steps"]] == ["columns", "move", "taps"]
    assert explained["steps"][1]["output"] == [64, 8, 8]


def test_no_weights_fail(clip: Path) -> None:
    done = rrm_extract(clip, "--model", "yolov2", "-o", "g.h5", cwd=clip.parent)
    assert done.returncode == 2
    assert "yolov2 comes without weights: give --weights yolov2.weights" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (clip.parent / "g.h5").exists()


def test_workers_take_torch_for_the_letterbox() -> None:
    pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")
    config = JobConfig(model="tiny_yolov2", weights="random:0", preprocess=PREPROCESS)
    model = load_model(config.model, weights=config.weights, preprocess=config.preprocess)
    recipe = make_recipe(model, config)
    assert recipe.engine == "native"
    assert recipe.compiled is not None
    assert recipe.without_torch() is None
