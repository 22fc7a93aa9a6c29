from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rrm_extract.errors import InputError
from rrm_extract.jobs import discover


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.mp4", "a/c.AVI", "a/deep/d.mkv", "notes.txt", ".hidden.mp4", "a/.git/e.mp4"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "videos"


def ids(*inputs: str | Path, **options: object) -> list[str]:
    found = discover([str(given) for given in inputs], **options)  # type: ignore[arg-type]
    return [video.video_id for video in found]


def test_a_folder_is_searched_recursively(folder: Path) -> None:
    assert ids(folder) == ["a/c.AVI", "a/deep/d.mkv", "b.mp4"]


def test_patterns_choose_files_of_a_folder(folder: Path) -> None:
    assert ids(folder, include=["*.AVI", "a/deep/*"]) == ["a/c.AVI", "a/deep/d.mkv"]


def test_a_file_is_taken_whatever_its_name(folder: Path) -> None:
    (folder / "clip.bin").write_bytes(b"x")
    assert ids(folder / "clip.bin") == ["clip.bin"]


def test_a_glob_is_relative_to_its_fixed_part(folder: Path) -> None:
    assert ids(f"{folder}/**/*.mkv") == ["a/deep/d.mkv"]
    assert ids(f"{folder}/a/*.AVI") == ["c.AVI"]


def test_a_file_whose_name_looks_like_a_glob(folder: Path) -> None:
    (folder / "take[1].mp4").write_bytes(b"x")
    assert ids(folder / "take[1].mp4") == ["take[1].mp4"]


def test_a_text_list(folder: Path) -> None:
    listing = folder / "list.txt"
    listing.write_text("# chosen\n\nb.mp4\na/c.AVI\nmissing.mp4\n", encoding="utf-8")
    assert ids(listing) == ["a/c.AVI", "b.mp4", "missing.mp4"]


def test_a_csv_list_with_a_header(folder: Path) -> None:
    listing = folder / "list.csv"
    listing.write_text('label,path\n3,b.mp4\n4,"a/c.AVI"\n', encoding="utf-8")
    assert ids(listing) == ["a/c.AVI", "b.mp4"]


def test_a_csv_list_has_no_comments(folder: Path) -> None:
    listing = folder / "list.csv"
    listing.write_text("path\n#1.mp4\nb.mp4\n", encoding="utf-8")
    assert ids(listing) == ["#1.mp4", "b.mp4"]


def test_a_csv_list_without_a_header(folder: Path) -> None:
    listing = folder / "list.csv"
    listing.write_text("b.mp4,3\na/c.AVI,4\n", encoding="utf-8")
    assert ids(listing) == ["a/c.AVI", "b.mp4"]


def test_a_root_names_videos(folder: Path) -> None:
    assert ids(folder / "a", root=str(folder)) == ["a/c.AVI", "a/deep/d.mkv"]


def test_the_same_video_twice_counts_once(folder: Path) -> None:
    assert ids(folder, f"{folder}/*.mp4") == ["a/c.AVI", "a/deep/d.mkv", "b.mp4"]


def test_two_videos_of_one_name_fail(folder: Path) -> None:
    (folder / "b").mkdir()
    (folder / "b" / "c.AVI").write_bytes(b"y")
    with pytest.raises(InputError, match=r"would both be called 'c\.AVI'.*--root"):
        ids(folder / "a" / "c.AVI", folder / "b" / "c.AVI")


def test_a_video_outside_the_root_fails(folder: Path) -> None:
    with pytest.raises(InputError, match=r"b\.mp4.*not below.*--root"):
        ids(folder / "b.mp4", root=str(folder / "a"))


@pytest.mark.parametrize("name", ["nothing.mp4", "nothing/*.mp4", "empty"])
def test_nothing_there_fails(folder: Path, name: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="expected"):
        ids(folder / name)


