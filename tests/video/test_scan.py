"""What is known of a file without decoding it, and which files are refused."""

from __future__ import annotations

import pickle
from contextlib import nullcontext
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest

from rrm_extract import video
from rrm_extract.errors import ClipOpenError
from rrm_extract.video import scan_clip
from tests.clips import numbered_picture, write_clip, write_tone
from tests.video.reading import read_clip

if TYPE_CHECKING:
    from pathlib import Path


def test_public_names() -> None:
    assert video.__all__ == [
        "ClipInfo",
        "ClipReader",
        "SampledFrame",
        "Sampling",
        "count_chunks",
        "expected_frames",
        "scan_clip",
    ]


def test_scan(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", n_frames=50, rate=25, b_frames=2)
    info = scan_clip(path)
    assert (info.width, info.height, info.codec) == (64, 48, "h264")
    assert "mp4" in info.container
    assert info.average_rate == 25
    assert info.duration == 2
    assert (info.n_declared, info.n_packets) == (50, 50)
    assert info.timestamps == "pts"
    assert info.seekable
    assert info.damage == ""
    assert info.source_size == path.stat().st_size
    assert info.source_mtime_ns == path.stat().st_mtime_ns


def test_scan_survives_pickling(tmp_path: Path) -> None:
    info = scan_clip(write_clip(tmp_path / "a.mp4"))
    copy = pickle.loads(pickle.dumps(info))
    assert copy.duration == info.duration
    assert np.array_equal(copy.packets.ticks, info.packets.ticks)


def test_packet_table_is_small(tmp_path: Path) -> None:
    n_frames = 2000
    path = write_clip(tmp_path / "a.avi", n_frames=n_frames, codec="mpeg4", size=(16, 16), gop=100)
    packets = scan_clip(path).packets
    assert len(packets.ordinals) == n_frames  # derived, and left at home
    assert len(pickle.dumps(packets)) < 14 * n_frames + 3000


@pytest.mark.parametrize("name", ["Zürich 東京 🎬.mp4", "a b'c\"d.mp4", "concat:x.mp4", "%03d.mp4"])
def test_any_name_opens(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / "plain.mp4", n_frames=5).rename(tmp_path / name)
    assert read_clip(path).numbers == list(range(5))


def test_relative_path_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mp4", n_frames=5)
    monkeypatch.chdir(tmp_path)
    assert read_clip(path.relative_to(tmp_path)).numbers == list(range(5))


def test_missing_file_fails(tmp_path: Path) -> None:
    with pytest.raises(ClipOpenError, match="no such file"):
        scan_clip(tmp_path / "none.mp4")


def test_folder_fails(tmp_path: Path) -> None:
    with pytest.raises(ClipOpenError, match="is a folder"):
        scan_clip(tmp_path)


def test_device_fails(tmp_path: Path) -> None:
    path = tmp_path / "null.mp4"
    path.symlink_to("/dev/null")
    with pytest.raises(ClipOpenError, match="no regular file"):
        scan_clip(path)


def test_null_character_fails(tmp_path: Path) -> None:
    with pytest.raises(ClipOpenError):
        scan_clip(tmp_path / "a\0b.mp4")


def test_empty_file_fails(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    path.touch()
    with pytest.raises(ClipOpenError, match="empty"):
        scan_clip(path)


@pytest.mark.parametrize("name", ["notes.mp4", "notes.txt", "notes.srt"])
def test_text_fails(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("This is no video at all.\n" * 200)
    with pytest.raises(ClipOpenError, match="expected a video file"):
        scan_clip(path)


def test_play_list_fails(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.ts", n_frames=5)
    path = tmp_path / "list.m3u8"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{clip}\n#EXT-X-ENDLIST\n")
    with pytest.raises(ClipOpenError):
        scan_clip(path)


def test_random_bytes_fail(tmp_path: Path) -> None:
    path = tmp_path / "noise.mp4"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(ClipOpenError):
        scan_clip(path)


def test_picture_fails(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    av.VideoFrame.from_ndarray(numbered_picture(1), format="rgb24").save(str(path))
    with pytest.raises(ClipOpenError, match="a picture"):
        scan_clip(path)


def test_photo_in_a_container_of_videos_fails(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "photo.avif", n_frames=1, codec="libsvtav1", size=(64, 64))
    with pytest.raises(ClipOpenError, match=r"'avif' .* a picture"):
        scan_clip(path)


@pytest.mark.parametrize("brand", ["heic", "heix", "mif1"])
def test_photo_by_its_brand_fails(tmp_path: Path, brand: str) -> None:
    path = branded(tmp_path / "a.mp4", brand, n_frames=1)
    with pytest.raises(ClipOpenError, match=rf"'{brand}' .* a picture"):
        scan_clip(path)


@pytest.mark.parametrize("brand", ["hevc", "msf1", "avis"])
def test_sequence_of_pictures_is_a_video(tmp_path: Path, brand: str) -> None:
    path = branded(tmp_path / "a.mp4", brand, n_frames=5)
    assert read_clip(path).numbers == list(range(5))


def branded(path: Path, brand: str, *, n_frames: int) -> Path:
    """A clip that says of itself to be of such a kind."""
    write_clip(path, n_frames=n_frames)
    path.write_bytes(path.read_bytes().replace(b"ftypisom", b"ftyp" + brand.encode(), 1))
    return path


def test_audio_only_fails(tmp_path: Path) -> None:
    with pytest.raises(ClipOpenError, match="no video stream, only audio"):
        scan_clip(write_tone(tmp_path / "tone.wav"))


def test_truncated_header_fails(tmp_path: Path) -> None:
    # The index of an MP4 file is at its end: without it nothing can be found.
    path = write_clip(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ClipOpenError, match="cannot read"):
        scan_clip(path)


def test_video_without_packets_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        container.start_encoding()
    with pytest.raises(ClipOpenError, match="no packets"):
        scan_clip(path)


def test_stream_without_timestamps_uses_the_rate(tmp_path: Path) -> None:
    info = scan_clip(write_clip(tmp_path / "a.h264", b_frames=2))
    assert info.timestamps == "rate"
    assert info.time_base == Fraction(1, 24)
    assert not info.seekable


def test_a_clock_that_cannot_be_fails(tmp_path: Path) -> None:
    """The frame rate of an AVI file with a single bit that has flipped."""
    path = write_clip(tmp_path / "a.avi", codec="mpeg4")
    data = bytearray(path.read_bytes())
    scale = data.index(b"strh") + 28
    for bit, fails in ((17, True), (14, False), (30, True)):
        changed = data[:]
        changed[scale : scale + 4] = (1 | 1 << bit).to_bytes(4, "little")
        path.write_bytes(changed)
        with pytest.raises(ClipOpenError, match="rate") if fails else nullcontext():
            assert scan_clip(path).duration == 2 * (1 + 2**bit)


def test_slides_may_stand_for_hours(tmp_path: Path) -> None:
    times = [hour * 3600 for hour in (0, 3, 6, 9)]
    path = write_clip(tmp_path / "a.mp4", n_frames=4, times=times, time_base=Fraction(1))
    assert scan_clip(path).duration > 6 * 3600
