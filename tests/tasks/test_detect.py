"""Objects in frames: thresholds, suppression, and the way back through the letterbox."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from rrm_extract.errors import ConfigError, PreprocessError
from rrm_extract.models import Letterbox, Region, coco_names, load_model
from rrm_extract.tasks import Detector

REGION = Region(anchors=((2.0, 2.0),), classes=2, softmax=True)
CERTAIN = 20.0
"""The logistic function of it is 1 - 2e-9."""


def detector(**options: object) -> Detector:
    values: dict[str, object] = {
        "region": REGION, "letterbox": Letterbox(size=(64, 64)), "grid": (8, 8), **options,
    }  # fmt: skip
    return Detector(**values)  # type: ignore[arg-type]


def nothing(frames: int = 1) -> Tensor:
    """(frames, 7, 8, 8): no object anywhere."""
    raw = torch.zeros(frames, 7, 8, 8)
    raw[:, 4] = -CERTAIN
    return raw


def put(
    raw: Tensor, row: int, column: int, *, kind: int = 0, score: float = 1 - 1e-6, frame: int = 0
) -> None:
    """A box of 2 x 2 cells around the middle of a cell."""
    raw[frame, 4, row, column] = math.log(score / (1 - score))
    raw[frame, 5 + kind, row, column] = CERTAIN


def test_a_box_on_its_way_back_through_the_letterbox() -> None:
    raw = nothing()
    put(raw, 3, 2, kind=1)
    # A frame of 100 x 200 fills rows 16-47 of 64; the box is columns 12-28, rows 20-36 of 64.
    (found,) = detector()(raw, height=100, width=200)
    assert len(found) == 1
    expected = np.array([12 / 64, 4 / 32, 28 / 64, 20 / 32], np.float32)
    np.testing.assert_allclose(found.boxes, expected[None], atol=1e-6)
    np.testing.assert_allclose(
        found.pixels, expected[None] * np.array([200, 100, 200, 100], np.float32), atol=1e-3
    )
    assert found.classes.tolist() == [1]
    assert found.scores[0] == pytest.approx(1, abs=1e-5)
    assert (found.height, found.width) == (100, 200)
    assert (found.boxes.dtype, found.scores.dtype) == (np.float32, np.float32)
    assert found.classes.dtype == np.int64


def test_a_point_of_the_frame_is_found_again() -> None:
    # A white square is put into a frame; where the letterbox shows it, a box says so.
    height, width, top, left, side = 90, 150, 30, 60, 30
    frame = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    frame[:, :, top : top + side, left : left + side] = 255
    letterbox = Letterbox(size=(320, 256), fill=0.0)
    rows, columns = (letterbox(frame)[0, 0] > 0.5).nonzero(as_tuple=True)
    begin = (float(columns.min()), float(rows.min()))
    end = (float(columns.max()) + 1, float(rows.max()) + 1)
    share = torch.tensor(
        [(begin[0] + end[0]) / 512, (begin[1] + end[1]) / 640,
         (end[0] - begin[0]) / 256, (end[1] - begin[1]) / 320], dtype=torch.float64,
    )  # fmt: skip
    raw = nothing()
    column, row = int(share[0] * 8), int(share[1] * 8)
    put(raw, row, column)
    inside = share[:2] * 8 - torch.tensor([column, row])
    raw[0, :2, row, column] = inside.logit().float()
    raw[0, 2:4, row, column] = (share[2:] * 8 / 2).log().float()
    (found,) = detector(letterbox=letterbox)(raw, height=height, width=width)
    expected = [left, top, left + side, top + side]
    np.testing.assert_allclose(found.pixels[0], expected, atol=0.7)  # of a pixel


def test_the_best_of_those_that_overlap_is_kept() -> None:
    raw = nothing()
    put(raw, 3, 3, score=0.8)
    put(raw, 3, 4, score=0.9)  # half of each lies on the other: 1/3 of their union
    (found,) = detector(overlap=0.34)(raw, height=64, width=64)
    assert found.scores.tolist() == pytest.approx([0.9, 0.8], abs=1e-6)
    (found,) = detector(overlap=0.33)(raw, height=64, width=64)
    assert found.scores.tolist() == pytest.approx([0.9], abs=1e-6)


def test_another_class_is_another_object() -> None:
    raw = nothing()
    put(raw, 3, 3, score=0.8)
    put(raw, 3, 4, score=0.9, kind=1)
    (found,) = detector(overlap=0.1)(raw, height=64, width=64)
    assert found.classes.tolist() == [1, 0]


def test_a_box_may_be_two_classes() -> None:
    raw = nothing()
    put(raw, 3, 3)
    raw[0, 6, 3, 3] = CERTAIN - math.log(3)  # 3/4 and 1/4
    (found,) = detector(threshold=0.2)(raw, height=64, width=64)
    assert found.scores.tolist() == pytest.approx([0.75, 0.25], abs=1e-5)
    np.testing.assert_array_equal(found.boxes[0], found.boxes[1])
    (found,) = detector(threshold=0.26)(raw, height=64, width=64)
    assert len(found) == 1


def test_a_box_beyond_the_frame_may_be_two_classes() -> None:
    raw = nothing()
    put(raw, 3, 3)
    raw[0, 2:4, 3, 3] = 5.1  # exp() of it is 164: the box begins far outside the frame
    raw[0, 6, 3, 3] = CERTAIN - math.log(1.5)  # 0.6 and 0.4
    (found,) = detector(overlap=0.1, threshold=0.2)(raw, height=64, width=64)
    assert found.classes.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([0.6, 0.4], abs=1e-5)


def test_a_huge_box_does_not_matter_to_other_classes() -> None:
    raw = nothing()
    put(raw, 6, 6)
    raw[0, 2:4, 6, 6] = 60.0  # exp() of it is 1e26
    # Two boxes around the point where their cells meet are the same.
    put(raw, 3, 3, kind=1, score=0.9)
    put(raw, 3, 4, kind=1, score=0.8)
    raw[0, 0, 3, 3], raw[0, 0, 3, 4] = CERTAIN, -CERTAIN
    (found,) = detector()(raw, height=64, width=64)
    assert found.classes.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([1, 0.9], abs=1e-5)


def test_boxes_end_at_the_frame() -> None:
    raw = nothing()
    put(raw, 0, 0)
    raw[0, 2:4, 0, 0] = 5.0
    (found,) = detector()(raw, height=64, width=64)
    np.testing.assert_array_equal(found.boxes, [[0, 0, 1, 1]])


def test_what_is_not_in_the_frame_is_no_object() -> None:
    """A frame of 100 x 200 fills rows 16-47 of 64; a box has 16 rows."""
    raw = nothing()
    put(raw, 0, 2, score=0.9)  # up to row 12
    put(raw, 7, 2, score=0.9)  # from row 52
    (found,) = detector()(raw, height=100, width=200)
    assert len(found) == 0
    put(raw, 1, 2, score=0.8)  # rows 4-20, of which half are the better box's
    (found,) = detector(overlap=0.3)(raw, height=100, width=200)
    assert found.scores.tolist() == pytest.approx([0.8], abs=1e-6)
    np.testing.assert_allclose(found.boxes, [[12 / 64, 0, 28 / 64, 4 / 32]], atol=1e-6)


def test_a_box_of_no_size_is_no_object() -> None:
    raw = nothing()
    put(raw, 3, 3)
    raw[0, 2, 3, 3] = -2000  # exp() of it is 0
    (found,) = detector()(raw, height=64, width=64)
    assert len(found) == 0


def test_stored_features_are_the_map() -> None:
    raw = torch.randn(3, 7, 8, 8, generator=torch.Generator().manual_seed(0)) * 3
    read = detector(threshold=0.1)
    stored = raw.flatten(1).numpy()
    stored.flags.writeable = False
    assert read.features == stored.shape[1]
    of_map, of_stored = (read(values, height=48, width=64) for values in (raw, stored))
    assert [len(found) for found in of_map] == [len(found) for found in of_stored]
    assert sum(len(found) for found in of_map) > 10
    for one, other in zip(of_map, of_stored, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        assert (np.diff(one.scores) <= 0).all()
    backwards = read(raw.numpy()[::-1], height=48, width=64)
    for one, other in zip(of_map, reversed(backwards), strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)


def test_no_objects_and_no_frames() -> None:
    (found,) = detector()(nothing(), height=64, width=64)
    assert (len(found), found.boxes.shape, found.pixels.shape) == (0, (0, 4), (0, 4))
    assert detector()(torch.zeros(0, 448), height=64, width=64) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_numbers_without_a_box_are_none(value: float) -> None:
    raw = nothing()
    put(raw, 3, 3)
    raw[0, 2, 3, 3] = value
    put(raw, 6, 6)
    (found,) = detector()(raw, height=64, width=64)
    assert len(found) == 1


def test_other_shapes_fail() -> None:
    with pytest.raises(ConfigError, match=r"expected \(T, 7, 8, 8\) or \(T, 448\)"):
        detector()(torch.zeros(2, 447), height=64, width=64)
    with pytest.raises(PreprocessError, match="at least 1x1"):
        detector()(nothing(), height=0, width=64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, "threshold of detections is 1.5, expected a number in 0..1"),
        ({"overlap": float("nan")}, "overlap of detections is nan"),
        ({"names": ("person",)}, "1 names of classes, expected 2 or none"),
    ],
)
def test_options_fail(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        detector(**options)


def test_of_a_loaded_model() -> None:
    model = load_model("tiny_yolov2", weights="random:0", preprocess="letterbox=64/96")
    read = Detector.of(model, threshold=0.05)
    assert (read.grid, read.features) == ((2, 3), 425 * 6)
    assert read.names == coco_names()
    frames = torch.randint(0, 256, (2, 3, 50, 70), dtype=torch.uint8)
    found = read(model.module(model.transform(frames)), height=50, width=70)
    assert len(found) == 2
    assert all(((one.boxes >= 0) & (one.boxes <= 1)).all() for one in found)


def test_of_another_model_fails() -> None:
    with pytest.raises(ConfigError, match="squeezenet1_1 is no detector; expected yolov2"):
        Detector.of(load_model("squeezenet1_1", weights="random:0"))
    cropped = "resize=64,crop=64,mean=0/0/0,std=1/1/1"
    model = load_model("tiny_yolov2", weights="random:0", preprocess=cropped)
    with pytest.raises(ConfigError, match="another transform than a letterbox"):
        Detector.of(model)


def test_names_are_those_of_coco() -> None:
    names = coco_names()
    assert len(set(names)) == 80
    assert (names[0], names[79]) == ("person", "toothbrush")
