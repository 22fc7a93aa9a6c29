"""Darknet's letterbox, beside Darknet's own arithmetic."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rrm_extract.errors import PreprocessError
from rrm_extract.models import Letterbox, Placement, parse_preprocess

SIZES = {
    "landscape": (24, 40),
    "portrait": (40, 24),
    "square": (30, 30),
    "larger": (90, 121),
    "as large": (32, 32),
    "one row": (1, 9),
    "one pixel": (1, 1),
}


def frames(count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def darknets_resize(image: np.ndarray, h: int, w: int) -> np.ndarray:
    """Darknet's `resize_image`: image (3, H, W) float -> (3, h, w), first along rows."""
    part = np.zeros((3, image.shape[1], w), np.float32)
    for c in range(w):
        if c == w - 1 or image.shape[2] == 1:
            part[:, :, c] = image[:, :, -1]
        else:
            x = np.float32(c) * np.float32((image.shape[2] - 1) / (w - 1))
            part[:, :, c] = (1 - (x - int(x))) * image[:, :, int(x)]
            part[:, :, c] += (x - int(x)) * image[:, :, int(x) + 1]
    out = np.zeros((3, h, w), np.float32)
    for r in range(h):
        if r == h - 1 or image.shape[1] == 1:
            out[:, r] = part[:, -1]
        else:
            y = np.float32(r) * np.float32((image.shape[1] - 1) / (h - 1))
            out[:, r] = (1 - (y - int(y))) * part[:, int(y)] + (y - int(y)) * part[:, int(y) + 1]
    return out


def darknets_letterbox(frame: Tensor, h: int, w: int) -> np.ndarray:
    """Darknet's `letterbox_image` of a (3, H, W) uint8 frame."""
    _, rows, columns = frame.shape
    if w / columns < h / rows:
        new_w, new_h = w, rows * w // columns
    else:
        new_w, new_h = columns * h // rows, h
    boxed = np.full((3, h, w), 0.5, np.float32)
    left, top = (w - new_w) // 2, (h - new_h) // 2
    boxed[:, top : top + new_h, left : left + new_w] = darknets_resize(
        frame.numpy().astype(np.float32) / 255, new_h, new_w
    )
    return boxed


@pytest.mark.parametrize("size", [(32, 32), (32, 48), (33, 25)])
@pytest.mark.parametrize("frame", SIZES.values(), ids=SIZES)
def test_as_darknet_does_it(frame: tuple[int, int], size: tuple[int, int]) -> None:
    x = frames(2, *frame)
    actual = Letterbox(size=size)(x)
    assert actual.dtype == torch.float32
    assert actual.is_contiguous()
    assert actual.shape == (2, 3, *size)
    for one, image in zip(actual, x, strict=True):
        np.testing.assert_allclose(one.numpy(), darknets_letterbox(image, *size), atol=2e-5)


def test_frames_one_by_one_and_in_any_order_in_memory() -> None:
    transform = Letterbox(size=(32, 48))
    x = frames(5, 37, 61)
    together = transform(x)
    assert torch.equal(together, torch.cat([transform(x[i : i + 1]) for i in range(5)]))
    assert torch.equal(together, transform(x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)))
    assert transform(x[:0]).shape == (0, 3, 32, 48)


def test_fill_scale_channels_and_layout() -> None:
    x = frames(1, 20, 40)
    plain = Letterbox(size=(40, 40))(x)
    assert torch.equal(plain[0, :, 0], torch.full((3, 40), 0.5))
    other = Letterbox(size=(40, 40), fill=0.25, scale=255, channels="bgr", layout="nhwc")
    assert other.output_shape == (40, 40, 3)
    y = other(x)
    assert y.is_contiguous()
    assert torch.equal(y[0, 0], torch.full((40, 3), 0.25 * 255))
    torch.testing.assert_close(y[0, 10:30], plain[0, :, 10:30].flip(0).permute(1, 2, 0) * 255)


