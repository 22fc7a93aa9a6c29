"""Pictures are upright, in their own size, and in the right colours."""

from __future__ import annotations

import gc
import io
import struct
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from rrm_extract.video import ClipReader, _picture, scan_clip
from rrm_extract.video._picture import to_upright_rgb
from tests.clips import write_clip
from tests.video.reading import assert_any_order, read_clip, sampling

if TYPE_CHECKING:
    from pathlib import Path

ONE = 1 << 16


def write_corners(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """A clip of 48 x 32 whose corners differ, with a display matrix a, b, c, d in its header."""
    picture = np.zeros((32, 48, 3), dtype=np.uint8)
    picture[:16, :24] = 250
    picture[:16, 24:] = 170
    picture[16:, :24] = 90
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.options = {"threads": "1"}
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    a, b, c, d = matrix
    data = path.read_bytes()
    identity = struct.pack(">9i", ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)
    at = data.index(identity, data.index(b"tkhd"))
    turned = struct.pack(">9i", a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30)
    path.write_bytes(data[:at] + turned + data[at + len(turned) :])
    return path


def corners(image: npt.NDArray[np.uint8]) -> list[list[int]]:
    """Grey levels of the four corners, rounded to those of `write_corners`."""
    inner = image[[6, -6]][:, [6, -6], 1]
    return [[min((0, 90, 170, 250), key=lambda x: abs(x - int(v))) for v in row] for row in inner]


def place(matrix: tuple[int, int, int, int]) -> list[list[int]]:
    """Where the corners are to be: (x, y) goes to (a x + c y, b x + d y), as the format says."""
    a, b, c, d = matrix
    shown = [[0, 0], [0, 0]]
    for x, y, grey in ((-1, -1, 250), (1, -1, 170), (-1, 1, 90), (1, 1, 0)):
        shown[(b * x + d * y + 1) // 2][(a * x + c * y + 1) // 2] = grey
    return shown


@pytest.mark.parametrize(
    ("matrix", "degrees"),
    [
        ((1, 0, 0, 1), 0),
        ((0, 1, -1, 0), -90),  # a phone held upright: shown turned clockwise
        ((-1, 0, 0, -1), 180),
        ((0, -1, 1, 0), 90),
        ((-1, 0, 0, 1), None),
        ((1, 0, 0, -1), None),
        ((0, 1, 1, 0), None),
        ((0, -1, -1, 0), None),
    ],
)
def test_turned_upright(
    tmp_path: Path, matrix: tuple[int, int, int, int], degrees: int | None
) -> None:
    frames = read_clip(write_corners(tmp_path / "a.mov", matrix)).frames
    assert len(frames) == 3
    is_turned = matrix[0] == 0
    for frame in frames:
        assert frame.image.shape == ((48, 32, 3) if is_turned else (32, 48, 3))
        assert frame.image.flags.c_contiguous
        assert corners(frame.image) == place(matrix)
        if degrees is not None:
            assert frame.rotation == degrees


def test_impossible_matrix_turns_nothing(tmp_path: Path) -> None:
    frames = read_clip(write_corners(tmp_path / "a.mov", (0, 0, 0, 0))).frames
    assert [frame.image.shape for frame in frames] == [(32, 48, 3)] * 3


@pytest.mark.parametrize("suffix", ["ts", "h264"])
def test_size_changes_in_the_stream(tmp_path: Path, suffix: str) -> None:
    one = write_clip(tmp_path / f"a.{suffix}", n_frames=30, b_frames=2)
    two = write_clip(
        tmp_path / f"b.{suffix}", n_frames=30, b_frames=2, first_number=100, size=(96, 80)
    )
    path = tmp_path / f"c.{suffix}"
    path.write_bytes(one.read_bytes() + two.read_bytes())
    result = read_clip(path)
    assert result.reason is None
    assert result.numbers == [*range(30), *range(100, 130)]
    shapes = [frame.image.shape for frame in result.frames]
    assert shapes == [(48, 64, 3)] * 30 + [(80, 96, 3)] * 30
    assert_any_order(path, sampling(24, chunk=1))


@pytest.mark.parametrize(
    ("codec", "pixel_format"),
    [("libx264", "yuv420p"), ("mjpeg", "yuvj420p"), ("ffv1", "gray"), ("libx264", "yuv444p10le")],
)
def test_levels_survive(tmp_path: Path, codec: str, pixel_format: str) -> None:
    path = write_clip(tmp_path / "a.mkv", codec=codec, pixel_format=pixel_format, n_frames=2)
    image = read_clip(path).frames[1].image
    assert image.dtype == np.uint8
    # Frame 1 has its first block bright and the others dark.
    assert np.abs(image[4:20, 2:6].astype(int) - 215).max() <= 8
    assert np.abs(image[4:20, 12:60].astype(int) - 40).max() <= 8


def test_pixels_go_with_the_frame(tmp_path: Path) -> None:
    """Decoded frames are freed at once, and not when Python next looks for cycles."""
    path = write_clip(tmp_path / "clip.mp4", n_frames=60)
    info = scan_clip(path)
    gc.collect()
    gc.disable()
    try:
        with ClipReader(info, sampling(None)) as reader:
            frames = [1 for _ in reader.read(0)]
            alive = sum(type(item) is av.VideoFrame for item in gc.get_objects())
    finally:
        gc.enable()
    assert len(frames) == 60
    assert alive < 20, "only those that wait for a frame before them"


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m"])
@pytest.mark.parametrize("full", [False, True])
def test_colours_are_those_the_file_names(tmp_path: Path, matrix: str, full: bool) -> None:
    luma, blue, red = 90, 100, 180
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        named = f"colormatrix={matrix}:fullrange={'on' if full else 'off'}"
        stream.codec_context.options = {"threads": "1", "qp": "0", "x264-params": named}
        planes = np.full((72, 64), luma, np.uint8)
        planes[48:60], planes[60:] = blue, red  # of a quarter of the size, 4:2:0
        container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))
    image = read_clip(path).frames[0].image
    # ITU-T H.273, equations 38 to 40 and Table 4.
    of_red, of_blue = (0.2126, 0.0722) if matrix == "bt709" else (0.299, 0.114)
    y, scale = (luma / 255, 255) if full else ((luma - 16) / 219, 224)
    r = y + 2 * (1 - of_red) * (red - 128) / scale
    b = y + 2 * (1 - of_blue) * (blue - 128) / scale
    g = (y - of_red * r - of_blue * b) / (1 - of_red - of_blue)
    expected = 255 * np.array([r, g, b])
    assert np.abs(image[4:-4, 4:-4] - expected).max() <= 2


