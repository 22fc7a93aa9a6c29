"""The user's own code, ``package.module:factory``, from where the command was given."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["current_folder_importable"]


def current_folder_importable() -> Path:
    """Has Python find modules in the current folder, as with ``python -m``; gives that folder."""
    here = Path.cwd()
    if not {"", str(here)} & set(sys.path):
        sys.path.insert(0, str(here))
    return here
