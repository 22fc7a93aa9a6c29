"""The engines that are there to be tested: without a C++ compiler there is no native one."""

from __future__ import annotations

import pytest

from rrm_extract.engine.kernels import native_module
from rrm_extract.errors import EngineError


def has_native() -> bool:
    """Whether the compiled module can be imported: a stand-in in its place is found as well."""
    try:
        native_module()
    except EngineError:
        return False
    return True


AVAILABLE = ("native", "torch") if has_native() else ("torch",)
"""Engines that a test can run."""

needs_native = pytest.mark.skipif("native" not in AVAILABLE, reason="built without a C++ compiler")
"""For tests and parameters of the native engine."""

ENGINES = (pytest.param("native", marks=needs_native), "torch")
"""Both engines, for tests that take one as a parameter."""
