"""Standard streams that are full, closed, or read no further."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from rrm_extract.errors import StoreWriteError

__all__ = ["checked_output"]


@contextmanager
def checked_output() -> Iterator[None]:
    """Meanwhile a write to ``sys.stdout`` that fails raises a StoreWriteError, one line.

    A reader that has gone (``| head``) is no error: the rest is dropped. So is what ``sys.stderr``
    does not take, whatever the reason: a terminal that was closed must not end a job. Streams that
    were closed (``>&-``) lead nowhere.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # In this order each takes the number of its own stream, which no file of ours must get.
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    out, err = sys.stdout, sys.stderr
    if isinstance(out, io.TextIOWrapper):
        # Names of files may hold bytes that are no text; stderr is like this already.
        out.reconfigure(errors="backslashreplace")
    sys.stdout = cast("TextIO", _CheckedStream(out))
    sys.stderr = cast("TextIO", _QuietStream(err))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err


class _QuietStream:
    """A text stream whose errors nobody hears of."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._problem = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As any stream's; says how many characters there were."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """As any stream's."""
        self._try(self._stream.flush)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            # What is in the buffer would be written, and fail, once more when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if not isinstance(error, BrokenPipeError):
                self._problem = error.strerror or str(error)
        self._report()

    def _report(self) -> None:
        """Called after every write."""


class _CheckedStream(_QuietStream):
    """A text stream whose errors name it."""

    def _report(self) -> None:
        if self._problem:  # at every call: click passes over those of its first, which is a trial
            msg = (
                f"standard output cannot be written: {self._problem}; what is in files is kept, "
                "send what is printed elsewhere"
            )
            raise StoreWriteError(msg)
