from __future__ import annotations

import errno
import fcntl
import json
import os
import runpy
import signal
import stat
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from rrm_extract.errors import (
    StoreError,
    StoreFormatError,
    StoreLockedError,
    StoreMismatchError,
    StoreWriteError,
)
from rrm_extract.signals import held_back
from rrm_extract.store import (
    FailureRecord,
    FeatureFile,
    OutputStore,
    VideoFeatures,
    layout,
    lock,
    merge,
    same_content,
    save_chunk,
)
from rrm_extract.store.files import write_atomic
from rrm_extract.store.place import OutputPlace
from rrm_extract.store.shield import ShieldedFile

from .helpers import (
    IDENTITY,
    ROOT,
    chunk,
    expected_features,
    failure,
    flip,
    names_in,
    offset_of,
    source,
    write_file,
    write_video,
)

OTHER = {"model": "vgg16", "threshold": 1e-4, "fps": 24}

HOSTILE = [
    ".", "..", "//", "/abs.mp4", "a//b", "a/", "a/./b", "a/../b", "a.mp4", "a.mp4/b.mp4",
    "a.mp4/features", "a.mp4/layers/x", "a.mp4/b.mp4/pts", "back\\slash.mp4", "caf\udce9.mp4",
    "a b  c.mp4", "caf\u00e9.mp4", "cafe\u0301.mp4", "100%.mp4", "100%25.mp4", "x\ny.mp4",
    "features", "d/" * 60 + "deep.mp4", "l" * 255, "日本/映画.mkv", "-o", "'\"$`.mp4",
]  # fmt: skip


# A whole run.


def test_three_lines_of_h5py(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["S/AB12C.mp4"])
    with h5py.File(path) as f:
        x = f["videos/S/AB12C.mp4/features"][:]
        t = f["videos/S/AB12C.mp4/timestamps"][:]
    np.testing.assert_array_equal(x, expected_features("S/AB12C.mp4"))
    assert x.dtype == np.float32
    assert t[:5].tolist() == [i / 24 for i in range(5)]


def test_only_the_file_is_left(tmp_path: Path) -> None:
    write_file(tmp_path / "feats.h5", ["a.mp4"])
    assert names_in(tmp_path) == {"feats.h5"}
    assert {p.name for p in tmp_path.iterdir()} == {"feats.h5", ".feats.h5.lock"}
    assert (tmp_path / ".feats.h5.lock").stat().st_size == 0


