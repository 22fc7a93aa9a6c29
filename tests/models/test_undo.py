"""From the network's input back into the frame: each transform undoes where it put things."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rrm_extract.engine.preprocess import NativeTransform, supports
from rrm_extract.errors import EngineError, PreprocessError
from rrm_extract.models import Letterbox, Preprocess, Transform
from rrm_extract.models.timm_models import TimmTransform

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
CROP = Preprocess(resize=72, crop=(64, 64), **PLAIN)


def ramp(height: int, width: int) -> torch.Tensor:
    """(1, 3, H, W) uint8: red grows with x, green with y, both from 0 to 255 over the frame."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    blue = np.full_like(x, 1.0)
    return torch.from_numpy(np.rint(np.stack([x, y, blue]) * 255).astype(np.uint8))[None]


def misplaced(transform: Transform, height: int, width: int) -> float:
    """The largest distance, in pixels of the frame, from where a pixel of the input came from."""
    x = transform(ramp(height, width))[0]
    rows, columns = x.shape[1:]
    j, i = np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5)
    points = transform.undo(torch.from_numpy(np.stack([j, i], -1)), height, width).numpy()
    seen = (x[:2] * torch.tensor([width, height])[:, None, None]).permute(1, 2, 0).numpy()
    # What the frame does not fill is black or grey, not blue; at its edges pixels are blended.
    inside = (x[2] > 0.999).numpy()
    for side, length in enumerate((width, height)):
        edge = 2.5 * length / max(min(rows, columns), 1) + 2
        inside &= (points[..., side] > edge) & (points[..., side] < length - edge)
    assert inside.any()
    return float(np.abs(points - seen)[inside].max())


@settings(max_examples=40, deadline=None)
@given(height=st.integers(60, 200), width=st.integers(60, 200), crop=st.sampled_from([64, 71, 72]))
def test_crop(height: int, width: int, crop: int) -> None:
    # 8 bits for 200 pixels are 0.8 of a pixel a level, and resizing rounds to a level again.
    assert misplaced(replace(CROP, crop=(crop, crop)), height, width) < 2


def test_crop_that_is_wider_than_the_frame() -> None:
    assert misplaced(replace(CROP, crop=(64, 101)), 100, 120) < 2


@settings(max_examples=20, deadline=None)
@given(height=st.integers(60, 200), width=st.integers(60, 200))
def test_letterbox(height: int, width: int) -> None:
    assert misplaced(Letterbox(size=(72, 96), fill=0), height, width) < 2


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(64, 64), (64, 80)])
@pytest.mark.parametrize("frame", [(90, 160), (160, 90), (101, 100)])
def test_timm(mode: str, size: tuple[int, int], frame: tuple[int, int]) -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    transform = TimmTransform(
        input_size=(3, *size), interpolation="bilinear", crop_pct=0.9, crop_mode=mode, **PLAIN
    )
    assert misplaced(transform, *frame) < 2


def test_the_native_transform_is_the_same() -> None:
    assert supports(CROP)
    try:
        native = NativeTransform(CROP)
    except EngineError as error:
        pytest.skip(str(error))
    points = torch.rand(5, 2) * 64
    assert torch.equal(native.undo(points, 90, 160), CROP.undo(points, 90, 160))


def test_a_frame_without_pixels_is_refused() -> None:
    for transform in (CROP, Letterbox(size=(8, 8))):
        with pytest.raises(PreprocessError, match="0x4"):
            transform.undo(torch.zeros(1, 2), 0, 4)
