from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest

from rrm_extract.errors import StoreError, StoreFormatError
from rrm_extract.store import FeatureFile, OutputStore, reader

from .helpers import (
    IDENTITY,
    chunk,
    expected_features,
    failure,
    flip,
    offset_of,
    source,
    write_file,
    write_video,
)


def test_reader(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["S/a.mp4", "b.mp4"], [failure("c.mp4")])
    with FeatureFile(path) as file:
        assert [*file] == file.videos == ["S/a.mp4", "b.mp4"]
        assert (len(file), file.n_frames, file.complete, file.version) == (2, 20, True, (1, 1))
        assert file.identity == file.config == IDENTITY
        assert file.attrs["model"] == "resnet18"
        assert file.failures == [failure("c.mp4")]
        assert [(row.stored_id, row.n_frames, row.status) for row in file.index] == [
            ("S/a.mp4", 10, "ok"),
            ("b.mp4", 10, "ok"),
        ]
        video = file["S/a.mp4"]
        first = chunk("S/a.mp4")
        np.testing.assert_array_equal(video.features, expected_features("S/a.mp4"))
        np.testing.assert_array_equal(video.timestamps[:5], first.timestamps)
        np.testing.assert_array_equal(video.pts[:5], first.pts)
        np.testing.assert_array_equal(video.frame_index[5:], np.arange(100, 105))
        np.testing.assert_array_equal(video.work[:5], first.work)
        assert video.key_frame.tolist() == ([True] + [False] * 4) * 2
        layers = video.layers
        assert layers["name"].tolist() == ["conv1", "fc"]
        assert layers["macs"].tolist() == [118, 5]
        np.testing.assert_array_equal(
            layers["density_delta_t"][:5], first.density_delta.astype(np.float16)
        )
        assert video.attrs["n_decoded"] == 10
        assert (video.status, video.n_frames, video.feature_shape) == ("ok", 10, (8,))
        assert video.time_base == Fraction(1, 12288)
        assert "S/a.mp4" in repr(video)
        np.testing.assert_array_equal(np.concatenate([*video.feature_blocks()]), video.features)


