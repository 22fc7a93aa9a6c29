"""Which frame each sample shows, how many there are, and how chunks divide them."""

from __future__ import annotations

from dataclasses import replace
from doctest import DocTestParser
from fractions import Fraction
from itertools import product
from math import ceil, floor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rrm_extract.video import ClipReader, Sampling, count_chunks, expected_frames, scan_clip
from rrm_extract.video.chunks import count_samples, sample_tick
from tests.clips import write_clip
from tests.video.reading import assert_any_order, read_clip, sampling

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_the_example_of_a_reader(tmp_path: Path) -> None:
    path, pictures = write_clip(tmp_path / "a.mp4", n_frames=30, rate=24), []
    code = "".join(
        example.source for example in DocTestParser().get_examples(ClipReader.__doc__ or "")
    )
    exec(code, {"path": path, "use": pictures.append})
    shown = read_clip(path, sampling(24)).frames
    assert len(pictures) == len(shown) == 30
    for image, frame in zip(pictures, shown, strict=True):
        assert np.array_equal(image, frame.image)


def shown_at(times: list[Fraction], fps: Fraction, count: int) -> list[int]:
    """For each sample the last frame that has begun; `times` in seconds from the first frame."""
    return [
        max(n for n, time in enumerate(times) if time <= Fraction(sample) / fps)
        for sample in range(count)
    ]


@pytest.mark.parametrize(
    ("rate", "fps"),
    [(25, 24), (10, 24), (30, 24), (60, 24), (24, Fraction(24000, 1001)), (Fraction(5, 2), 24)],
)
@pytest.mark.parametrize("suffix", ["mp4", "avi"])
def test_resampling(tmp_path: Path, rate: Fraction | int, fps: Fraction | int, suffix: str) -> None:
    path = write_clip(tmp_path / f"a.{suffix}", n_frames=30, rate=rate, b_frames=2)
    result = read_clip(path, sampling(fps))
    count = ceil(Fraction(30) / Fraction(rate) * Fraction(fps))
    times = [Fraction(n) / Fraction(rate) for n in range(30)]
    assert result.numbers == shown_at(times, Fraction(fps), count)
    assert [frame.frame_index for frame in result.frames] == result.numbers
    assert [frame.sample_index for frame in result.frames] == list(range(count))
    assert [frame.timestamp for frame in result.frames] == [
        float(Fraction(n) / Fraction(fps)) for n in range(count)
    ]


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30000, 1001)])
@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv", "ts"])
def test_non_integer_rate(tmp_path: Path, rate: Fraction, suffix: str) -> None:
    path = write_clip(tmp_path / f"a.{suffix}", n_frames=48, rate=rate)
    result = read_clip(path, sampling(rate))
    assert result.numbers == list(range(48))


@pytest.mark.parametrize("suffix", ["mkv", "flv"])
def test_clock_of_milliseconds_loses_no_frame(tmp_path: Path, suffix: str) -> None:
    path = write_clip(tmp_path / f"a.{suffix}", n_frames=60, rate=24)
    assert scan_clip(path).time_base == Fraction(1, 1000)
    assert read_clip(path).numbers == list(range(60))


def write_coarse(path: Path, *, n_frames: int, rate: Fraction | int) -> Path:
    """A GIF, or a QuickTime file with that format's own clock of 1/600 s."""
    if path.suffix == ".gif":
        return write_clip(path, n_frames=n_frames, rate=rate, codec="gif", pixel_format="gray")
    ticks = {"video_track_timescale": "600"}
    return write_clip(path, n_frames=n_frames, rate=rate, b_frames=2, container_options=ticks)


@pytest.mark.parametrize("n_frames", [1, 2, 3, 4, 23, 60])
@pytest.mark.parametrize(
    ("suffix", "rate"),
    [
        ("gif", 24),
        ("gif", 25),
        ("gif", 15),
        ("gif", Fraction(30000, 1001)),
        ("mov", 24),
        ("mov", Fraction(30000, 1001)),
    ],
)
def test_coarse_clock_loses_no_frame(
    tmp_path: Path, suffix: str, rate: Fraction | int, n_frames: int
) -> None:
    path = write_coarse(tmp_path / f"a.{suffix}", n_frames=n_frames, rate=rate)
    assert scan_clip(path).time_base == {"gif": Fraction(1, 100), "mov": Fraction(1, 600)}[suffix]
    assert read_clip(path, sampling(rate)).numbers == list(range(n_frames))
    assert_any_order(path, sampling(rate, chunk=Fraction(1, 2)))


@pytest.mark.parametrize(("suffix", "rate"), [("gif", 10), ("gif", 25), ("mov", 25), ("mov", 30)])
def test_coarse_clock_that_suits_the_frames_is_exact(
    tmp_path: Path, suffix: str, rate: int
) -> None:
    path = write_coarse(tmp_path / f"a.{suffix}", n_frames=49, rate=rate)
    times = [Fraction(n, rate) for n in range(49)]
    for fps in (Fraction(24), Fraction(24000, 1001)):
        count = ceil(Fraction(49, rate) * fps)
        assert read_clip(path, sampling(fps)).numbers == shown_at(times, fps, count)


