"""People of a clip, through the real command."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from rrm_extract import FeatureFile
from rrm_extract.models import load_model
from rrm_extract.models.rtpose import COCO_BODY
from rrm_extract.store import export
from rrm_extract.store.export import TASK_LAYOUTS
from rrm_extract.tasks import PoseEstimator
from rrm_extract.video.synthetic import write_demo_clip
from tests.command import rrm_extract

PREPROCESS = "letterbox=64/96"
PEOPLE = ("--task", "pose", "--least-parts", "2", "--field-threshold", "0")
"""An untrained network sees people everywhere."""
HEIGHT, WIDTH = 64, 90


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pose")
    return write_demo_clip(folder / "c.mp4", seconds=1.5, size=(WIDTH, HEIGHT))


def job(output: Path, *options: str | Path) -> list[str | Path]:
    return [
        output.with_name("c.mp4"), "-o", output, "--model", "rtpose", "--weights", "random:0",
        "--preprocess", PREPROCESS, "--threshold", "1e-2", "--fps", "8", "--chunk", "1", *options,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def output(clip: Path) -> Path:
    path = clip.with_name("people.h5")
    done = rrm_extract(*job(path, *PEOPLE, "--workers", "1"), cwd=clip.parent)
    assert done.returncode == 0, done.stderr
    assert " people, " in done.stdout
    return path


def test_people_are_those_of_the_stored_raw_output(clip: Path, output: Path) -> None:
    raw = clip.with_name("raw.h5")
    arguments = job(raw, "--layer", "net_output", "--pool", "none", "--workers", "3")
    done = rrm_extract(*arguments, cwd=clip.parent)
    assert done.returncode == 0, done.stderr
    model = load_model("rtpose", weights="random:0", preprocess=PREPROCESS)
    estimator = PoseEstimator.of(model, least_parts=2, field_threshold=0)
    with FeatureFile(raw) as raws, FeatureFile(output) as file:
        expected = estimator(raws["c.mp4"].features, height=HEIGHT, width=WIDTH)
        people = file["c.mp4"].people
        assert people.total > 12
        assert len(people) == len(expected) == 12
        for one, other in zip(people, expected, strict=True):
            np.testing.assert_array_equal(one.keypoints[..., :2], other.points)
            np.testing.assert_array_equal(one.keypoints[..., 2], other.part_scores)
            np.testing.assert_array_equal(one.scores, other.scores)
        assert file.identity["least_parts"] == 2
        assert (file.identity["score_threshold"], file.identity["least_score"]) == (0.1, 0.4)
        assert "overlap" not in file.identity


def test_the_file_names_parts_and_limbs(output: Path) -> None:
    with h5py.File(output) as f:
        people = f["videos/c.mp4/pose"]
        offsets, points = people["offsets"][:], people["keypoints"][:]
        assert list(f.attrs["keypoint_names"]) == list(COCO_BODY.parts)
        assert f.attrs["limbs"].shape == (19, 2)
        assert people["frame_size"][:].tolist() == [[HEIGHT, WIDTH]] * 12
    assert points.shape == (offsets[-1], 18, 3)
    assert points.dtype == np.float32
    with FeatureFile(output) as file:
        assert file.keypoint_names == COCO_BODY.parts
        assert tuple(file.limbs[0]) == (COCO_BODY.limbs[0].begin, COCO_BODY.limbs[0].end)
        assert file.class_names == ()
        found = file["c.mp4"].people
        np.testing.assert_array_equal(found[3].keypoints, points[offsets[3] : offsets[4]])


def test_export(output: Path, tmp_path: Path) -> None:
    for layout in TASK_LAYOUTS:
        export(output, tmp_path, layout=layout)
    with FeatureFile(output) as file:
        people, file_limbs = file["c.mp4"].people, file.limbs
        points, scores = people.keypoints, people.scores
    with np.load(tmp_path / "c.mp4.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["keypoints"], points)
        assert archive["keypoint_names"].tolist() == list(COCO_BODY.parts)
        np.testing.assert_array_equal(archive["limbs"], file_limbs)
    with (tmp_path / "people.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == len(scores)
    for part, name in enumerate(COCO_BODY.parts):
        x, _, score = points[0, part]
        assert rows[0][f"{name}_x"] == ("" if np.isnan(x) else f"{x:.3f}")
        assert rows[0][f"{name}_score"] == f"{score:.3f}"
    results = json.loads((tmp_path / "coco_results.json").read_text())
    images = json.loads((tmp_path / "coco_images.json").read_text())
    (person,) = images["categories"]
    assert person["keypoints"][:3] == ["nose", "left_eye", "right_eye"]
    assert len(person["keypoints"]) == 17
    assert "neck" not in person["keypoints"]
    assert all(1 <= end <= 17 for limb in person["skeleton"] for end in limb)
    assert len(results) == len(scores)
    found = results[0]["keypoints"]
    assert len(found) == 3 * 17
    for place, name in enumerate(person["keypoints"]):
        x, y, _ = points[0, COCO_BODY.parts.index(name)]
        expected = [0, 0, 0] if np.isnan(x) else [x, y, 1]
        assert found[3 * place : 3 * place + 3] == pytest.approx(expected, abs=1e-3)
