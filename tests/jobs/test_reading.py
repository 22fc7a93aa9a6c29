"""From raw outputs to what a job stores of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rrm_extract.config import JobConfig
from rrm_extract.jobs.reading import Reading, make_reading
from rrm_extract.models import Letterbox, coco_ids, coco_names, load_model
from rrm_extract.models.loaded import LoadedModel
from rrm_extract.models.rtpose import COCO_BODY
from tests.tasks.skeletons import draw, person


@pytest.fixture(scope="module")
def tiny_yolov2() -> LoadedModel:
    return load_model("tiny_yolov2", weights="random:0", preprocess="letterbox=64")


def reading_of(model: LoadedModel, **options: object) -> Reading:
    reading = make_reading(model, JobConfig.from_mapping(options))
    assert reading is not None
    return reading


@pytest.fixture(scope="module")
def poses(tiny_yolov2: LoadedModel) -> Reading:
    """Of a model that need not be loaded: its output is drawn."""
    letterbox = Letterbox(size=(184, 248))
    model = replace(tiny_yolov2, region=None, skeleton=COCO_BODY, transform=letterbox)
    return reading_of(model, task="pose")


def test_features_are_not_read(tiny_yolov2: LoadedModel) -> None:
    assert make_reading(tiny_yolov2, JobConfig()) is None


def test_objects_of_frames_of_several_sizes(tiny_yolov2: LoadedModel) -> None:
    reading = reading_of(tiny_yolov2, task="detect", score_threshold=0.02)
    raw = np.random.default_rng(0).standard_normal((4, 425 * 4)).astype(np.float32) * 2
    sizes = [(60, 80), (60, 80), (200, 100), (60, 80)]
    found = reading(raw, sizes)
    assert found.frame_size.tolist() == [list(size) for size in sizes]
    assert found.counts.min() > 0
    begin = 0
    for frame, (height, width), count in zip(raw, sizes, found.counts, strict=True):
        (expected,) = reading.reader(frame[None], height=height, width=width)
        rows = slice(begin, begin + count)
        np.testing.assert_array_equal(found.columns["boxes"][rows], expected.pixels)  # type: ignore[union-attr]
        np.testing.assert_array_equal(found.columns["scores"][rows], expected.scores)
        begin += count
    assert begin == len(found.columns["classes"])


def test_no_frames_have_nothing(tiny_yolov2: LoadedModel, poses: Reading) -> None:
    nothing = np.empty((0, 0), np.float32)
    found = reading_of(tiny_yolov2, task="detect")(nothing, [])
    assert {name: column.shape for name, column in found.columns.items()} == {
        "boxes": (0, 4), "scores": (0,), "classes": (0,),
    }  # fmt: skip
    assert found.columns["classes"].dtype == np.int64
    assert poses(nothing, []).columns["keypoints"].shape == (0, 18, 3)
    assert poses(nothing, []).frame_size.shape == (0, 2)


def test_people(poses: Reading) -> None:
    two = [person(70, 90, 40), person(180, 90, 40, without=["left_ear"])]
    grid = (23, 31)
    raw = np.stack([draw(two, grid).numpy(), draw([], grid).numpy(), draw(two[:1], grid).numpy()])
    found = poses(raw.reshape(3, -1), [(184, 248), (184, 248), (368, 496)])
    assert found.counts.tolist() == [2, 0, 1]
    keypoints = found.columns["keypoints"]
    assert keypoints.shape == (3, 18, 3)
    nose, ear = COCO_BODY.parts.index("nose"), COCO_BODY.parts.index("left_ear")
    noses = sorted(keypoints[:2, nose, 0])
    np.testing.assert_allclose(noses, [70, 180], atol=1)
    np.testing.assert_allclose(keypoints[2, nose, :2], [140, 36], atol=2)
    without = int(np.isnan(keypoints[1, ear, 0]))
    np.testing.assert_array_equal(keypoints[without, ear], [np.nan, np.nan, 0])
    assert (keypoints[..., 2] > 0.5).sum() == 18 + 17 + 18


def test_names_and_options(tiny_yolov2: LoadedModel, poses: Reading) -> None:
    plan = reading_of(tiny_yolov2, task="detect", overlap=0.3).plan
    assert plan.options == {"score_threshold": 0.25, "overlap": 0.3}
    assert tuple(plan.about["class_names"]) == coco_names()  # type: ignore[arg-type]
    assert tuple(plan.about["category_ids"]) == coco_ids()  # type: ignore[arg-type]
    assert poses.plan.options == {
        "score_threshold": 0.1, "field_threshold": 0.05, "least_parts": 4, "least_score": 0.4,
    }  # fmt: skip
    assert poses.plan.rows.parts == 18
    other = replace(tiny_yolov2, categories=None)
    assert "class_names" not in reading_of(other, task="detect").plan.about


def test_coco_counts_its_classes_with_gaps() -> None:
    ids = dict(zip(coco_names(), coco_ids(), strict=True))
    assert len(ids) == 80
    some = ("person", "stop sign", "backpack", "wine glass", "diningtable", "toilet", "tvmonitor")
    assert [ids[name] for name in some] == [1, 13, 27, 46, 67, 70, 72]
    assert ids["toothbrush"] == 90
