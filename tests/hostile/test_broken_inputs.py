"""Files that are no videos, or not whole, and names that are hard to write, beside good clips."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from rrm_extract import FeatureFile
from rrm_extract.cli import main
from tests.clips import packet_places, write_clip, write_tone
from tests.hostile.conftest import job
from tests.hostile.jobs import events, finished

N_FRAMES, HURT = 96, 60
"""Frames of the clips that are to be damaged, 24 a second, 8 of them sampled; and which is hurt."""

RAW, RAW_EMPTY = os.fsdecode(b"raw \xff\xfe.mp4"), os.fsdecode(b"bad \xff\xfe\n.mp4")
"""Names that are not UTF-8."""

HARD_NAMES = (
    "-dash.mp4", "%d per%41cent.mp4", "new\nline.mp4", "quote's\"\\.mp4", "star*[1]?.mp4",
    "ünï cödé 日本 \u2028.mp4", "x" * 246 + ".mp4", RAW,
)  # fmt: skip

NO_VIDEO = {
    "absent.mp4": "No such file",
    "dangling.mp4": "No such file",
    "empty.mp4": "empty",
    "fifo.mp4": "no regular file",
    "folder.mp4": "is a folder",
    "null\0.mp4": "null",
    "secret.mp4": "no permission",
    "text.mp4": "cannot read this as a video",
    "tone.mkv": "no video stream",
    RAW_EMPTY: "empty",
}
"""What makes no video, and a word of the reason."""


def _cut(path: Path) -> None:
    """The file ends in the middle of a packet."""
    offset, size = packet_places(path)[HURT]
    os.truncate(path, offset + size // 2)


def _zeros(path: Path) -> None:
    """A packet of nothing but zeros, as a bad sector leaves it."""
    offset, size = packet_places(path)[HURT]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(size))


def _flip(path: Path) -> None:
    """A bit in every packet from one on."""
    places = packet_places(path)[HURT:]
    data = bytearray(path.read_bytes())
    for offset, size in places:
        data[offset + size // 2] ^= 0x10
    path.write_bytes(bytes(data))


DAMAGE: dict[str, Callable[[Path], None]] = {"cut": _cut, "zeros": _zeros, "flip": _flip}


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names that the file system does not take: macOS's takes none that is not UTF-8."""
    folder = tmp_path_factory.mktemp("names")
    names = set()
    for name in (RAW, RAW_EMPTY):
        try:
            (folder / name).touch()
        except OSError as error:
            if error.errno != errno.EILSEQ:
                raise
            names.add(name)
    return names


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, refused: set[str]) -> Path:
    folder = tmp_path_factory.mktemp("broken videos")
    write_clip(folder / "good.mp4", n_frames=N_FRAMES, noise=40, options={"movflags": "faststart"})
    _move_index_to_front(folder / "good.mp4")
    write_clip(folder / "good.avi", n_frames=N_FRAMES, noise=40, codec="mpeg4")
    for extension in ("mp4", "avi"):
        for name, damage in DAMAGE.items():
            damage(shutil.copy(folder / f"good.{extension}", folder / f"{name}.{extension}"))
    write_clip(folder / "one.mp4", n_frames=1)
    for name in {*HARD_NAMES} - refused:
        shutil.copy(folder / "one.mp4", folder / name)
    for name in {*NO_VIDEO} - refused:
        if NO_VIDEO[name] == "empty":
            (folder / name).touch()
    (folder / "dangling.mp4").symlink_to("nowhere.mp4")
    os.mkfifo(folder / "fifo.mp4")
    (folder / "folder.mp4").mkdir()
    (folder / "text.mp4").write_text("This is no video.\n" * 99)
    write_tone(folder / "tone.mkv")
    if os.geteuid() != 0:  # root may read everything
        shutil.copy(folder / "one.mp4", folder / "secret.mp4")
        (folder / "secret.mp4").chmod(0)
    # What a search of the folder passes over.
    names = ("absent.mp4", "dangling.mp4", "fifo.mp4", "folder.mp4", "null\0.mp4")
    (folder / "list.txt").write_text("\n".join(names), encoding="utf-8")
    return folder


def _move_index_to_front(path: Path) -> None:
    """The index of an MP4 file goes where a cut leaves it."""
    front = path.with_name("front.mp4")
    options = {"movflags": "faststart"}
    with av.open(str(path)) as old, av.open(str(front), "w", options=options) as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = copy
                new.mux(packet)
    front.replace(path)


def test_each_good_one_is_complete_and_each_bad_one_listed(
    folder: Path, refused: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hard = {*HARD_NAMES} - refused
    bad = {name: words for name, words in NO_VIDEO.items() if name not in refused}
    if os.geteuid() == 0:
        del bad["secret.mp4"]
    damaged = {f"{name}.{extension}" for name in DAMAGE for extension in ("mp4", "avi")}
    output, log = tmp_path / "feats.h5", tmp_path / "log.jsonl"
    arguments = job(folder, output, folder / "list.txt", "--json-log", log)
    code, _, err = finished(arguments, cwd=tmp_path)
    assert code == 1
    assert "Traceback" not in err
    assert err.count("\n") == len(bad) + len(damaged), err

    with FeatureFile(output) as file:
        assert set(file) == {"good.mp4", "good.avi", "one.mp4", *hard, *damaged}
        for name in ("one.mp4", *hard):
            assert (file[name].status, len(file[name].features)) == ("ok", 1)
        failures = {failure.video_id: failure for failure in file.failures}
        assert set(failures) == {*bad, *damaged}
        for name, words in bad.items():
            assert words in failures[name].message
        for name in damaged:
            video, good = file[name], file[f"good.{name[-3:]}"]
            assert video.status == "partial"
            # A flipped bit may give another picture, without an error, for some frames.
            sound = HURT * 8 // 24
            assert sound <= len(video.features) < len(good.features) == N_FRAMES * 8 // 24, name
            assert len(video.features) == sound or name.startswith("flip")
            for rows in ("features", "timestamps", "pts", "frame_index", "key_frame", "work"):
                kept, whole = getattr(video, rows)[:sound], getattr(good, rows)[:sound]
                assert kept.tobytes() == whole.tobytes(), name
            assert failures[name].stage == "decode"
            assert f" of {N_FRAMES}" in failures[name].message or " s " in failures[name].message
    before = {event["video_id"] for event in events(log) if event["event"] == "failure"}
    assert before == {*bad, *damaged}

    # A second run finds nothing to do, and says so again by its exit code.
    log.unlink()
    written = output.stat().st_mtime_ns
    capsys.readouterr()
    assert main([str(word) for word in arguments]) == 1
    assert f"{len(failures)} of them failed or partial" in capsys.readouterr().out
    assert output.stat().st_mtime_ns == written
    absent = {"absent.mp4", "dangling.mp4", "null\0.mp4"}
    assert [e["event"] for e in events(log)].index("start") == 0
    assert {e["video_id"] for e in events(log) if e["event"] == "failure"} == absent

    log.unlink()
    assert main([str(word) for word in [*arguments, "--retry-failed"]]) == 1
    assert {e["video_id"] for e in events(log) if e["event"] == "failure"} == {*bad, *damaged}
    assert {e["video_id"] for e in events(log) if e["event"] == "video"} == damaged