@pytest.mark.parametrize("round_time", [floor, round, ceil])
@pytest.mark.parametrize("rate", [24, 25, 15, 50, Fraction(30000, 1001), Fraction(25, 2)])
@pytest.mark.parametrize("ticks", [100, 120, 600])
def test_rounding_of_times_loses_no_frame(
    tmp_path: Path,
    ticks: int,
    rate: Fraction | int,
    round_time: Callable[[Fraction], int],
) -> None:
    """However a program rounds, and wherever its first time is."""
    info = scan_clip(write_clip(tmp_path / "a.mp4", n_frames=1))
    step = Fraction(ticks) / rate
    for n_frames, phase in product((1, 2, 5, 24, 50), (Fraction(0), Fraction(49, 100))):
        times = np.array([round_time(n * step + phase) for n in range(n_frames)])
        last = int(times[-1] - times[-2]) if n_frames > 1 else ceil(step)
        span = int(times[-1] - times[0]) + last
        packets = replace(
            info.packets,
            stamps=times,
            sizes=np.ones(n_frames, dtype=np.int32),
            hidden=np.zeros(n_frames, dtype=np.bool_),
            span=span,
            frame_span=round(step),
        )
        time_base = Fraction(1, ticks)
        clip = replace(info, packets=packets, time_base=time_base, duration=span * time_base)
        count = count_samples(clip, sampling(rate))
        limits = [sample_tick(clip, Fraction(rate), sample) for sample in range(count)]
        shown = np.searchsorted(packets.ticks, limits, side="right") - 1
        assert shown.tolist() == list(range(n_frames))


@pytest.mark.parametrize("suffix", ["mp4", "avi", "ts", "mkv"])
def test_ten_seconds_are_240_samples(tmp_path: Path, suffix: str) -> None:
    path = write_clip(tmp_path / f"a.{suffix}", n_frames=250, rate=25, size=(16, 16))
    info = scan_clip(path)
    assert expected_frames(info, sampling(24)) == 240
    assert count_chunks(info, sampling(24)) == 1
    assert count_chunks(info, sampling(24, chunk=3)) == 4


def test_variable_frame_rate(tmp_path: Path) -> None:
    times = [0, 100, 150, 400, 900, 1000]
    path = write_clip(
        tmp_path / "a.mp4", n_frames=6, times=times, time_base=Fraction(1, 1000), b_frames=2
    )
    result = read_clip(path)
    expected = shown_at([Fraction(t, 1000) for t in times], Fraction(24), len(result.frames))
    assert result.numbers == expected
    assert len(result.frames) >= 24
    assert_any_order(path, sampling(24, chunk=Fraction(1, 6)))


def test_native_gives_each_frame_once(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", n_frames=33, rate=30, b_frames=2)
    result = read_clip(path, sampling(None, chunk=Fraction(1, 2)))
    assert result.numbers == list(range(33))
    assert [frame.timestamp for frame in result.frames] == pytest.approx(
        [n / 30 for n in range(33)], abs=1e-9
    )


def test_native_chunks_hold_the_frames_of_their_time(tmp_path: Path) -> None:
    times = [0, 499, 500, 1700, 1999]
    path = write_clip(tmp_path / "a.mp4", n_frames=5, times=times, time_base=Fraction(1, 1000))
    chunks = assert_any_order(path, sampling(None, chunk=Fraction(1, 2)))
    assert [chunk.numbers for chunk in chunks] == [[0, 1], [2], [], [3, 4]]


def test_one_frame(tmp_path: Path) -> None:
    for suffix, codec in (("mp4", "libx264"), ("avi", "mpeg4"), ("mkv", "ffv1")):
        path = write_clip(tmp_path / f"one.{suffix}", n_frames=1, codec=codec)
        assert read_clip(path).numbers == [0]
        assert read_clip(path, sampling(None)).numbers == [0]


def test_chunk_shorter_than_a_sample_has_one(tmp_path: Path) -> None:
    setting = sampling(2, chunk=Fraction(1, 100))
    assert setting.frames_per_chunk == 1
    path = write_clip(tmp_path / "a.mp4", n_frames=48)
    assert [len(chunk.frames) for chunk in assert_any_order(path, setting)] == [1, 1, 1, 1]


def test_frame_shown_twice_is_one_image(tmp_path: Path) -> None:
    frames = read_clip(write_clip(tmp_path / "a.mp4", n_frames=4, rate=12)).frames
    assert frames[0].image is frames[1].image
    assert frames[1].image is not frames[2].image


@pytest.mark.parametrize("fps", [0, -1])
def test_fps_fails(fps: int) -> None:
    with pytest.raises(ValueError, match="expected a positive number"):
        Sampling(fps=Fraction(fps))


def test_chunk_fails() -> None:
    with pytest.raises(ValueError, match="expected a positive number"):
        Sampling(chunk=Fraction(0))


def test_frames_per_native_chunk_fails() -> None:
    with pytest.raises(ValueError, match="native"):
        _ = Sampling(fps=None).frames_per_chunk
