"""Timestamps: missing, guessed, unordered, repeated, jumping."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rrm_extract.video import scan_clip
from rrm_extract.video._clock import _places_to_be
from rrm_extract.video._decode import FrameStream
from rrm_extract.video._packets import _frame_numbers
from rrm_extract.video._seek import Start
from tests.clips import NOT_CODED, remux, replace_packets, write_clip, write_edit_list
from tests.fields import write_bare_fields, write_fields
from tests.video.reading import assert_any_order, read_clip, sampling

if TYPE_CHECKING:
    from pathlib import Path

    import av

MP4_FRAME = 512
"""One frame of 24 per second in the time base that the MP4 muxer chooses, 1/12288 s."""


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mov", "mpeg4"),
        ("a.mkv", "libx264"),
        ("a.ts", "libx264"),
        ("b.ts", "mpeg2video"),
        ("a.mpg", "mpeg2video"),
        ("a.flv", "libx264"),
        ("a.avi", "libx264"),
        ("b.avi", "mpeg4"),
        ("a.h264", "libx264"),
        ("a.webm", "libvpx-vp9"),
    ],
)
def test_b_frames_and_the_last_frames(tmp_path: Path, name: str, codec: str) -> None:
    b_frames = 0 if codec == "libvpx-vp9" else 3
    path = write_clip(tmp_path / name, codec=codec, n_frames=40, b_frames=b_frames)
    result = read_clip(path)
    assert result.reason is None
    assert result.numbers == list(range(40))
    assert [frame.frame_index for frame in result.frames] == list(range(40))


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_avi_frames_have_decoding_times_in_order(tmp_path: Path, codec: str) -> None:
    # FFmpeg's presentation times for this file are guesses, and out of order.
    path = write_clip(tmp_path / "a.avi", codec=codec, n_frames=40, b_frames=2)
    assert scan_clip(path).timestamps == "dts"
    result = read_clip(path, sampling(None))
    assert [frame.pts for frame in result.frames] == list(range(40))


def test_packet_without_a_frame_shows_the_frame_before(tmp_path: Path) -> None:
    # An MPEG-4 picture that says "not coded" is how encoders in AVI files repeat a frame.
    plain = write_clip(tmp_path / "a.avi", codec="mpeg4", n_frames=12)
    path = replace_packets(plain, tmp_path / "b.avi", numbers=(4, 5), data=NOT_CODED)
    result = read_clip(path)
    assert result.reason is None
    assert len(result.frames) == 12
    assert result.numbers[:6] == [0, 1, 2, 3, 3, 3]
    assert result.frames[6].frame_index == 6
    assert_any_order(path, sampling(24, chunk=Fraction(1, 8)))


def test_missing_pts_falls_back_to_the_rate(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.h264", n_frames=30, rate=12, b_frames=2)
    assert scan_clip(path).timestamps == "rate"
    assert read_clip(path, sampling(12)).numbers == list(range(30))
    assert_any_order(path, sampling(24, chunk=Fraction(1, 2)))


@pytest.mark.parametrize("suffix", ["mkv", "ts"])
def test_unordered_pts_are_taken_in_order(tmp_path: Path, suffix: str) -> None:
    plain = write_clip(tmp_path / "a.mp4", n_frames=40)

    def swap_pairs(number: int, packet: av.Packet) -> av.Packet:
        packet.pts = (20 + (number ^ 1)) * MP4_FRAME
        return packet

    path = remux(plain, tmp_path / f"b.{suffix}", edit=swap_pairs)
    result = read_clip(path)
    assert result.numbers == list(range(40))
    base = scan_clip(path).time_base
    first = result.frames[0]
    for frame in result.frames:
        passed = float((frame.pts - first.pts) * base)
        assert passed == pytest.approx(frame.timestamp - first.timestamp, abs=2e-3)
    assert_any_order(path, sampling(24, chunk=Fraction(1, 2)))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_pts_copied_from_dts_are_taken_in_order(tmp_path: Path, suffix: str) -> None:
    plain = write_clip(tmp_path / "a.mp4", n_frames=40, b_frames=2)

    def forget_pts(_: int, packet: av.Packet) -> av.Packet:
        packet.dts += 10 * MP4_FRAME
        packet.pts = packet.dts
        return packet

    path = remux(plain, tmp_path / f"b.{suffix}", edit=forget_pts)
    assert read_clip(path).numbers == list(range(40))
    assert_any_order(path, sampling(24, chunk=Fraction(1, 2)))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_frame_that_claims_to_be_early_takes_the_place_before(tmp_path: Path, suffix: str) -> None:
    plain = write_clip(tmp_path / "a.mp4", n_frames=30, b_frames=2)

    def delay_some(number: int, packet: av.Packet) -> av.Packet:
        packet.pts += 10 * MP4_FRAME + (2 * MP4_FRAME if number % 7 == 3 else 0)
        packet.dts += 10 * MP4_FRAME
        return packet

    path = remux(plain, tmp_path / f"b.{suffix}", edit=delay_some)
    result = read_clip(path)
    assert result.numbers == sorted(result.numbers)
    assert len(set(result.numbers)) > 15
    assert_any_order(path, sampling(24, chunk=Fraction(1, 4)))


def test_repeated_pts_show_the_later_frame(tmp_path: Path) -> None:
    plain = write_clip(tmp_path / "a.mp4", n_frames=20)

    def repeat(number: int, packet: av.Packet) -> av.Packet:
        packet.pts = (10 + number - (number % 5 == 3)) * MP4_FRAME
        return packet

    path = remux(plain, tmp_path / "b.mkv", edit=repeat)
    assert read_clip(path).numbers[:8] == [0, 1, 3, 3, 4, 5, 6, 8]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts", "mpg"])
def test_late_start_counts_from_the_first_frame(tmp_path: Path, suffix: str) -> None:
    path = write_clip(
        tmp_path / f"a.{suffix}",
        codec="mpeg2video" if suffix == "mpg" else "libx264",
        n_frames=30,
        b_frames=2,
        times=range(120, 150),
        time_base=Fraction(1, 24),
    )
    result = read_clip(path)
    assert result.reason is None
    assert result.numbers == list(range(30))
    assert result.frames[0].timestamp == 0


def test_joined_files_go_on(tmp_path: Path) -> None:
    one = write_clip(tmp_path / "a.ts", n_frames=30, b_frames=2)
    two = write_clip(tmp_path / "b.ts", n_frames=30, b_frames=2, first_number=100)
    path = tmp_path / "c.ts"
    path.write_bytes(one.read_bytes() + two.read_bytes() + one.read_bytes())
    expected = [*range(30), *range(100, 130), *range(30)]
    assert scan_clip(path).duration == Fraction(90, 24)
    assert read_clip(path).numbers == expected
    assert_any_order(path, sampling(24, chunk=Fraction(1, 2)))


def test_broadcast_begins_at_its_first_key_frame(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "a.ts", n_frames=30, b_frames=2).read_bytes()
    path = tmp_path / "b.ts"
    path.write_bytes(whole[len(whole) // 376 * 188 :])
    result = read_clip(path)
    assert result.reason is None
    assert result.numbers == list(range(12, 30))
    assert result.frames[0].frame_index == 0


def test_absurd_time_does_not_last_for_years(tmp_path: Path) -> None:
    plain = write_clip(tmp_path / "a.mp4", n_frames=20, rate=25)

    def leap(number: int, packet: av.Packet) -> av.Packet:
        if number >= 10:
            packet.pts += 10**9 * MP4_FRAME
            packet.dts += 10**9 * MP4_FRAME
        return packet

    path = remux(plain, tmp_path / "b.mkv", edit=leap)
    assert read_clip(path, sampling(25)).numbers == list(range(20))


LATE = 60 * 24 * MP4_FRAME


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("number", [10, 11, 12, 13, 24])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_one_time_far_too_late_harms_no_other(
    tmp_path: Path, suffix: str, number: int, b_frames: int
) -> None:
    plain = write_clip(tmp_path / "a.mp4", n_frames=48, b_frames=b_frames)

    def delay(place: int, packet: av.Packet) -> av.Packet:
        packet.pts += LATE if place == number else 0
        return packet

    path = remux(plain, tmp_path / f"b.{suffix}", edit=delay)
    assert round(scan_clip(path).duration * 24) == 48
    assert read_clip(path).numbers == list(range(48))
    assert_any_order(path, sampling(24, chunk=Fraction(1, 2)))


@pytest.mark.parametrize(("suffix", "b_frames"), [("ts", 0), ("ts", 2), ("mkv", 0), ("mkv", 2)])
def test_one_time_far_too_early_harms_no_other(tmp_path: Path, suffix: str, b_frames: int) -> None:
    """All others are late, for muxers refuse times before decoding."""
    plain = write_clip(tmp_path / "a.mp4", n_frames=48, b_frames=b_frames)

    def hurry(place: int, packet: av.Packet) -> av.Packet:
        packet.pts += LATE if place != 20 else 0
        return packet

    path = remux(plain, tmp_path / f"b.{suffix}", edit=hurry)
    assert round(scan_clip(path).duration * 24) == 48
    numbers = read_clip(path).numbers
    # Matroska has no decoding times that would say where in its group the frame belongs.
    assert numbers[:16] + numbers[24:] == [*range(16), *range(24, 48)]
    assert all(abs(number - place) <= (suffix == "mkv") for place, number in enumerate(numbers))
    assert_any_order(path, sampling(24, chunk=Fraction(1, 2)))


def test_several_broken_times(tmp_path: Path) -> None:
    plain = write_clip(tmp_path / "a.mp4", n_frames=96, b_frames=2)

    def scatter(place: int, packet: av.Packet) -> av.Packet:
        packet.pts += LATE + place * MP4_FRAME if place in (10, 11, 40, 60) else 0
        return packet

    path = remux(plain, tmp_path / "b.mp4", edit=scatter)
    numbers = read_clip(path).numbers
    assert len(numbers) == 96
    assert numbers == sorted(numbers)
    assert all(abs(number - place) <= 3 for place, number in enumerate(numbers))
    assert_any_order(path, sampling(24, chunk=Fraction(1, 2)))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_delay_of_all_frames_is_no_broken_time(tmp_path: Path, suffix: str) -> None:
    plain = write_clip(tmp_path / "a.mp4", n_frames=48, b_frames=2)

    def delay(_: int, packet: av.Packet) -> av.Packet:
        packet.pts += LATE
        return packet

    path = remux(plain, tmp_path / f"b.{suffix}", edit=delay)
    assert not len(scan_clip(path).packets.jump_at)
    assert read_clip(path).numbers == list(range(48))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_frames_that_stand_for_minutes_have_no_broken_times(tmp_path: Path, suffix: str) -> None:
    """Their decoding times are those of frames before: far from their own."""
    times = [*range(30), *(30 + 24 * 200 * step for step in range(1, 4)), *range(15000, 15030)]
    path = write_clip(
        tmp_path / f"a.{suffix}",
        n_frames=len(times),
        b_frames=3,
        gop=100,
        times=times,
        time_base=Fraction(1, 24),
    )
    info = scan_clip(path)
    assert not len(info.packets.jump_at)
    assert sorted(round(tick * info.time_base * 24) for tick in info.packets.ticks) == times


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "nut", "ts"])
def test_a_frame_that_stands_for_long_is_no_new_beginning(tmp_path: Path, suffix: str) -> None:
    """Matroska has no decoding times for the first frames where some are reordered."""
    times = [*range(20), *range(60, 80)]
    path = write_clip(
        tmp_path / f"a.{suffix}",
        n_frames=40,
        b_frames=2,
        gop=40,
        times=times,
        time_base=Fraction(1, 24),
    )
    assert not len(scan_clip(path).packets.jump_at)
    assert round(scan_clip(path).duration * 24) == 80
    shown = [*range(20), *[19] * 40, *range(20, 40)]
    assert read_clip(path).numbers == shown
    assert_any_order(path, sampling(24, chunk=Fraction(1, 2)))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_one_frame_a_second_with_b_frames(tmp_path: Path, suffix: str) -> None:
    path = write_clip(tmp_path / f"a.{suffix}", n_frames=12, rate=1, b_frames=3)
    result = read_clip(path, sampling(None))
    assert result.numbers == list(range(12))
    assert [round(frame.timestamp) for frame in result.frames] == list(range(12))


@pytest.mark.parametrize("b_frames", [0, 2])
def test_segments_of_an_edit_list_follow_each_other(tmp_path: Path, b_frames: int) -> None:
    """The second one begins in the middle of a group, whose frames before are decoded for it."""
    plain = write_clip(tmp_path / "a.mp4", n_frames=120, gop=120, b_frames=b_frames)
    path = tmp_path / "b.mp4"
    delay = Fraction(b_frames > 0, 12)  # of the first frame shown, which the muxer leaves out
    write_edit_list(plain, path, [(1, delay), (1, delay + 3)])
    assert not len(scan_clip(path).packets.jump_at)
    numbers = read_clip(path).numbers
    # FFmpeg shows the second segment as much later as frames are delayed.
    assert len(numbers) == 48 + b_frames
    assert list(dict.fromkeys(numbers)) == [*range(24), *range(72, 96)]
    assert_any_order(path, sampling(24, chunk=Fraction(1, 2)))


def test_an_edit_list_may_begin_with_nothing(tmp_path: Path) -> None:
    plain = write_clip(tmp_path / "a.mp4", n_frames=72)
    path = tmp_path / "b.mp4"
    write_edit_list(plain, path, [(1, None), (2, Fraction(0))])
    assert scan_clip(path).damage == ""
    result = read_clip(path)
    assert (result.numbers, result.reason) == (list(range(48)), None)


@pytest.mark.parametrize(
    ("times", "earliest", "place"),
    [
        ([*range(0, 592 + 16, 16), *range(624, 1001, 16), 1500, 2000], 608, 608),  # a fast stretch
        ([0, 3000, 4500, 7500, 13500, 16500], 7500, 10500),  # a short step beside usual ones
        ([0, 60, 120, 240, 300], 150, 180),
        ([0, 60, 120, 180], 100, 100),  # no gap
        ([0, 60], 30, 30),
    ],
)
def test_a_broken_time_goes_where_a_frame_is_missing(
    times: list[int], earliest: int, place: int
) -> None:
    usual = 3000 if times[1] == 3000 else 60
    found = _places_to_be(np.array(times), np.array([earliest]), usual=usual)
    assert found.tolist() == [place]


@pytest.mark.parametrize("fps", [None, 25])
def test_fields_that_share_a_time(tmp_path: Path, fps: int | None) -> None:
    path = tmp_path / "fields.ts"
    write_fields(path, n_frames=30)
    info = scan_clip(path)
    assert (info.timestamps, float(info.duration)) == ("pts", pytest.approx(1.2))
    frames = read_clip(path, sampling(fps)).frames
    assert [float(frame.timestamp) for frame in frames] == pytest.approx(
        [n / 25 for n in range(30)]
    )
    levels = [int(frame.image[0, 0, 0]) for frame in frames]
    assert np.all(np.diff(levels) > 0)
    assert_any_order(path, sampling(fps, chunk=Fraction(2, 5)))


@pytest.mark.parametrize("held_back", [0, 2])
def test_fields_without_times_make_frames(tmp_path: Path, held_back: int) -> None:
    path = tmp_path / "fields.h264"
    write_bare_fields(path, n_frames=30, held_back=held_back)
    info = scan_clip(path)
    assert (info.timestamps, info.duration) == ("rate", Fraction(30, 25))
    levels = levels_of(path)
    assert len(levels) == 30
    assert np.all(np.diff(levels) > 0)
    assert_any_order(path, sampling(25, chunk=Fraction(2, 5)))


@pytest.mark.parametrize(
    ("n_frames", "held_back", "padded"),
    [(12, 2, [2]), (12, 3, [3]), (12, 3, [1]), (2, 4, []), (4, 4, [1]), (5, 4, []), (6, 4, [2])],
)
def test_fields_that_are_held_back_make_frames(
    tmp_path: Path, n_frames: int, held_back: int, padded: list[int]
) -> None:
    path = tmp_path / "fields.h264"
    write_bare_fields(path, n_frames=n_frames, held_back=held_back, padded=padded)
    levels = levels_of(path)
    assert len(levels) == n_frames
    assert np.all(np.diff(levels) > 0)
    stream = FrameStream(scan_clip(path), Start())
    assert [frame.ordinal for frame in stream.frames()] == list(range(0, 2 * n_frames, 2))
    assert stream._inside.oldest is None, "nothing is waited for that has come"


def levels_of(path: Path) -> list[int]:
    """Of a pixel in each frame."""
    return [int(frame.image[0, 0, 0]) for frame in read_clip(path, sampling(25)).frames]


def test_fields_and_frames_may_alternate() -> None:
    durations = np.array([2, 1, 1, 2, 2, 1, 1, 1, 1, 2])
    assert _frame_numbers(durations, 1).tolist() == [0, 1, 1, 2, 3, 4, 4, 5, 5, 6]
    assert _frame_numbers(durations, 0).tolist() == list(range(10))


@pytest.mark.parametrize("lost", [[7], [7, 8], [0], [29], [3, 10, 20]])
def test_packets_without_a_time_among_others(tmp_path: Path, lost: list[int]) -> None:
    """As where a broadcast has lost a few bytes."""
    path, whole = tmp_path / "lost.ts", tmp_path / "whole.ts"
    write_fields(path, n_frames=30, unstamped=lost)
    write_fields(whole, n_frames=30)
    assert scan_clip(path).timestamps == "pts"
    frames, expected = (read_clip(one, sampling(None)).frames for one in (path, whole))
    for frame, one in zip(frames, expected, strict=True):
        assert float(frame.timestamp) == pytest.approx(float(one.timestamp), abs=0.021)
        assert np.array_equal(frame.image, one.image)
