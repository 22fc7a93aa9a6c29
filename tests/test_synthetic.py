"""The clip that the package makes itself."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from rrm_extract.errors import UsageError
from rrm_extract.video.synthetic import write_demo_clip


def _decode(path: Path) -> np.ndarray:
    """All frames, (T, H, W, 3) uint8 RGB."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_length_rate_and_size(tmp_path):
    path = write_demo_clip(
        tmp_path / "new folder" / "clip é.mp4",
        seconds=1.5,
        fps=Fraction(30000, 1001),
        size=(96, 64),
    )
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)
        times = [frame.time for frame in container.decode(video=0)]
    assert _decode(path).shape == (45, 64, 96, 3)
    assert times == pytest.approx([i * 1001 / 30000 for i in range(45)], abs=1e-3)


def test_default_is_four_seconds_at_24(tmp_path):
    assert _decode(write_demo_clip(tmp_path / "clip.mp4")).shape == (96, 240, 320, 3)


@pytest.mark.parametrize("extension", [".mp4", ".mkv", ".avi", ".mov"])
def test_containers(tmp_path, extension):
    path = write_demo_clip(tmp_path / f"clip{extension}", seconds=0.25, size=(64, 48))
    assert len(_decode(path)) == 6


def test_same_arguments_give_same_bytes(tmp_path):
    first = write_demo_clip(tmp_path / "a.mp4", seconds=0.5, size=(64, 48))
    again = write_demo_clip(tmp_path / "b.mp4", seconds=0.5, size=(64, 48))
    other = write_demo_clip(tmp_path / "c.mp4", seconds=0.5, size=(64, 48), seed=1)
    assert first.read_bytes() == again.read_bytes()
    assert not np.array_equal(_decode(first), _decode(other))


def test_bytes_do_not_depend_on_what_memory_holds(tmp_path):
    """Some of x264's searches read memory that nobody has written."""
    random = np.random.default_rng(0)
    contents = set()
    for _ in range(8):
        _ = random.integers(0, 255, random.integers(1, 1_000_000), dtype=np.uint8)
        path = write_demo_clip(tmp_path / "a.mp4", seconds=10, size=(64, 48), seed=11)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_background_stands_still_and_shapes_move(tmp_path):
    frames = _decode(write_demo_clip(tmp_path / "clip.mp4", seconds=1)).astype(np.int16)
    changed = np.abs(frames[-1] - frames[0]).max(axis=-1) > 40
    assert 0.01 < changed.mean() < 0.3
    # Texture and noise are there: a flat or an exactly repeated picture would be no test of RRM.
    still = ~changed
    assert frames[0][still].std() > 15
    assert (frames[-1] != frames[0])[still].mean() > 0.1


def test_an_existing_file_is_replaced(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"old")
    write_demo_clip(path, seconds=0.25, size=(64, 48))
    assert len(_decode(path)) == 6
    assert [item.name for item in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0}, "0 seconds at 24 frames/s is no frame"),
        ({"seconds": float("nan")}, "is no frame"),
        ({"seconds": float("inf")}, "is no frame"),
        ({"fps": 0}, "is no frame"),
        ({"size": (65, 48)}, "size is 65x48, expected two even numbers"),
        ({"size": (64, 0)}, "size is 64x0"),
    ],
)
def test_arguments_fails(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        write_demo_clip(tmp_path / "clip.mp4", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["clip.docx", "clip"])
def test_container_fails(tmp_path, name):
    with pytest.raises(UsageError, match="names no container"):
        write_demo_clip(tmp_path / name, seconds=0.25, size=(64, 48))
    assert list(tmp_path.iterdir()) == []


def test_folder_fails(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_demo_clip(tmp_path / "file" / "clip.mp4", seconds=0.25, size=(64, 48))


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rrm_extract.video.synthetic", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_command(tmp_path):
    done = _command(str(tmp_path / "a b.mp4"), "--seconds", "0.25")
    assert done.returncode == 0, done.stderr
    assert len(_decode(tmp_path / "a b.mp4")) == 6


def test_command_fails(tmp_path):
    done = _command(str(tmp_path / "clip.mp4"), "--seconds", "-1")
    assert done.returncode == 2
    assert "-1.0 seconds at 24 frames/s is no frame" in done.stderr
    assert "Traceback" not in done.stderr
