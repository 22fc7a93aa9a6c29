"""Frames that move like a video: made here, so that no file is needed."""

from __future__ import annotations

import torch
from torch import Tensor


def moving_frames(frames: int, size: int, *, seed: int = 0) -> Tensor:
    """A textured still background with a square that walks over it, and a little noise.

    Args:
        frames: T.
        size: height and width.
        seed: of the texture and the noise.

    Returns:
        (T, 3, size, size) float32, about standard normal, as after a network's transform.
    """
    generator = torch.Generator().manual_seed(seed)
    background = torch.randn(3, size, size, generator=generator)
    video = background.repeat(frames, 1, 1, 1)
    side = size // 4
    for t in range(frames):
        x, y = (3 * t) % (size - side), (2 * t) % (size - side)
        video[t, :, y : y + side, x : x + side] = 1.5
        rows = slice(0, size // 8)  # one noisy corner
        video[t, :, rows, rows] += 0.02 * torch.randn(3, size // 8, size // 8, generator=generator)
    return video
