from __future__ import annotations

import csv
import importlib
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from rrm_extract.errors import StoreFormatError, StoreWriteError, UsageError
from rrm_extract.store import LAYOUTS, FeatureFile, Layout, export
from rrm_extract.store.export import TASK_LAYOUTS

from .helpers import GuardedWrites, expected_features, names_in, write_file

FEATURE_LAYOUTS = [layout for layout in LAYOUTS if layout not in TASK_LAYOUTS]


def test_npy(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["S/a.mp4", "b.mp4"])
    summary = export(path, tmp_path / "out", layout="npy")
    assert (summary.n_videos, summary.n_frames, len(summary.files)) == (2, 20, 4)
    for video_id in ("S/a.mp4", "b.mp4"):
        found = np.load(tmp_path / "out" / f"{video_id}.npy")
        np.testing.assert_array_equal(found, expected_features(video_id))
        assert found.dtype == np.float32
        times = np.load(tmp_path / "out" / f"{video_id}.timestamps.npy")
        assert times.shape == (10,)
    assert all(file.exists() for file in summary.files)


def test_npy_stays_in_its_folder(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["../../evil.mp4", "/abs.mp4", "caf\udce9.mp4"])
    summary = export(path, tmp_path / "deep" / "er" / "out", layout="npy")
    inside = (tmp_path / "deep" / "er" / "out").resolve()
    assert all(inside in file.resolve().parents for file in summary.files)
    assert all(file.exists() for file in summary.files)


def test_flat(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["b, c.mp4", "a.mp4"], dtype="float16")
    export(path, tmp_path / "out", layout="flat")
    features = np.load(tmp_path / "out" / "features.npy", mmap_mode="r")
    times = np.load(tmp_path / "out" / "timestamps.npy")
    assert (features.shape, features.dtype, times.shape) == ((20, 8), np.float16, (20,))
    with (tmp_path / "out" / "index.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [row["video_id"] for row in rows] == ["a.mp4", "b, c.mp4"]
    for row in rows:
        np.testing.assert_array_equal(
            features[int(row["start"]) : int(row["stop"])],
            expected_features(row["video_id"]).astype(np.float16),
        )


def test_activitynet(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["train/v_QOlSCBRmfWY.mp4", "x.y.mkv"])
    export(path, tmp_path / "out", layout="activitynet")
    with h5py.File(tmp_path / "out" / "activitynet.h5") as file:
        assert [*file] == ["v_QOlSCBRmfWY", "v_x.y"]
        found = file["v_x.y"]["c3d_features"][:]
    np.testing.assert_array_equal(found, expected_features("x.y.mkv"))


def test_an_interrupt_is_not_heard_while_hdf5_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4", "b.mp4"])
    writes = GuardedWrites(monkeypatch, tmp_path)
    export(path, tmp_path / "out", layout="activitynet")
    assert writes.count > 2
    assert writes.unguarded == 0


@pytest.mark.parametrize("layout", FEATURE_LAYOUTS)
def test_no_videos(tmp_path: Path, layout: Layout) -> None:
    path = write_file(tmp_path / "feats.h5", [])
    assert export(path, tmp_path / "out", layout=layout).n_frames == 0


@pytest.mark.parametrize("layout", FEATURE_LAYOUTS)
def test_existing_files_fails(tmp_path: Path, layout: Layout) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"])
    out = tmp_path / "out"
    first = export(path, out, layout=layout)
    first.files[0].write_text("mine")
    with pytest.raises(StoreWriteError, match="would be written over; use --overwrite"):
        export(path, out, layout=layout)
    assert first.files[0].read_text() == "mine"
    assert export(path, out, layout=layout, overwrite=True) == first
    assert first.files[0].read_bytes() != b"mine"
    assert names_in(out) == {file.name for file in first.files}


def test_the_feature_file_is_not_written_over(tmp_path: Path) -> None:
    path = write_file(tmp_path / "activitynet.h5", ["a.mp4"])
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"activitynet\.h5 is the feature file itself"):
        export(path, tmp_path, layout="activitynet", overwrite=True)
    assert path.read_bytes() == before
    assert len(export(path, tmp_path / "out", layout="activitynet").files) == 1


