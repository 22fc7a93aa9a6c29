"""`job.json` in the parts folder: which run the unfinished work belongs to."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from rrm_extract.errors import StoreFormatError
from rrm_extract.store.files import write_atomic
from rrm_extract.store.layout import refuse_to_blame
from rrm_extract.store.schema import FORMAT_VERSION, TASK_FORMAT_VERSION

_NAME = "job.json"


@dataclass(frozen=True)
class Job:
    """A run that writes, or wrote, into a parts folder."""

    identity_json: str
    """Canonical JSON of the settings that decide the results."""
    overwrite: bool
    """The run replaces the finished file instead of adding to it."""
    format_version: str
    """Of the file that the run writes."""
    writer: str
    """Process and host, for messages."""
    kernel_isas: tuple[str, ...] = ()
    """Instruction sets of the runs that worked on it, the first one first."""

    @classmethod
    def of_this_process(
        cls,
        *,
        identity_json: str,
        overwrite: bool,
        format_version: str,
        kernel_isas: tuple[str, ...] = (),
    ) -> Job:
        """The run this process is about to do."""
        writer = f"process {os.getpid()} on {platform.node() or 'this host'}"
        return cls(
            identity_json=identity_json,
            overwrite=overwrite,
            format_version=format_version,
            writer=writer,
            kernel_isas=kernel_isas,
        )

    def save(self, parts_dir: Path) -> None:
        """Write it; from then on what is in the folder counts. Raises StoreWriteError."""
        content = {
            "format_version": self.format_version,
            "identity_json": self.identity_json,
            "overwrite": self.overwrite,
            "writer": self.writer,
            "kernel_isas": self.kernel_isas,
        }
        write_atomic(job_path(parts_dir), json.dumps(content, indent=1).encode())


def job_path(parts_dir: Path) -> Path:
    """Where the record lies."""
    return parts_dir / _NAME


def load_job(parts_dir: Path) -> Job | None:
    """The run a parts folder belongs to; None when it belongs to none, so nothing in it counts.

    Raises:
        StoreFormatError: The record is damaged, or of another version of the format.
        StoreError: The system does not let it be read; the work in the folder is kept.
    """
    path = job_path(parts_dir)
    try:
        content = json.loads(path.read_bytes())
        job = Job(
            identity_json=str(content["identity_json"]),
            overwrite=bool(content["overwrite"]),
            format_version=str(content["format_version"]),
            writer=str(content["writer"]),
            kernel_isas=tuple(map(str, content.get("kernel_isas", ()))),
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        refuse_to_blame(path, error)
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise StoreFormatError(
            f"{path} is damaged, and it says what the unfinished work beside it belongs to; use "
            "--overwrite to begin anew, or another -o"
        ) from error
    if job.format_version not in (FORMAT_VERSION, TASK_FORMAT_VERSION):
        raise StoreFormatError(
            f"unfinished work in {parts_dir} has format version {job.format_version}, this "
            f"rrm-extract writes {FORMAT_VERSION} and {TASK_FORMAT_VERSION}; finish it with the "
            "one that began it, use --overwrite to begin anew, or another -o"
        )
    return job
