from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from rrm_extract.errors import StoreFormatError
from rrm_extract.store import same_content

from .helpers import failure, flip, offset_of, source, write_file


def set_value(name: str, row: int, value: object) -> Callable[[Any], None]:
    def change(group: Any) -> None:
        group[name][row] = value

    return change


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (set_value("features", 7, 0), "/videos/a.mp4/features: differs from row 7 on"),
        (set_value("timestamps", 1, -0.5), "/videos/a.mp4/timestamps: differs from row 1 on"),
        (set_value("layers/macs", 1, 6), "/videos/a.mp4/layers macs: [118 5] against [118 6]"),
        (
            set_value("layers/density_t", 2, 2),
            "/videos/a.mp4/layers/density_t: differs from row 2 on",
        ),
        (set_value("layers/name", 1, "fd"), "layers name: ['conv1' 'fc'] against ['conv1' 'fd']"),
        (lambda g: g.attrs.__setitem__("n_decoded", 11), "attribute n_decoded: 10 against 11"),
        (lambda g: g.attrs.__setitem__("n_decoded", 10.0), "attribute n_decoded: 10 against 10.0"),
        (lambda g: g.attrs.__setitem__("x", 1), "attribute x: only in the second"),
        (lambda g: g.attrs.__delitem__("n_decoded"), "attribute n_decoded: only in the first"),
        (lambda g: g["work"].resize(9, axis=0), "/work: float32 (10,) against float32 (9,)"),
        (lambda g: g.file.attrs.__setitem__("model", "x"), "/ attribute model: resnet18 against x"),
        (lambda g: g.file["index/status"].__setitem__(0, "bad"), "/index status: "),
        (lambda g: g.file["failures/message"].__setitem__(0, "?"), "/failures message: "),
    ],
)
def test_differences_are_listed(
    tmp_path: Path, change: Callable[[Any], None], difference: str
) -> None:
    one, two = (
        write_file(tmp_path / name, ["a.mp4", "b.mp4"], [failure("c.mp4")])
        for name in ("1.h5", "2.h5")
    )
    assert same_content(one, two) == []
    with h5py.File(two, "r+") as file:
        change(file["videos/a.mp4"])
    (line,) = same_content(one, two)
    assert difference in line


def test_volatile_values_do_not_count(tmp_path: Path) -> None:
    one = write_file(tmp_path / "1.h5", ["a.mp4"])
    two = write_file(tmp_path / "2.h5", [source("a.mp4", mtime_ns=99)])
    with h5py.File(two, "r+") as file:
        for name in ("created_utc", "config_json", "tool_version", "seconds_total"):
            file.attrs[name] = "other"
        video = file["videos/a.mp4"]
        for name in ("seconds_decode", "speedup_wall"):
            video.attrs[name] = 9.0
        video["layers/seconds_forward"] = np.ones(2)
    assert same_content(one, two) == []


def test_bits_are_compared(tmp_path: Path) -> None:
    one, two = (write_file(tmp_path / name, ["a.mp4"]) for name in ("1.h5", "2.h5"))
    for path, value in {one: 0.0, two: -0.0}.items():
        with h5py.File(path, "r+") as file:
            file["videos/a.mp4/features"][0, 0] = value
            file["videos/a.mp4/features"][1, 0] = np.nan
    assert same_content(one, two) == ["/videos/a.mp4/features: differs from row 0 on"]
    with h5py.File(two, "r+") as file:
        file["videos/a.mp4/features"][0, 0] = 0.0
    assert same_content(one, two) == []


def test_other_videos_are_listed(tmp_path: Path) -> None:
    one = write_file(tmp_path / "1.h5", ["a.mp4", "b.mp4"])
    two = write_file(tmp_path / "2.h5", ["b.mp4", "c.mp4"])
    found = same_content(one, two)
    assert f"/videos/a.mp4: only in {one}" in found
    assert f"/videos/c.mp4: only in {two}" in found


def test_compare_with_no_file_fails(tmp_path: Path) -> None:
    one = write_file(tmp_path / "1.h5", ["a.mp4"])
    with pytest.raises(StoreFormatError, match="does not exist"):
        same_content(one, tmp_path / "2.h5")


@pytest.mark.parametrize("damaged", [0, 1])
def test_the_damaged_one_is_named(tmp_path: Path, damaged: int) -> None:
    files = [write_file(tmp_path / name, ["a.mp4"]) for name in ("1.h5", "2.h5")]
    with h5py.File(files[0]) as file:
        feature = file["videos/a.mp4/features"][0].tobytes()
    flip(files[damaged], offset_of(files[damaged], feature))
    place = rf"{damaged + 1}\.h5:/videos/a\.mp4/features"
    with pytest.raises(StoreFormatError, match=f"{place} is damaged"):
        same_content(*files)
