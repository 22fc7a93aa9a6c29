"""Networks whose workers misbehave, at clips that are named after what shall happen.

Unpickling the network imports this module in a worker, where it changes how clips are read:

    slow        every chunk takes a while longer
    crawl       reading a packet takes a while longer, from a bad network drive
    wait        chunks after the first wait for a file named as the clip, with ".go" behind
    hang        the first chunk never ends; the process sleeps, as in a deadlock
    stuck       the same, and no other thread of the process can run
    crash       a segmentation fault in the first chunk
    raise       the first chunk raises what nobody expects

What happens in the first chunk happens in the third with "-late" behind the word, and while the
clip is opened with "-scan".

The parent process reads no clips, and is left alone.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rrm_extract.jobs import worker
from rrm_extract.video import ClipInfo, ClipReader, SampledFrame, _seek, clip
from tests.tiny import Tiny

MODEL = "tests.hostile.saboteur:network"
NAN_MODEL = "tests.hostile.saboteur:not_a_number"

SLOW_SECONDS, CRAWL_SECONDS = 0.05, 0.15
LATE_CHUNK = 2


@torch.fx.wrap
def passing(x: Tensor) -> Tensor:
    return x


@torch.fx.wrap
def undefined(x: Tensor) -> Tensor:
    """0 / 0 for every feature that is below its mean."""
    return torch.where(x < x.mean(), torch.nan, x)


class Sabotaged(Tiny):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(self.features(passing(x))), 1))


class NotANumber(Tiny):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(undefined(torch.flatten(self.pool(self.features(x)), 1)))


def _seeded(kind: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind()


def network() -> nn.Module:
    """Computes what tests.tiny does."""
    return _seeded(Sabotaged)


def not_a_number() -> nn.Module:
    return _seeded(NotANumber)


def _act(name: str, chunk: int | None) -> None:
    """What happens at a clip with these words in its name."""
    words = name.split(".")[0].split("_")
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
    if "crash" in due:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "raise" in due:
        raise LookupError("nobody\nexpects this")
    if "slow" in words and chunk is not None:
        time.sleep(SLOW_SECONDS)


def _sabotage() -> None:
    read, scan, packets = ClipReader.read, worker.scan_clip, clip.data_packets

    def reading(self: ClipReader, chunk: int) -> Iterator[SampledFrame]:
        path = self._info.path
        _act(path.name, chunk)
        while chunk > 0 and "wait" in path.name and not path.with_name(f"{path.name}.go").exists():
            time.sleep(0.02)
        yield from read(self, chunk)

    def scanning(path: Path, **options: Any) -> ClipInfo:
        _act(path.name, None)
        return scan(path, **options)

    def crawling(container: Any, stream: Any) -> Iterator[Any]:
        for packet in packets(container, stream):
            if "crawl" in container.name:
                time.sleep(CRAWL_SECONDS)
            yield packet

    ClipReader.read = reading
    worker.scan_clip = scanning
    clip.data_packets = _seek.data_packets = crawling


if multiprocessing.parent_process() is not None:
    _sabotage()
