"""A small clip made on the spot, for the first run and for tests: no download, no camera.

It has what matters to recurrent inference: a textured background that stands still, a few shapes
that move, and a camera's noise, so that some of every frame is new and most of it is not.

    python -m rrm_extract.video.synthetic clip.mp4
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from rrm_extract.errors import UsageError

__all__ = ["write_demo_clip"]

_NOISE = 1.5
"""Standard deviation of the sensor noise in grey levels of 255; an ordinary camera indoors."""

_Pixels = npt.NDArray[np.float32]


def write_demo_clip(
    path: str | os.PathLike[str],
    *,
    seconds: float = 4.0,
    fps: int | Fraction = 24,
    size: tuple[int, int] = (320, 240),
    seed: int = 0,
) -> Path:
    """Writes a short video of moving shapes before a static background.

    The same arguments give the same pictures; the encoded bytes also depend on the version of
    the encoder (H.264 where PyAV has libx264, else MPEG-4). The file appears whole or not at all.

    Args:
        path: file to write; its extension names the container (.mp4, .mkv, .avi, .mov). Missing
            folders are made.
        seconds: length; the clip has round(seconds * fps) frames.
        fps: frames per second.
        size: (width, height) in pixels, both even.
        seed: another number gives another background, other shapes and other noise.

    Returns:
        The path written.

    Raises:
        UsageError: no frame to write, odd or empty size, or an extension that names no container.
        OSError: the file cannot be written.
    """
    path = Path(path)
    count = round(seconds * fps) if math.isfinite(seconds) and fps > 0 else 0
    width, height = size
    if count < 1:
        raise UsageError(f"{seconds} seconds at {fps} frames/s is no frame, expected at least one")
    if width < 2 or height < 2 or width % 2 or height % 2:
        raise UsageError(f"size is {width}x{height}, expected two even numbers of 2 or more")

    path.parent.mkdir(parents=True, exist_ok=True)
    # The extension stays last, since it is what names the container.
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        _encode(unfinished, _Scene(size=size, seed=seed), count=count, fps=Fraction(fps))
        unfinished.replace(path)
    except ValueError as error:
        if isinstance(error, OSError):
            raise
        raise UsageError(
            f"{path}: {path.suffix or 'no extension'!r} names no container that can be written, "
            "expected .mp4, .mkv, .avi or .mov"
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            unfinished.unlink()
    return path


class _Scene:
    """Pictures of one scene: `frame(0)`, `frame(1)`, ... in any order.

    Args:
        size: (width, height) in pixels.
        seed: what to draw.
    """

    _SHAPES = 3

    def __init__(self, *, size: tuple[int, int], seed: int) -> None:
        self._seed = seed
        width, height = size
        rng = np.random.default_rng(seed)
        self._background = _texture(rng, width=width, height=height)
        y, x = np.mgrid[0:height, 0:width]
        self._y = y.astype(np.float32)  # (H, W) pixels
        self._x = x.astype(np.float32)  # (H, W) pixels
        self._colors = rng.uniform(20, 235, size=(self._SHAPES, 3)).astype(np.float32)
        self._phases = rng.uniform(0, 2 * math.pi, size=(self._SHAPES, 2))
        self._speeds = rng.uniform(0.02, 0.06, size=(self._SHAPES, 2))  # radians a frame

    def frame(self, index: int) -> npt.NDArray[np.uint8]:
        """Picture `index`: (H, W, 3) uint8 RGB."""
        height, width = self._x.shape
        picture = self._background.copy()
        radius = 0.12 * min(height, width)
        for shape in range(self._SHAPES):
            along, down = self._phases[shape] + index * self._speeds[shape]
            dx = np.abs(self._x - (0.5 + 0.35 * math.sin(along)) * width)
            dy = np.abs(self._y - (0.5 + 0.35 * math.sin(down)) * height)
            # A disc, a square and a diamond, in turn.
            distance = (np.hypot(dx, dy), np.maximum(dx, dy), dx + dy)[shape % 3]
            picture[distance < radius] = self._colors[shape]
        noise = np.random.default_rng((self._seed, index)).standard_normal(
            picture.shape, dtype=np.float32
        )
        return np.clip(np.rint(picture + _NOISE * noise), 0, 255).astype(np.uint8)


def _texture(rng: np.random.Generator, *, width: int, height: int) -> _Pixels:
    """Random blotches of several sizes, (H, W, 3) float32 in 0..255."""
    picture = np.full((height, width, 3), 127.0, dtype=np.float32)
    for cell in (4, 16, 64):
        coarse = rng.uniform(-1, 1, size=(height // cell + 2, width // cell + 2, 3))
        picture += 35 * _enlarged(coarse.astype(np.float32), cell=cell)[:height, :width]
    return picture


def _enlarged(coarse: _Pixels, *, cell: int) -> _Pixels:
    """Linear interpolation of (h, w, 3) to ((h - 1) * cell, (w - 1) * cell, 3)."""
    steps: _Pixels = np.linspace(0, 1, cell, endpoint=False, dtype=np.float32)
    step: _Pixels = steps.reshape(1, cell, 1, 1)
    rows: _Pixels = coarse[:-1, None] * (1 - step) + coarse[1:, None] * step
    rows = rows.reshape(-1, *coarse.shape[1:])
    step = steps.reshape(1, 1, cell, 1)
    columns: _Pixels = rows[:, :-1, None] * (1 - step) + rows[:, 1:, None] * step
    return columns.reshape(rows.shape[0], -1, 3)


def _encode(path: Path, scene: _Scene, *, count: int, fps: Fraction) -> None:
    x264 = "libx264" in av.codecs_available
    # The prefix keeps names such as "12:30.mp4" from being taken for a protocol.
    with av.open(f"file:{path.absolute()}", "w") as container:
        stream = container.add_stream("libx264" if x264 else "mpeg4", rate=fps)
        first = scene.frame(0)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        # With macroblock trees, x264's bytes differ from run to run of the same program.
        of_x264: dict[str, object] = {"crf": "20", "preset": "veryfast", "mbtree": "0"}
        stream.options = of_x264 if x264 else {"qscale": "3"}
        stream.codec_context.thread_count = 1  # the bytes then do not depend on the machine
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(scene.frame(index), format="rgb24")
            frame.pts = index
            frame.time_base = 1 / fps
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def main() -> None:
    """Writes a demo clip: `python -m rrm_extract.video.synthetic PATH`."""
    parser = argparse.ArgumentParser(
        prog="python -m rrm_extract.video.synthetic", description="Write a small demo clip."
    )
    parser.add_argument("path", help="file to write, for example clip.mp4")
    parser.add_argument("--seconds", type=float, default=4.0, help="length, for example 10")
    arguments = parser.parse_args()
    try:
        write_demo_clip(arguments.path, seconds=arguments.seconds)
    except (UsageError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
