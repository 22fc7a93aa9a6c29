"""Average precision of what is known: all right, all wrong, half of it, and nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from annotations import MarkedBody, MarkedBox
from average_precision import (
    MOST_BOXES,
    OKS_PARTS,
    BodyFrame,
    BoxFrame,
    body_precision,
    box_precision,
    marked_bodies,
    marked_boxes,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from rrm_extract.models.rtpose import COCO_BODY
from rrm_extract.tasks import Detections, Poses

pytest.importorskip("pycocotools", reason="pycocotools is not installed")

NAMES = ("person", "potted plant", "motorcycle")
SIDE = 200


def detections(*found: tuple[float, float, float, float, float, int]) -> Detections:
    """Objects as (left, top, right, bottom, score, class), in pixels."""
    rows = np.array(sorted(found, key=lambda row: -row[4]), np.float32).reshape(-1, 6)
    return Detections(
        boxes=rows[:, :4] / SIDE,
        scores=rows[:, 4],
        classes=rows[:, 5].astype(np.int64),
        height=SIDE,
        width=SIDE,
    )


def box_frame(truths: Sequence[MarkedBox], found: Detections) -> BoxFrame:
    return BoxFrame(truths=truths, found=found, names=NAMES)


def box(name: str, *corners: float) -> MarkedBox:
    left, top, right, bottom = corners
    return MarkedBox(name=name, corners=(left, top, right, bottom))


A = (10.0, 10.0, 60.0, 60.0)
B = (100.0, 100.0, 150.0, 180.0)


def test_all_that_is_true_was_found() -> None:
    truths = [box("person", *A), box("pottedplant", *B)]
    found = box_precision([box_frame(truths, detections((*A, 0.9, 0), (*B, 0.3, 1)))])
    assert (found.ap, found.ap50) == (pytest.approx(1), pytest.approx(1))
    assert (found.truths, found.found, found.frames) == (2, 2, 1)


def test_a_class_that_was_not_found_halves_the_mean() -> None:
    truths = [box("person", *A), box("pottedplant", *B)]
    found = box_precision([box_frame(truths, detections((*A, 0.9, 0), (*B, 0.3, 2)))])
    assert found.ap == pytest.approx(0.5)


def test_a_box_beside_the_true_one_counts_at_low_overlap_only() -> None:
    # 50 x 50 pixels, moved by 10: they overlap by 2000 / 3000.
    found = box_precision([box_frame([box("person", *A)], detections((20, 10, 70, 60, 0.9, 0)))])
    assert found.ap50 == pytest.approx(1)
    assert found.ap == pytest.approx(0.4)  # at .50, .55, .60, .65


def test_something_wrong_with_a_higher_score_costs_precision() -> None:
    frame = box_frame([box("person", *A)], detections((*B, 0.9, 0), (*A, 0.5, 0)))
    assert box_precision([frame]).ap50 == pytest.approx(0.5)
    right_first = box_frame([box("person", *A)], detections((*B, 0.5, 0), (*A, 0.9, 0)))
    assert box_precision([right_first]).ap50 == pytest.approx(1)


def test_what_was_found_in_a_frame_without_objects_is_wrong() -> None:
    frames = [
        box_frame([], detections((*A, 0.9, 0))),
        box_frame([box("person", *A)], detections((*A, 0.5, 0))),
    ]
    assert box_precision(frames).ap50 == pytest.approx(0.5)


def test_classes_that_nobody_looked_for_do_not_count() -> None:
    wrong = box_frame([box("person", *A)], detections((*A, 0.5, 0), (*B, 0.9, 1)))
    other = box_frame([box("pottedplant", *B)], detections((*B, 0.5, 1)))
    assert box_precision([wrong, other]).ap50 == pytest.approx(0.75)
    frames = [replace(wrong, looked_for=frozenset({"person"})), other]
    assert box_precision(frames).ap50 == pytest.approx(1)
    assert box_precision(frames).found == 2


def test_classes_that_the_detector_cannot_know_do_not_count() -> None:
    frame = box_frame([box("person", *A), box("zebra", *B)], detections((*A, 0.5, 0)))
    precision = box_precision([frame])
    assert (precision.ap50, precision.truths) == (pytest.approx(1), 1)
    precision = box_precision([box_frame([box("zebra", *B)], detections((*A, 0.5, 0)))])
    assert (precision.ap, precision.truths, precision.found) == (None, 0, 1)


def test_what_was_found_in_a_crowd_counts_neither_for_nor_against() -> None:
    crowd = MarkedBox(name="person", corners=B, is_crowd=True)
    frame = box_frame([box("person", *A), crowd], detections((*B, 0.9, 0), (*A, 0.5, 0)))
    precision = box_precision([frame])
    assert (precision.ap50, precision.truths) == (pytest.approx(1), 1)


@pytest.mark.parametrize("frames", [[], [box_frame([], detections((*A, 0.9, 0)))]])
def test_where_nothing_is_true_there_is_no_precision(frames: list[BoxFrame]) -> None:
    precision = box_precision(frames)
    assert (precision.ap, precision.ap50, precision.truths) == (None, None, 0)


def test_where_nothing_was_found_it_is_zero() -> None:
    precision = box_precision([box_frame([box("person", *A)], detections())])
    assert (precision.ap, precision.found) == (0, 0)


def test_boxes_outside_the_frame_are_nothing() -> None:
    inside, outside = (*A, 0.5, 0), (10.0, 0.0, 60.0, 0.0, 0.9, 0)
    found = detections(outside, inside)
    truths = marked_boxes(found, NAMES)
    assert [mark.name for mark in truths] == ["person"]
    assert truths[0].corners == pytest.approx(A)
    precision = box_precision([box_frame(truths, found)])
    assert (precision.ap, precision.found) == (pytest.approx(1), 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3 * MOST_BOXES), st.integers(0, 2**32 - 1))
def test_what_is_taken_as_true_agrees_with_itself(count: int, seed: int) -> None:
    """However many objects there are."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, SIDE / 2, (count, 2))
    sizes = rng.uniform(1, SIDE / 2, (count, 2))
    scores, kinds = rng.uniform(0, 1, count), rng.integers(0, 3, count)
    rows = np.column_stack([corners, corners + sizes, scores, kinds]).tolist()
    found = detections(*(tuple(row) for row in rows))
    precision = box_precision([box_frame(marked_boxes(found, NAMES), found)])
    assert precision.ap == pytest.approx(1, abs=1e-6)
    assert precision.truths == precision.found == min(count, MOST_BOXES)