def test_equal_stems_fails(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a/x.mp4", "b/x.avi"])
    with pytest.raises(UsageError, match=r"'a/x.mp4' and 'b/x.avi' would both be 'v_x'"):
        export(path, tmp_path / "out", layout="activitynet")
    assert not (tmp_path / "out").exists()


def test_colliding_files_fails(tmp_path: Path) -> None:
    same = write_file(tmp_path / "1.h5", ["a.mp4", "a.mp4.timestamps"])
    with pytest.raises(UsageError, match=r"would both be 'a.mp4.timestamps.npy'"):
        export(same, tmp_path / "out", layout="npy")
    nested = write_file(tmp_path / "2.h5", ["a.mp4", "a.mp4.npy/b.mp4"])
    with pytest.raises(UsageError, match=r"where 'a\.mp4\.npy/b\.mp4' needs a folder"):
        export(nested, tmp_path / "out", layout="npy")


def test_names_too_long_for_a_file_fail_before_anything_is_written(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4", "x" * 240 + ".mp4"])
    with pytest.raises(UsageError, match=r"xxx\S* is too long a name .* --layout flat"):
        export(path, tmp_path / "out", layout="npy")
    assert not (tmp_path / "out").exists()
    assert export(path, tmp_path / "out", layout="flat").n_videos == 2


def test_names_that_differ_in_case_alone(tmp_path: Path) -> None:
    (tmp_path / "case").touch()
    if (tmp_path / "CASE").exists():
        pytest.skip("this disk ignores case")
    path = write_file(tmp_path / "feats.h5", ["S/a.mp4", "S/A.mp4", "b.mp4"])
    out = tmp_path / "out"
    summary = export(path, out, layout="npy")
    assert len(summary.files) == len(names_in(out / "S")) + 2 == 6
    assert export(path, out, layout="npy", overwrite=True) == summary, "of both there are files"


def test_names_that_differ_in_case_alone_where_it_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_file(tmp_path / "feats.h5", ["S/a.mp4", "S/A.mp4", "b.mp4"])
    out = tmp_path / "out"
    before = out / "S" / "A.mp4.npy"
    before.parent.mkdir(parents=True)
    before.write_bytes(b"before")

    def folded(path: Path) -> Path:
        return path.with_name(f".{path.name.lower()}.tmp")

    module = importlib.import_module("rrm_extract.store.export")
    monkeypatch.setattr(module, "temp_path", folded)  # as a disk has it that ignores case
    with pytest.raises(UsageError, match=r"a\.mp4\.npy and \S*A\.mp4\.npy are one file to the"):
        export(path, out, layout="npy", overwrite=True)
    assert [*(out / "S").iterdir()] == [before], "no temporary file"
    assert before.read_bytes() == b"before"
    assert export(path, out, layout="flat").n_videos == 3


def test_mixed_widths_fails(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"])
    write_file(path, ["b.mp4"], width=9)
    with pytest.raises(UsageError, match="several shapes or types"):
        export(path, tmp_path / "out", layout="flat")


def test_unknown_layout_fails(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"])
    with pytest.raises(UsageError, match="expected one of npy, flat, activitynet"):
        export(path, tmp_path / "out", layout="csv")  # type: ignore[arg-type]


def test_file_in_the_way_fails(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"])
    (tmp_path / "out").write_text("x")
    with pytest.raises(StoreWriteError, match=r"cannot write .*out: "):
        export(path, tmp_path / "out", layout="npy")


def test_damaged_source_fails(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"])
    data = bytearray(path.read_bytes())
    data[data.find(expected_features("a.mp4").tobytes())] ^= 1
    path.write_bytes(data)
    with FeatureFile(path), pytest.raises(StoreFormatError, match="damaged"):
        export(path, tmp_path / "out", layout="npy")
    assert names_in(tmp_path / "out") == set()


def test_what_killed_exports_have_left_is_removed(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["S/a.mp4"])
    folder = tmp_path / "out" / "S"
    folder.mkdir(parents=True)
    ours = [".a.mp4.npy.1.tmp", ".a.mp4.timestamps.npy.4194304.tmp"]
    others = [".b.mp4.npy.1.tmp", ".a.mp4.npy.x.tmp", "a.mp4.npy.1.tmp", ".a.mp4.npy.tmp"]
    for name in (*ours, *others, ".a.mp4.npy.4194305.tmp"):
        (folder / name).write_bytes(b"half")
    for name in (*ours, *others):
        os.utime(folder / name, (0, 0))
    written = [file.name for file in export(path, tmp_path / "out", layout="npy").files]
    left = {file.name for file in folder.iterdir()}
    assert left == {*written, *others, ".a.mp4.npy.4194305.tmp"}, "another one may still write"


def test_layouts_of_a_task_are_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path / "f.h5", ["a.mp4"])
    for layout in TASK_LAYOUTS:
        with pytest.raises(UsageError, match=f"has features, .* no layout '{layout}'; .* npy, fl"):
            export(path, tmp_path / "out", layout=layout)
    assert not (tmp_path / "out").exists()
