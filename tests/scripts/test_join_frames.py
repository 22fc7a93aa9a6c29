"""Pictures become videos, and stay what they were."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import av
import join_frames
import numpy as np
import pytest

from rrm_extract.video import ClipReader, Sampling, scan_clip


def picture(path: Path, shade: int, *, size: tuple[int, int] = (48, 32)) -> Path:
    """Writes a JPEG picture of one grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height = size
    encoder.pix_fmt = "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    image = np.full((size[1], size[0], 3), shade, np.uint8)
    frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuvj420p")
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    path.write_bytes(b"".join(bytes(packet) for packet in packets))
    return path


def run(patch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    patch.setattr(sys, "argv", ["join_frames.py", *map(str, arguments)])
    join_frames.main()


def test_frames_are_those_of_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shades = {number: 20 * number for number in range(1, 12)}
    for number, shade in shades.items():
        picture(tmp_path / "in" / "3" / f"{number}.jpg", shade)
    picture(tmp_path / "in" / "deep" / "4" / "0001.jpg", 7)
    output = tmp_path / "out"
    run(monkeypatch, tmp_path / "in", "-o", output, "--rate", "30000/1001")
    assert sorted(path.name for path in output.iterdir()) == ["3.mkv", "4.mkv"]
    info = scan_clip(output / "3.mkv")
    with ClipReader(info, Sampling(fps=None)) as reader:
        frames = list(reader.read(0))
    assert [frame.frame_index for frame in frames] == list(range(11))
    for frame, shade in zip(frames, shades.values(), strict=True):
        assert abs(int(frame.image[5, 5, 0]) - shade) <= 3
    assert frames[10].timestamp == pytest.approx(10 * 1001 / 30000, abs=1e-3)
    # What is there is not made again.
    before = (output / "3.mkv").stat().st_mtime_ns
    run(monkeypatch, tmp_path / "in", "-o", output)
    assert (output / "3.mkv").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ([], "holds no folder with pictures"),
        (["a/1.jpg", "a/3.jpg"], "after picture 1 comes 3; expected all numbers between"),
        (["a/1.jpg", "a/01.jpg"], "have one number; expected each once"),
        (["a/1.jpg", "b/a/1.jpg"], "are both called a; expected one of a name"),
    ],
)
def test_wrong_folders_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: list[str], message: str
) -> None:
    for name in pictures:
        picture(tmp_path / "in" / name, 9)
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, tmp_path / "in", "-o", tmp_path / "out")


def test_wrong_pictures_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "in" / "a" / "1.jpg", 9)
    second = picture(tmp_path / "in" / "a" / "2.jpg", 9, size=(32, 32))
    for message in (r"2\.jpg is 32x32; expected 48x32 throughout", r"2\.jpg .*a JPEG picture"):
        with pytest.raises(SystemExit, match=message):
            run(monkeypatch, tmp_path / "in", "-o", tmp_path / "out")
        assert not list((tmp_path / "out").iterdir())
        second.write_bytes(b"no picture")


def test_a_wrong_rate_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, "-o", tmp_path, "--rate", "0")
    assert "0: expected frames a second" in capsys.readouterr().err
