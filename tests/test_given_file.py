"""Files that the user names and that may not be looked at are told, and not as missing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rrm_extract.config import JobConfig
from rrm_extract.errors import ModelError, UsageError, WeightsError
from rrm_extract.given_file import kept_mtime_ns, lack_of_file
from rrm_extract.jobs.network_cache import network_key
from rrm_extract.models import load_model

LONG = "a" * 300
"""Longer than a file's name may be."""


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that may not be looked into, whoever runs the tests."""
    stat = Path.stat

    def looked_at(path: Path, **options: bool) -> os.stat_result:
        if tmp_path in path.parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", looked_at)
    return tmp_path


def test_what_keeps_a_path_from_being_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    assert lack_of_file(tmp_path / "file") is None
    assert lack_of_file(tmp_path) == "is no file"
    for missing in ("none", "file/below", "null\0character"):
        assert lack_of_file(tmp_path / missing) == "does not exist"
    for name, reason in ((LONG, errno.ENAMETOOLONG), ("loop", errno.ELOOP)):
        told = f"cannot be looked at ({os.strerror(reason)}): give a file that can be read"
        assert lack_of_file(tmp_path / name) == told


@pytest.mark.parametrize(
    ("second", "kept"),
    [(-11_644_473_600, -(2**63)), (10_413_792_000, 2**63 - 1), (-1, -(10**9)), (1, 10**9)],
)
def test_times_of_files_fit_into_64_bits(second: int, kept: int) -> None:
    times = {"st_mtime_ns": second * 10**9}
    assert kept_mtime_ns(os.stat_result((0,) * 10, times)) == kept


@pytest.mark.parametrize("name", ["net.onnx", "net.dcz", "net.net", "darknet:net.cfg"])
def test_a_network_that_may_not_be_looked_at_is_told(name: str, locked: Path) -> None:
    kind, _, file = name.rpartition(":")
    model = f"{kind}:{locked / file}" if kind else str(locked / file)
    with pytest.raises(ModelError, match=r"cannot be looked at \(Permission denied\)"):
        load_model(model)
    with pytest.raises(ModelError, match=r"cannot be looked at \(File name too long\)"):
        load_model(name.replace("net.", f"{LONG}."))


@pytest.mark.parametrize("name", ["weights.pth", "weights"])
def test_weights_that_may_not_be_looked_at_are_told(name: str, locked: Path) -> None:
    with pytest.raises(WeightsError, match=rf"/{name}' cannot be looked at \(Permission denied\)"):
        load_model("squeezenet1_1", weights=str(locked / name))


def test_names_too_long_for_a_file_are_no_files() -> None:
    with pytest.raises(WeightsError, match=r"a\.pth' cannot be looked at \(File name too long\)"):
        load_model("squeezenet1_1", weights=f"{LONG}.pth")
    with pytest.raises(UsageError, match="aaa"):
        load_model("squeezenet1_1", weights=LONG)
    assert JobConfig(model=LONG).model_name == LONG
    assert network_key(JobConfig(model="timm/resnet10t", weights=LONG)) is None
