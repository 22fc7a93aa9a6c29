"""That tests know which engines they can run."""

from __future__ import annotations

import os
import runpy
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

import pytest

import rrm_extract.engine
from tests.engines import has_native

NATIVE = "rrm_extract.engine._native"


def test_a_stand_in_is_no_native_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed where nothing could be compiled."""
    (tmp_path / "_native.py").write_text("raise ModuleNotFoundError('no compiler was found')\n")
    monkeypatch.delitem(sys.modules, NATIVE, raising=False)
    monkeypatch.setattr(sys, "meta_path", [PathFinder])  # an editable installation has others
    monkeypatch.setattr(rrm_extract.engine, "__path__", [str(tmp_path)])
    assert find_spec(NATIVE) is not None
    assert not has_native()


def test_an_instruction_set_that_whoever_runs_the_tests_has_set_is_not_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RRM_ISA", "sse9")
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")  # one that makes no folder
    runpy.run_path(str(Path(__file__).with_name("conftest.py")))
    assert "RRM_ISA" not in os.environ


def test_modules_that_import_the_native_engine_are_left_out_without_it() -> None:
    """Or else no test is collected there."""
    checked = 0
    for path in Path(__file__).parent.rglob("*.py"):
        before, found, _ = path.read_text(encoding="utf-8").partition(
            "\nfrom tests.engine.running import"
        )
        if found:
            assert f'pytest.importorskip("{NATIVE}"' in before, path
            checked += 1
    assert checked > 10