# --- Bodies --------------------------------------------------------------------------------------


def poses(*people: dict[str, tuple[float, float]], scores: Sequence[float] = ()) -> Poses:
    points = np.full((len(people), len(COCO_BODY.parts), 2), np.nan, np.float32)
    for number, person in enumerate(people):
        for part, place in person.items():
            points[number, COCO_BODY.parts.index(part)] = place
    return Poses(
        points=points,
        part_scores=np.where(np.isnan(points[:, :, 0]), 0, 1).astype(np.float32),
        scores=np.array(scores or [1.0] * len(people), np.float32),
        height=SIDE,
        width=SIDE,
    )


def someone(x: float = 20, y: float = 20, size: float = 10) -> dict[str, tuple[float, float]]:
    rng = np.random.default_rng(0)
    return {
        part: (x + size * float(rng.uniform(0, 8)), y + size * float(rng.uniform(0, 16)))
        for part in OKS_PARTS
    }


def body_frame(truths: Sequence[MarkedBody], found: Poses) -> BodyFrame:
    return BodyFrame(truths=truths, found=found, parts=COCO_BODY.parts)


def test_a_body_that_was_found() -> None:
    person = someone()
    precision = body_precision([body_frame([MarkedBody(points=person)], poses(person))])
    assert (precision.ap, precision.truths, precision.found) == (pytest.approx(1), 1, 1)


def test_a_body_that_is_elsewhere() -> None:
    frame = body_frame([MarkedBody(points=someone())], poses(someone(x=90)))
    assert body_precision([frame]).ap == 0


def test_the_similarity_is_that_of_the_equation() -> None:
    """exp(-d^2 / (2 * area * (2 * sigma)^2)), the mean over parts (COCO's keypoint evaluation)."""
    person = someone()
    moved = {**person, "nose": (person["nose"][0] + 4, person["nose"][1])}
    area = 500.0
    nose = np.exp(-(4**2) / (2 * area * (2 * 0.026) ** 2))
    similarity = (nose + len(OKS_PARTS) - 1) / len(OKS_PARTS)
    truth = MarkedBody(points=person, area=area)
    expected = np.mean([similarity >= at for at in np.arange(0.5, 0.96, 0.05)])
    assert 0 < expected < 1
    assert body_precision([body_frame([truth], poses(moved))]).ap == pytest.approx(expected)