def test_a_glob_that_matches_no_video_fails(folder: Path) -> None:
    (folder / "clip.bin").touch()
    (folder / "empty").mkdir()
    for pattern in ("*.bin", "emp*"):
        with pytest.raises(InputError, match=r"no file with a video's extension; .*--include"):
            ids(folder / pattern)
    assert ids(folder / "*.bin", include=["*.bin"]) == ["clip.bin"]
    (folder / "a" / "b").mkdir(exist_ok=True)
    (folder / "a" / "notes.txt").touch()
    (folder / "a" / "b" / "d.mp4").touch()
    assert ids(folder / "a" / "[bn]*") == ["b/d.mp4"], "beside other files"


def test_an_empty_list_fails(folder: Path) -> None:
    (folder / "list.txt").write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(InputError, match="empty"):
        ids(folder / "list.txt")


def test_a_csv_without_a_known_column_fails(folder: Path) -> None:
    (folder / "list.csv").write_text("label,number\na,1\n", encoding="utf-8")
    with pytest.raises(InputError, match="label, number"):
        ids(folder / "list.csv")


def test_no_input_fails() -> None:
    with pytest.raises(InputError, match="no input"):
        discover([])


def test_links_back_are_not_followed(folder: Path) -> None:
    for name in ("around", "a/up", "a/deep/top"):
        (folder / name).symlink_to(folder)
    (folder / "a" / "self").symlink_to(".")
    assert ids(folder) == ["a/c.AVI", "a/deep/d.mkv", "b.mp4"]
    assert ids(folder / "a") == ["c.AVI", "deep/d.mkv", "deep/top/b.mp4", "up/b.mp4"]


def test_a_folder_that_is_linked_twice_is_searched_twice(folder: Path) -> None:
    (folder / "again").symlink_to(folder / "a")
    assert ids(folder, include=["*.mkv"]) == ["a/deep/d.mkv", "again/deep/d.mkv"]


def test_dangling_links_are_videos_that_will_fail(folder: Path) -> None:
    (folder / "lost.mp4").symlink_to(folder / "missing")
    (folder / "loop.mp4").symlink_to("loop.mp4")
    (folder / "lost.txt").symlink_to(folder / "missing")
    expected = ["a/c.AVI", "a/deep/d.mkv", "b.mp4", "loop.mp4", "lost.mp4"]
    assert ids(folder) == expected
    assert ids(f"{folder}/*.mp4") == ["b.mp4", "loop.mp4", "lost.mp4"]


def test_dangling_links_to_folders_are_videos_that_will_fail(folder: Path) -> None:
    (folder / "disk2").symlink_to(folder / "not-mounted")
    expected = ["a/c.AVI", "a/deep/d.mkv", "b.mp4", "disk2"]
    for given in (folder, f"{folder}/*", f"{folder}/**", f"{folder}/**/*"):
        assert ids(given) == expected
    for pattern in ("*/*.AVI", "*/c.AVI"):
        assert ids(f"{folder}/{pattern}") == ["a/c.AVI", "disk2"]


@pytest.mark.parametrize(
    ("name", "is_folder"), [("2024.05.01", True), ("lost.3gp2", False), ("a.txt~", False)]
)
def test_what_a_dangling_link_of_that_name_leads_to(
    folder: Path, name: str, is_folder: bool
) -> None:
    (folder / name).symlink_to(folder / "not-mounted")
    assert (name in ids(folder)) == is_folder


def test_what_is_removed_meanwhile_is_no_video(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: [*names(path), "gone"])
    assert ids(folder) == ["a/c.AVI", "a/deep/d.mkv", "b.mp4"]


