from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from rrm_extract.errors import StoreWriteError
from rrm_extract.store import ChunkResult, files, load_chunk, save_chunk

from .helpers import chunk, flip

ARRAYS = ("features", "timestamps", "pts", "frame_index", "key_frame", "work", "density",
          "density_delta")  # fmt: skip
AUDIT = ("audit_error", "estimate")


def assert_equal(a: ChunkResult, b: ChunkResult) -> None:
    for name in ARRAYS:
        x, y = getattr(a, name), getattr(b, name)
        assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())
    for name in AUDIT:
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None)
        if x is not None:
            assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())
    assert (a.index, dict(a.attrs), a.damage) == (b.index, dict(b.attrs), b.damage)


@pytest.mark.parametrize("frames", [0, 1, 7])
@pytest.mark.parametrize("audited", [False, True])
def test_chunk_comes_back(tmp_path: Path, frames: int, audited: bool) -> None:
    path = tmp_path / "x.chunks" / "000000.npz"
    made = chunk("a.mp4", 3, frames=frames, audited=audited)
    save_chunk(path, made)
    found = load_chunk(path)
    assert found is not None
    assert_equal(found, made)
    assert [p.name for p in path.parent.iterdir()] == ["000000.npz"]


def test_chunk_keeps_attrs_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "c" / "0.npz"
    plain = chunk("a.mp4")
    attrs = {"n": np.int64(3), "s": np.float32(0.5), "t": "caf\udce9", "b": True}
    arrays = {name: getattr(plain, name) for name in ARRAYS}
    save_chunk(path, ChunkResult(index=0, attrs=attrs, damage="cut off", **arrays))
    found = load_chunk(path)
    assert found is not None
    assert found.attrs == {"n": 3, "s": 0.5, "t": "caf\udce9", "b": True}
    assert found.damage == "cut off"


def test_damaged_chunk_is_none(tmp_path: Path) -> None:
    path = tmp_path / "c" / "0.npz"
    save_chunk(path, chunk("a.mp4"))
    whole = path.read_bytes()
    for offset in range(0, len(whole), 67):
        flip(path, offset)
        assert load_chunk(path) is None
        path.write_bytes(whole)
    for size in (0, 10, 32, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert load_chunk(path) is None
    path.write_bytes(whole)
    assert load_chunk(path) is not None


def test_missing_chunk_is_none(tmp_path: Path) -> None:
    assert load_chunk(tmp_path / "c" / "0.npz") is None


def test_save_chunk_without_parts_folder_fails(tmp_path: Path) -> None:
    path = tmp_path / "gone.parts" / "x.chunks" / "0.npz"
    with pytest.raises(StoreWriteError, match="No such file"):
        save_chunk(path, chunk("a.mp4"))
    assert not path.parent.parent.exists()


def test_save_chunk_odd_attribute_fails(tmp_path: Path) -> None:
    plain = chunk("a.mp4")
    arrays = {name: getattr(plain, name) for name in ARRAYS}
    odd = ChunkResult(index=0, attrs={"x": object()}, **arrays)  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="numbers and strings"):
        save_chunk(tmp_path / "c" / "0.npz", odd)


def test_a_folder_that_goes_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where damage before this chunk has ended the video."""
    path = tmp_path / "video.chunks/000007.npz"
    commit, left = files.commit, [1]

    def late(temp: Path, to: Path) -> None:
        if left:
            left.pop()
            shutil.rmtree(to.parent)
        commit(temp, to)

    monkeypatch.setattr(files, "commit", late)
    save_chunk(path, chunk("a.mp4"))
    assert load_chunk(path) is not None
    shutil.rmtree(tmp_path)
    with pytest.raises(StoreWriteError, match="No such file"):
        save_chunk(path, chunk("a.mp4"))
