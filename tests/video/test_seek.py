"""A chunk is the same whoever reads it, and in whatever order."""

from __future__ import annotations

import os
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rrm_extract.errors import ClipOpenError
from rrm_extract.video import ClipReader, _decode, _seek, count_chunks, scan_clip
from rrm_extract.video._open import open_video
from tests.clips import decode_all, flip_bytes, packet_places, remux, write_clip
from tests.video.avi import write_palette_avi
from tests.video.reading import (
    Chunk,
    assert_any_order,
    assert_same,
    read_chunk,
    read_fresh,
    sampling,
)

if TYPE_CHECKING:
    from pathlib import Path

    import av

    from rrm_extract.video._packets import PacketTable

OPEN_GOP = {
    "x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0:keyint=12:min-keyint=12",
    "preset": "veryfast",
}

CASES = {
    "long.mp4": {"gop": 50, "b_frames": 3},
    "long.mkv": {"gop": 50, "b_frames": 3},
    "long.avi": {"gop": 50, "b_frames": 3},
    "long_mpeg4.avi": {"codec": "mpeg4", "gop": 50, "b_frames": 2},
    "no_b.avi": {"codec": "mpeg4", "gop": 30},
    "pyramid.mp4": {"gop": 40, "b_frames": 4, "options": {"b-pyramid": "normal"}},
    "long.ts": {"gop": 40, "b_frames": 2},
    "mpeg2.ts": {"codec": "mpeg2video", "gop": 15, "b_frames": 2},
    "mpeg2.mpg": {"codec": "mpeg2video", "gop": 15, "b_frames": 2},
    "open.mp4": {"options": OPEN_GOP},
    "open.ts": {"options": OPEN_GOP},
    "open.avi": {"options": OPEN_GOP},
    "vp9.webm": {"codec": "libvpx-vp9", "gop": 40},
    "av1.mp4": {
        "codec": "libsvtav1",
        "gop": 20,
        "options": {"preset": "12", "svtav1-params": "lp=1"},
        "pixel_format": "yuv420p",
    },
    "refresh.ts": {"options": {"x264-params": "intra-refresh=1:keyint=12:bframes=0"}},
    "refresh.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=12:bframes=0"}},
    "hevc.mp4": {
        "codec": "libx265",
        "gop": 20,
        "b_frames": 2,
        "options": {"x265-params": "log-level=none"},
    },
    "intra.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
}


@pytest.mark.parametrize("name", CASES)
def test_any_order(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name, n_frames=120, noise=20, **CASES[name])
    plain = decode_all(path)
    for fps in (24, None):
        chunks = assert_any_order(path, sampling(fps, chunk=Fraction(3, 4)))
        frames = [frame for chunk in chunks for frame in chunk.frames]
        assert [frame.frame_index for frame in frames] == list(range(120))
        for frame, image in zip(frames, plain, strict=True):
            assert np.array_equal(frame.image, image)


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(7)])
@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
def test_any_order_at_other_rates(tmp_path: Path, rate: Fraction, suffix: str) -> None:
    path = write_clip(tmp_path / f"a.{suffix}", n_frames=100, rate=rate, gop=30, b_frames=2)
    for fps in (24, 5, 60):
        assert_any_order(path, sampling(fps, chunk=Fraction(11, 10)))


@pytest.mark.parametrize(
    "name", ["long.mp4", "long.mkv", "long.avi", "long_mpeg4.avi", "mpeg2.ts", "open.mp4"]
)
def test_seeking_skips_what_is_before(tmp_path: Path, name: str) -> None:
    # Destroyed packets near the beginning are not even looked at.
    case = CASES[name] | ({"gop": 20} if name.endswith(".avi") else {})
    path = write_clip(tmp_path / name, n_frames=120, noise=20, **case)
    info = scan_clip(path)
    assert info.seekable
    setting = sampling(24, chunk=1)
    last = count_chunks(info, setting) - 1
    whole = read_fresh(info, setting, [last])[last]
    places = [(place, size) for place, size in packet_places(path)[2:6] if size > 40]
    for place, size in places:
        header = 4 if name.endswith(".mp4") else 20
        flip_bytes(path, range(place + header, place + size))
    os.utime(path, ns=(info.source_mtime_ns, info.source_mtime_ns))
    part = read_fresh(info, setting, [last])[last]
    assert part.reason is None
    assert part.numbers == whole.numbers
    assert read_fresh(info, setting, [0])[0].reason is not None