def test_an_open_file_is_equal_to_itself_alone(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"])
    with FeatureFile(path) as one, FeatureFile(path) as other:
        same = one
        assert one == same
        assert one != other
        assert {one: "one", other: "other"}[one] == "one"
    assert one == same
    assert hash(one) != hash(other)


@pytest.mark.parametrize("locking", [None, False, True, "best-effort"])
@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_file_that_plain_h5py_has_open(tmp_path: Path, mode: str, locking: object) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"])
    with h5py.File(path, mode, locking=locking) as plain:
        for _ in range(2):  # closing the one handle leaves the other open
            with FeatureFile(path) as file:
                np.testing.assert_array_equal(
                    file["a.mp4"].features, plain["videos/a.mp4/features"][:]
                )
    with FeatureFile(path) as file, h5py.File(path, locking=False) as plain:
        assert len(plain["videos/a.mp4/features"]) == file.n_frames


def test_a_handle_that_does_not_agree_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"])

    def refuse(*_: object, **__: object) -> None:
        raise OSError("Unable to open file (file locking flag values don't match)")

    monkeypatch.setattr(h5py, "File", refuse)
    with pytest.raises(StoreError, match="open in this process already") as caught:
        FeatureFile(path)
    assert not isinstance(caught.value, StoreFormatError)
    assert "locking=False" in str(caught.value)


def test_blocks_of_a_long_video(tmp_path: Path) -> None:
    path = tmp_path / "feats.h5"
    with OutputStore(path, IDENTITY) as store:
        with store.part(source("a"), feature_shape=(16, 8, 8)) as part:
            for index in range(3):
                part.append(chunk("a", index, frames=700, width=1024))
            part.finish(layers={"name": ["conv1", "fc"]}, attrs={})
        store.finish([source("a")], [], {}, complete=True)
    with FeatureFile(path) as file:
        blocks = [*file["a"].feature_blocks()]
        assert len(blocks) > 1
        assert file["a"].feature_shape == (16, 8, 8)
        assert file["a"].time_base is None
        np.testing.assert_array_equal(
            np.concatenate(blocks),
            np.concatenate([chunk("a", i, frames=700, width=1024).features for i in range(3)]),
        )
        video = file["a"]
        cut_short = video.feature_blocks()
        next(cut_short)
    with pytest.raises(ValueError, match="closed"):
        next(cut_short)
    assert repr(video) == "<VideoFeatures 'a' of a closed file>"


def test_unknown_video_fails(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["S/AB12C.mp4"])
    with FeatureFile(path) as file:
        assert "S" not in file
        with pytest.raises(KeyError, match=r"no video 'S/AB12C.mp'; did you mean 'S/AB12C.mp4'\?"):
            file["S/AB12C.mp"]


def test_missing_file_fails(tmp_path: Path) -> None:
    with pytest.raises(StoreFormatError, match=r"none\.h5 does not exist"):
        FeatureFile(tmp_path / "none.h5")


@pytest.mark.parametrize("link", [False, True])
def test_unfinished_file_fails(tmp_path: Path, link: bool) -> None:
    path = tmp_path / "feats.h5"
    if link:
        (tmp_path / "disk").mkdir()
        path.symlink_to(tmp_path / "disk" / "feats.h5")
    with OutputStore(path, IDENTITY) as store:
        write_video(store, source("a.mp4"))
    with pytest.raises(StoreFormatError) as caught:
        FeatureFile(path)
    assert str(caught.value) == (
        f"{path} is not there yet but feats.h5.parts is: 1 video is done; "
        "run the same command again to finish"
    )


@pytest.mark.parametrize("content", [b"", b"hello, world\n" * 100, b"\x89HDF\r\n\x1a\n"])
def test_not_hdf5_fails(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "feats.h5"
    path.write_bytes(content)
    with pytest.raises(StoreFormatError, match="is no HDF5 file, or a damaged one"):
        FeatureFile(path)


def test_folder_fails(tmp_path: Path) -> None:
    (tmp_path / "feats.h5").mkdir()
    with pytest.raises(StoreFormatError, match=r"feats\.h5 is a folder"):
        FeatureFile(tmp_path / "feats.h5")


def test_foreign_hdf5_fails(tmp_path: Path) -> None:
    path = tmp_path / "theirs.h5"
    with h5py.File(path, "w") as file:
        file["x"] = 1
    with pytest.raises(StoreFormatError, match="an HDF5 file of another kind"):
        FeatureFile(path)


@pytest.mark.parametrize("version", ["3.0", "10.3"])
def test_newer_version_fails(tmp_path: Path, version: str) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"])
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = version
    with pytest.raises(StoreFormatError, match="install a newer rrm-extract"):
        FeatureFile(path)


def test_changed_identity_fails(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"])
    with h5py.File(path, "r+") as file:
        file.attrs["identity_json"] = file.attrs["identity_json"].replace("18", "50")
    with pytest.raises(StoreFormatError, match="config_sha256 does not fit identity_json"):
        FeatureFile(path)


def test_nonsense_version_fails(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"])
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = "new"
    with pytest.raises(StoreFormatError, match="damaged"):
        FeatureFile(path)


@pytest.mark.parametrize("gone", ["index", "index/status", "failures", "videos/a.mp4"])
def test_missing_group_fails(tmp_path: Path, gone: str) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"])
    with h5py.File(path, "r+") as file:
        del file[gone]
    with pytest.raises(StoreFormatError, match=r"feats\.h5:/ is damaged"), FeatureFile(path) as f:
        _ = f.failures, f["a.mp4"]


def test_flipped_bit_fails(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4", "b.mp4"])
    flip(path, offset_of(path, chunk("b.mp4").features.tobytes()) + 9)
    with FeatureFile(path) as file:
        file["a.mp4"].check()
        with pytest.raises(StoreFormatError, match=r"/videos/b\.mp4 is damaged .*move the file"):
            _ = file["b.mp4"].features
        with pytest.raises(StoreFormatError, match="damaged"):
            file["b.mp4"].check()


def test_cut_file_fails(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StoreFormatError, match="damaged"):
        FeatureFile(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.__delitem__("work"), "work is missing"),
        (lambda g: g["pts"].resize(3, axis=0), "pts has 3 of 10 rows"),
        (lambda g: g.attrs.__setitem__("status", "fine"), "status is 'fine'"),
        (lambda g: g["features"].attrs.__setitem__("feature_shape", [3]), "does not fit"),
    ],
)
def test_check_of_an_odd_video_fails(tmp_path: Path, change: object, message: str) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"])
    with h5py.File(path, "r+") as file:
        change(file["videos/a.mp4"])  # type: ignore[operator]
    with FeatureFile(path) as broken, pytest.raises(StoreFormatError, match=message):
        broken["a.mp4"].check()


def test_closed_file_fails(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"])
    with FeatureFile(path) as file:
        video = file["a.mp4"]
    with pytest.raises(ValueError, match="closed"):
        _ = video.features


def test_a_file_is_open_as_long_as_one_of_its_videos_is_held(tmp_path: Path) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"])
    with FeatureFile(path) as file:
        expected = file["a.mp4"].features
    np.testing.assert_array_equal(FeatureFile(path)["a.mp4"].features, expected)
    (video,) = dict(FeatureFile(path)).values()
    np.testing.assert_array_equal(video.features, expected)


def test_what_is_too_large_for_memory_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"])

    def refuse(*_: object) -> None:
        raise MemoryError("Unable to allocate 3.64 TiB")

    with FeatureFile(path) as file:
        monkeypatch.setattr(h5py.Dataset, "__getitem__", refuse)
        with pytest.raises(StoreError, match=r"not enough memory to read .*in blocks") as caught:
            _ = file["a.mp4"].features
        assert not isinstance(caught.value, StoreFormatError), "whose files are made again"


def test_names_that_are_not_there_are_not_searched_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FeatureFile(write_file(tmp_path / "feats.h5", ["a.mp4"])) as file:
        with pytest.raises(KeyError, match="did you mean 'a\\.mp4'"):
            _ = file["b.mp4"]
        monkeypatch.setattr(reader, "difflib", None)
        assert "a.mp4" in file
        assert "b.mp4" not in file
        found = file.get("a.mp4")
        assert found is not None
        assert found.video_id == "a.mp4"
        assert file.get("b.mp4") is None
        assert file.get("b.mp4", "none") == "none"


@pytest.mark.parametrize("name", ["../../out.mp4", "/tmp/out.mp4", "a/./b.mp4"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    path = write_file(tmp_path / "feats.h5", ["a.mp4"])
    with h5py.File(path, "r+") as file:
        file["index/video_id"][0] = name
    with pytest.raises(StoreFormatError, match="is no name of a video in it"):
        FeatureFile(path)
