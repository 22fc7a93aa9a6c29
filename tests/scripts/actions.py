"""A small dataset of moving patterns, one folder for each class."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

CLASSES = ("Checks", "Falling", "Rings", "Sliding")
SIZE = 64
RATE = 8

Pixels = npt.NDArray[np.float64]


def pattern(name: str, x: Pixels, y: Pixels, shift: float) -> Pixels:
    """A class's picture, (H, W) in -1..1; its colours and phase are each clip's own."""
    wave = 2 * np.pi / 16
    if name == "Sliding":
        return np.sin(wave * (x - shift))
    if name == "Falling":
        return np.sin(wave * (y - shift))
    if name == "Checks":
        return np.sign(np.sin(wave * (x - shift)) * np.sin(wave * (y - shift)))
    return np.sin(wave * (np.hypot(x - SIZE / 2, y - SIZE / 2) - shift))


def write_action(path: Path, name: str, *, seed: int, frames: int = 8) -> Path:
    """Encodes a clip of a class, of 8 frames a second."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(float)
    low, high = rng.uniform(20, 60, 3), rng.uniform(190, 235, 3)
    phase, speed = rng.uniform(0, 16), rng.uniform(0.5, 1.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for index in range(frames):
            share = (pattern(name, x, y, phase + speed * index)[..., None] + 1) / 2
            picture = low + share * (high - low) + rng.normal(0, 2, (SIZE, SIZE, 1))
            frame = av.VideoFrame.from_ndarray(
                picture.clip(0, 255).astype(np.uint8), format="rgb24"
            )
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_actions(folder: Path, *, clips: int = 6) -> Path:
    """All classes, named as UCF-101 names its files."""
    for number, name in enumerate(CLASSES):
        for clip in range(clips):
            path = folder / name / f"v_{name}_g{clip + 1:02d}_c01.avi"
            write_action(path, name, seed=100 * number + clip)
    return folder
