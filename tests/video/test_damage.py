"""Damaged clips keep their good frames, and say what happened."""

from __future__ import annotations

import os
import random
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest

from rrm_extract.errors import ClipDamagedError, ClipOpenError
from rrm_extract.video import ClipReader, scan_clip
from rrm_extract.video._matroska import is_whole
from tests.clips import (
    NOT_CODED,
    decode_all,
    flip_bytes,
    packet_places,
    remux,
    replace_packets,
    write_clip,
)
from tests.video.avi import write_palette_avi
from tests.video.reading import assert_any_order, read_chunk, read_clip, sampling

if TYPE_CHECKING:
    from pathlib import Path


def write_index_first(path: Path, **options: object) -> Path:
    """An MP4 file that can still be opened when its end is cut off."""
    plain = write_clip(path.with_name("plain.mp4"), **options)  # type: ignore[arg-type]
    with (
        av.open(str(plain)) as old,
        av.open(str(path), "w", options={"movflags": "faststart"}) as new,
    ):
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    plain.unlink()
    return path


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "b.avi"])
def test_truncated_file(tmp_path: Path, name: str) -> None:
    options = {"n_frames": 120, "b_frames": 2, "noise": 20}
    if name == "a.mp4":
        path = write_index_first(tmp_path / name, **options)
    else:
        codec = "mpeg4" if name == "b.avi" else "libx264"
        path = write_clip(tmp_path / name, codec=codec, **options)
    cut(path, 0.6)
    result = read_clip(path)
    assert result.reason is not None
    assert 20 < len(result.frames) < 110
    assert result.numbers == list(range(len(result.frames)))
    assert scan_clip(path).damage
    assert_any_order(path, sampling(24, chunk=Fraction(1, 2)))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("fps", [None, 24])
def test_a_file_cut_off_between_reordered_frames(tmp_path: Path, name: str, fps: int) -> None:
    """The last frames there are may be shown behind some that are lost."""
    options = {"n_frames": 120, "b_frames": 3, "noise": 20, "gop": 24}
    whole = tmp_path / name
    write_index_first(whole, **options) if name == "a.mp4" else write_clip(whole, **options)  # type: ignore[arg-type]
    plain, data = decode_all(whole), whole.read_bytes()
    path = whole.with_stem("cut")
    lengths = set()
    for place, size in packet_places(whole)[60:72]:
        for end in (place + size, place + size // 2):
            path.write_bytes(data[:end])
            result = read_clip(path, sampling(fps))
            assert result.reason is not None
            assert result.numbers == list(range(len(result.frames)))
            for index, frame in enumerate(result.frames):
                assert np.array_equal(frame.image, plain[index])
            lengths.add(len(result.frames))
        assert_any_order(path, sampling(24, chunk=Fraction(1, 2)))
    assert max(lengths) - min(lengths) > 8
    assert max(lengths) <= 72


def test_undamaged_file_has_no_reason(tmp_path: Path) -> None:
    path = write_index_first(tmp_path / "a.mp4", n_frames=120, b_frames=2, noise=20)
    assert read_clip(path).reason is None
    assert scan_clip(path).damage == ""


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("avi", "mpeg4")])
def test_broken_packet_ends_the_clip(tmp_path: Path, suffix: str, codec: str) -> None:
    path = write_clip(tmp_path / f"a.{suffix}", codec=codec, n_frames=120, b_frames=2, noise=20)
    plain = decode_all(path)
    place, size = packet_places(path)[50]
    flip_bytes(path, range(place, place + min(size, 12)))
    result = read_clip(path)
    assert result.reason is not None
    assert "packet 51 of 120" in result.reason
    assert 45 <= len(result.frames) <= 51
    for number, frame in enumerate(result.frames):
        assert np.array_equal(frame.image, plain[number])
    assert_any_order(path, sampling(24, chunk=Fraction(1, 2)))