def test_root_attributes(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"])
    with h5py.File(path) as f:
        assert f.attrs["format"] == "rrm-extract"
        assert f.attrs["format_version"] == "1.1"
        assert f.attrs["complete"]
        assert f.attrs["model"] == "resnet18"
        assert json.loads(f.attrs["identity_json"]) == IDENTITY
        assert len(f.attrs["config_sha256"]) == 64
        assert f.attrs["created_utc"].endswith("+00:00")


def test_root_attribute_of_the_store_fails(tmp_path: Path) -> None:
    store = OutputStore(tmp_path / "feats.h5", IDENTITY)
    with store, pytest.raises(ValueError, match="itself sets complete"):
        store.finish([], [], {"complete": True}, complete=True)


def test_hostile_names(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", HOSTILE)
    with FeatureFile(path) as file:
        assert {*file.videos} == {*HOSTILE}
        for video_id in HOSTILE:
            np.testing.assert_array_equal(file[video_id].features, expected_features(video_id))
            file[video_id].check()


def test_order_is_of_names_only(tmp_path: Path) -> None:
    names = ["b", "a/z", "a", "é", "Z"]
    one = write_file(tmp_path / "1.h5", names)
    two = write_file(tmp_path / "2.h5", names[::-1])
    assert same_content(one, two) == []
    with FeatureFile(one) as file:
        assert file.videos == ["Z", "a", "a/z", "b", "é"]


def test_no_videos(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", [], [failure("a.mp4")])
    with FeatureFile(path) as file:
        assert (file.videos, len(file.failures), file.complete) == ([], 1, True)


def test_symlink_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "feats.h5"
    link.symlink_to(tmp_path / "disk" / "real.h5")
    write_file(link, ["a.mp4"])
    assert link.is_symlink()
    assert names_in(tmp_path / "disk") == {"real.h5"}


# Going on.


def test_resume(tmp_path: Path) -> None:
    path = tmp_path / "feats.h5"
    with OutputStore(path, IDENTITY) as store:
        write_video(store, source("a.mp4"))
        save_chunk(store.chunk_path(source("b.mp4"), 0), chunk("b.mp4"))
        store.record_failure(failure("c.mp4"))
    with OutputStore(path, IDENTITY) as store:
        assert store.status(source("a.mp4")) == "ok"
        assert store.status(source("b.mp4")) is None
        assert store.chunk_path(source("b.mp4"), 0).exists()
        assert store.failure("c.mp4") == failure("c.mp4")
    write_file(path, ["a.mp4", "b.mp4"])
    with FeatureFile(path) as file:
        assert file.videos == ["a.mp4", "b.mp4"]
        assert [f.video_id for f in file.failures] == ["c.mp4"]
    whole = write_file(tmp_path / "whole.h5", ["a.mp4", "b.mp4"], [failure("c.mp4")])
    assert same_content(path, whole) == []


def test_finished_videos_are_done(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"], [failure("b.mp4")])
    with OutputStore(path, IDENTITY) as store:
        assert store.status(source("a.mp4")) == "ok"
        assert store.status(source("a.mp4", mtime_ns=2)) is None
        assert store.failure("b.mp4") == failure("b.mp4")
    assert names_in(tmp_path) == {"feats.h5"}


def written_at(path: Path) -> tuple[int, int, int]:
    """What is another for another file; to read it changes nothing of that."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def test_same_run_again_leaves_the_file(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"], [failure("b.mp4", "caf\udce9")])
    before = written_at(path)
    write_file(path, ["a.mp4"])
    assert written_at(path) == before
    with OutputStore(path, IDENTITY) as store:
        assert store.finish([source("a.mp4")], [], {**ROOT, "layer": "fc"}, complete=True)
    assert written_at(path) != before


def test_more_videos_are_added(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4", "c.mp4"], [failure("x.mp4")])
    write_file(path, ["b.mp4"], [failure("y.mp4")])
    whole = write_file(
        tmp_path / "whole.h5", ["a.mp4", "b.mp4", "c.mp4"], [failure("x.mp4"), failure("y.mp4")]
    )
    assert same_content(path, whole) == []


def test_parts_of_other_inputs_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "feats.h5"
    with OutputStore(path, IDENTITY) as store:
        write_video(store, source("a.mp4"))
    write_file(path, ["b.mp4"])
    with FeatureFile(path) as file:
        assert file.videos == ["a.mp4", "b.mp4"]


def test_changed_source_is_replaced(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4", "b.mp4"])
    write_file(path, [source("a.mp4", size=7)], chunks=3)
    with FeatureFile(path) as file:
        assert file["a.mp4"].n_frames == 15
        assert file["a.mp4"].attrs["source_size"] == 7
        assert file["b.mp4"].n_frames == 10


def test_changed_source_that_fails_leaves_the_file(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4", "b.mp4"])
    with OutputStore(path, IDENTITY) as store:
        store.finish([source("a.mp4", size=7)], [failure("a.mp4")], ROOT, complete=True)
    with FeatureFile(path) as file:
        assert file.videos == ["b.mp4"]
        assert [f.video_id for f in file.failures] == ["a.mp4"]


def test_incomplete_finish_goes_on(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"], complete=False)
    assert names_in(tmp_path) == {"feats.h5", "feats.h5.parts"}
    with FeatureFile(path) as file:
        assert (file.videos, file.complete) == (["a.mp4"], False)
    write_file(path, ["a.mp4", "b.mp4"])
    assert names_in(tmp_path) == {"feats.h5"}
    with FeatureFile(path) as file:
        assert (file.videos, file.complete) == (["a.mp4", "b.mp4"], True)


def test_stale_files_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "feats.h5"
    with OutputStore(path, IDENTITY) as store:
        save_chunk(store.chunk_path(source("a.mp4"), 0), chunk("a.mp4"))
        folder = store.chunk_path(source("a.mp4"), 0).parent
        stale = [store.parts_dir / ".x.h5.123.tmp", folder / ".000001.npz.99.tmp"]
        for one in stale:
            one.write_bytes(b"half")
    with OutputStore(path, IDENTITY) as store:
        assert not any(one.exists() for one in stale)
        assert store.chunk_path(source("a.mp4"), 0).exists()


def test_parts_without_a_run_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "feats.h5"
    with OutputStore(path, IDENTITY) as store:
        write_video(store, source("a.mp4"))
        (store.parts_dir / "notes.txt").write_text("the user's own")
    (store.parts_dir / "job.json").unlink()  # as after a kill while the folder was being removed
    with OutputStore(path, IDENTITY) as store:
        assert store.status(source("a.mp4")) is None
        assert names_in(store.parts_dir) == {"job.json", "notes.txt"}


def test_parts_that_cannot_be_listed_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, what = tmp_path / "feats.h5", source("a.mp4")

    def refused(folder: Path | str = ".") -> object:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    def run() -> None:
        with OutputStore(path, IDENTITY) as store:
            write_video(store, what)
            monkeypatch.setattr(os, "listdir", refused)
            monkeypatch.setattr(os, "scandir", refused)
            store.finish([what], [], ROOT, complete=True)

    for _ in range(2):
        with pytest.raises(StoreError, match=r"cannot read .*\.parts: Permission denied"):
            run()
    monkeypatch.undo()
    with OutputStore(path, IDENTITY) as store:
        assert store.status(what) == "ok"


# Failures.


def test_failures_are_recorded_and_cleared(tmp_path: Path) -> None:
    path = tmp_path / "feats.h5"
    with OutputStore(path, IDENTITY) as store:
        store.record_failure(failure("a.mp4"))
        store.record_failure(FailureRecord("a.mp4", "decode", "E", "again", 2))
        store.record_failure(failure("b.mp4"))
        found = store.failure("a.mp4")
        assert found is not None
        assert found.attempts == 2
        store.clear_failure("b.mp4")
        assert store.failure("b.mp4") is None
        assert store.failure("never.mp4") is None
        store.finish([], [], ROOT, complete=True)
    with OutputStore(path, IDENTITY) as store:
        store.clear_failure("a.mp4")
        assert store.failure("a.mp4") is None


def test_failure_of_a_changed_source_does_not_count(tmp_path: Path) -> None:
    with OutputStore(tmp_path / "feats.h5", IDENTITY) as store:
        store.record_failure(failure("a.mp4", source_size=1000, source_mtime_ns=1))
        assert store.failure(source("a.mp4")) is not None
        assert store.failure(source("a.mp4", mtime_ns=2)) is None
        assert store.failure("a.mp4") is not None


def test_done_video_has_no_failure_but_a_partial_one(tmp_path: Path) -> None:
    path = tmp_path / "feats.h5"
    with OutputStore(path, IDENTITY) as store:
        for video_id, status in {"a.mp4": "ok", "b.mp4": "partial"}.items():
            store.record_failure(failure(video_id))
            write_video(store, source(video_id), status=status)
        assert store.failure("a.mp4") is None
        sources = [source("a.mp4"), source("b.mp4")]
        store.finish(sources, [failure("a.mp4")], ROOT, complete=True)
    with FeatureFile(path) as file:
        assert [f.video_id for f in file.failures] == ["b.mp4"]
        assert file["b.mp4"].status == "partial"


def test_failure_of_a_folder_ends_when_it_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "feats.h5"
    locked = [failure("deep"), failure("dee"), failure("other/deep"), failure("deep/gone.mp4")]

    def listed(videos: list[str], failures: list[FailureRecord]) -> list[str]:
        sources = [source(video) for video in videos]
        with OutputStore(path, IDENTITY) as store:
            for what in sources:
                if store.status(what) is None:
                    write_video(store, what)
            store.finish(sources, failures, ROOT, complete=True)
        with FeatureFile(path) as file:
            return [record.video_id for record in file.failures]

    everything = ["dee", "deep", "deep/gone.mp4", "other/deep"]
    assert listed(["a.mp4"], locked) == everything
    assert listed(["b.mp4"], []) == everything, "of other inputs"
    assert listed(["deep/sub/c.mp4"], [failure("deep")]) == everything, "it still cannot be read"
    assert listed(["deep/sub/c.mp4"], []) == ["dee", "deep/gone.mp4", "other/deep"]


def test_failure_of_a_folder_that_is_an_input_stays(tmp_path: Path) -> None:
    path = tmp_path / "feats.h5"
    with OutputStore(path, IDENTITY) as store:
        store.record_failure(failure("deep"))
        write_video(store, source("deep/c.mp4"))
        store.finish([source("deep"), source("deep/c.mp4")], [], ROOT, complete=True)
    with FeatureFile(path) as file:
        assert [record.video_id for record in file.failures] == ["deep"]


def test_hostile_failure(tmp_path: Path) -> None:
    odd = FailureRecord("caf\udce9.mp4", "open", "E", "bad \0 byte \udce9 \n line", 1)
    path = tmp_path / "feats.h5"
    with OutputStore(path, IDENTITY) as store:
        store.record_failure(odd)
        assert store.failure("caf\udce9.mp4") == odd
        store.finish([], [], ROOT, complete=True)
    with FeatureFile(path) as file:
        assert file.failures[0].video_id == "caf\udce9.mp4"
        assert file.failures[0].message == "bad \\x00 byte \\xe9 \n line"


# Overwriting.


def test_overwrite_replaces_everything(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4", "b.mp4"], [failure("c.mp4")])
    with OutputStore(path, OTHER, overwrite=True) as store:
        assert store.status(source("a.mp4")) is None
        assert store.failure("c.mp4") is None
        write_video(store, source("a.mp4"))
        with FeatureFile(path) as file:
            assert file.videos == ["a.mp4", "b.mp4"]  # the old file is still in place
        store.finish([source("a.mp4")], [], ROOT, complete=True)
        assert store.status(source("a.mp4")) == "ok"
    with FeatureFile(path) as file:
        assert file.videos == ["a.mp4"]
        assert file.identity == OTHER
        assert file.failures == []


def test_interrupted_overwrite_goes_on(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4", "b.mp4"])
    with OutputStore(path, IDENTITY, overwrite=True) as store:
        write_video(store, source("a.mp4"), chunks=3)
        save_chunk(store.chunk_path(source("b.mp4"), 0), chunk("b.mp4"))
    with OutputStore(path, IDENTITY, overwrite=True) as store:
        assert store.status(source("a.mp4")) == "ok"
        assert store.status(source("b.mp4")) is None
        assert store.chunk_path(source("b.mp4"), 0).exists()
        write_video(store, source("b.mp4"), chunks=3)
        store.finish([source("a.mp4"), source("b.mp4")], [], ROOT, complete=True)
    whole = write_file(tmp_path / "whole.h5", ["a.mp4", "b.mp4"], chunks=3)
    assert same_content(path, whole) == []
    with OutputStore(path, IDENTITY, overwrite=True) as store:  # a new run, from the start
        assert store.status(source("a.mp4")) is None


def test_overwrite_discards_parts_of_an_ordinary_run(tmp_path: Path) -> None:
    path = tmp_path / "feats.h5"
    with OutputStore(path, IDENTITY) as store:
        write_video(store, source("a.mp4"))
    with OutputStore(path, IDENTITY, overwrite=True) as store:
        assert store.status(source("a.mp4")) is None


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n and then nothing"])
def test_overwrite_replaces_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "feats.h5"
    path.write_bytes(content)
    with pytest.raises(StoreFormatError, match="left alone"), OutputStore(path, IDENTITY):
        pass
    write_file(path, ["a.mp4"], overwrite=True)
    with FeatureFile(path) as file:
        assert file.videos == ["a.mp4"]


def test_overwrite_of_something_else_fails(tmp_path: Path) -> None:
    clip, foreign = tmp_path / "clip.mp4", tmp_path / "theirs.h5"
    clip.write_bytes(b"\0\0\0\x18ftypmp42")
    with h5py.File(foreign, "w") as file:
        file["x"] = 1
    for path in (clip, foreign):
        before = path.read_bytes()
        with pytest.raises(StoreFormatError, match="left alone"):
            OutputStore(path, IDENTITY, overwrite=True).__enter__()
        assert path.read_bytes() == before
    assert names_in(tmp_path) == {"clip.mp4", "theirs.h5"}


# Refusals.


def test_other_configuration_fails(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"])
    with pytest.raises(StoreMismatchError) as caught:
        OutputStore(path, OTHER).__enter__()
    assert str(caught.value) == (
        f"{path} was made with another configuration: chunk was 10.0, is now not set; "
        'fps was not set, is now 24; model was "resnet18", is now "vgg16". '
        "Use --overwrite to replace it, or another -o"
    )
    assert names_in(tmp_path) == {"feats.h5"}


def test_parts_of_another_configuration_fails(tmp_path: Path) -> None:
    path = tmp_path / "feats.h5"
    with OutputStore(path, IDENTITY) as store:
        write_video(store, source("a.mp4"))
    with pytest.raises(StoreMismatchError, match=r"feats\.h5\.parts was made .*model was"):
        OutputStore(path, OTHER).__enter__()
    with OutputStore(path, IDENTITY) as store:
        assert store.status(source("a.mp4")) == "ok"
    with OutputStore(path, OTHER, overwrite=True) as store:
        assert store.status(source("a.mp4")) is None


def test_second_writer_fails(tmp_path: Path) -> None:
    path = tmp_path / "feats.h5"
    with OutputStore(path, IDENTITY) as store:
        write_video(store, source("a.mp4"))
        message = rf"is being written by process {os.getpid()} on "
        with pytest.raises(StoreLockedError, match=message):
            OutputStore(path, IDENTITY, overwrite=True).__enter__()
        assert store.status(source("a.mp4")) == "ok"
    with OutputStore(path, IDENTITY) as store:
        assert store.status(source("a.mp4")) == "ok"


def test_lock_is_released_after_a_refusal(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"])
    for _ in range(2):
        with pytest.raises(StoreMismatchError):
            OutputStore(path, OTHER).__enter__()
    with OutputStore(path, IDENTITY):
        pass


def test_link_to_itself_fails(tmp_path: Path) -> None:
    (tmp_path / "there.h5").symlink_to("back.h5")
    (tmp_path / "back.h5").symlink_to("there.h5")
    for read_or_write in (FeatureFile, OutputPlace):
        with pytest.raises(StoreError, match=r"there\.h5: Too many levels of symbolic links; "):
            read_or_write(tmp_path / "there.h5")


def test_impossible_place_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "way.h5.parts").write_text("x")
    for path, message in {
        tmp_path / "none" / "feats.h5": "does not exist; make it first",
        tmp_path / "file" / "feats.h5": "is no folder; make it first",
        tmp_path: "it is a folder; name a file in it",
        tmp_path / "way.h5": "is in the way",
        Path("/proc/feats.h5"): "cannot write /proc/feats.h5",
    }.items():
        with pytest.raises(StoreWriteError, match=message):
            OutputStore(path, IDENTITY).__enter__()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder_fails(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StoreWriteError, match="Permission denied"):
            OutputStore(tmp_path / "feats.h5", IDENTITY).__enter__()
    finally:
        tmp_path.chmod(0o700)


def test_newer_minor_version_fails(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"])
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = "1.7"
    with FeatureFile(path) as readable:
        assert readable.version == (1, 7)
    with pytest.raises(StoreFormatError, match=r"version 1\.7, this rrm-extract writes 1\.1"):
        OutputStore(path, IDENTITY).__enter__()


def test_identity_must_be_json_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        OutputStore(tmp_path / "feats.h5", {"threshold": float("nan")})


def test_what_is_kept_is_carried_as_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, added = ["a.mp4", "n", "n/b.mp4", "z/x.mp4"], ["c.mp4", "z/x.mp4/y.mp4"]
    path = write_file(tmp_path / "feats.h5", before)
    whole = write_file(tmp_path / "whole.h5", [*before, *added])
    one_by_one = []
    copy_video = layout.copy_video

    def copy(video: Any, *args: Any) -> None:
        one_by_one.append(video.name)
        copy_video(video, *args)

    monkeypatch.setattr(layout, "copy_video", copy)
    monkeypatch.setattr(merge, "_TOGETHER", 2)
    write_file(path, added)
    # A group in which another video lies cannot be taken whole.
    assert one_by_one == ["/videos/n"]
    assert same_content(path, whole) == []
    # Nor is what is large copied without a look at the disk meanwhile.
    monkeypatch.setattr(layout, "_AT_ONCE", 100)
    one_by_one.clear()
    write_file(path, ["last.mp4"])
    assert set(one_by_one) == {f"/videos/{name}" for name in (*before, *added)}


# What lies in the parts folder.


def unfinished(path: Path) -> OutputStore:
    """A run that has done one video and was interrupted."""
    with OutputStore(path, IDENTITY) as store:
        write_video(store, source("a.mp4"))
        store.record_failure(failure("b.mp4"))
    return store


@pytest.mark.parametrize("name", ["job.json", ".failed.json"])
def test_what_the_system_does_not_let_be_read_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    store = unfinished(tmp_path / "feats.h5")
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name.endswith(name):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        why = pytest.raises(StoreError, match=r"cannot read .*: Input/output error; put that right")
        with why, OutputStore(store.output, IDENTITY) as again:
            again.failure("b.mp4")
    with OutputStore(store.output, IDENTITY) as again:
        assert again.status(source("a.mp4")) == "ok"
        assert again.failure("b.mp4") == failure("b.mp4")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", r"job\.json is damaged"), ('{"format_version": "9.0"}', r"job\.json is damaged"), (
        '{"format_version": "9.0", "identity_json": "{}", "overwrite": false, "writer": ""}',
        r"unfinished work in .* has format version 9\.0, .*; finish it with the one that began it",
    )],
)  # fmt: skip
def test_work_of_nobody_knows_whom_is_kept(tmp_path: Path, content: str, message: str) -> None:
    store = unfinished(tmp_path / "feats.h5")
    (store.parts_dir / "job.json").write_text(content)
    parts = sorted(store.parts_dir.iterdir())
    with pytest.raises(StoreFormatError, match=message):
        OutputStore(store.output, IDENTITY).__enter__()
    assert sorted(store.parts_dir.iterdir()) == parts
    with OutputStore(store.output, IDENTITY, overwrite=True) as anew:
        assert anew.status(source("a.mp4")) is None


# Damage after writing.


def test_part_damaged_before_the_merge_fails(tmp_path: Path) -> None:
    path = tmp_path / "feats.h5"
    sources = [source("a.mp4"), source("b.mp4")]
    with OutputStore(path, IDENTITY) as store:
        for one in sources:
            write_video(store, one)
        for part in store.parts_dir.glob("*.h5"):
            if chunk("a.mp4").features.tobytes() in part.read_bytes():
                flip(part, offset_of(part, chunk("a.mp4").features.tobytes()))
        with pytest.raises(StoreFormatError, match=r"features of a\.mp4 were damaged .*again"):
            store.finish(sources, [], ROOT, complete=True)
        assert not path.exists()
    with OutputStore(path, IDENTITY) as store:
        assert [store.status(one) for one in sources] == [None, "ok"]


def test_finished_file_damaged_before_the_merge_fails(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4", "b.mp4"])
    flip(path, offset_of(path, chunk("a.mp4").features.tobytes()))
    damaged = path.read_bytes()
    with pytest.raises(StoreFormatError, match=r"feats\.h5:/videos/a\.mp4 is damaged"):
        write_file(path, ["c.mp4"])
    assert path.read_bytes() == damaged
    with OutputStore(path, IDENTITY) as store:
        assert store.status(source("c.mp4")) == "ok"  # what was done is kept


def test_system_trouble_does_not_cost_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "feats.h5"
    with OutputStore(path, IDENTITY) as store:
        write_video(store, source("a.mp4"))
        (part,) = store.parts_dir.glob("*.h5")

    def no_handles(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    with OutputStore(path, IDENTITY) as store:
        monkeypatch.setattr("rrm_extract.store.layout.h5py.File", no_handles)
        with pytest.raises(StoreError, match=r"cannot read .*Too many open files"):
            store.status(source("a.mp4"))
        assert part.exists()


@pytest.mark.parametrize("length", [226, 260])
def test_a_name_that_is_too_long_is_refused_at_once(tmp_path: Path, length: int) -> None:
    with pytest.raises(StoreWriteError, match=r"too long|its name has 226 bytes"):
        OutputStore(tmp_path / ("f" * (length - 3) + ".h5"), IDENTITY).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_the_longest_name_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("f" * 222 + ".h5")
    with OutputStore(path, IDENTITY) as store:
        store.finish([], [], ROOT, complete=True)
    with FeatureFile(path) as file:
        assert file.complete


@pytest.mark.parametrize("name", ["is_symlink", "is_dir"])
def test_a_folder_that_may_not_be_entered_is_told(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, name, refused)
    with pytest.raises(StoreWriteError, match="Permission denied"):
        OutputStore(tmp_path / "f.h5", IDENTITY).__enter__()


def test_a_file_that_may_not_be_looked_at_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refused)
    with pytest.raises(StoreError, match="Permission denied"):
        FeatureFile(tmp_path / "f.h5")


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StoreWriteError, match="keeps no locks"):
        OutputStore(tmp_path / "f.h5", IDENTITY).__enter__()


def test_macos_has_a_number_of_its_own_for_no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errno, "ENOTSUP", 45)
    monkeypatch.setattr(errno, "EOPNOTSUPP", 102)
    assert {45, 102} <= runpy.run_path(lock.__file__)["NO_LOCKS"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("owner", [merge, VideoFeatures], ids=["copying", "checking"])
def test_a_merge_that_is_interrupted_ends_at_once(
    owner: object, number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sources = tmp_path / "feats.h5", [source(name) for name in ("a.mp4", "b.mp4", "c.mp4")]
    name = "copy_video" if owner is merge else "check"
    step = getattr(owner, name)
    steps = 0

    def interrupted(*arguments: object) -> None:
        nonlocal steps
        steps += 1
        signal.raise_signal(number)
        step(*arguments)

    with monkeypatch.context() as patch, OutputStore(path, IDENTITY) as store:
        for one in sources:
            write_video(store, one)
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            patch.setattr(owner, name, interrupted)
            with pytest.raises(KeyboardInterrupt), held_back() as let_through:
                store.finish(sources, [], ROOT, complete=True, let_through=let_through)
        finally:
            signal.signal(signal.SIGTERM, before)
    assert steps == 1, "no video but the first"
    assert not path.exists()
    assert not list(store.parts_dir.glob(".*")), "no temporary file"
    with OutputStore(path, IDENTITY) as store:
        assert [store.status(one) for one in sources] == ["ok"] * 3
        assert store.finish(sources, [], ROOT, complete=True)
    assert same_content(path, write_file(tmp_path / "whole.h5", sources)) == []


def test_an_interrupt_behind_a_merge_leaves_it_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, what = tmp_path / "feats.h5", source("a.mp4")
    commit = merge.commit

    def interrupted(temp: Path, output: Path) -> None:
        commit(temp, output)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch, OutputStore(path, IDENTITY) as store:
        write_video(store, what)
        patch.setattr(merge, "commit", interrupted)
        with pytest.raises(KeyboardInterrupt), held_back() as let_through:
            store.finish([what], [], ROOT, complete=True, let_through=let_through)
    assert not store.parts_dir.exists()
    assert same_content(path, write_file(tmp_path / "whole.h5", [what])) == []


@pytest.mark.parametrize("is_there", [True, False])
def test_a_lock_of_another_user_is_named(
    is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "feats.h5"
    lock = tmp_path / ".feats.h5.lock"
    if is_there:
        lock.touch()
    open_any = os.open

    def refused(name: Path | str, *options: int) -> int:
        if Path(name) == lock:
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_any(name, *options)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(StoreWriteError) as caught:
        OutputStore(path, IDENTITY).__enter__()
    assert str(caught.value).startswith(f"cannot write {path}: ")
    assert "Permission denied" in str(caught.value)
    assert (f"lock {lock}" in str(caught.value)) == is_there
    assert ("delete the file" in str(caught.value)) == is_there


@pytest.mark.parametrize(("code", "passes"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_folders_that_cannot_be_synced(
    tmp_path: Path, code: int, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of VirtualBox, or of Windows on older kernels."""
    sync = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))
        sync(handle)

    monkeypatch.delattr(fcntl, "F_FULLFSYNC", raising=False)  # macOS would sync by that
    monkeypatch.setattr(os, "fsync", fsync)
    path = tmp_path / "feats.h5"
    with nullcontext() if passes else pytest.raises(StoreWriteError):
        with OutputStore(path, IDENTITY) as store:
            store.finish([], [], ROOT, complete=True)
        with FeatureFile(path) as file:
            assert file.complete


@pytest.mark.parametrize("refusal", [None, errno.ENOTSUP, errno.ENOTTY, errno.EIO])
def test_macos_syncs_to_the_drive_where_it_can(
    tmp_path: Path, refusal: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []

    def full_sync(handle: int, how: int) -> None:
        if refusal is not None:
            raise OSError(refusal, os.strerror(refusal))
        done.append(how)

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", full_sync)
    monkeypatch.setattr(os, "fsync", lambda handle: done.append("fsync"))
    fails = refusal == errno.EIO
    with pytest.raises(StoreWriteError) if fails else nullcontext():
        write_atomic(tmp_path / "file", b"bytes")
    assert set(done) == (set() if fails else {51 if refusal is None else "fsync"})
    assert (tmp_path / "file").exists() is not fails


def test_another_processor_alone_writes_nothing_anew(tmp_path: Path) -> None:
    """Nor does a network that is called by another path; what computed is kept."""
    output = tmp_path / "feats.h5"

    def run(videos: list[str], isa: str, model: str, *, ends: bool = True) -> bool:
        sources = [source(video) for video in videos]
        with OutputStore(output, IDENTITY, kernel_isa=isa) as store:
            for what in sources:
                if store.status(what) is None:
                    write_video(store, what)
            root = {**ROOT, "model": model}
            return ends and store.finish(sources, [], root, complete=True)

    def isas() -> str:
        with FeatureFile(output) as file:
            return str(file.attrs["kernel_isa"])

    assert run(["a.mp4"], "avx512", "./net.onnx")
    before = output.read_bytes()
    assert not run(["a.mp4"], "avx2", "/data/net.onnx")
    assert output.read_bytes() == before
    assert run(["a.mp4", "b.mp4"], "avx2", "/data/net.onnx")
    assert isas() == "avx512, avx2"
    assert run(["a.mp4", "b.mp4", "c.mp4"], "avx2", "/data/net.onnx")
    assert isas() == "avx512, avx2"
    # A run that was ended, and another one that puts together what it has left.
    run(["a.mp4", "d.mp4"], "portable", "./net.onnx", ends=False)
    assert run(["a.mp4", "d.mp4"], "neon", "./net.onnx")
    assert isas() == "avx512, avx2, portable"
    with OutputStore(output, IDENTITY, kernel_isa="never") as store:
        store.record_failure(failure("e.mp4"))
    run(["e.mp4"], "portable", "./net.onnx", ends=False)
    assert run(["e.mp4", "f.mp4"], "neon", "./net.onnx")
    assert isas() == "avx512, avx2, portable, neon"


class _NoRoomAtTheEnd:
    """A file on a network disk that says only when it is closed that there was no room."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        self._file.close()
        raise OSError(errno.EDQUOT, "Disk quota exceeded")


def test_what_a_disk_says_when_a_file_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = source("a.mp4")
    with OutputStore(tmp_path / "feats.h5", IDENTITY) as store:
        begin = ShieldedFile.__init__

        def opened(self: ShieldedFile, path: Path) -> None:
            begin(self, path)
            self._file = _NoRoomAtTheEnd(self._file)  # type: ignore[assignment]

        with monkeypatch.context() as full:
            full.setattr(ShieldedFile, "__init__", opened)
            with pytest.raises(StoreWriteError, match="quota"):
                write_video(store, what)
        assert store.status(what) is None
        write_video(store, what)
        with monkeypatch.context() as full:
            full.setattr(ShieldedFile, "__init__", opened)
            with pytest.raises(StoreWriteError, match="quota"):
                store.finish([what], [], ROOT, complete=True)
        assert store.finish([what], [], ROOT, complete=True)
    assert names_in(tmp_path) == {"feats.h5"}
