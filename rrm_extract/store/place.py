"""Where an output comes."""

from __future__ import annotations

import os
from pathlib import Path

from rrm_extract.errors import StoreError, StoreWriteError
from rrm_extract.store.files import writing
from rrm_extract.store.job import load_job
from rrm_extract.store.lock import WriterLock
from rrm_extract.store.schema import file_behind, parts_dir_of

LONGEST_ADDED = "..calibration.json.4194304.tmp"
"""What the name of a file of ours beside the output has more than its own; see ``temp_path``."""


class OutputPlace:
    """The file that is to be written, the folder of unfinished work, and the lock on both.

        with OutputPlace(Path("feats.h5")) as place:
            ...

    Whoever has the lock may take it once more through the same object.

    Raises:
        StoreLockedError: On entering: another process writes this output.
        StoreWriteError: The folder is missing, cannot be looked into or written to, or the name is
            too long.
    """

    def __init__(self, output: Path) -> None:
        """Nothing is touched yet.

        Args:
            output: The file, or a link to it.

        Raises:
            StoreWriteError: The folder may not be looked into, or the link leads back to itself.
        """
        # The file is renamed into place, which must replace what a link points at, not the link.
        with writing(output):
            self.output = file_behind(output)
        """The file."""
        self.parts_dir = parts_dir_of(self.output)
        """Where unfinished work is kept."""
        self._lock = WriterLock(self.output)

    def __enter__(self) -> OutputPlace:
        self._check()
        self._lock.acquire(holder=self._holder())
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _holder(self) -> str:
        """Who probably has the lock, if somebody has."""
        try:
            job = load_job(self.parts_dir)
        except StoreError:  # whoever has the lock meets it himself
            return ""
        return "" if job is None else job.writer

    def _check(self) -> None:
        with writing(self.output):
            self._look()

    def _look(self) -> None:
        folder = self.output.parent
        if not folder.is_dir():
            what = "is no folder" if folder.exists() else "does not exist"
            raise StoreWriteError(f"cannot write {self.output}: {folder} {what}; make it first")
        if self.output.is_dir():
            raise StoreWriteError(
                f"cannot write {self.output}: it is a folder; name a file in it, "
                f"such as -o {self.output / 'feats.h5'}"
            )
        if self.parts_dir.exists() and not self.parts_dir.is_dir():
            raise StoreWriteError(
                f"cannot write {self.output}: {self.parts_dir} is in the way, "
                "a folder of that name is needed; choose another -o"
            )
        # Now, and not after a night, when the file gets its name.
        longest = os.pathconf(folder, "PC_NAME_MAX") - len(LONGEST_ADDED)
        length = len(os.fsencode(self.output.name))
        if length > longest:
            raise StoreWriteError(
                f"cannot write {self.output}: its name has {length} bytes, expected at most "
                f"{longest}; choose a shorter -o"
            )
