"""Imported by every Python process that has this folder in PYTHONPATH, as those of tests have.

Before a module of the package is imported, so is one of the tests that changes what it does.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

BEFORE = {"rrm_extract.jobs.loading": "tests.kept"}
if "RRM_TESTS_SABOTAGE" in os.environ:
    BEFORE["rrm_extract.jobs.worker"] = "tests.hostile.saboteur"


class _Finder(MetaPathFinder):
    """Finds nothing itself."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if other := BEFORE.pop(fullname, None):
            importlib.import_module(other)
        return None


sys.meta_path.insert(0, _Finder())
