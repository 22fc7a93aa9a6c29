"""Files that the user names, which may be missing or locked away."""

from __future__ import annotations

import stat
from pathlib import Path

__all__ = ["lack_of_file"]


def lack_of_file(path: Path) -> str | None:
    """Why ``path`` is no file, for the end of a message; None if it is one.

    ``Path.is_file()`` cannot tell a file that is missing from one that may not be looked at: before
    Python 3.14 it raises OSError for the latter, since then it takes both for missing.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character
        return "does not exist"
    except OSError as error:
        return f"cannot be looked at ({error.strerror}): give a file that can be read"
    return None if stat.S_ISREG(mode) else "is no file"
