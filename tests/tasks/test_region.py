"""The region layer: by hand, and beside OpenCV's."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rrm_extract.errors import ConfigError
from rrm_extract.models import Letterbox, Region
from rrm_extract.models.darknet import build_network, parse_cfg
from rrm_extract.models.darknet.published import published_text
from rrm_extract.tasks import Detector, decode_region
from tests.models.darknet import REGION, build, by_opencv, cfg, conv, images, resized

REGION_2 = Region(anchors=((1.0, 1.5), (3.0, 2.0)), classes=3, softmax=True)


def test_one_box_by_hand() -> None:
    raw = torch.zeros(1, 16, 2, 4)
    # Anchor 1 of the cell in row 1, column 2: sigmoid(ln 3) = 3/4, exp(ln 2) = 2.
    raw[0, 8:, 1, 2] = torch.tensor(
        [math.log(3), -math.log(3), math.log(2), 0.0, math.log(4), 0.0, math.log(6), 0.0]
    )
    read = decode_region(raw, REGION_2)
    assert read.boxes.shape == (1, 16, 4)
    position = (1 * 4 + 2) * 2 + 1
    torch.testing.assert_close(
        read.boxes[0, position],
        torch.tensor([2.75 / 4, 1.25 / 2, 3 * 2 / 4, 2 / 2], dtype=torch.float64),
    )
    assert float(read.objectness[0, position]) == pytest.approx(4 / 5)
    torch.testing.assert_close(
        read.scores[0, position], torch.tensor([0.1, 0.6, 0.1], dtype=torch.float64)
    )
    # Everything else says nothing: half an object in the middle of its cell.
    torch.testing.assert_close(
        read.boxes[0, 0], torch.tensor([0.5 / 4, 0.5 / 2, 1 / 4, 1.5 / 2], dtype=torch.float64)
    )
    assert float(read.objectness[0, 0]) == 0.5


def test_classes_that_do_not_exclude_each_other() -> None:
    raw = torch.zeros(1, 16, 1, 1)
    raw[0, 5:8] = math.log(3)
    read = decode_region(raw, Region(anchors=REGION_2.anchors, classes=3, softmax=False))
    assert read.classes[0, 0].tolist() == pytest.approx([0.75] * 3)


@pytest.mark.parametrize("shape", [(1, 15, 2, 2), (16, 2, 2), (1, 16, 0, 2)])
def test_other_shapes_fail(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"expected \(N, 16, H, W\) for 2 anchors and 3 classes"):
        decode_region(torch.zeros(shape), REGION_2)


def test_scores_and_suppression_as_opencv(tmp_path: Path) -> None:
    check_with_opencv(cfg(conv(8), conv(16, 1, activation="linear"), REGION), tmp_path)


def test_published_network_as_opencv(tmp_path: Path) -> None:
    text = resized(published_text("tiny_yolov2"), 128)
    check_with_opencv(text + "thresh=0\n", tmp_path)


def check_with_opencv(text: str, tmp_path: Path) -> None:
    """OpenCV's last layer decodes, multiplies and suppresses overlaps above 0.4."""
    network = build(text)
    assert network.region is not None
    x = images(network, 1)
    (expected,) = by_opencv(text, network, x, tmp_path)
    raw = network(x)
    read = decode_region(raw, network.region)
    np.testing.assert_allclose(read.boxes[0], expected[:, :4], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(read.objectness[0], expected[:, 4], rtol=0, atol=1e-5)
    detector = Detector(
        region=network.region,
        letterbox=Letterbox(size=(x.shape[2], x.shape[3])),
        grid=(raw.shape[2], raw.shape[3]),
        threshold=0,
        overlap=0.4,
    )
    (found,) = detector(raw, height=x.shape[2], width=x.shape[3])
    kept = np.argwhere(expected[:, 5:] > 0)
    assert len(found) == len(kept)
    assert len(found) < read.scores[0].numel(), "something was suppressed"
    ours = sorted(zip(found.classes.tolist(), found.scores.tolist(), strict=True))
    theirs = sorted((int(kind), float(expected[box, 5 + kind])) for box, kind in kept)
    assert [kind for kind, _ in ours] == [kind for kind, _ in theirs]
    assert [score for _, score in ours] == pytest.approx([score for _, score in theirs], abs=1e-5)


def test_the_region_is_read_from_the_cfg() -> None:
    text = cfg(conv(8), conv(16, 1, activation="linear"), REGION)
    network = build_network(parse_cfg(text, file="net.cfg"), size=(16, 16))
    assert network.region == REGION_2
    assert (REGION_2.values, REGION_2.channels) == (8, 16)
