from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from rrm_extract.errors import FeatureRangeError
from rrm_extract.store import FeatureFile, OutputStore, save_chunk

from .helpers import (
    IDENTITY,
    LAYERS,
    chunk,
    expected_features,
    flip,
    names_in,
    offset_of,
    source,
    write_file,
    write_video,
)


def part_files(store: OutputStore) -> list[Path]:
    return sorted(store.parts_dir.glob("*.h5"))


def test_part_is_done_when_finished(tmp_path: Path) -> None:
    with OutputStore(tmp_path / "feats.h5", IDENTITY) as store:
        assert store.status(source("a.mp4")) is None
        with store.part(source("a.mp4"), feature_shape=(8,)) as part:
            part.append(chunk("a.mp4"))
            assert store.status(source("a.mp4")) is None
            part.finish(layers=LAYERS, attrs={}, status="partial")
            assert part.n_frames == 5
        assert store.status(source("a.mp4")) == "partial"
        assert len(part_files(store)) == 1


def test_part_left_unfinished_leaves_nothing(tmp_path: Path) -> None:
    with OutputStore(tmp_path / "feats.h5", IDENTITY) as store:
        with store.part(source("a.mp4"), feature_shape=(8,)) as part:
            part.append(chunk("a.mp4"))
        assert {p.name for p in store.parts_dir.iterdir()} == {"job.json"}


def test_part_removes_its_chunks(tmp_path: Path) -> None:
    with OutputStore(tmp_path / "feats.h5", IDENTITY) as store:
        for video_id in ("a.mp4", "b.mp4"):
            save_chunk(store.chunk_path(source(video_id), 0), chunk(video_id))
        write_video(store, source("a.mp4"))
        assert not store.chunk_path(source("a.mp4"), 0).exists()
        assert store.chunk_path(source("b.mp4"), 0).exists()


def test_chunk_path_changes_with_the_source(tmp_path: Path) -> None:
    with OutputStore(tmp_path / "feats.h5", IDENTITY) as store:
        paths = {
            store.chunk_path(source("a.mp4", size=size, mtime_ns=mtime), index)
            for size in (1, 2)
            for mtime in (1, 2)
            for index in (0, 1)
        }
    assert len(paths) == 8
    assert len({path.parent for path in paths}) == 4


@pytest.mark.parametrize("where", ["features", "timestamps"])
def test_damaged_part_is_not_done(tmp_path: Path, where: str) -> None:
    output = tmp_path / "feats.h5"
    with OutputStore(output, IDENTITY) as store:
        write_video(store, source("a.mp4"))
        (path,) = part_files(store)
    flip(path, offset_of(path, getattr(chunk("a.mp4"), where).tobytes()[8:40]) + 1)
    with OutputStore(output, IDENTITY) as store:
        assert store.status(source("a.mp4")) is None
        assert not path.exists()


