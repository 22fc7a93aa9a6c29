"""Boxes and skeletons on pictures, and the strip below them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from rrm_extract.config import JobConfig
from rrm_extract.errors import ConfigError
from rrm_extract.jobs.compress import compress_network
from rrm_extract.models import Letterbox, Region, load_model
from rrm_extract.models.darknet import write_weights
from rrm_extract.models.rtpose import COCO_BODY
from rrm_extract.report.show import Moment, Overlay
from rrm_extract.report.show.found import FoundObjects, FoundPeople, class_label, found_by
from rrm_extract.report.show.strip import Strip
from rrm_extract.report.show.work import WINDOW, WorkSoFar
from rrm_extract.tasks import Detector, PoseEstimator
from tests.models.darknet import REGION, build, cfg, conv
from tests.report.clips import SIDE, standing_square
from tests.tasks.skeletons import draw, person
from tests.tiny import MODEL

NET = cfg(conv(16, stride=2), conv(16, stride=2), conv(16, size=1, activation="linear"), REGION)
GREY = 70
KEY, WORK = (250, 130, 40), (90, 170, 250)


def grey(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (GREY,) * 3)


def drawn(picture: Image.Image) -> npt.NDArray[np.bool_]:
    changed: npt.NDArray[np.bool_] = (np.array(picture) != GREY).any(-1)
    return changed


def detector(names: tuple[str, ...] = ()) -> Detector:
    region = Region(anchors=((1.0, 1.0),), classes=2, softmax=True)
    return Detector(region=region, letterbox=Letterbox(size=(32, 64)), grid=(4, 8), names=names)


def one_box(row: int, column: int) -> npt.NDArray[np.float32]:
    """Raw output with a box over one cell of 4 x 8, of class 1, and nothing else."""
    raw = np.zeros((7, 4, 8), np.float32)
    raw[4] = -20
    raw[:5, row, column] = (0, 0, 0, 0, 20)
    raw[6, row, column] = 20
    return raw.reshape(-1)


def test_a_box_is_where_the_object_is() -> None:
    picture = grey(640, 320)  # ten times the frame of 64 x 32, which fills the letterbox
    FoundObjects(detector()).draw(picture, one_box(2, 5), height=32, width=64)
    rows, columns = np.nonzero(drawn(picture))
    # The cell is 8 x 8 pixels of the frame, from (40, 16) on; a class's tag stands above it.
    assert (columns.min(), rows.max()) == (400, 240)
    assert 140 <= rows.min() < 160
    assert drawn(picture)[161:240, 400].all()
    assert not drawn(picture)[170:230, 405:475].any(), "boxes are hollow"


def test_nothing_is_drawn_of_nothing() -> None:
    picture = grey(640, 320)
    raw = one_box(0, 0)
    raw.reshape(7, 4, 8)[4] = -20
    FoundObjects(detector()).draw(picture, raw, height=32, width=64)
    assert not drawn(picture).any()


def test_a_box_at_the_corner_has_its_tag_inside() -> None:
    picture = grey(640, 320)
    FoundObjects(detector(("a", "b"))).draw(picture, one_box(0, 7), height=32, width=64)
    assert drawn(picture)[2:10, 570:638].any()


def test_classes_are_called_by_name_or_number() -> None:
    assert class_label(detector(), 1) == "class 1"
    assert class_label(detector(("cat", "traffic light")), 1) == "traffic light"


def test_a_skeleton_is_where_the_person_is() -> None:
    side = 184
    body = person(91.3, 90.8, 40)
    raw = draw([body], (side // 8, side // 8)).numpy().reshape(-1)
    picture = grey(2 * side, 2 * side)
    estimator = PoseEstimator(skeleton=COCO_BODY, letterbox=Letterbox(size=(side, side)))
    FoundPeople(estimator).draw(picture, raw, height=side, width=side)
    where = drawn(picture)
    for x, y in body.values():
        assert where[round(2 * y), round(2 * x)]
    for limb in COCO_BODY.limbs:
        if not limb.is_extra:
            (x0, y0), (x1, y1) = body[limb.begin], body[limb.end]
            assert where[round(y0 + y1), round(x0 + x1)], "the middle of the limb"
    empty = grey(2 * side, 2 * side)
    FoundPeople(estimator).draw(empty, np.zeros_like(raw), height=side, width=side)
    assert not drawn(empty).any()


def test_scores_have_a_use_or_are_refused() -> None:
    tiny = load_model(MODEL)
    assert found_by(tiny, None) is None
    with pytest.raises(ConfigError, match=r"--min-score was given, but .* finds neither"):
        found_by(tiny, 0.3)
    yolo = load_model("tiny_yolov2", weights="random:0", preprocess="letterbox=64")
    with pytest.raises(ConfigError, match=r"--min-score is 1\.5, expected a number in 0\.\.1"):
        found_by(yolo, 1.5)
    found = found_by(yolo, 0.5)
    assert found is not None
    assert found.caption == "boxes with a score above 0.5"


def test_a_darknet_network_gets_boxes(tmp_path: Path) -> None:
    (tmp_path / "net.cfg").write_text(NET)
    network = build(NET)
    with torch.no_grad():
        network.layers[2].conv.weight.mul_(8)  # type: ignore[union-attr, operator]
    write_weights(network, tmp_path / "net.weights")  # of a network that is sure of what it sees
    clip = standing_square(tmp_path / "a.mp4", frames=2)
    config = JobConfig(
        model=f"darknet:{tmp_path / 'net.cfg'}", weights=str(tmp_path / "net.weights"), fps="8"
    )
    pictures = []
    for least in (0.1, 1.0):
        overlay = Overlay(config, min_score=least)
        summary = overlay.write_frame(clip, tmp_path / f"{least}.png", Moment(frame=1))
        with Image.open(tmp_path / f"{least}.png") as image:
            pictures.append(np.array(image)[: SIDE * 10])
    boxes, none = pictures
    assert (boxes != none).any()
    assert overlay.captions[1] == "painted: all layers, by their MACs; boxes with a score above 1"
    assert overlay.captions[0].startswith("darknet:net.cfg, weights file:net.weights, threshold ")
    assert summary.work.shares == pytest.approx([1, 0], abs=0.2)


def test_generated_weights_are_told_in_the_picture() -> None:
    config = JobConfig(model="rtpose", weights="random:3", preprocess="letterbox=48")
    network, painted = Overlay(config).captions
    assert "weights random:3" in network
    assert painted.endswith("of an untrained network: they mean nothing")


def test_generated_weights_are_told_where_they_were_compressed(tmp_path: Path) -> None:
    (tmp_path / "net.cfg").write_text(NET)
    name = f"darknet:{tmp_path / 'net.cfg'}"
    path = tmp_path / "net.dcz"
    compress_network(name, path, weights="random:0", densities={None: 0.5})
    network, painted = Overlay(JobConfig(model=name, weights=str(path))).captions
    assert "weights file:net.dcz" in network
    assert painted.endswith("of an untrained network: they mean nothing")


def graph(work: WorkSoFar) -> npt.NDArray[np.uint8]:
    strip = Strip(640, ["one line"])
    image = strip.draw(frame=3, seconds=0.5, work=work)
    assert image.size == (640, strip.height)
    return np.array(image)


def coloured(picture: npt.NDArray[np.uint8], colour: tuple[int, int, int]) -> int:
    return int((picture[25:90] == colour).all(-1).sum())  # below the text


def test_the_graph_shows_work_and_key_frames() -> None:
    work = WorkSoFar()
    work.add(1.0, is_key_frame=True)
    only_key = graph(work)
    assert coloured(only_key, KEY) > 50
    assert coloured(only_key, WORK) == 0
    work.add(0.25, is_key_frame=False)
    quarter = coloured(graph(work), WORK)
    work.add(0.75, is_key_frame=False)
    assert coloured(graph(work), WORK) == pytest.approx(4 * quarter, rel=0.3)
    work.add(0, is_key_frame=False)
    assert work.speedup == 2
    for _ in range(WINDOW):
        work.add(1.5, is_key_frame=False)  # computed again
    assert coloured(graph(work), KEY) == 0, "it has moved out of the graph"
    assert len(work.recent) == WINDOW


def test_long_captions_are_broken_and_nothing_is_lost() -> None:
    one, two = Strip(640, ["short"]), Strip(640, ["word " * 60])
    text = "weights " + "x" * 300 + ", threshold 0.0001"
    assert "".join(one.broken(text)).replace(" ", "") == text.replace(" ", "")
    assert two.height > one.height + 30
    assert Strip(640, ["x" * 400]).height > one.height + 30
    assert Strip(1920, ["short"]).height == pytest.approx(2 * one.height, abs=4)
