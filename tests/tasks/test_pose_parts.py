"""The steps from raw output to people, each beside a plainer way to compute it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rrm_extract.models import Limb, Placement, Skeleton
from rrm_extract.models.rtpose import COCO_BODY
from rrm_extract.tasks.enlarge import enlarging, smoothing
from rrm_extract.tasks.limbs import Connection, connect
from rrm_extract.tasks.peaks import MOST_PEAKS, Peaks, find_peaks
from rrm_extract.tasks.people import assemble
from tests.torch_defaults import other_defaults


def whole(height: int, width: int) -> Placement:
    return Placement(top=0, left=0, height=height, width=width)


def test_enlarged_and_smoothed_as_by_opencv() -> None:
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    cells = np.random.default_rng(0).standard_normal((9, 12)).astype(np.float32)
    large = cv2.resize(cells, (96, 72), interpolation=cv2.INTER_CUBIC)
    rows, columns = enlarging(9, 8, 0, 72), enlarging(12, 8, 0, 96)
    ours = rows @ torch.from_numpy(cells) @ columns.T
    np.testing.assert_allclose(ours.numpy(), large, atol=1e-5)
    inside = np.ascontiguousarray(large[10:60, 7:90])
    smooth = cv2.GaussianBlur(inside, (25, 25), 3, borderType=cv2.BORDER_REPLICATE)
    rows = smoothing(50, 3.0) @ enlarging(9, 8, 10, 50)
    columns = smoothing(83, 3.0) @ enlarging(12, 8, 7, 83)
    ours = rows @ torch.from_numpy(cells) @ columns.T
    np.testing.assert_allclose(ours.numpy(), smooth, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_smoothing_of_short_sides(length: int) -> None:
    torch.testing.assert_close(smoothing(length, 3.0).sum(1), torch.ones(length))


def test_every_peak_of_a_smooth_map() -> None:
    heat = torch.rand(3, 10, 14, generator=torch.Generator().manual_seed(0))
    place = Placement(top=8, left=3, height=60, width=100)
    found = find_peaks(heat, place, stride=8, threshold=0.55)
    rows = smoothing(60, 3.0) @ enlarging(10, 8, 8, 60)
    columns = smoothing(100, 3.0) @ enlarging(14, 8, 3, 100)
    smooth = np.pad((rows @ heat @ columns.T).numpy(), ((0, 0), (1, 1), (1, 1)), constant_values=-1)
    expected = [
        (part, left + 3 - 1 + 0.5, top + 8 - 1 + 0.5)
        for part in range(3)
        for top in range(1, 61)
        for left in range(1, 101)
        if smooth[part, top, left] > 0.55
        and smooth[part, top, left] == smooth[part, top - 1 : top + 2, left - 1 : left + 2].max()
    ]
    assert len(expected) > 20
    assert len(found.parts) == len(expected)
    ours = torch.cat([1000 * found.parts[:, None], found.points], 1)
    pixels = torch.tensor(expected, dtype=torch.float64) * torch.tensor([1000, 1, 1])
    nearest = (ours[:, None] - pixels).abs().amax(2).min(1)
    assert float(nearest.values.max()) <= 0.5, "refined by less than a pixel"
    assert sorted(nearest.indices.tolist()) == [*range(len(expected))]


@pytest.mark.parametrize("place", [(31.4, 50.9), (60.0, 20.0), (45.2, 44.7), (48.0, 48.0)])
def test_a_peak_is_placed_between_pixels(place: tuple[float, float]) -> None:
    y, x = np.mgrid[:12, :12] * 8 + 4.0
    bump = np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * 10.0**2))
    found = find_peaks(torch.from_numpy(bump[None]).float(), whole(96, 96), stride=8, threshold=0.1)
    assert len(found.parts) == 1
    assert found.points[0].tolist() == pytest.approx(place, abs=0.25)
    assert float(found.scores[0]) == pytest.approx(1, abs=0.03)


def test_no_peaks() -> None:
    none = find_peaks(torch.zeros(2, 6, 6), whole(48, 48), stride=8, threshold=0.0)
    assert (len(none.parts), none.points.shape, none.scores.shape) == (0, (0, 2), (0,))


def test_only_the_best_peaks_of_a_part_are_kept() -> None:
    heat = torch.zeros(2, 40, 40)
    values = torch.rand(169, generator=torch.Generator().manual_seed(0)) + 0.5
    heat[0, 1::3, 1::3] = values.reshape(13, 13)
    heat[1, 20, 20] = 1
    found = find_peaks(heat, whole(320, 320), stride=8, threshold=0.05)
    assert found.parts.tolist() == [0] * MOST_PEAKS + [1]
    cells = (found.points[:MOST_PEAKS] / 24).long()
    kept = values.reshape(13, 13)[cells[:, 1], cells[:, 0]]
    best = values.sort(descending=True).values[:MOST_PEAKS]
    torch.testing.assert_close(kept, best, msg="the highest, in this order")


def peaks(*places: tuple[int, float, float], scores: list[float] | None = None) -> Peaks:
    return Peaks(
        parts=torch.tensor([part for part, _, _ in places]),
        points=torch.tensor([place[1:] for place in places], dtype=torch.float64).reshape(-1, 2),
        scores=torch.tensor(scores or [1.0] * len(places), dtype=torch.float64),
    )


LIMB = Limb(begin=0, end=1, field=1)


def test_a_line_integral_by_hand() -> None:
    fields = torch.zeros(4, 6, 8)
    fields[2], fields[3] = 0.6, 0.9
    (link,) = connect(
        fields, LIMB, peaks((0, 10, 10), (1, 40, 30)), stride=8, threshold=0.05, length=1000
    )
    length = math.hypot(30, 20)
    assert (link.begin, link.end) == (0, 1)
    assert link.score == pytest.approx((0.6 * 30 + 0.9 * 20) / length)
    (longer,) = connect(
        fields, LIMB, peaks((0, 10, 10), (1, 40, 30)), stride=8, threshold=0.05, length=30
    )
    assert longer.score == pytest.approx(link.score + 30 / length - 1)


def test_the_field_is_read_between_the_cells() -> None:
    # x grows by 0.01 a pixel from 0 in the middle of the first cell, which bicubic keeps.
    fields = torch.zeros(4, 10, 10)
    fields[2] = (torch.arange(10) * 8) * 0.01
    (link,) = connect(
        fields, LIMB, peaks((0, 20, 30), (1, 50, 30)), stride=8, threshold=0.05, length=1000
    )
    assert link.score == pytest.approx((0.16 + 0.46) / 2, abs=1e-3)


@pytest.mark.parametrize(("columns", "joined"), [(12, True), (10, False)])
def test_more_than_80_percent_of_the_points(columns: int, joined: bool) -> None:
    # Of ten points between x = 4 and x = 94, one a cell, those in the first cells go along.
    fields = torch.zeros(4, 3, 12)
    fields[2, :, :] = -0.5
    fields[2, :, :columns] = 0.5
    found = connect(
        fields, LIMB, peaks((0, 4, 12), (1, 92, 12)), stride=8, threshold=0.05, length=1000
    )
    assert bool(found) is joined


def test_pairs_are_taken_from_the_best_on() -> None:
    # The strongest pair takes peak 2; peak 0 gets what is left, though 2 would suit it better.
    fields = torch.zeros(4, 12, 12)
    fields[2] = torch.linspace(0.2, 1, 12)[:, None]
    places = peaks((0, 10, 20), (0, 10, 90), (1, 80, 60), (1, 80, 20))
    found = connect(fields, LIMB, places, stride=8, threshold=0.05, length=1000)
    assert [(link.begin, link.end) for link in found] == [(1, 2), (0, 3)]
    assert found[0].score > found[1].score


def test_peaks_in_one_place_have_no_limb() -> None:
    fields = torch.ones(4, 4, 4)
    places = peaks((0, 10, 10), (1, 10, 10))
    assert connect(fields, LIMB, places, stride=8, threshold=0.05, length=9) == []
    assert connect(fields, LIMB, peaks((0, 1, 1)), stride=8, threshold=0.05, length=9) == []


def test_limbs_do_not_depend_on_torchs_defaults() -> None:
    fields, places = torch.full((4, 4, 4), 0.5), peaks((0, 4, 4), (1, 24, 24))
    expected = connect(fields, LIMB, places, stride=8, threshold=0.05, length=1000)
    with other_defaults():
        found = connect(fields, LIMB, places, stride=8, threshold=0.05, length=1000)
    assert len(expected) == 1
    assert found == expected


SMALL = Skeleton(
    parts=("a", "b", "c", "d"),
    limbs=(
        Limb(begin=0, end=1, field=0),
        Limb(begin=2, end=3, field=1),
        Limb(begin=1, end=2, field=2),
        Limb(begin=0, end=3, field=3, is_extra=True),
    ),
    stride=8,
)


def link(begin: int, end: int, score: float = 0.5) -> Connection:
    return Connection(begin=begin, end=end, score=score)


def test_two_that_are_joined_are_one_person() -> None:
    found = peaks(*[(part, 0, 0) for part in range(4)], scores=[1, 0.8, 0.6, 0.4])
    (person,) = assemble(SMALL, found, [[link(0, 1)], [link(2, 3)], [link(1, 2, 0.7)], []])
    assert person.peaks == {0: 0, 1: 1, 2: 2, 3: 3}
    assert person.total == pytest.approx(2.8 + 0.5 + 0.5 + 0.7)
    assert person.score == pytest.approx(4.5 / 4)


def test_people_with_a_part_in_common_stay_two() -> None:
    # a0-b0 and b1... : c joins the two, but both have a d.
    found = peaks((0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0), (3, 9, 9))
    skeleton = Skeleton(
        parts=SMALL.parts,
        limbs=(
            Limb(begin=0, end=1, field=0), Limb(begin=1, end=3, field=1),
            Limb(begin=2, end=3, field=2), Limb(begin=1, end=2, field=3),
        ),
        stride=8,
    )  # fmt: skip
    people = assemble(skeleton, found, [[link(0, 1)], [link(1, 3)], [link(2, 4)], [link(1, 2)]])
    assert [person.peaks for person in people] == [{0: 0, 1: 1, 3: 3}, {2: 2, 3: 4}]


def test_extra_limbs_add_to_people_only() -> None:
    found = peaks((0, 0, 0), (1, 0, 0), (3, 0, 0))
    (person,) = assemble(SMALL, found, [[link(0, 1)], [], [], [link(0, 2)]])
    assert person.peaks == {0: 0, 1: 1, 3: 2}
    assert assemble(SMALL, found, [[], [], [], [link(0, 2)]]) == []


def test_a_part_is_not_replaced() -> None:
    found = peaks((0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0), (3, 9, 9))
    (person,) = assemble(SMALL, found, [[link(0, 1)], [link(2, 3)], [link(1, 2)], [link(0, 4)]])
    assert person.peaks == {0: 0, 1: 1, 2: 2, 3: 3}


def test_the_body_is_put_together_from_any_part() -> None:
    found = peaks(*[(part, 0, 0) for part in range(18)])
    tree = [[] if limb.is_extra else [link(limb.begin, limb.end)] for limb in COCO_BODY.limbs]
    (person,) = assemble(COCO_BODY, found, tree)
    assert person.peaks == {part: part for part in range(18)}
    assert person.score == pytest.approx((18 + 17 * 0.5) / 18)
