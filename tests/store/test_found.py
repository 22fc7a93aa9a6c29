"""What a task found, in a file: made-up objects and people."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from rrm_extract.errors import InputError, StoreFormatError, StoreMismatchError, StoreWriteError
from rrm_extract.store import (
    TASK_FORMAT_VERSION,
    ChunkResult,
    FeatureFile,
    Found,
    Layout,
    OutputStore,
    TaskRows,
    escape,
    export,
    load_chunk,
    same_content,
    save_chunk,
)
from rrm_extract.store.export import TASK_LAYOUTS
from tests.store.helpers import IDENTITY, LAYERS, ROOT, chunk, failure, source, write_file

OBJECTS = TaskRows(task="detect")
PEOPLE = TaskRows(task="pose", parts=18)
ABOUT = {
    "detect": {"n_classes": 3},
    "pose": {
        "keypoint_names": np.array([f"part {i}" for i in range(18)], object),
        "limbs": np.array([[0, 1], [1, 2]], np.int64),
    },
}
TASK_IDENTITY = {**IDENTITY, "task": "detect"}


def found_of(counts: list[int], rows: TaskRows, *, seed: int = 0) -> Found:
    random = np.random.default_rng([seed, *counts])
    return Found(
        counts=np.array(counts, np.int64),
        frame_size=np.array([[48, 64]] * len(counts), np.int32).reshape(-1, 2),
        columns={
            name: (random.random((sum(counts), *tail)) * 3).astype(dtype)
            for name, (tail, dtype) in rows.columns.items()
        },
    )


def task_chunk(video_id: str, index: int, counts: list[int], rows: TaskRows) -> ChunkResult:
    plain = chunk(video_id, index, frames=len(counts), width=0)
    return ChunkResult(**{**vars(plain), "found": found_of(counts, rows, seed=index)})


def write_task(
    output: Path,
    videos: dict[str, list[list[int]]],
    rows: TaskRows = OBJECTS,
    *,
    failed: tuple[str, ...] = (),
) -> Path:
    identity = {**IDENTITY, "task": rows.task}
    with OutputStore(output, identity, task=rows) as store:
        for video_id, chunks in videos.items():
            if store.status(source(video_id)) is None:
                with store.part(source(video_id)) as part:
                    for index, counts in enumerate(chunks):
                        part.append(task_chunk(video_id, index, counts, rows))
                    part.finish(layers=LAYERS, attrs={"time_base": "1/24"})
        about = {**ROOT, **ABOUT[rows.task]}
        store.finish(map(source, videos), map(failure, failed), about, complete=True)
    return output


@pytest.mark.parametrize("rows", [OBJECTS, PEOPLE], ids=["objects", "people"])
def test_frames_have_their_rows(tmp_path: Path, rows: TaskRows) -> None:
    counts = [[2, 0, 1], [0], [], [3, 0]]
    path = write_task(tmp_path / "f.h5", {"a.mp4": counts}, rows)
    parts = [found_of(some, rows, seed=index) for index, some in enumerate(counts)]
    with h5py.File(path) as f:
        group = f[f"videos/a.mp4/{rows.task}"]
        assert group["offsets"][:].tolist() == [0, 2, 2, 3, 3, 6, 6]
        assert group["frame_size"].shape == (6, 2)
        for name in rows.columns:
            expected = np.concatenate([part.columns[name] for part in parts])
            np.testing.assert_array_equal(group[name][:], expected)
        assert (f.attrs["format_version"], f.attrs["task"]) == (TASK_FORMAT_VERSION, rows.task)
    with FeatureFile(path) as file:
        assert (file.version, file.task) == ((2, 0), rows.task)
        found = file["a.mp4"].found
        assert (len(found), found.total, found.counts.tolist()) == (6, 6, [2, 0, 1, 0, 3, 0])
        frames = list(found)
        assert [len(frame) for frame in frames] == [2, 0, 1, 0, 3, 0]
        np.testing.assert_array_equal(frames[4].scores, parts[3].columns["scores"])
        np.testing.assert_array_equal(found[-2].scores, parts[3].columns["scores"])
        assert [len(frame) for frame in found[1:3]] == [0, 1]
        assert (frames[0].height, frames[0].width) == (48, 64)
        with pytest.raises(IndexError, match="frame 6 of 6"):
            found[6]


@pytest.mark.parametrize("rows", [OBJECTS, PEOPLE], ids=["objects", "people"])
def test_a_wrong_index_is_no_damage(tmp_path: Path, rows: TaskRows) -> None:
    path = write_task(tmp_path / "f.h5", {"a.mp4": [[2, 0, 1]]}, rows)
    with FeatureFile(path) as file:
        found = file["a.mp4"].found
        wrong: list[object] = [1.0, "0", None, [0, 1], np.float32(1), np.array([0, 1])]
        for index in wrong:
            with pytest.raises(TypeError, match=r"frame .*: expected an integer or a slice"):
                found[index]  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="slice indices must be integers"):
            found[0.5:]  # type: ignore[misc]
        for index in (np.int64(-3), np.uint8(0), np.array(0), -3):
            assert len(found[index]) == 2  # type: ignore[call-overload]
        with pytest.raises(IndexError, match="frame -4 of 3"):
            found[np.int8(-4)]  # type: ignore[call-overload]


@pytest.mark.parametrize("rows", [OBJECTS, PEOPLE], ids=["objects", "people"])
@pytest.mark.parametrize("counts", [[], [[0, 0]], [[]]], ids=["no chunk", "nothing", "no frame"])
def test_nothing_found(tmp_path: Path, rows: TaskRows, counts: list[list[int]]) -> None:
    path = write_task(tmp_path / "f.h5", {"a.mp4": counts}, rows)
    with FeatureFile(path) as file:
        found = file["a.mp4"].found
        assert (len(found), found.total) == (sum(map(len, counts)), 0)
        assert found.offsets.tolist() == [0] * (1 + len(found))
        assert [len(frame) for frame in found] == [0] * len(found)


def test_many_frames_are_read_in_order(tmp_path: Path) -> None:
    counts = (np.arange(2500) % 4).tolist()
    path = write_task(tmp_path / "f.h5", {"a.mp4": [counts]})
    with FeatureFile(path) as file:
        found = file["a.mp4"].detections
        assert [len(frame) for frame in found] == counts
        np.testing.assert_array_equal(np.concatenate([frame.boxes for frame in found]), found.boxes)


def test_a_run_that_goes_on_adds_to_the_file(tmp_path: Path) -> None:
    whole = write_task(tmp_path / "w.h5", {"a.mp4": [[1, 2]], "b.mp4": [[0], [4]]})
    path = write_task(tmp_path / "f.h5", {"b.mp4": [[0], [4]]})
    write_task(path, {"a.mp4": [[1, 2]], "b.mp4": [[9]]})
    assert same_content(whole, path) == []


def test_a_run_with_nothing_to_do_leaves_the_file(tmp_path: Path) -> None:
    path = write_task(tmp_path / "f.h5", {"a.mp4": [[1, 2]]}, PEOPLE)
    before = path.stat()
    write_task(path, {"a.mp4": [[1, 2]]}, PEOPLE)
    assert path.stat().st_ino == before.st_ino


def test_other_objects_are_other_content(tmp_path: Path) -> None:
    one = write_task(tmp_path / "1.h5", {"a.mp4": [[1, 2, 1]]})
    two = write_task(tmp_path / "2.h5", {"a.mp4": [[1, 1, 2]]})
    (offsets,) = [line for line in same_content(one, two) if "offsets" in line]
    assert offsets == "/videos/a.mp4/detect/offsets: differs from row 2 on"


def test_names_that_the_file_keeps_free(tmp_path: Path) -> None:
    names = ["a.mp4", "a.mp4/detect", "x/pose/b.mp4", "pose/c.mp4", "a.mp4/layers"]
    path = write_task(tmp_path / "f.h5", {name: [[1]] for name in names}, failed=("y/detect",))
    with FeatureFile(path) as file:
        assert sorted(file) == sorted(names)
        assert [record.video_id for record in file.failures] == ["y/detect"]
        for video in file.values():
            video.check()
    assert escape("x/pose/b.mp4") == "x/pose/b.mp4", "files of features keep their names"
    assert escape("x/pose/b.mp4", task="detect") == "x/%70ose/b.mp4"
    write_task(path, {name: [[1]] for name in names})
    with FeatureFile(path) as file:
        assert sorted(file) == sorted(names), "none is there twice"


def test_features_and_objects_do_not_mix(tmp_path: Path) -> None:
    features = write_file(tmp_path / "f.h5", ["a.mp4"])
    with FeatureFile(features) as file:
        assert (file.task, file.version) == (None, (1, 1))
        with pytest.raises(InputError, match=r"f\.h5 has features, not detections; .*--task det"):
            _ = file["a.mp4"].detections
    with pytest.raises(StoreMismatchError, match="task was not set"):
        write_task(features, {"b.mp4": [[1]]})
    unfinished = tmp_path / "g.h5"
    with OutputStore(unfinished, IDENTITY) as store:
        save_chunk(store.chunk_path(source("a.mp4"), 0), chunk("a.mp4"))
    with pytest.raises(StoreMismatchError, match=r"unfinished work in .* task was not set"):
        write_task(unfinished, {"b.mp4": [[1]]})
    with OutputStore(unfinished, IDENTITY) as store:
        assert load_chunk(store.chunk_path(source("a.mp4"), 0)) is not None
        with (
            store.part(source("a.mp4"), feature_shape=(0,)) as part,
            pytest.raises(ValueError, match="has a task's rows, expected features"),
        ):
            part.append(task_chunk("a.mp4", 0, [1], OBJECTS))
    with (
        OutputStore(tmp_path / "h.h5", TASK_IDENTITY, task=OBJECTS) as store,
        store.part(source("a.mp4")) as part,
        pytest.raises(ValueError, match="has features, expected a task's rows"),
    ):
        part.append(chunk("a.mp4", width=0))


def test_columns_that_do_not_fit_fail(tmp_path: Path) -> None:
    good = task_chunk("a.mp4", 0, [1, 2], OBJECTS)
    assert good.found is not None
    found = vars(good.found)
    bad = [
        ({"counts": np.array([1], np.int64)}, r"counts is \(1,\), expected \(2,\)"),
        ({"counts": np.array([1, 1])}, r"boxes is \(3, 4\), expected \(2, 4\)"),
        ({"frame_size": np.zeros((2, 3))}, r"frame_size is \(2, 3\), expected \(2, 2\)"),
    ]
    with OutputStore(tmp_path / "f.h5", TASK_IDENTITY, task=OBJECTS) as store:
        for change, message in bad:
            with store.part(source("a.mp4")) as part, pytest.raises(ValueError, match=message):
                part.append(ChunkResult(**{**vars(good), "found": Found(**{**found, **change})}))


def damage(path: Path, name: str, values: object) -> None:
    with h5py.File(path, "r+") as file:
        group = file["videos/a.mp4/detect"]
        if values is None:
            del group[name]
        else:
            group[name][...] = values


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("offsets", [0, 3, 2], "do not ascend from 0"),
        ("offsets", [1, 2, 3], "do not ascend from 0"),
        ("offsets", [0, 1, 4], r"boxes is \(3, 4\) for 4 rows"),
        ("scores", None, "scores"),
        ("frame_size", None, "frame_size"),
    ],
)
def test_damaged_rows_fail(tmp_path: Path, name: str, values: object, message: str) -> None:
    path = write_task(tmp_path / "f.h5", {"a.mp4": [[1, 2]]})
    damage(path, name, values)
    with FeatureFile(path) as file, pytest.raises(StoreFormatError, match=message):
        file["a.mp4"].check()


def test_an_unknown_task_fails(tmp_path: Path) -> None:
    path = write_task(tmp_path / "f.h5", {"a.mp4": [[1]]})
    with h5py.File(path, "r+") as file:
        file.attrs["task"] = "faces"
    with pytest.raises(StoreFormatError, match="task is 'faces'"):
        FeatureFile(path)


@pytest.mark.parametrize(
    ("rows", "name"), [(OBJECTS, "n_classes"), (PEOPLE, "keypoint_names"), (PEOPLE, "limbs")]
)
def test_what_rows_cannot_be_understood_without_fails(
    tmp_path: Path, rows: TaskRows, name: str
) -> None:
    path = write_task(tmp_path / "f.h5", {"a.mp4": [[1]]}, rows)
    with h5py.File(path, "r+") as file:
        del file.attrs[name]
    with pytest.raises(StoreFormatError, match=f"{name} is missing"):
        FeatureFile(path)


def test_a_chunk_survives_its_file(tmp_path: Path) -> None:
    written = task_chunk("a.mp4", 3, [2, 0, 1], PEOPLE)
    save_chunk(tmp_path / "3.npz", written)
    read = load_chunk(tmp_path / "3.npz")
    assert read is not None
    assert read.features.shape == (3, 0)
    assert written.found is not None
    assert read.found is not None
    assert read.found.columns.keys() == written.found.columns.keys()
    for name, column in written.found.columns.items():
        np.testing.assert_array_equal(read.found.columns[name], column)
        assert read.found.columns[name].dtype == column.dtype
    np.testing.assert_array_equal(read.found.counts, written.found.counts)
    np.testing.assert_array_equal(read.found.frame_size, written.found.frame_size)


@pytest.mark.parametrize("rows", [OBJECTS, PEOPLE], ids=["objects", "people"])
@pytest.mark.parametrize("layout", TASK_LAYOUTS)
def test_exports_are_not_written_over(tmp_path: Path, layout: Layout, rows: TaskRows) -> None:
    path = write_task(tmp_path / "f.h5", {"a.mp4": [[1]], "b.mp4": [[0, 2]]}, rows)
    summary = export(path, tmp_path / "out", layout=layout)
    assert (summary.n_videos, summary.n_frames) == (2, 3)
    assert all(file.stat().st_size for file in summary.files)
    before = [file.read_bytes() for file in summary.files]
    with pytest.raises(StoreWriteError, match="use --overwrite"):
        export(path, tmp_path / "out", layout=layout)
    export(path, tmp_path / "out", layout=layout, overwrite=True)
    if layout != "npz":  # an archive has times in it
        assert [file.read_bytes() for file in summary.files] == before


@pytest.mark.parametrize("layout", TASK_LAYOUTS)
def test_exports_of_no_videos(tmp_path: Path, layout: Layout) -> None:
    path = write_task(tmp_path / "f.h5", {})
    assert export(path, tmp_path / "out", layout=layout).n_frames == 0


def test_the_names_of_classes_are_read_once_for_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_task(tmp_path / "f.h5", {"a.mp4": [[1, 2]], "b.mp4": [[1]]})
    reads = 0

    def class_names(_: FeatureFile) -> tuple[str, ...]:
        nonlocal reads
        reads += 1
        return ("cat", "dog", "bird")

    monkeypatch.setattr(FeatureFile, "class_names", property(class_names))
    (table,) = export(path, tmp_path / "out", layout="csv").files
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert {row["class_name"] for row in rows} <= {"cat", "dog", "bird"}
    assert reads == 1


def test_copies_call_videos_as_the_file_does(tmp_path: Path) -> None:
    ids = ["S1/pose/a.mp4", "My%20clip.mp4", "caf\udce9.mp4"]
    path = write_task(tmp_path / "f.h5", {one: [[1, 0]] for one in ids}, PEOPLE)
    with h5py.File(path) as file:
        stored = [name.decode() for name in file["index/video_id"][:]]
    for layout in ("csv", "coco"):
        export(path, tmp_path / "out", layout=layout)
    with (tmp_path / "out" / "people.csv").open(newline="", encoding="utf-8") as table:
        assert [row["video_id"] for row in csv.DictReader(table)] == stored
    images = json.loads((tmp_path / "out" / "coco_images.json").read_text())["images"]
    assert [image["video_id"] for image in images[::2]] == stored
    assert {image["video"] for image in images} == {*ids}, "annotations go by these"
    made = export(path, tmp_path / "each", layout="npz").files
    assert [file.relative_to(tmp_path / "each").as_posix() for file in made] == [
        f"{name}.npz" for name in stored
    ]