def test_cut_part_is_not_done(tmp_path: Path) -> None:
    output = tmp_path / "feats.h5"
    with OutputStore(output, IDENTITY) as store:
        write_video(store, source("a.mp4"))
        (path,) = part_files(store)
    whole = path.read_bytes()
    for size in (0, 7, 500, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with OutputStore(output, IDENTITY) as store:
            assert store.status(source("a.mp4")) is None
            assert not path.exists()
            path.write_bytes(whole)  # so that the folder has work in it
    with OutputStore(output, IDENTITY) as store:
        assert store.status(source("a.mp4")) == "ok"


def test_changed_source_is_not_done(tmp_path: Path) -> None:
    output = tmp_path / "feats.h5"
    with OutputStore(output, IDENTITY) as store:
        write_video(store, source("a.mp4"))
        assert store.status(source("a.mp4", size=1001)) is None
        assert store.status(source("a.mp4", mtime_ns=2)) is None
        assert store.status(source("a.mp4")) == "ok"


def test_no_frames_no_layers(tmp_path: Path) -> None:
    output = tmp_path / "feats.h5"
    nothing = [chunk("a", frames=0, layers=0)]
    with OutputStore(output, IDENTITY) as store:
        for video_id, chunks in {"a": nothing, "b": []}.items():
            with store.part(source(video_id), feature_shape=(2, 4)) as part:
                for one in chunks:
                    part.append(one)
                part.finish(layers={} if chunks else LAYERS, attrs={}, status="partial")
        store.finish([source("a"), source("b")], [], {}, complete=True)
    with FeatureFile(output) as file:
        assert file["a"].features.shape == (0, 8)
        assert file["a"].layers["density_t"].shape == (0, 0)
        assert file["b"].layers["density_delta_t"].shape == (0, 2)
        assert list(file["b"].layers["name"]) == ["conv1", "fc"]


def test_float16(tmp_path: Path) -> None:
    output = write_file(tmp_path / "feats.h5", ["a.mp4"], dtype="float16")
    with FeatureFile(output) as file:
        assert file["a.mp4"].dtype == np.float16
        np.testing.assert_array_equal(
            file["a.mp4"].features, expected_features("a.mp4").astype(np.float16)
        )


def test_float16_too_large_fails(tmp_path: Path) -> None:
    big = chunk("a.mp4")
    big.features[3, 4] = 7e4
    with OutputStore(tmp_path / "feats.h5", IDENTITY) as store:
        part = store.part(source("a.mp4"), feature_shape=(8,), dtype="float16")
        with part, pytest.raises(FeatureRangeError, match="70000 does not fit float16"):
            part.append(big)
        assert part_files(store) == []


def test_infinite_feature_is_no_overflow(tmp_path: Path) -> None:
    odd = chunk("a.mp4")
    odd.features[0, :2] = np.inf, np.nan
    with OutputStore(tmp_path / "feats.h5", IDENTITY) as store:
        with store.part(source("a.mp4"), feature_shape=(8,), dtype="float16") as part:
            part.append(odd)
            part.finish(layers=LAYERS, attrs={})
        assert store.status(source("a.mp4")) == "ok"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (chunk("a", width=9), "features are"),
        (replace(chunk("a"), density=chunk("a", layers=3).density), "density is"),
        (replace(chunk("a"), pts=chunk("a", frames=4).pts), "pts is"),
        (replace(chunk("a"), estimate=chunk("a", frames=4).work), r"estimate is \(4,\)"),
        (replace(chunk("a"), audit_error=chunk("a", frames=4).work), r"error is \(4,\)"),
    ],
)
def test_append_misfit_fails(tmp_path: Path, bad: object, message: str) -> None:
    with OutputStore(tmp_path / "feats.h5", IDENTITY) as store:
        part = store.part(source("a"), feature_shape=(8,))
        with part, pytest.raises(ValueError, match=message):
            part.append(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": LAYERS, "attrs": {}, "status": "good"}, "ok or partial"),
        ({"layers": LAYERS, "attrs": {"n_frames": 3}}, "the store itself sets n_frames"),
        ({"layers": {"density_t": [1, 2]}, "attrs": {}}, "cannot be named 'density_t'"),
        ({"layers": {"a/b": [1, 2]}, "attrs": {}}, "cannot be named"),
        ({"layers": {"macs": [1, 2, 3]}, "attrs": {}}, "has 3 of 2 layers"),
    ],
)
def test_finish_misuse_fails(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with OutputStore(tmp_path / "feats.h5", IDENTITY) as store:
        with store.part(source("a"), feature_shape=(8,)) as part:
            part.append(chunk("a"))
            with pytest.raises(ValueError, match=message):
                part.finish(**options)  # type: ignore[arg-type]
        assert store.status(source("a")) is None


def test_unknown_dtype_fails(tmp_path: Path) -> None:
    store = OutputStore(tmp_path / "feats.h5", IDENTITY)
    with store, pytest.raises(ValueError, match="float32 or float16, not 'float64'"):
        store.part(source("a"), feature_shape=(8,), dtype="float64")
    assert names_in(tmp_path) == set()


def test_rows_are_chunked_and_checksummed(tmp_path: Path) -> None:
    output = write_file(tmp_path / "feats.h5", ["a.mp4"], width=512)
    with h5py.File(output) as file:
        for name in ("features", "timestamps", "key_frame", "layers/density_t"):
            rows = file["videos/a.mp4"][name]
            assert rows.fletcher32
            assert rows.chunks[0] == 10  # no more is set aside than there are frames
            assert rows.compression is None
