"""When the scripts' virtual environment is made current again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import environment
import pytest

ROOT = Path(environment.__file__).parents[1]


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """One that was installed as things are now."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    note(tmp_path)
    return tmp_path


def note(venv: Path, **change: object) -> None:
    state = {
        "is_ours": True,
        "installed_from": environment._fingerprint(),
        "extras": ["test"],
        "was_complete": True,
        "python": list(sys.version_info[:2]),
        "toolchain": environment._toolchain(),
    }
    (venv / environment.STATE).write_text(json.dumps({**state, **change}))


def test_current_as_long_as_nothing_changes(venv: Path) -> None:
    assert environment._is_current(venv, {"test"})
    assert not environment._is_current(venv, {"test", "bench"})
    note(venv, installed_from="other sources")
    assert not environment._is_current(venv, {"test"})


def test_its_python_has_become_another(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note(venv, python=[3, 9])
    assert environment._is_current(venv, {"test"}), "of which another Python knows nothing"
    monkeypatch.setattr(sys, "prefix", str(venv))
    assert not environment._is_current(venv, {"test"})
    note(venv)
    assert environment._is_current(venv, {"test"})


def test_a_compiler_has_come(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = venv / "lib/python3.11/site-packages/rrm_extract/engine"
    engine.mkdir(parents=True)
    monkeypatch.setenv("CXX", str(venv / "no-compiler"))
    note(venv, toolchain=environment._toolchain())
    (engine / "_native.py").touch()
    assert environment._is_current(venv, {"test"}), "nothing is better than before"
    monkeypatch.setenv("CXX", sys.executable)  # anything that can be run
    assert not environment._is_current(venv, {"test"})
    (engine / "_native.py").unlink()
    assert environment._is_current(venv, {"test"}), "it was compiled"


def test_an_interrupt_while_an_environment_is_emptied(
    venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run knows it for its own, and for unfinished."""
    (venv / environment.LOCK).touch()
    items = sorted(venv.iterdir())  # its state before its folder

    def interrupted(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", lambda _: iter(items))
        patch.setattr(shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            environment._empty(venv)
    assert environment._read_state(venv) == {"is_ours": True}
    assert not environment._is_current(venv, {"test"})
    environment._empty(venv)
    assert [item.name for item in venv.iterdir()] == [environment.LOCK]


def test_a_python_that_was_named_and_is_not_there(tmp_path: Path) -> None:
    clone = tmp_path / "a clone"
    clone.symlink_to(ROOT)
    code = 'source "$1" && find_python'
    done = subprocess.run(
        ["bash", "-c", code, "bash", clone / "scripts" / "environment.sh"],
        env={**os.environ, "RRM_PYTHON": "/nope/python3.12"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "/nope/python3.12 (RRM_PYTHON) was not found" in done.stderr
