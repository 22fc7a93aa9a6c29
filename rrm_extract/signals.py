"""Ctrl-C at moments when it would leave something half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["held_back"]

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_back() -> Iterator[None]:
    """Interrupts wait for the end of the block; a process started in it never gets Ctrl-C.

    A terminal sends Ctrl-C to all processes of a job, but only the parent is to act on it: the
    child inherits that the signal is blocked. To block it is not enough for the parent itself,
    since libraries have threads that may take the signal, and then Python acts on it here.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # interrupts go to the main thread, and only there can handlers be changed
        return
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    handlers = {number: signal.signal(number, note) for number in INTERRUPTS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if received:
            signal.raise_signal(received[0])
