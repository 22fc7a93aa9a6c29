"""People in frames: from drawn heat maps and fields to key points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rrm_extract.errors import ConfigError, PreprocessError
from rrm_extract.models import Letterbox, load_model
from rrm_extract.models.rtpose import COCO_BODY
from rrm_extract.tasks import PoseEstimator, Poses
from tests.tasks.skeletons import Body, draw, person

SIDE = 184
GRID = (SIDE // 8, SIDE // 8)


def estimator(**options: object) -> PoseEstimator:
    values: dict[str, object] = {
        "skeleton": COCO_BODY, "letterbox": Letterbox(size=(SIDE, SIDE)), **options,
    }  # fmt: skip
    return PoseEstimator(**values)  # type: ignore[arg-type]


def poses(raw: Tensor, **options: object) -> Poses:
    (found,) = estimator(**options)(raw[None], height=SIDE, width=SIDE)
    return found


def check(found: Poses, people: list[Body], *, pixels: float = 0.6) -> None:
    """The same people, whatever their order, each with the same parts in the same places."""
    assert len(found) == len(people)
    left = list(range(len(people)))
    for points, seen in zip(found.points, found.found, strict=True):
        parts = np.flatnonzero(seen).tolist()

        def distance(other: int, points: np.ndarray = points, parts: list[int] = parts) -> float:
            both = [part for part in parts if part in people[other]]
            there = np.array([people[other][part] for part in both])
            return float(np.linalg.norm(points[both] - there, axis=1).max())

        nearest = min(left, key=distance)
        left.remove(nearest)
        assert set(parts) == set(people[nearest])
        assert distance(nearest) < pixels


def test_one_person() -> None:
    someone = person(91.3, 90.8, 40)
    found = poses(draw([someone], GRID))
    check(found, [someone])
    assert (found.points.shape, found.part_scores.shape) == ((1, 18, 2), (1, 18))
    assert (found.points.dtype, found.part_scores.dtype) == (np.float32, np.float32)
    assert (found.scores.dtype, found.found.dtype) == (np.float32, np.bool_)
    assert (found.part_scores > 0.8).all()
    assert 1.6 < found.scores[0] < 2.1
    assert (found.height, found.width) == (SIDE, SIDE)


def test_two_people() -> None:
    people = [person(50, 90, 35), person(135, 100, 40)]
    check(poses(draw(people, GRID)), people)


def test_two_people_who_overlap() -> None:
    # Shoulder to shoulder: each one's right arm is between the other's arms.
    people = [person(75, 90, 40), person(108, 92, 40)]
    assert people[1][4][0] < people[0][7][0], "the arms cross"
    check(poses(draw(people, GRID)), people)


def test_a_missing_joint_and_what_it_holds() -> None:
    # Without an elbow nothing leads to the wrist; without an ankle the leg ends at the knee.
    someone = person(91, 90, 40, without=["left_elbow", "right_ankle"])
    found = poses(draw([someone], GRID))
    wrist = COCO_BODY.parts.index("left_wrist")
    check(found, [{part: place for part, place in someone.items() if part != wrist}])
    missing = [COCO_BODY.parts.index(name) for name in ("left_elbow", "left_wrist", "right_ankle")]
    assert np.isnan(found.points[0, missing]).all()
    assert (found.part_scores[0, missing] == 0).all()
    assert found.found.sum() == 15


def test_a_face_without_eyes_keeps_its_ears() -> None:
    someone = person(91, 90, 40, without=["left_eye", "right_eye"])
    check(poses(draw([someone], GRID)), [someone])


def test_a_head_and_a_body_without_a_neck_are_one() -> None:
    # Arms hang on the neck; the fields from shoulders to ears join them with the head.
    someone = person(91, 90, 40, without=["neck"])
    hips = [COCO_BODY.parts.index(name) for name in ("right_hip", "left_hip")]
    found = poses(draw([someone], GRID))
    arms_and_head = {part: place for part, place in someone.items() if not hips[0] <= part <= 13}
    check(found, [arms_and_head])


def test_nobody() -> None:
    found = poses(draw([], GRID))
    assert len(found) == 0
    assert (found.points.shape, found.part_scores.shape) == ((0, 18, 2), (0, 18))
    assert found.found.shape == (0, 18)
    assert poses(torch.zeros(57, *GRID)).scores.shape == (0,)
    assert estimator()(torch.zeros(0, 57, *GRID), height=9, width=9) == []


def test_heat_without_fields_is_nobody() -> None:
    raw = draw([person(91, 90, 40)], GRID)
    raw[19:] = 0
    assert len(poses(raw)) == 0
    raw = draw([person(91, 90, 40)], GRID)
    raw[19:] *= -1
    assert len(poses(raw)) == 0, "fields that lead the other way"


@pytest.mark.parametrize("name", ["right_hip", "left_wrist", "nose"])
def test_the_field_decides_between_two_parts(name: str) -> None:
    someone = person(91, 90, 40)
    part = COCO_BODY.parts.index(name)
    x, y = someone[part]
    raw = draw([someone], GRID)
    stronger = draw([{part: (x + 30, y + 20)}], GRID)
    raw[part] = torch.maximum(0.7 * raw[part], stronger[part])
    check(poses(raw), [someone])


@pytest.mark.parametrize("frame", [(360, 640), (640, 360), (50, 75), (184, 184), (1080, 1920)])
def test_key_points_on_their_way_back_through_the_letterbox(frame: tuple[int, int]) -> None:
    height, width = frame
    letterbox = Letterbox(size=(SIDE, 2 * SIDE))
    place = letterbox.place(height, width)
    someone = person(place.left + place.width / 2, place.top + place.height / 2, 25)
    (found,) = estimator(letterbox=letterbox)(
        draw([someone], (GRID[0], 2 * GRID[1]))[None], height=height, width=width
    )
    assert len(found) == 1
    for part, point in someone.items():
        expected = letterbox.undo(torch.tensor(point, dtype=torch.float64), height, width)
        assert 0 < expected[0] < width
        assert 0 < expected[1] < height
        near = 0.6 * max(width / place.width, height / place.height)
        np.testing.assert_allclose(found.points[0, part], expected, atol=near)
    assert (found.height, found.width) == frame


def test_parts_beside_the_frame_are_none() -> None:
    letterbox = Letterbox(size=(SIDE, SIDE))
    place = letterbox.place(100, 200)
    someone = person(91, 92, 30)
    (found,) = estimator(letterbox=letterbox)(draw([someone], GRID)[None], height=100, width=200)
    inside = {part for part, (_, y) in someone.items() if place.top < y < place.top + place.height}
    assert 8 < len(inside) < 18
    assert inside <= set(np.flatnonzero(found.found[0]).tolist())
    assert found.points[found.found].min() >= 0
    assert found.points[found.found][:, 1].max() <= 100


def test_maps_and_what_is_stored_of_them() -> None:
    people = [person(50, 90, 35), person(135, 100, 40)]
    maps = torch.stack([draw(people, GRID), draw([], GRID), draw(people[:1], GRID)])
    read = estimator()
    assert (read.grid, read.features) == (GRID, 57 * 23 * 23)
    of_maps = read(maps, height=200, width=300)
    stored = maps.flatten(1).numpy()
    stored.flags.writeable = False
    of_stored = read(stored, height=200, width=300)
    assert [len(found) for found in of_maps] == [len(found) for found in of_stored] == [2, 0, 1]
    for one, other in zip(of_maps, of_stored, strict=True):
        np.testing.assert_array_equal(one.points, other.points)
        assert (np.diff(one.scores) <= 0).all()
    backwards = read(maps.numpy()[::-1], height=200, width=300)
    assert [len(found) for found in backwards] == [1, 0, 2]
    half = read(maps.half(), height=200, width=300)
    np.testing.assert_allclose(half[0].points, of_maps[0].points, atol=0.2)


def test_thresholds() -> None:
    someone = person(91, 90, 40)
    raw = draw([someone], GRID)
    raw[:18] *= 0.3
    assert len(poses(raw)) == 1
    assert len(poses(raw, threshold=0.5)) == 0
    assert len(poses(raw, least_score=1.5)) == 0
    raw = draw([someone], GRID)
    raw[19:] *= 0.1
    assert len(poses(raw)) == 1
    assert len(poses(raw, field_threshold=0.2)) == 0


def test_least_parts() -> None:
    arm = {part: place for part, place in person(91, 90, 40).items() if part in (5, 6, 7)}
    assert len(poses(draw([arm], GRID))) == 0
    check(poses(draw([arm], GRID), least_parts=3), [arm])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_numbers_that_say_nothing(value: float) -> None:
    someone = person(91, 90, 40)
    raw = draw([someone], GRID)
    raw[2, :2, :2] = value
    raw[19 + 3, -2:, -2:] = value
    check(poses(raw), [someone])
    assert len(poses(torch.full((57, *GRID), value))) == 0


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**31), st.floats(0.1, 1e6))
def test_any_output_can_be_read(seed: int, scale: float) -> None:
    grid = (6, 8)
    raw = scale * torch.randn(1, 57, *grid, generator=torch.Generator().manual_seed(seed))
    (found,) = estimator(letterbox=Letterbox(size=(48, 64)))(raw, height=100, width=200)
    assert found.found.sum(1).min(initial=18) >= 4
    assert np.isfinite(found.scores).all()
    assert (np.isnan(found.points[..., 0]) == (found.part_scores == 0)).all()
    places = found.points[found.found]
    assert ((places >= 0) & (places <= [200, 100])).all()
    for part in range(18):
        used = found.points[found.found[:, part], part]
        assert len(np.unique(used, axis=0)) == len(used), "a peak belongs to one person"


def test_other_shapes_fail() -> None:
    with pytest.raises(ConfigError, match=r"expected \(T, 57, 23, 23\) or \(T, 30153\), of the po"):
        estimator()(torch.zeros(2, 57, 23, 22), height=64, width=64)
    with pytest.raises(PreprocessError, match="at least 1x1"):
        estimator()(torch.zeros(1, 57, 23, 23), height=0, width=64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, "threshold of poses is 1.5, expected a number in 0..1"),
        ({"field_threshold": float("nan")}, "field_threshold of poses is nan, expected"),
        ({"least_parts": 1}, "least_parts of poses is 1, expected a number in 2..18"),
        ({"least_parts": 19}, "least_parts of poses is 19"),
        ({"least_score": -1}, "least_score of poses is -1, expected a number from 0 on"),
        ({"letterbox": Letterbox(size=(100, 96))}, "input is 100x96, expected multiples of 8"),
    ],
)
def test_options_fail(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        estimator(**options)


def test_of_a_loaded_model() -> None:
    model = load_model("rtpose", weights="random:0", preprocess="letterbox=48/64")
    read = PoseEstimator.of(model, threshold=0.2, least_parts=5)
    assert (read.grid, read.features) == ((6, 8), 57 * 48)
    assert (read.threshold, read.least_parts, read.least_score) == (0.2, 5, 0.4)
    frames = torch.randint(0, 256, (2, 3, 50, 70), dtype=torch.uint8)
    found = read(model.module(model.transform(frames)), height=50, width=70)
    assert [(one.height, one.width) for one in found] == [(50, 70)] * 2


def test_of_another_model_fails() -> None:
    with pytest.raises(ConfigError, match="squeezenet1_1 finds no poses; expected rtpose"):
        PoseEstimator.of(load_model("squeezenet1_1", weights="random:0"))
    cropped = "resize=64,crop=64,mean=0/0/0,std=1/1/1"
    model = load_model("rtpose", weights="random:0", preprocess=cropped)
    with pytest.raises(ConfigError, match="another transform than a letterbox"):
        PoseEstimator.of(model)
