"""One failed video, remembered in the parts folder until the run is done."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rrm_extract.store.files import remove, write_atomic
from rrm_extract.store.schema import FailureRecord


def save_failure(path: Path, record: FailureRecord) -> None:
    """Write the record; after a kill it is there whole or not at all. Raises StoreWriteError."""
    write_atomic(path, json.dumps(asdict(record)).encode())


def load_failure(path: Path) -> FailureRecord | None:
    """The record at `path`; None when it is missing, or damaged and then removed."""
    try:
        return FailureRecord(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        remove(path)
        return None