def test_chunks_do_not_depend_on_the_reader_having_stopped_early(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", n_frames=96, b_frames=2)
    info = scan_clip(path)
    with ClipReader(info, sampling(24, chunk=1)) as reader:
        frames = reader.read(1)
        next(frames)
        frames.close()
        assert read_chunk(reader, 2).numbers == list(range(48, 72))
        assert read_chunk(reader, 1).numbers == list(range(24, 48))


def test_chunk_past_the_end_is_empty(tmp_path: Path) -> None:
    info = scan_clip(write_clip(tmp_path / "a.mp4"))
    with ClipReader(info, sampling(24, chunk=1)) as reader:
        assert list(reader.read(2)) == []
        assert list(reader.read(-1)) == []


@pytest.mark.parametrize("fps", [24, 10, None])
def test_counts_do_not_depend_on_who_reads(tmp_path: Path, fps: int | None) -> None:
    path = write_clip(tmp_path / "a.mp4", n_frames=100, rate=30, gop=20, b_frames=2)
    info = scan_clip(path)
    setting = sampling(fps, chunk=Fraction(1, 2))
    count = count_chunks(info, setting)
    with ClipReader(info, setting) as reader:
        for chunk in range(count):
            read_chunk(reader, chunk)
        assert reader.n_decoded == 100
        assert reader.n_decode_errors == 0
    total = 0
    for chunk in range(count):
        with ClipReader(info, setting) as reader:
            read_chunk(reader, chunk)
            total += reader.n_decoded
    assert total == 100


def test_changed_file_fails(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    info = scan_clip(path)
    write_clip(path, n_frames=20)
    with ClipReader(info, sampling()) as reader, pytest.raises(ClipOpenError, match="changed"):
        list(reader.read(0))


def test_removed_file_fails(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    info = scan_clip(path)
    path.unlink()
    with ClipReader(info, sampling()) as reader, pytest.raises(ClipOpenError, match="no such file"):
        list(reader.read(0))


def test_the_count_of_packets_moves_before_a_chunk_s_first_frame(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", gop=1000)
    info = scan_clip(clip)
    with ClipReader(info, sampling(chunk=1)) as reader:
        assert reader.n_packets_read == 0
        frames = reader.read(1)
        next(frames)
        assert reader.n_packets_read >= 25, "one key frame: decoding starts at the beginning"
        frames.close()
        assert reader.n_packets_read >= 25


class Unindexed:
    """A file that FFmpeg finds nothing in: seeking ends at its beginning."""

    def __init__(self, path: Path) -> None:
        self.container, self.stream = open_video(path)
        self.demux, self.close = self.container.demux, self.container.close

    def seek(self, _target: int, **_how: object) -> None:
        self.container.seek(0)


def test_packets_passed_over_behind_a_seek_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(path: Path) -> tuple[Unindexed, object]:
        file = Unindexed(path)
        return file, file.stream

    info = scan_clip(write_clip(tmp_path / "a.mp4", n_frames=72, gop=24))
    monkeypatch.setattr(_decode, "open_video", opened)
    with ClipReader(info, sampling(chunk=1)) as reader:
        assert read_chunk(reader, 2).numbers == list(range(48, 72))
        assert reader.n_packets_read == 72


@pytest.mark.parametrize(
    ("rate", "fps", "chunk"),
    [
        (Fraction(24), Fraction(60000, 1001), Fraction(1, 10)),
        (Fraction(15000, 1001), Fraction(24), Fraction(10)),
        (Fraction(15000, 1001), Fraction(24), Fraction(1, 2)),
    ],
)
def test_frames_count_once_whoever_reads_them(
    tmp_path: Path, rate: Fraction, fps: Fraction, chunk: Fraction
) -> None:
    """On a coarse clock a chunk's last sample may show the frame with which the next one begins."""
    path = write_clip(tmp_path / "a.avi", codec="mpeg4", n_frames=480, rate=rate, gop=5)
    info, setting = scan_clip(path), sampling(fps, chunk=chunk)
    chunks = range(count_chunks(info, setting))
    with ClipReader(info, setting) as reader:
        in_order = [len(list(reader.read(chunk))) for chunk in chunks]
        together = reader.n_decoded
    apart = 0
    for number in chunks:
        with ClipReader(info, setting) as reader:
            assert len(list(reader.read(number))) == in_order[number]
            apart += reader.n_decoded
    assert together == apart == 480


def lose_track_once(monkeypatch: pytest.MonkeyPatch, at: int) -> list[int]:
    """Make a packet look unlike it was when it was scanned; gives where that happened."""
    lost: list[int] = []

    def is_packet(packet: av.Packet, index: int, table: PacketTable) -> bool:
        if index == at and not lost:
            lost.append(index)
            return False
        return _seek.is_packet(packet, index, table)

    monkeypatch.setattr(_decode, "is_packet", is_packet)
    return lost


def test_track_lost_behind_the_last_sample_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "a.mp4", n_frames=90, rate=30, gop=10, noise=20)
    info, setting = scan_clip(path), sampling(5, chunk=1)
    lost = lose_track_once(monkeypatch, at=57)  # the last sample shows frame 54
    with ClipReader(info, setting) as reader:
        assert read_chunk(reader, 1).numbers == [30, 36, 42, 48, 54]
        assert reader.n_decoded == 30
    assert lost == [57]


def test_track_lost_behind_the_last_sample_hides_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "a.mp4", n_frames=90, rate=30, gop=10, noise=20)
    place, size = packet_places(path)[88]
    flip_bytes(path, range(place + 4, place + size))
    info, setting = scan_clip(path), sampling(5, chunk=1)
    (whole,) = read_fresh(info, setting, [2]).values()
    assert whole.reason is not None
    lost = lose_track_once(monkeypatch, at=87)
    (part,) = read_fresh(info, setting, [2]).values()
    assert lost == [87]
    assert (part.numbers, part.reason) == (whole.numbers, whole.reason)


@pytest.mark.parametrize(("fps", "gives_up"), [(None, False), (8, False), (None, True)])
def test_a_chunk_that_another_has_overtaken(
    tmp_path: Path, fps: int | None, gives_up: bool
) -> None:
    """It cannot go on, and the other one is read to its end, also if the first is then closed."""
    path, setting = tmp_path / "a.mp4", sampling(fps, chunk=1)
    write_clip(path, n_frames=72)
    info = scan_clip(path)
    with ClipReader(info, setting) as reader:
        first, second = reader.read(0), reader.read(1)
        next(first)
        given = Chunk([next(second)])
        if gives_up:
            first.close()
        else:
            with pytest.raises(ValueError, match="another chunk is being read"):
                next(first)
        given.frames += second
    assert_same(given, read_fresh(info, setting, [1])[1])


def test_a_palette_is_there_in_every_chunk(tmp_path: Path) -> None:
    """It comes with the first packet alone."""
    frames = [np.full((32, 48), 20 + number, np.uint8) for number in range(120)]
    path = write_palette_avi(tmp_path / "a.avi", frames)
    setting = sampling(24, chunk=1)
    assert_any_order(path, setting)
    info = scan_clip(path)
    with ClipReader(info, setting) as reader:
        shades = [int(frame.image.mean()) for frame in reader.read(3)]
    assert shades == [20 + number for number in range(72, 96)]


def test_a_stream_goes_on_with_another_header(tmp_path: Path) -> None:
    """As FLV recordings do whose sender connects again; x264 has the quantizer in the header."""
    path = tmp_path / "c.flv"
    one, two = (
        write_clip(tmp_path / f"{qp}.flv", noise=20, options={"qp": qp}) for qp in ("10", "40")
    )
    path.write_bytes(one.read_bytes() + _later_tags(two, milliseconds=2000))
    info = scan_clip(path)
    assert info.packets.key_index.tolist() == [0, 12, 24, 36]
    assert info.duration == pytest.approx(4, abs=0.002)
    assert_any_order(path, sampling(24, chunk=1))

    # An MP4 file has both headers at its beginning.
    copied = remux(path, tmp_path / "c.mp4", edit=lambda _, packet: packet)
    assert scan_clip(copied).packets.key_index.tolist() == list(range(0, 96, 12))
    assert_any_order(copied, sampling(24, chunk=1))


def _later_tags(flv: Path, *, milliseconds: int) -> bytes:
    """A file's tags, so much later."""
    data, at, moved = flv.read_bytes(), 13, b""
    while at < len(data):
        end = at + 11 + int.from_bytes(data[at + 1 : at + 4], "big") + 4
        time = (int.from_bytes(data[at + 4 : at + 7], "big") + milliseconds).to_bytes(3, "big")
        moved += data[at : at + 4] + time + data[at + 7 : end]
        at = end
    return moved