def test_mean_and_std_in_the_networks_order_of_channels() -> None:
    x = frames(2, 20, 40)
    size = (40, 40)
    plain = Letterbox(size=size, scale=255, channels="bgr")(x)
    mean, std = (1.0, 20.0, 100.0), (2.0, 4.0, 256.0)
    y = Letterbox(size=size, scale=255, channels="bgr", mean=mean, std=std)(x)
    expected = (plain - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert torch.equal(y, expected)
    assert float(y[0, 2, 0, 0]) == pytest.approx((127.5 - 100) / 256), "the background too"


@given(*[st.integers(1, 300)] * 2, *[st.integers(8, 100)] * 2)
def test_points_come_back_to_where_they_were(height: int, width: int, h: int, w: int) -> None:
    transform = Letterbox(size=(h, w))
    place = transform.place(height, width)
    inner = torch.tensor(
        [
            [place.left + 0.5, place.top + 0.5],
            [place.left + place.width - 0.5, place.top + place.height - 0.5],
        ],
        dtype=torch.float64,
    )
    first, last = transform.undo(inner, height, width).tolist()
    assert first == [0.5, 0.5]
    assert last[0] == pytest.approx(width - 0.5 if place.width > 1 else 0.5)
    assert last[1] == pytest.approx(height - 0.5 if place.height > 1 else 0.5)


def test_a_bright_pixel_is_found_again() -> None:
    frame = torch.zeros(1, 3, 61, 101, dtype=torch.uint8)
    frame[:, :, 20, 70] = 255
    transform = Letterbox(size=(256, 256), fill=0.0)
    map_ = transform(frame)[0, 0].double()
    rows, columns = (torch.arange(256, dtype=torch.float64) + 0.5,) * 2
    middle = torch.stack([(map_.sum(0) * columns).sum(), (map_.sum(1) * rows).sum()]) / map_.sum()
    torch.testing.assert_close(
        transform.undo(middle, 61, 101),
        torch.tensor([70.5, 20.5], dtype=torch.float64),
        atol=0.02,
        rtol=0,
    )


def test_where_frames_come_to_lie() -> None:
    transform = Letterbox(size=(416, 608))
    assert transform.place(240, 320) == Placement(top=0, left=27, height=416, width=554)
    assert transform.place(100, 1000) == Placement(top=178, left=0, height=60, width=608)
    assert transform.place(208, 304) == Placement(top=0, left=0, height=416, width=608)
    assert transform.place(1, 5000) == Placement(top=207, left=0, height=1, width=608)


@given(*[st.integers(1, 5000)] * 2, *[st.integers(1, 700)] * 2)
def test_frames_lie_inside_and_fill_one_side(height: int, width: int, h: int, w: int) -> None:
    place = Letterbox(size=(h, w)).place(height, width)
    assert place.height == h or place.width == w
    for begin, length, whole in ((place.top, place.height, h), (place.left, place.width, w)):
        assert begin >= 0
        assert length >= 1
        assert 0 <= whole - length - 2 * begin <= 1


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("letterbox=416", Letterbox(size=(416, 416))),
        ("letterbox=320/608,fill=0", Letterbox(size=(320, 608), fill=0.0)),
        ({"letterbox": [32, 64], "scale": 255}, Letterbox(size=(32, 64), scale=255)),
        (
            "letterbox=368,scale=255,mean=1/2/3,std=4/5/6",
            Letterbox(size=(368, 368), scale=255, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0)),
        ),
    ],
)
def test_descriptions(spec: object, expected: Letterbox, tmp_path: Path) -> None:
    assert parse_preprocess(spec) == expected  # type: ignore[arg-type]
    described = json.dumps(expected.describe())
    assert parse_preprocess(json.loads(described)) == expected
    (tmp_path / "input.json").write_text(described)
    assert parse_preprocess(str(tmp_path / "input.json")) == expected
    assert pickle.loads(pickle.dumps(expected)) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("letterbox=0", "letterbox is 0; expected a whole number of pixels above 0"),
        ("letterbox=1/2/3", r"letterbox is \[1, 2, 3\]; expected one number or \[h, w\]"),
        ("letterbox=416,fill=114", "fill is 114; expected 0 .black. to 1 .white."),
        ({"letterbox": 416, "fill": True}, "fill is True"),
        ("letterbox=416,mean=0", "mean is 0; expected three numbers"),
        ("letterbox=416,std=1/0/1", r"std is \[1.0, 0.0, 1.0\]; expected three numbers above 0"),
        ("letterbox=416,antialias=true", "unknown key 'antialias'; known: letterbox, fill, scale"),
        ("letterbox=416,chanels=bgr", "unknown key 'chanels'; did you mean 'channels'?"),
        ("letterbox=416,resize=256", "unknown key 'resize'"),
        ("letterbox=416,layout=hwc", "layout is 'hwc'; expected nchw or nhwc"),
    ],
)
def test_description_fails(spec: str | dict[str, object], message: str) -> None:
    with pytest.raises(PreprocessError, match=message):
        parse_preprocess(spec)


def test_frames_fail() -> None:
    with pytest.raises(PreprocessError, match=r"expected uint8 \(T, 3, H, W\)"):
        Letterbox(size=(8, 8))(torch.zeros(1, 3, 8, 8))
    with pytest.raises(PreprocessError, match="a frame is 0x8; expected at least 1x1 pixels"):
        Letterbox(size=(8, 8))(torch.zeros(1, 3, 0, 8, dtype=torch.uint8))
