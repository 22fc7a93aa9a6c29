"""What is known of the features' errors, from the chunk to the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from rrm_extract.errors import StoreFormatError
from rrm_extract.store import FeatureFile, OutputStore, load_chunk, same_content, save_chunk
from rrm_extract.store.schema import ChunkResult

from .helpers import IDENTITY, LAYERS, ROOT, chunk, flip, source, write_file, write_video


def expected(video_id: str, *, chunks: int = 2) -> dict[str, np.ndarray]:
    made = [chunk(video_id, index, audited=True) for index in range(chunks)]
    return {
        "error": np.concatenate([each.audit_error for each in made]),  # type: ignore[misc]
        "estimate": np.concatenate([each.estimate for each in made]),  # type: ignore[misc]
    }


def check(path: Path, video_id: str) -> None:
    with FeatureFile(path) as file:
        video = file[video_id]
        video.check()
        assert list(video.audit) == ["error", "estimate"]
        for name, column in expected(video_id).items():
            np.testing.assert_array_equal(video.audit[name], column)
            assert video.audit[name].dtype == np.float32


def write_chunks(path: Path, *chunks: ChunkResult) -> dict[str, np.ndarray]:
    with OutputStore(path, IDENTITY) as store:
        with store.part(source("a.mp4"), feature_shape=(8,)) as part:
            for each in chunks:
                part.append(each)
            part.finish(layers=LAYERS, attrs={})
        store.finish([source("a.mp4")], [], ROOT, complete=True)
    with FeatureFile(path) as file:
        return file["a.mp4"].audit


def test_errors_come_back(tmp_path: Path) -> None:
    path = write_file(tmp_path / "f.h5", ["a.mp4", "sub/b.mp4"], audited=True)
    for video_id in ("a.mp4", "sub/b.mp4"):
        check(path, video_id)
    with h5py.File(path) as file:
        assert file.attrs["format_version"] == "1.1"
        rows = file["videos/a.mp4/audit/error"]
        assert rows.fletcher32
        assert rows.shape == (10,)


def test_nothing_known_is_no_group(tmp_path: Path) -> None:
    path = write_file(tmp_path / "f.h5", ["a.mp4"])
    nothing = replace(chunk("a.mp4"), estimate=np.full(5, np.nan, np.float32))
    other = tmp_path / "g.h5"
    assert write_chunks(other, nothing) == {}
    for each in (path, other):
        with h5py.File(each) as file:
            assert "audit" not in file["videos/a.mp4"]
        with FeatureFile(each) as file:
            assert file["a.mp4"].audit == {}


def test_chunks_with_and_without_errors(tmp_path: Path) -> None:
    audit = write_chunks(
        tmp_path / "f.h5",
        chunk("a.mp4", 0),
        chunk("a.mp4", 1, audited=True),
        chunk("a.mp4", 2, frames=0, audited=True),
    )
    assert np.isnan(audit["error"][:5]).all()
    np.testing.assert_array_equal(audit["error"][5:], chunk("a.mp4", 1, audited=True).audit_error)


def test_an_infinite_error_is_known(tmp_path: Path) -> None:
    error = np.array([np.nan, np.inf, np.nan, np.nan, np.nan], np.float32)
    audit = write_chunks(tmp_path / "f.h5", replace(chunk("a.mp4"), audit_error=error))
    np.testing.assert_array_equal(audit["error"], error)
    assert np.isnan(audit["estimate"]).all()


def test_errors_survive_an_interruption_and_a_merge(tmp_path: Path) -> None:
    whole = write_file(tmp_path / "whole.h5", ["a.mp4", "b.mp4", "c.mp4"], audited=True)
    path = write_file(tmp_path / "f.h5", ["a.mp4"], audited=True)
    with OutputStore(path, IDENTITY) as store:
        write_video(store, source("b.mp4"), audited=True)
        for index in range(2):
            save_chunk(
                store.chunk_path(source("c.mp4"), index), chunk("c.mp4", index, audited=True)
            )
    # Interrupted: one video is in the file, one in its part, one in its chunks.
    with OutputStore(path, IDENTITY) as store:
        assert [store.status(source(f"{name}.mp4")) for name in "abc"] == ["ok", "ok", None]
        with store.part(source("c.mp4"), feature_shape=(8,)) as part:
            for index in range(2):
                found = load_chunk(store.chunk_path(source("c.mp4"), index))
                assert found is not None
                part.append(found)
            attrs = {"n_decoded": part.n_frames, "time_base": "1/12288", "seconds_decode": 0.25}
            part.finish(layers=LAYERS, attrs=attrs)
        store.finish([source(f"{name}.mp4") for name in "abc"], [], ROOT, complete=True)
    assert same_content(path, whole) == []
    for name in "abc":
        check(path, f"{name}.mp4")


@pytest.mark.parametrize("row", ["error", "estimate"])
def test_other_errors_are_a_difference(tmp_path: Path, row: str) -> None:
    one = write_file(tmp_path / "1.h5", ["a.mp4"], audited=True)
    two = write_file(tmp_path / "2.h5", ["a.mp4"], audited=True)
    assert same_content(one, two) == [], "a NaN is equal to itself"
    with h5py.File(two, "r+") as file:
        file["videos/a.mp4/audit"][row][4] = 9
    assert same_content(one, two) == [f"/videos/a.mp4/audit/{row}: differs from row 4 on"]
    without = write_file(tmp_path / "3.h5", ["a.mp4"])
    assert same_content(one, without) == [
        f"/videos/a.mp4/audit/{name}: only in the first" for name in ("error", "estimate")
    ]


def test_a_damaged_error_is_found(tmp_path: Path) -> None:
    path = write_file(tmp_path / "f.h5", ["a.mp4"], audited=True)
    flip(path, path.read_bytes().find(expected("a.mp4")["estimate"].tobytes()) + 5)
    with FeatureFile(path) as file, pytest.raises(StoreFormatError, match="damaged"):
        file["a.mp4"].check()


@pytest.mark.parametrize("missing", ["error", "estimate"])
def test_half_an_audit_is_damage(tmp_path: Path, missing: str) -> None:
    path = write_file(tmp_path / "f.h5", ["a.mp4"], audited=True)
    with h5py.File(path, "r+") as file:
        del file["videos/a.mp4/audit"][missing]
    with FeatureFile(path) as file, pytest.raises(StoreFormatError, match=missing):
        file["a.mp4"].check()


def test_videos_named_like_an_audit(tmp_path: Path) -> None:
    names = ["a.mp4", "a.mp4/audit", "a.mp4/audit/error", "audit/a.mp4"]
    path = write_file(tmp_path / "f.h5", names, audited=True)
    with FeatureFile(path) as file:
        assert sorted(file) == sorted(names)
    for name in names:
        check(path, name)
    # Once more, from file to file.
    write_file(path, [*names, "b.mp4"], audited=True)
    for name in names:
        check(path, name)


@pytest.mark.parametrize("nested", ["audit", "audit/x.mp4", "audit/error", None])
def test_a_file_of_format_1_0_is_read(tmp_path: Path, nested: str | None) -> None:
    """It has no errors, and may have videos of such names unescaped."""
    path = write_file(tmp_path / "f.h5", ["a.mp4", *([f"a.mp4/{nested}"] if nested else [])])
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = "1.0"
        if nested is not None:
            file["videos/a.mp4"].move("%61udit", "audit")
            ids = file["index/video_id"]
            ids[...] = [name.decode().replace("%61udit", "audit") for name in ids[...]]
    with FeatureFile(path) as file:
        assert file.version == (1, 0)
        for video in file.values():
            assert video.audit == {}
            video.check()
            assert video.features.shape == (10, 8)
        assert len(file) == (1 if nested is None else 2)
    assert same_content(path, path) == []
