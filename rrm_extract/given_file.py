"""Files that the user names, which may be missing or locked away."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["kept_mtime_ns", "lack_of_file"]


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


def kept_mtime_ns(status: os.stat_result) -> int:
    """Time of last change of a file, nanoseconds since 1970, as far as 64 bits reach (1677-2262).

    File systems hold others, such as the year 1601 of a damaged clock; in files of ours there is
    no room for them.
    """
    return min(max(status.st_mtime_ns, -(2**63)), 2**63 - 1)