def test_an_area_that_nobody_measured_is_of_the_box_around_all_marked_parts() -> None:
    """Also those that do not count, as the top of the head."""
    person = {
        "left_shoulder": (80.0, 60.0), "right_shoulder": (120.0, 60.0),
        "left_wrist": (70.0, 160.0), "right_wrist": (130.0, 160.0),
    }  # fmt: skip
    truth = MarkedBody(points={**person, "head_top": (100.0, 0.0)})
    # 60 x 100 pixels around the parts that count would give 0.7.
    moved = {**person, "left_wrist": (70.0, 150.0)}
    similarity = (3 + np.exp(-(10**2) / (2 * 0.53 * 60 * 160 * (2 * 0.062) ** 2))) / 4
    expected = np.mean([similarity >= at for at in np.arange(0.5, 0.96, 0.05)])
    precision = body_precision([body_frame([truth], poses(moved))])
    assert precision.ap == pytest.approx(expected)


def test_only_parts_that_were_looked_for_count() -> None:
    person = someone()
    moved = {**person, **dict.fromkeys(OKS_PARTS[:11], (0.0, 0.0))}
    frame = body_frame([MarkedBody(points=person, area=500.0)], poses(moved))
    assert body_precision([frame]).ap == 0
    precision = body_precision([frame], looked_for=[*OKS_PARTS[11:], "head_top"])
    assert precision.ap == pytest.approx(1)


def test_a_part_that_was_not_found_costs_similarity() -> None:
    person = someone()
    less = {part: place for part, place in person.items() if "left" not in part}
    frame = body_frame([MarkedBody(points=person, area=500.0)], poses(less))
    assert body_precision([frame]).ap == pytest.approx(0.1)  # 9 of 17 parts: .50 only
    # Parts that are not marked, on the other hand, are of no account.
    frame = body_frame([MarkedBody(points=less, area=500.0)], poses(person))
    assert body_precision([frame]).ap == pytest.approx(1)


def test_bodies_without_a_part_in_common_have_no_precision() -> None:
    frame = body_frame([MarkedBody(points={"head_top": (1.0, 2.0)})], poses(someone()))
    for looked_for in (["head_top"], None):
        precision = body_precision([frame], looked_for=looked_for)
        assert (precision.ap, precision.truths) == (None, 0)


def test_who_is_found_where_nobody_marked_points_counts_not_at_all() -> None:
    person, other = someone(), someone(x=100)
    xs, ys = zip(*other.values(), strict=True)
    corners = (min(xs) - 1, min(ys) - 1, max(xs) + 1, max(ys) + 1)
    found = poses(other, person, scores=[0.9, 0.8])
    truths = [MarkedBody(points=person)]
    assert body_precision([body_frame(truths, found)]).ap == pytest.approx(0.5)
    truths += [MarkedBody(points={}, corners=corners)]
    precision = body_precision([body_frame(truths, found)])
    assert (precision.ap, precision.truths) == (pytest.approx(1), 1)


def test_a_body_whose_parts_are_in_a_row() -> None:
    person = {part: (10.0 * number, 50.0) for number, part in enumerate(OKS_PARTS)}
    near = {part: (x, 50.001) for part, (x, _) in person.items()}
    frame = body_frame(marked_bodies(poses(person), COCO_BODY.parts), poses(near))
    assert body_precision([frame]).ap == pytest.approx(1)


def test_bodies_that_are_taken_as_true_agree_with_themselves() -> None:
    people = [someone(x=10 * number, y=3 * number) for number in range(30)]
    found = poses(*people, scores=list(np.linspace(2, 1, 30)))
    precision = body_precision([body_frame(marked_bodies(found, COCO_BODY.parts), found)])
    assert precision.ap == pytest.approx(1)
    assert precision.truths == precision.found == 20


def test_without_pycocotools_there_is_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pycocotools.cocoeval", None)
    with pytest.raises(SystemExit, match='comes with the extra "bench"'):
        box_precision([box_frame([box("person", *A)], detections((*A, 0.9, 0)))])
