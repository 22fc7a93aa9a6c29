"""One failed video, remembered in the parts folder until the run is done."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rrm_extract.store.files import remove, write_atomic
from rrm_extract.store.layout import refuse_to_blame
from rrm_extract.store.schema import FailureRecord


def save_failure(path: Path, record: FailureRecord) -> None:
    """Write the record; after a kill it is there whole or not at all. Raises StoreWriteError."""
    write_atomic(path, json.dumps(asdict(record)).encode())


def load_failure(path: Path) -> FailureRecord | None:
    """The record at `path`; None when it is missing, or damaged and then removed.

    Raises:
        StoreError: The system does not let it be read.
    """
    try:
        return FailureRecord(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        refuse_to_blame(path, error)
        raise
    except (ValueError, TypeError):
        remove(path)
        return None
