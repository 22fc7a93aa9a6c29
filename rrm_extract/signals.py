"""Ctrl-C at moments when it would leave something half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["held_back"]

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """Interrupts wait for the end of the block; a process started in it never gets Ctrl-C.

    A terminal sends Ctrl-C to all processes of a job, but only the parent is to act on it: the
    child inherits that the signal is blocked. To block it is not enough for the parent itself,
    since libraries have threads that may take the signal, and then Python acts on it here.

    Yields:
        A function to call at moments when an interrupt does no harm: one that waits is acted on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # interrupts go to the main thread, only there handlers can be changed
        return
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    def hold() -> tuple[dict[signal.Signals, Any], set[int | signal.Signals]]:
        handlers = {number: signal.signal(number, note) for number in INTERRUPTS}
        return handlers, signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    handlers, mask = hold()

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if received:
            first = received[0]
            received.clear()
            signal.raise_signal(first)

    def let_through() -> None:
        if received or signal.SIGINT in signal.sigpending():
            release()
            hold()  # it was not one that ends the block

    try:
        yield let_through
    finally:
        release()