@pytest.mark.parametrize("matrix", [3, 8, 10, 12, 14])
def test_a_matrix_that_ffmpeg_does_not_convert_is_taken_for_bt601(matrix: int) -> None:
    levels = np.full((48, 32), 128, np.uint8)
    levels[:32] = 90
    frame = av.VideoFrame.from_ndarray(levels, format="yuv420p")
    expected, _ = to_upright_rgb(frame)
    frame.colorspace = matrix
    image, _ = to_upright_rgb(frame)
    assert np.array_equal(image, expected)
    assert frame.colorspace == matrix


def _joined_jpegs(path: Path, exif: bytes) -> Path:
    """A Motion JPEG clip of pictures as a camera writes them, each with Exif data."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=24)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuvj420p"
        for number in range(3):
            shade = np.full((32, 48, 3), 60 + 40 * number, np.uint8)
            shade[:, 24:] = 230
            data = io.BytesIO()
            Image.fromarray(shade).save(data, "JPEG", exif=exif, quality=95)
            packet = av.Packet(data.getvalue())
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base = Fraction(1, 24)
            packet.is_keyframe = True
            container.mux(packet)
    return path


@pytest.mark.parametrize(("orientation", "degrees"), [(1, 0), (6, -90), (3, 180), (8, 90)])
def test_pictures_with_exif(tmp_path: Path, orientation: int, degrees: int) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "maker"
    frames = read_clip(_joined_jpegs(tmp_path / "a.avi", exif.tobytes())).frames
    assert [frame.rotation for frame in frames] == [degrees] * 3
    means = [float(np.rot90(frame.image, -degrees // 90)[:, :20].mean()) for frame in frames]
    assert means == pytest.approx([60, 100, 140], abs=3)


def test_a_frame_with_data_that_pyav_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise ValueError("31 is not a valid Type")

    monkeypatch.setattr(_picture, "SideDataContainer", fail)
    frame = av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8), format="rgb24")
    image, degrees = to_upright_rgb(frame)
    assert (image.shape, degrees) == ((32, 48, 3), 0)


def test_colours_that_are_not_converted_need_no_known_name(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = av.VideoFrame.from_ndarray(np.full((32, 48), 100, np.uint8), format="gray")
    expected, _ = to_upright_rgb(frame)

    class Refusing:
        """As PyAV 17 is where a frame names a transfer that swscale does not know."""

        colorspace, color_trc, color_primaries = frame.colorspace, 3, 3

        def reformat(self, **options: object) -> av.VideoFrame:
            if (self.color_trc, self.color_primaries) != (2, 2):
                raise OSError(95, "Operation not supported")
            return frame.reformat(**options)  # type: ignore[arg-type]

    monkeypatch.setattr(_picture, "_display_matrix", lambda _: None)
    image, _ = to_upright_rgb(Refusing())  # type: ignore[arg-type]
    np.testing.assert_array_equal(image, expected)
