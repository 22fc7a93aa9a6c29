"""``rrm-extract show`` as a user meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rrm_extract.cli import main
from rrm_extract.video.synthetic import write_demo_clip
from tests.cli.test_cli import output_of
from tests.clips import decode_all, write_tone
from tests.command import rrm_extract
from tests.tiny import MODEL
from tests.video.test_damage import cut, write_index_first


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_clip(tmp_path_factory.mktemp("show") / "clip.mp4", seconds=1, size=(64, 48))


def job(clip: Path, output: Path, *options: str | Path) -> list[str]:
    arguments = ["show", clip, "--model", MODEL, "--fps", "8", "-o", output, *options]
    return [str(argument) for argument in arguments]


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = output_of(capsys, "show", "--help")
    assert code == 0
    assert out.count("Example:") == out.count("\n  --") + out.count("\n  -o")
    text = " ".join(out.split())
    assert "it is for looking, not for speed" in text
    assert "theoretical speedup" in text
    assert "--engine" not in text
    _, out, _ = output_of(capsys, "--help")
    assert "show " in out


def test_a_clip(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "overlay.mp4"
    code, out, err = output_of(capsys, *job(clip, output, "--layer", "features"))
    assert code == 0, err
    first, network, painted, theoretical, seconds = out.splitlines()
    height, width = decode_all(output)[0].shape[:2]
    assert len(decode_all(output)) == 8
    assert first == f"{output}: 8 frames, {width}x{height}, libx264"
    assert network == f"{MODEL}, weights factory:{MODEL}, threshold 0.0001 (bounded)"
    assert painted == "painted: input of features"
    assert theoretical.startswith("theoretical speedup: ")
    assert theoretical.endswith("(MACs, key frames included); not a time")
    assert "8 frames in plain PyTorch, which is for looking" in seconds
    before = output.read_bytes()
    code, _, err = output_of(capsys, *job(clip, output))
    assert code == 3
    assert err.strip().endswith("would be written over; use --overwrite or another -o")
    assert output.read_bytes() == before
    assert main(job(clip, output, "--overwrite", "--max-frames", "2")) == 0
    assert len(decode_all(output)) == 2


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_picture(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    output = tmp_path / f"frame.{suffix}"
    code, out, err = output_of(capsys, *job(clip, output, "--at", "0.5"))
    assert code == 0, err
    assert out.startswith(f"{output}: 1 picture, 640x")
    assert "for 8 frames" in out  # a batch
    assert output.read_bytes()[:3] in (b"\x89PN", b"\xff\xd8\xff")


@pytest.mark.parametrize(
    ("output", "options", "says"),
    [
        ("o.png", [], "expected a name in .mp4, .mov, .mkv; for a picture (.png) give --frame"),
        ("o.avi", [], "expected a name in .mp4, .mov, .mkv"),
        ("o.mp4", ["--frame", "1"], "expected a name in .png, .jpg, .jpeg; --frame and --at write"),
        ("o.png", ["--frame", "1", "--at", "1"], "--frame and --at were given together"),
        ("o.png", ["--frame", "1", "--max-frames", "2"], "--max-frames has no use with"),
        ("o.png", ["--frame", "8"], "--frame 8 is not there: the last sampled frame of"),
        ("o.png", ["--at", "1.1"], "--at 1.1 is past the end"),
        ("o.png", ["--at", "nan"], "--at is nan, expected a number"),
        ("o.mp4", ["--layer", "pool"], "layer 'pool' has no deltas to show"),
        ("o.mp4", ["--min-score", "0.5"], "finds neither objects nor people"),
        ("o.mp4", ["--threshold", "-1"], "--threshold is '-1'"),
        ("o.mp4", ["--engine", "native"], "No such option"),
        ("o.mp4", ["--max-frames", "0"], "0 is not in the range"),
    ],
)
def test_wrong_usage(
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    output: str,
    options: list[str],
    says: str,
) -> None:
    code, _, err = output_of(capsys, *job(clip, tmp_path / output, *options))
    assert code == 2
    assert says in err
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = output_of(capsys, *job(clip, tmp_path / "none" / "o.mp4"))
    assert code == 3
    assert "there is no folder" in err
    same = tmp_path / "same.mp4"
    same.write_bytes(clip.read_bytes())
    code, _, err = output_of(capsys, *job(same, same, "--overwrite"))
    assert code == 2
    assert "is the clip itself" in err
    assert same.read_bytes() == clip.read_bytes()
    (tmp_path / "folder.mp4").mkdir()
    code, _, err = output_of(capsys, *job(clip, tmp_path / "folder.mp4", "--overwrite"))
    assert code == 3
    assert len(err.strip().splitlines()) == 1


def test_broken_videos_have_one_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    write_tone(tmp_path / "tone.wav")
    for name in ("text.mp4", "empty.mp4", "tone.wav"):
        code, out, err = output_of(capsys, *job(tmp_path / name, tmp_path / "o.mp4"))
        assert (code, out) == (1, "")
        assert name in err
        assert len(err.strip().splitlines()) == 1
    code, _, err = output_of(capsys, *job(tmp_path / "missing.mp4", tmp_path / "o.mp4"))
    assert code == 2
    assert "missing.mp4 does not exist" in err
    code, _, err = output_of(capsys, *job(tmp_path, tmp_path / "o.mp4"))
    assert code == 2
    assert "is 2 videos; show takes one" in err
    assert not (tmp_path / "o.mp4").exists()


def test_a_pattern_of_one_clip_beside_a_folder_that_is_not_there(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videos" / "a").mkdir(parents=True)
    (tmp_path / "videos" / "a" / "clip.mp4").symlink_to(clip)
    (tmp_path / "videos" / "b").symlink_to(tmp_path / "not-mounted")
    pattern, output = tmp_path / "videos" / "*" / "clip.mp4", tmp_path / "o.png"
    code, _, err = output_of(capsys, *job(pattern, output, "--frame", "0"))
    assert (code, err) == (0, "")
    assert output.stat().st_size > 0


def test_a_damaged_video_says_where_it_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_index_first(tmp_path / "a.mp4", n_frames=96, noise=20)
    cut(clip, 0.6)
    code, out, err = output_of(capsys, *job(clip, tmp_path / "o.mp4"))
    assert code == 1
    assert "o.mp4: " in out
    assert err.startswith("the clip ends early: ")
    assert len(err.strip().splitlines()) == 1
    assert decode_all(tmp_path / "o.mp4")


def test_progress_is_shown_where_it_is_asked_for(clip: Path, tmp_path: Path) -> None:
    done = rrm_extract(*job(clip, tmp_path / "o.mp4", "--progress"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "8/8" in done.stderr
    assert "work" in done.stderr