@pytest.fixture
def gone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose server does not answer, beside a file that cannot be looked at either."""
    mount = folder / "a" / "disk.2"
    mount.mkdir()
    (folder / "a" / "notes").touch()
    look_at = os.stat

    def refuse(path: str | Path, **options: bool) -> os.stat_result:
        if mount in (Path(path), *Path(path).parents) or Path(path).name == "notes":
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), str(path))
        return look_at(path, **options)

    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setattr(os, "lstat", refuse)
    return mount


@pytest.mark.parametrize("pattern", ["", "/*", "/**", "/**/*.mkv", "/*/*", "/*/*/*.mkv"])
def test_a_mount_that_is_gone_is_one_that_fails(folder: Path, gone: Path, pattern: str) -> None:
    found = ids(f"{folder}{pattern}", root=str(folder))
    assert gone.relative_to(folder).as_posix() in found
    assert "a/notes" not in found
    assert "a/deep/d.mkv" in found


def test_a_mount_that_is_gone_may_hold_what_a_glob_names(folder: Path, gone: Path) -> None:
    assert ids(f"{folder}/a/*/d.mkv") == ["deep/d.mkv", gone.name]


@pytest.fixture
def no_reading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a video that may not be looked into, whoever runs the tests."""
    locked = folder / "a" / "deep"
    listdir, stat = os.listdir, Path.lstat

    def refuse(path: object) -> None:
        if locked in (Path(str(path)), *Path(str(path)).parents):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    def listed(path: Path) -> list[str]:
        refuse(path)
        return listdir(path)

    def looked_at(path: Path) -> os.stat_result:
        if path != locked:
            refuse(path)
        return stat(path)

    monkeypatch.setattr(os, "listdir", listed)
    monkeypatch.setattr(Path, "lstat", looked_at)
    return locked


def test_a_folder_that_cannot_be_read_is_one_that_fails(folder: Path, no_reading: Path) -> None:
    assert ids(folder) == ["a/c.AVI", "a/deep", "b.mp4"]
    assert ids(f"{folder}/**/*.AVI") == ids(f"{folder}/**/c*") == ["a/c.AVI", "a/deep"]
    assert ids(f"{folder}/a/*/*.AVI") == ["deep"]
    with pytest.raises(InputError, match="deep cannot be read: Permission denied"):
        ids(no_reading)


def test_a_file_that_cannot_be_looked_at_is_one_that_fails(
    no_reading: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "isdir", lambda _path: False)
    assert ids(no_reading / "d.mkv") == ["d.mkv"]


def test_lost_and_found_is_not_searched(folder: Path) -> None:
    (folder / "lost+found").mkdir()
    (folder / "lost+found" / "x.mp4").touch()
    assert ids(folder) == ["a/c.AVI", "a/deep/d.mkv", "b.mp4"]


def test_a_csv_that_is_no_table_fails(folder: Path) -> None:
    listing = folder / "list.csv"
    listing.write_text('path\n"' + "x" * 200_000)
    with pytest.raises(InputError, match=r"list\.csv is no table: field larger.*quotes closed"):
        ids(listing)


@pytest.mark.parametrize("pattern", ["{}/**/*.mp4", "{}/**", "{}/**/deep/**", "{}/**/*", "{}/*"])
def test_a_glob_follows_no_link_back(folder: Path, pattern: str) -> None:
    """Two such links give it no end."""
    (folder / "loop").symlink_to(".")
    (folder / "a/deep/up").symlink_to("../..")
    found = ids(pattern.format(folder), root=str(folder))
    assert len(found) == len(set(found)) <= 4
    assert found


def test_a_glob_takes_folders_beside_files(folder: Path) -> None:
    assert ids(f"{folder}/*") == ids(folder)


def test_inputs_that_overlap_give_each_video_once(folder: Path) -> None:
    assert ids(folder, folder / "a/c.AVI", folder / "a") == ids(folder)
    assert ids(folder / "a/c.AVI", folder) == ["a/deep/d.mkv", "b.mp4", "c.AVI"]


def test_a_folder_that_a_glob_matches_is_looked_into_as_in_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "lost+found").mkdir()
    (folder / "lost+found/f.mp4").write_bytes(b"x")
    assert ids(f"{folder}/*") == ids(folder)
    listed = os.listdir

    def refuse(path: str | Path) -> list[str]:
        if Path(path).name == "a":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "listdir", refuse)
    assert ids(f"{folder}/*") == ids(folder) == ["a", "b.mp4"]
