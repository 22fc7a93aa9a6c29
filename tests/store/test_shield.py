from __future__ import annotations

import os
from pathlib import Path

import pytest

from rrm_extract.errors import StoreWriteError
from rrm_extract.store.shield import ShieldedFile


def test_shield_reads_what_was_written(tmp_path: Path) -> None:
    file = ShieldedFile(tmp_path / "x")
    file.seek(4)
    assert file.write(b"hello") == 5
    file.seek(0)
    assert file.read(12) == b"\0\0\0\0hello\0\0\0"
    assert file.seek(0, os.SEEK_END) == 9
    file.check()
    file.close()
    assert (tmp_path / "x").read_bytes() == b"\0\0\0\0hello"


def test_shield_keeps_what_could_not_be_written_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """A disk with room for 6 bytes."""

        def __init__(self, real: object) -> None:
            self.real = real
            self.room = 6

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

        def write(self, data: memoryview) -> int:
            if self.room == 0:
                raise OSError(28, "No space left on device")
            count = min(self.room, len(data))
            self.room -= count
            return int(self.real.write(data[:count]))  # type: ignore[attr-defined]

    file = ShieldedFile(tmp_path / "x")
    monkeypatch.setattr(file, "_file", Full(file._file))
    file.write(b"abcd")
    file.check()
    file.write(b"efgh")
    file.seek(2)
    file.write(b"XY")
    file.seek(0)
    assert file.read(9) == b"abXYefgh\0"
    assert file.seek(0, os.SEEK_END) == 8
    assert file.tell() == 8
    file.truncate(3)
    with pytest.raises(StoreWriteError, match=r"cannot write .*x: No space left on device"):
        file.check()
    file.close()
