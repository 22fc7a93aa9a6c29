"""Overlays of whole clips: what is painted, what is counted, and what the file holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import nn

from rrm_extract import FeatureFile
from rrm_extract.cli import main
from rrm_extract.config import JobConfig
from rrm_extract.errors import ClipDamagedError, ConfigError, LayerError, WeightsError
from rrm_extract.jobs import calibrate_target, sampling_of
from rrm_extract.report.show import Moment, Overlay, OverlaySummary, overlay_text, sink
from rrm_extract.video import ClipReader, count_chunks, scan_clip
from rrm_extract.video.synthetic import write_demo_clip
from tests.clips import decode_all, flip_bytes, packet_places, write_clip
from tests.command import extraction
from tests.report.clips import SIDE, SQUARE, corner, moving_square, standing_square
from tests.report.mixing import MIXING
from tests.tiny import MODEL, Tiny, network
from tests.video.test_damage import cut, write_index_first

FACTOR = 10
"""64 pixels are enlarged to 640."""

BLACK = np.zeros((64, 64, 3), np.uint8)


def config(**options: object) -> JobConfig:
    return JobConfig.from_mapping({"model": MODEL, "fps": "8", "threshold": 0.2, **options})


def write(
    clip: Path, *, max_frames: int | None = None, layer: str | None = None, **options: object
) -> tuple[Path, OverlaySummary]:
    output = clip.with_name("overlay.mp4")
    summary = Overlay(config(**options), layer=layer).write_clip(
        clip, output, max_frames=max_frames
    )
    return output, summary


def picture(clip: Path, moment: Moment, **options: object) -> npt.NDArray[np.uint8]:
    output = clip.with_name("frame.png")
    Overlay(config(**options)).write_frame(clip, output, moment)
    with Image.open(output) as image:
        return np.array(image)


def shown(clip: Path, fps: str = "8") -> list[npt.NDArray[np.uint8]]:
    """The frames that are painted over."""
    info, sampling = scan_clip(clip), sampling_of(JobConfig(fps=fps))
    with ClipReader(info, sampling) as reader:
        chunks = range(count_chunks(info, sampling))
        return [frame.image for chunk in chunks for frame in reader.read(chunk)]


def painted(clip: Path, frame: int) -> npt.NDArray[np.bool_]:
    """(H, W): where the overlay's frame is not the clip's."""
    overlay = picture(clip, Moment(frame=frame))
    small = overlay[FACTOR // 2 : SIDE * FACTOR : FACTOR, FACTOR // 2 :: FACTOR]
    changed: npt.NDArray[np.bool_] = (small != shown(clip)[frame]).any(-1)
    return changed


def times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return [frame.pts * frame.time_base for frame in frames]  # type: ignore[operator]


def test_what_moves_is_painted(tmp_path: Path) -> None:
    clip = moving_square(tmp_path / "a.mp4")
    for frame in (3, 6):
        where = painted(clip, frame)
        row, column = corner(frame - 1)
        # The square where it was and where it is, and around it what the convolutions reach: two
        # cells of the smallest map, of 4 pixels each.
        rows = slice(max(row - 10, 0), row + SQUARE + 10)
        columns = slice(max(column - 10, 0), column + SQUARE + 4 + 10)
        inside = np.zeros((SIDE, SIDE), bool)
        inside[rows, columns] = True
        assert not where[~inside].any()
        leaves = where[row : row + SQUARE, column : column + 4]
        enters = where[row : row + SQUARE, column + SQUARE : column + SQUARE + 4]
        assert leaves.all()
        assert enters.all()


def test_a_static_clip_is_painted_in_key_frames_alone(tmp_path: Path) -> None:
    clip = standing_square(tmp_path / "a.mp4")
    assert painted(clip, 0).all()
    for frame in (1, 5, 9):
        assert not painted(clip, frame).any()
    _, summary = write(clip)
    assert summary.work.shares == [1] + [0] * 9
    assert summary.work.key_frames == [True] + [False] * 9
    assert summary.work.speedup == 10
    assert "theoretical speedup: 10.00 over" in overlay_text(Overlay(config()), summary)


def test_the_file_decodes_to_the_frames_asked_for(tmp_path: Path) -> None:
    clip = moving_square(tmp_path / "a.mp4")
    output, summary = write(clip)
    frames = decode_all(output)
    assert len(frames) == len(summary.work.shares) == 10
    assert times(output) == [Fraction(k, 8) for k in range(10)]
    assert summary.encoder == "libx264"
    assert summary.damage == ""
    assert summary.width == SIDE * FACTOR
    assert summary.height % 2 == 0
    assert {frame.shape for frame in frames} == {(summary.height, summary.width, 3)}
    for number in (2, 7):
        alone = picture(clip, Moment(frame=number))
        assert alone.shape == frames[number].shape
        far = np.abs(alone.astype(int) - frames[number]).mean()
        other = np.abs(alone.astype(int) - frames[number + 1]).mean()
        assert far < 4, "the picture is the clip's"
        assert far < 0.7 * other
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_max_frames(tmp_path: Path) -> None:
    output, summary = write(moving_square(tmp_path / "a.mp4"), max_frames=3, time_batch=2)
    assert len(decode_all(output)) == len(summary.work.shares) == 3


def test_native_times_are_the_frames_own(tmp_path: Path) -> None:
    ticks = [0, 1, 2, 5, 6, 11]
    clip = write_clip(
        tmp_path / "a.mkv", n_frames=6, times=ticks, time_base=Fraction(1, 10), size=(33, 24),
        pixel_format="yuv444p",
    )  # fmt: skip
    output, summary = write(clip, fps="native")
    assert [float(time) for time in times(output)] == pytest.approx(
        [tick / 10 for tick in ticks], abs=1e-3
    )
    # 33 pixels are enlarged to 660; whatever the strip's height is, it is made even.
    assert (summary.width, summary.height % 2) == (660, 0)


@pytest.mark.parametrize("fps", ["8", "30000/1001"])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_times_of_every_container(tmp_path: Path, fps: str, suffix: str) -> None:
    clip = standing_square(tmp_path / "a.mp4", frames=4)
    output = tmp_path / f"o{suffix}"
    summary = Overlay(config(fps=fps)).write_clip(clip, output)
    expected = [float(k / Fraction(fps)) for k in range(len(summary.work.shares))]
    assert [float(time) for time in times(output)] == pytest.approx(expected, abs=6e-4)


def test_the_second_choice_of_encoder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = standing_square(tmp_path / "a.mp4", frames=4)
    monkeypatch.setattr(sink.av, "codecs_available", {"mpeg4"})
    output, summary = write(clip)
    assert summary.encoder == "mpeg4 (this PyAV has no libx264)"
    assert len(decode_all(output)) == 4
    monkeypatch.setattr(sink.av, "codecs_available", set())
    with pytest.raises(ConfigError, match=r"neither H.264 nor MPEG-4"):
        write(clip)


def test_the_work_is_that_of_an_extraction(tmp_path: Path) -> None:
    clip = moving_square(tmp_path / "a.mp4", frames=13)
    features = tmp_path / "f.h5"
    arguments = extraction(clip, features, "--engine", "torch", "--workers", "1")
    assert main([str(part) for part in arguments]) == 0
    _, summary = write(clip, threshold=1e-2, chunk=1)
    with FeatureFile(features) as file:
        video = file["a.mp4"]
        assert summary.work.shares == pytest.approx(np.array(video.work), rel=1e-6)
        assert summary.work.key_frames == np.array(video.key_frame).tolist()
        assert summary.work.speedup == pytest.approx(video.attrs["speedup_theoretical"], rel=1e-6)
    assert sum(summary.work.key_frames) == 2, "a chunk has 8 frames"


def test_calibrated_thresholds_and_frames_computed_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whether errors win time with so small a network depends on what else the machine does.
    monkeypatch.setattr(calibrate_target, "WORTH", float("inf"))
    clip = write_demo_clip(tmp_path / "a.mp4", seconds=4, size=(64, 48))
    found = tmp_path / "thresholds.json"
    arguments = [
        "calibrate", clip, "-o", found, "--model", MODEL, "--fps", "8", "--engine", "torch",
        "--target-error", "0.02", "--clips", "1", "--frames", "16",
    ]  # fmt: skip
    assert main([str(part) for part in arguments]) == 0
    features = tmp_path / "f.h5"
    arguments = [
        clip, "-o", features, "--model", MODEL, "--fps", "8", "--engine", "torch",
        "--thresholds", found, "--workers", "1",
    ]  # fmt: skip
    assert main([str(part) for part in arguments]) == 0
    output = tmp_path / "overlay.mp4"
    overlay = Overlay(
        JobConfig.from_mapping({"model": MODEL, "fps": "8", "thresholds": str(found)})
    )
    summary = overlay.write_clip(clip, output)
    assert "target error 0.02" in overlay.captions[0]
    with FeatureFile(features) as file:
        video = file["a.mp4"]
        assert video.attrs["n_recomputed"] > 0, "else nothing is tested"
        assert summary.work.shares == pytest.approx(np.array(video.work), rel=1e-6)
    assert len(decode_all(output)) == 32
    # A frame that is shown alone is the clip's: no batch ends at it, and no other one is probed.
    for number in (5, 14, 22, 30):
        alone = overlay.write_frame(clip, tmp_path / "f.png", Moment(frame=number))
        assert alone.work.shares == pytest.approx(summary.work.shares[: number + 1], rel=1e-6)
        # Its time is that of the whole batches, and so many frames are named.
        assert alone.computed == number // 8 * 8 + 8
        assert f"s for {alone.computed} frames" in overlay_text(overlay, alone)


def test_work_does_not_depend_on_the_painted_layer_or_the_batch(tmp_path: Path) -> None:
    clip = moving_square(tmp_path / "a.mp4")
    _, one = write(clip)
    _, other = write(clip, layer="features.2", time_batch=3)
    assert other.work.shares == pytest.approx(one.work.shares, rel=1e-6)


def test_a_named_layer_is_painted_alone(tmp_path: Path) -> None:
    clip = moving_square(tmp_path / "a.mp4")
    output = tmp_path / "f.png"
    overlay = Overlay(config(), layer="features.0")
    overlay.write_frame(clip, output, Moment(frame=4))
    with Image.open(output) as image:
        first = np.array(image)
    every = picture(clip, Moment(frame=4))
    assert "painted: input of features.0" in overlay.captions
    changed = (first[: SIDE * FACTOR] != every[: SIDE * FACTOR]).any(-1)
    assert changed.any()
    with pytest.raises(LayerError, match=r"layer 'features\.1' has no deltas"):
        Overlay(config(), layer="features.1")
    with pytest.raises(LayerError, match="layer 'fc' has no deltas"):
        Overlay(config(), layer="fc")  # behind the feature


class _MixingChannels(nn.Module):
    """A fully-connected layer before the one whose input is the feature."""

    preprocess = Tiny.preprocess

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.mix, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.mix(self.layer(x).mean((2, 3)))
        return self.last(x.relu())


def mixing_channels() -> nn.Module:
    return _MixingChannels()


def test_a_layer_without_pixels_is_refused_before_any_clip() -> None:
    with pytest.raises(LayerError, match="layer mix reads numbers without a place"):
        Overlay(config(model="tests.report.test_show_overlay:mixing_channels"), layer="mix")


def test_a_target_without_thresholds_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"target_error 0\.01 .* expected thresholds: "):
        Overlay(JobConfig(model=MODEL, target_error=0.01))


def test_a_network_that_takes_one_frame_after_the_other(tmp_path: Path) -> None:
    clip = moving_square(tmp_path / "a.mp4")
    for number in (1, 6):
        one = picture(clip, Moment(frame=number), model=MIXING)
        assert np.array_equal(one, picture(clip, Moment(frame=number), model=MIXING, time_batch=1))
    output, summary = write(clip, model=MIXING)
    assert len(decode_all(output)) == len(summary.work.shares) == 10


def test_the_frame_at_a_time(tmp_path: Path) -> None:
    clip = moving_square(tmp_path / "a.mp4")
    for seconds, number in ((0.0, 0), (0.5, 4), (0.62, 4), (1.2, 9)):
        one = picture(clip, Moment(seconds=seconds))
        assert np.array_equal(one, picture(clip, Moment(frame=number)))
    with pytest.raises(ConfigError, match=r"--at 1.25 is past the end: .* lasts 1.250 s"):
        picture(clip, Moment(seconds=1.25))
    with pytest.raises(ConfigError, match=r"--frame 10 is not there: the last .* is 9"):
        picture(clip, Moment(frame=10))


def test_a_native_number_that_gives_no_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "a.mp4", n_frames=30, b_frames=2, noise=20)
    place, size = packet_places(clip)[0]
    flip_bytes(clip, range(place, place + size))
    overlay, output = Overlay(config(fps="native")), tmp_path / "f.png"
    with pytest.raises(ConfigError, match=r"--frame 0 gives no frame: the first .* is 12$"):
        overlay.write_frame(clip, output, Moment(frame=0))
    seen = Overlay._seen

    def with_a_gap(self: Overlay, *clip: Any) -> Iterator[Any]:
        return (one for one in seen(self, *clip) if one.frame.sample_index not in (14, 15))

    monkeypatch.setattr(Overlay, "_seen", with_a_gap)
    for number in (14, 15):
        with pytest.raises(ConfigError, match=rf"{number} gives no frame: .* are 13 and 16$"):
            overlay.write_frame(clip, output, Moment(frame=number))
    with pytest.raises(ConfigError, match=r"--frame 30 is not there: the last .* is 29$"):
        overlay.write_frame(clip, output, Moment(frame=30))


def test_a_turned_clip_is_upright(tmp_path: Path) -> None:
    from tests.video.test_picture import write_corners

    clip = write_corners(tmp_path / "a.mov", (0, 1, -1, 0))
    frame = shown(clip)[0]
    assert frame.shape == (48, 32, 3)
    output = tmp_path / "f.png"
    Overlay(config(threshold=100)).write_frame(clip, output, Moment(frame=0))
    with Image.open(output) as image:
        assert image.width == 640
        assert image.height > 960
        corners = [image.getpixel((x, y))[1] for x, y in ((4, 4), (636, 4), (4, 956), (636, 956))]  # type: ignore[index]
    plain = [frame[y, x, 1] for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1))]
    # A crop to a square leaves the corners alone.
    assert corners == plain


def test_frames_that_change_size(tmp_path: Path) -> None:
    one = write_clip(tmp_path / "a.ts", n_frames=30)
    two = write_clip(tmp_path / "b.ts", n_frames=30, first_number=100, size=(96, 80))
    clip = tmp_path / "c.ts"
    clip.write_bytes(one.read_bytes() + two.read_bytes())
    output, summary = write(clip)
    frames = decode_all(output)
    assert len(frames) == len(summary.work.shares) == 20
    assert summary.width == 640
    for number in (4, 16):
        alone = picture(clip, Moment(frame=number))
        assert alone.shape == frames[number].shape
        assert np.abs(alone.astype(int) - frames[number]).mean() < 4, "the picture is the clip's"


def test_a_damaged_clip_is_shown_up_to_the_damage(tmp_path: Path) -> None:
    clip = write_index_first(tmp_path / "a.mp4", n_frames=120, b_frames=2, noise=20)
    cut(clip, 0.6)
    output, summary = write(clip)
    assert summary.damage
    assert 4 < len(summary.work.shares) < 38
    assert len(decode_all(output)) == len(summary.work.shares)
    with pytest.raises(ClipDamagedError):
        picture(clip, Moment(frame=39))


@pytest.mark.parametrize("time_batch", [1, 8])
def test_the_last_frame_before_damage_is_shown(tmp_path: Path, time_batch: int) -> None:
    clip = write_clip(tmp_path / "a.mp4", n_frames=120, b_frames=2, noise=20)
    place, size = packet_places(clip)[50]
    flip_bytes(clip, range(place, place + min(size, 12)))
    _, summary = write(clip)
    last = len(summary.work.shares) - 1
    by_number = picture(clip, Moment(frame=last))
    for part in (0, 0.5):
        one = picture(clip, Moment(seconds=(last + part) / 8), time_batch=time_batch)
        assert np.array_equal(one, by_number)
    with pytest.raises(ClipDamagedError):
        picture(clip, Moment(seconds=(last + 1) / 8), time_batch=time_batch)


def write_black(path: Path) -> None:
    """A clip of one black frame."""
    with sink.ClipWriter(
        path,
        width=64,
        height=64,
        rate=Fraction(8),
        time_base=Fraction(1, 8),
        encoder=sink.Encoder.choose(),
    ) as clip:
        clip.write(BLACK, 0.0)


@pytest.mark.parametrize("suffix", sorted(sink.CONTAINERS))
def test_a_name_with_a_colon_is_no_protocol(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output = Path(f"12:30{suffix}")
    write_black(output)
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    assert len(decode_all(tmp_path / output)) == 1


def test_what_killed_runs_have_left_is_removed(tmp_path: Path) -> None:
    left = [tmp_path / ".a.mp4.1.tmp", tmp_path / ".a.png.1.tmp"]
    for path in left:
        path.write_bytes(b"half")
        os.utime(path, (0, 0))
    write_black(tmp_path / "a.mp4")
    sink.write_picture(tmp_path / "a.png", BLACK)
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "a.png"}


def test_an_error_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = moving_square(tmp_path / "a.mp4")
    output = tmp_path / "overlay.mp4"
    output.write_bytes(b"before")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sink.ClipWriter, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(clip)
    assert output.read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "overlay.mp4"}


def test_another_layer_is_no_advice_for_weights_that_are_missing(tmp_path: Path) -> None:
    """--layer says what is painted here."""
    state = network().state_dict()
    del state["features.0.bias"]
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(WeightsError, match=r"give weights that have them$"):
        Overlay(config(weights=str(tmp_path / "less.pt")))


def test_outputs_of_another_kind_are_refused_before_anything_is_computed(tmp_path: Path) -> None:
    clip = moving_square(tmp_path / "a.mp4")
    before, overlay = clip.read_bytes(), Overlay(config())
    with pytest.raises(ConfigError, match=r"'o\.avi', expected a name in"):
        overlay.write_clip(clip, Path("o.avi"))
    with pytest.raises(ConfigError, match="is the clip itself"):
        overlay.write_clip(clip, clip)
    with pytest.raises(ConfigError, match=r"'o\.bmp', expected a name in"):
        overlay.write_frame(clip, Path("o.bmp"), Moment(frame=0))
    assert clip.read_bytes() == before
