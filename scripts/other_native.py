"""A pytest plugin: runs tests on another build of the compiled module, and shortens them.

    RRM_NATIVE=build/_native.so RRM_EXAMPLES=5 PYTHONPATH=scripts pytest -p other_native

RRM_NATIVE is the module's file. RRM_EXAMPLES is the most examples of a hypothesis test, for builds
that are slow; without it the tests decide. Only this process is changed, not what it starts.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

import hypothesis
import pytest

NAME = "rrm_extract.engine._native"


def pytest_configure() -> None:
    """Before any test is imported."""
    path = os.environ["RRM_NATIVE"]
    spec = importlib.util.spec_from_file_location(NAME, path)
    if spec is None or spec.loader is None:
        msg = f"RRM_NATIVE is {path!r}, expected a compiled module"
        raise pytest.UsageError(msg)
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    if limit := int(os.environ.get("RRM_EXAMPLES", "0")):
        _limit_examples(limit)


def pytest_report_header() -> str:
    """Says what is tested."""
    return f"native module: {sys.modules[NAME].__file__}"


def _limit_examples(limit: int) -> None:
    # A profile would give way to what a test says itself.
    original = hypothesis.settings.__init__

    def limited(self: hypothesis.settings, *args: Any, **options: Any) -> None:
        if isinstance(wanted := options.get("max_examples"), int):
            options["max_examples"] = min(wanted, limit)
        original(self, *args, **options)

    hypothesis.settings.__init__ = limited  # type: ignore[method-assign]
