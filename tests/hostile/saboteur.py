"""Makes the workers of a job misbehave, at clips that are named after what shall happen.

It is imported before the workers' own module and changes how clips are read:

    slow        every chunk takes a while longer
    crawl       reading a packet takes a while longer, from a bad network drive
    wait        chunks after the first wait for a file named as the clip, with ".go" behind; one
                with ".waits" behind tells that they do; with "-late" it is those after the third
    hang        the first chunk never ends; the process sleeps, as in a deadlock
    stuck       the same, and no other thread of the process can run
    crash       a segmentation fault in the first chunk
    raise       the first chunk raises what nobody expects
    crash-raise a segmentation fault, and when it is tried again as raise
    spoil       the device fails in the first chunk, and not when it is tried again

What happens in the first chunk happens in the third with "-late" behind the word, and while the
clip is opened with "-scan".

The parent process reads no clips.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rrm_extract import video
from rrm_extract.video import ClipInfo, ClipReader, SampledFrame, _seek, clip

SLOW_SECONDS, CRAWL_SECONDS = 0.05, 0.15
LATE_CHUNK = 2


def _act(path: Path, chunk: int | None) -> None:
    """What happens at a clip with these words in its name."""
    words = path.name.split(".")[0].split("_")
    if chunk is None:
        due = [word.removesuffix("-scan") for word in words if word.endswith("-scan")]
    elif chunk == LATE_CHUNK:
        due = [word.removesuffix("-late") for word in words if word.endswith("-late")]
    else:
        due = words if chunk == 0 else []
    if "hang" in due:
        time.sleep(3600)
    if "stuck" in due:
        ctypes.PyDLL(None).sleep(3600)  # with the interpreter's lock held
    tried = path.with_name(f"{path.name}.tried")
    if "spoil" in due and not tried.exists():
        tried.touch()
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    if "crash" in due or ("crash-raise" in due and not tried.exists()):
        tried.touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    if "raise" in due or "crash-raise" in due:
        raise LookupError("nobody\nexpects this")
    if "slow" in words and chunk is not None:
        time.sleep(SLOW_SECONDS)


def _sabotage() -> None:
    read, scan, packets = ClipReader.read, video.scan_clip, clip.data_packets

    def reading(self: ClipReader, chunk: int) -> Iterator[SampledFrame]:
        path = self._info.path
        _act(path, chunk)
        if "wait" in path.name and chunk > (LATE_CHUNK if "wait-late" in path.name else 0):
            path.with_name(f"{path.name}.waits").touch()
            while not path.with_name(f"{path.name}.go").exists():
                time.sleep(0.02)
        yield from read(self, chunk)

    def scanning(path: Path, **options: Any) -> ClipInfo:
        _act(path, None)
        return scan(path, **options)

    def crawling(container: Any, stream: Any) -> Iterator[Any]:
        for packet in packets(container, stream):
            if "crawl" in container.name:
                time.sleep(CRAWL_SECONDS)
            yield packet

    ClipReader.read = reading
    video.scan_clip = scanning
    clip.data_packets = _seek.data_packets = crawling


_sabotage()
