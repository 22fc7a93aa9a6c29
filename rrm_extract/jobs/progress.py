"""What a person or a program sees while a job runs."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from tqdm import tqdm

from rrm_extract.errors import StoreWriteError
from rrm_extract.jsonable import without_nan
from rrm_extract.printable import printable

__all__ = ["Progress"]

LONGEST_LINE = 1 << 20
"""Bytes; no event is as long, but a file of something else may be one line."""


class Progress:
    """One bar over frames, and a log of events as JSON lines.

    Args:
        videos: number of videos to do.
        show: draw the bar; None draws it on a terminal only.
        json_log: file to which events are appended.

    Raises:
        StoreWriteError: the log cannot be opened, or is a file of something else.
    """

    def __init__(self, *, videos: int, show: bool | None, json_log: str | None) -> None:
        self._videos = videos
        self._videos_done = 0
        self._frames = 0
        self._work = 0.0
        self._log: TextIO | None = None
        if json_log is not None:
            try:
                is_log = _is_log(Path(json_log))
                self._log = Path(json_log).open("a", encoding="utf-8")  # noqa: SIM115 - kept open
                if is_log and _is_cut_off(Path(json_log)):
                    self._log.write("\n")  # what a full disk or a power cut has left of it stays
            except OSError as error:
                msg = f"log {json_log} cannot be written: {error.strerror}; give another --json-log"
                raise StoreWriteError(msg) from error
            if not is_log:
                self._log.close()
                msg = f"{json_log} is there and is no log of JSON lines; give another --json-log"
                raise StoreWriteError(msg)
        self._bar: tqdm[Any] = tqdm(
            total=0,
            unit="frame",
            dynamic_ncols=True,
            smoothing=0.05,
            file=sys.stderr,
            disable=None if show is None else not show,
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()
        if self._log is not None:
            # What could not be written was complained about when it was to be written.
            with contextlib.suppress(OSError):
                self._log.close()

    def expect(self, frames: int) -> None:
        """The job is now known to have so many frames in all."""
        if self._bar.total != frames:
            self._bar.total = frames
            self._bar.refresh()

    def advance(self, frames: int, work: float) -> None:
        """Frames were computed; ``work`` is their summed share of the dense MACs.

        Negative numbers take back what was lost with its worker.
        """
        self._frames += frames
        self._work += work
        self._describe()
        self._bar.update(frames)

    def video_done(self) -> None:
        """One video is settled."""
        self._videos_done += 1
        self._describe()

    def say(self, line: str) -> None:
        """Prints one line without breaking the bar, whatever characters a file's name has."""
        self._bar.write(printable(line), file=sys.stderr)

    def event(self, name: str, **values: Any) -> None:
        """Appends one line to the log; numbers that are not finite become null."""
        if self._log is None:
            return
        record = without_nan({"event": name, "time": time.time(), **values})
        line = json.dumps(record, default=str, allow_nan=False)
        try:
            self._log.write(line + "\n")
            self._log.flush()
        except OSError as error:
            msg = f"log {self._log.name} cannot be written: {error.strerror}"
            raise StoreWriteError(msg) from error

    def _describe(self) -> None:
        work = f", work {self._work / self._frames:.2f}" if self._frames else ""
        self._bar.set_postfix_str(f"videos {self._videos_done}/{self._videos}{work}", refresh=False)


def _is_log(path: Path) -> bool:
    """Whether lines may be appended: nothing is there yet, or a log, or no file but a device."""
    if not path.is_file():
        return True
    # The first line is an event, whole: many other files begin with a brace.
    with path.open("rb") as file:
        line = file.readline(LONGEST_LINE)
    if not line:
        return True
    try:
        first = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return line.endswith(b"\n") and isinstance(first, dict) and {"event", "time"} <= first.keys()


def _is_cut_off(path: Path) -> bool:
    """Whether the last line of a file is unfinished."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"
