"""Imported by every Python process that has this folder in PYTHONPATH.

Before the workers' module is imported, so is the saboteur.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Finder(MetaPathFinder):
    """Finds nothing itself."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "rrm_extract.jobs.worker":
            sys.meta_path.remove(self)
            import tests.hostile.saboteur  # noqa: F401 - it does what it does when it is imported
        return None


sys.meta_path.insert(0, _Finder())