def test_chunks_before_the_damage_are_whole(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", n_frames=120, b_frames=2, noise=20)
    place, _ = packet_places(path)[50]
    flip_bytes(path, range(place, place + 12))
    setting = sampling(24, chunk=1)
    with ClipReader(scan_clip(path), setting) as reader:
        parts = [read_chunk(reader, chunk) for chunk in range(3)]
        assert reader.n_decode_errors == 1
    assert [part.reason is None for part in parts] == [True, True, False]
    assert [len(part.frames) for part in parts[:2]] == [24, 24]


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("mkv", "libx264")])
def test_frames_made_from_a_broken_one_are_not_given(
    tmp_path: Path, suffix: str, codec: str
) -> None:
    # A flipped P-frame is only found broken after the B-frames made from it came out.
    path = write_clip(tmp_path / f"a.{suffix}", codec=codec, n_frames=60, b_frames=3, noise=30)
    plain = decode_all(path)
    whole = path.read_bytes()
    n_damaged = 0
    for number, (place, size) in enumerate(packet_places(path)[20:36]):
        path.write_bytes(whole)
        flip_bytes(path, range(place + size // 4, place + size // 4 + 60, 3))
        result = read_clip(path)
        n_damaged += result.reason is not None
        if result.reason is None:
            continue  # the decoder did not notice: nothing can be done
        assert f"packet {number + 21} of 60" in result.reason
        for index, frame in enumerate(result.frames):
            assert np.array_equal(frame.image, plain[index])
    assert n_damaged > 8


@pytest.mark.parametrize("share", [Fraction(0), Fraction(3, 4)])
def test_errors_before_the_first_good_frame_are_skipped(tmp_path: Path, share: Fraction) -> None:
    path = write_clip(tmp_path / "a.mp4", n_frames=60, b_frames=2, noise=20)
    place, size = packet_places(path)[0]
    flip_bytes(path, range(place + int(share * size), place + size))
    with ClipReader(scan_clip(path), sampling()) as reader:
        part = read_chunk(reader, 0)
        assert reader.n_decode_errors >= 1
    assert part.reason is None
    # The first frame that can be decoded is the second key frame; it stands for those before.
    assert part.numbers == [12] * 12 + list(range(12, 60))
    assert_any_order(path, sampling(24, chunk=Fraction(1, 4)))


def test_nothing_is_made_up_without_the_first_key_frame(tmp_path: Path) -> None:
    # This decoder would go on with the next P-frame, from what it has.
    path = write_clip(tmp_path / "a.mp4", codec="mpeg2video", n_frames=60, noise=20)
    plain = decode_all(path)
    place, size = packet_places(path)[0]
    flip_bytes(path, range(place + size // 10, place + size))
    frames = read_clip(path).frames
    assert [frame.frame_index for frame in frames] == [12] * 12 + list(range(12, 60))
    assert all(np.array_equal(frame.image, plain[frame.frame_index]) for frame in frames)


def test_mpeg4_begins_at_its_first_whole_key_frame(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.avi", codec="mpeg4", n_frames=60, noise=20)
    place, size = packet_places(path)[0]
    flip_bytes(path, range(place, place + size))
    assert read_clip(path).numbers == list(range(12, 60))
    assert_any_order(path, sampling(24, chunk=Fraction(1, 4)))


def test_damage_between_samples_harms_none(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", n_frames=90, rate=30, gop=30, noise=20)
    places = packet_places(path)
    flip_bytes(path, range(places[27][0] + 4, sum(places[27])))
    chunks = assert_any_order(path, sampling(5, chunk=1))
    assert [chunk.reason for chunk in chunks] == [None] * 3
    assert [number for chunk in chunks for number in chunk.numbers] == list(range(0, 90, 6))
    assert read_clip(path, sampling(30, chunk=1)).reason is not None


def test_swallowed_end_is_damage(tmp_path: Path) -> None:
    options = {"x265-params": "log-level=none"}
    plain = write_clip(tmp_path / "a.mp4", codec="libx265", n_frames=48, options=options)
    unknown = b"\0\0\0\xc8\x60\x01" + b"\xaa" * 198  # a unit of a type that decoders ignore
    path = replace_packets(plain, tmp_path / "b.mp4", numbers=range(24, 48), data=unknown)
    result = read_clip(path)
    assert result.reason is not None
    assert "no frame came out of the last 24 packets" in result.reason
    assert result.numbers == list(range(24))


def test_repeated_end_is_no_damage(tmp_path: Path) -> None:
    plain = write_clip(tmp_path / "a.avi", codec="mpeg4", n_frames=48)
    path = replace_packets(plain, tmp_path / "b.avi", numbers=range(24, 48), data=NOT_CODED)
    result = read_clip(path)
    assert result.reason is None
    assert result.numbers == [*range(24), *[23] * 24]


def test_other_file_under_the_same_name_fails(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", n_frames=48, noise=20)
    info = scan_clip(path)
    other = write_clip(tmp_path / "b.mp4", n_frames=48, noise=10).read_bytes()
    path.write_bytes(other.ljust(info.source_size, b"\0"))
    os.utime(path, ns=(info.source_mtime_ns, info.source_mtime_ns))
    with (
        ClipReader(info, sampling()) as reader,
        pytest.raises(ClipDamagedError, match="not the one that was scanned"),
    ):
        list(reader.read(0))


def test_clip_without_a_good_frame_fails(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", n_frames=20, noise=20)
    for place, size in packet_places(path):
        flip_bytes(path, range(place, place + size))
    with (
        ClipReader(scan_clip(path), sampling()) as reader,
        pytest.raises(ClipDamagedError, match="no frame could be decoded"),
    ):
        list(reader.read(0))


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mkv", "libx264"),
        ("a.avi", "mpeg4"),
        ("a.ts", "mpeg2video"),
        ("a.webm", "libvpx-vp9"),
    ],
)
def test_random_damage_is_the_same_in_any_order(tmp_path: Path, name: str, codec: str) -> None:
    path = write_clip(tmp_path / name, codec=codec, n_frames=48, b_frames=2, noise=20)
    whole = path.read_bytes()
    n_read = 0
    for seed in range(8):
        chance = random.Random(seed)
        path.write_bytes(whole)
        flip_bytes(path, [chance.randrange(len(whole)) for _ in range(1 + seed)])
        if seed == 7:
            cut(path, 0.7)
        try:
            assert_any_order(path, sampling(24, chunk=Fraction(1, 2)))
        except ClipOpenError:
            continue
        n_read += 1
    assert n_read >= 2


def add_sound(source: Path, target: Path, *, seconds: int) -> Path:
    """Copy a clip's video, and put noise beside it."""
    codec = "libopus" if target.suffix == ".webm" else "pcm_s16le"
    chance = np.random.default_rng(0)
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        video = new.add_stream_from_template(old.streams.video[0])
        sound = new.add_stream(codec, rate=48000, layout="mono")
        packets = [packet for packet in old.demux(video=0) if packet.size]
        for second in range(max(seconds, len(packets) // 24)):
            for packet in packets[second * 24 : (second + 1) * 24]:
                packet.stream = video
                new.mux(packet)
            if second < seconds:
                samples = chance.integers(-2000, 2000, (1, 48000)).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
                frame.sample_rate, frame.pts = 48000, second * 48000
                new.mux(sound.encode(frame))
        new.mux(sound.encode(None))
    return target


@pytest.mark.parametrize("name", ["a.mkv", "a.webm"])
@pytest.mark.parametrize("tags", [True, False])
@pytest.mark.parametrize("seconds", [3, 5, 9])
def test_a_truncated_file_with_sound(tmp_path: Path, name: str, tags: bool, seconds: int) -> None:
    """Of the video alone only a tag says how long it is, which may be at the end of the file."""
    codec = "libx264" if name.endswith("mkv") else "libvpx-vp9"
    plain = write_clip(tmp_path / f"plain.{name[2:]}", codec=codec, n_frames=120, noise=20)
    path = add_sound(plain, tmp_path / name, seconds=seconds)
    if not tags:
        path.write_bytes(path.read_bytes().replace(b"DURATION", b"SOMEWHAT"))
    assert scan_clip(path).damage == ""
    assert len(read_clip(path).frames) == 120
    cut(path, 0.4)
    assert "the file ends after" in scan_clip(path).damage
    result = read_clip(path)
    assert result.reason is not None
    assert result.numbers == list(range(len(result.frames)))


@pytest.mark.parametrize("name", ["a.mkv", "a.webm"])
def test_a_last_frame_that_stays_for_long_is_no_damage(tmp_path: Path, name: str) -> None:
    """FFmpeg says when the file ends, and not of every frame how long it stays."""
    codec = "libx264" if name.endswith("mkv") else "libvpx-vp9"
    plain = write_clip(tmp_path / f"plain.{name[2:]}", codec=codec, n_frames=48, noise=20)

    def stay(number: int, packet: av.Packet) -> av.Packet:
        if number == 47:
            packet.duration = int(5 / packet.time_base)
        return packet

    path = remux(plain, tmp_path / name, edit=stay)
    with av.open(str(path)) as container:
        assert container.duration > 6 * av.time_base
    assert is_whole(path)
    assert scan_clip(path).damage == ""
    frames = read_clip(path).frames
    assert (len({frame.frame_index for frame in frames}), frames[-1].frame_index) == (48, 47)
    # As long as it was, but of zeros: what a download has not fetched yet.
    size = path.stat().st_size
    cut(path, 0.6)
    with path.open("ab") as file:
        file.truncate(size)
    assert not is_whole(path)
    assert "the file ends after" in scan_clip(path).damage


@pytest.mark.parametrize("last", [None, "cut off"])
def test_an_end_of_empty_chunks_is_no_damage(tmp_path: Path, last: str | None) -> None:
    """As VirtualDub and screen recorders write a picture that stands still."""
    pictures = [np.full((32, 48), 40 + 4 * number, np.uint8) for number in range(24)]
    path = write_palette_avi(tmp_path / "a.avi", [*pictures, *[None] * 24])
    if last is not None:
        path.write_bytes(path.read_bytes()[:-300])
    result = read_clip(path)
    shades = [round(float(frame.image.mean())) for frame in result.frames]
    if last is not None:
        assert result.reason is not None
        return
    assert result.reason is None
    assert scan_clip(path).duration == 2
    assert shades == [*(40 + 4 * number for number in range(24)), *[40 + 4 * 23] * 24]
