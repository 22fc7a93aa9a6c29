"""A job that is killed, pretended by a command that writes its output when it is done."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import survive_kills
from survive_kills import Record, torment


def tormented(folder: Path, patch: pytest.MonkeyPatch, *, kills: int, written: str) -> Record:
    """A job that leaves no parts, killed as a whole within its first moments."""
    patch.setattr(survive_kills, "KINDS", ("group",))
    patch.setattr(survive_kills, "same_content", differences)
    whole, output = folder / "whole", folder / "killed" / "feats.h5"
    whole.write_text("all")
    output.parent.mkdir()
    program = f"import time, pathlib; time.sleep(2); pathlib.Path({str(output)!r}).write_text"
    command = [sys.executable, "-c", f"{program}({written!r})"]
    return torment(command, output, whole, kills=kills, seconds=0.1, seed=0)


def differences(whole: Path, output: Path) -> list[str]:
    return [] if whole.read_text() == output.read_text() else ["another content"]


@pytest.mark.parametrize("kills", [0, 1, 2])
def test_the_last_kill_is_followed_by_a_comparison(
    kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tormented(tmp_path, monkeypatch, kills=kills, written="all")
    assert (len(record.kills), record.runs, record.jobs) == (kills, kills + 1, 1)
    assert record.survived


def test_a_job_that_differs_after_the_last_kill_has_not_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tormented(tmp_path, monkeypatch, kills=1, written="half")
    assert record.differences == ["another content"]
    assert not record.survived
