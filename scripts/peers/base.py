"""What every runtime looks like to the benchmark."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["Peer", "Workers", "consecutive_parts"]

T = TypeVar("T")


class Peer(ABC):
    """One network in one runtime, with its settings.

    Attributes:
        runtime: "rrm-native", "rrm-torch", "openvino", "onnxruntime" or "torch".
        precision: "fp32", "bf16" or "int8".
        threads: how many cores it may use.
        settings: what else was chosen, in words.
        batch: frames in a call; the clip should be a multiple of it.
        threshold: of the recurrence; None for a dense network.
    """

    runtime: str
    precision: str
    threads: int
    settings: str = ""
    batch: int = 1
    threshold: float | None = None

    @abstractmethod
    def prepare(self) -> None:
        """Whatever has to be done once: compiling, packing weights, starting threads."""

    @abstractmethod
    def run(self, frames: Tensor) -> Tensor:
        """Features of a clip.

        Args:
            frames: (T, *input_shape) float32, contiguous.

        Returns:
            (T, D) float32.
        """

    def density(self) -> float | None:
        """Of the deltas in the last :meth:`run`, by MACs; None for a dense network."""
        return None

    def work(self) -> float:
        """Share of the dense MACs that were done in the last :meth:`run`, key frames included."""
        return 1.0

    def stages(self) -> Mapping[str, float]:
        """Seconds of one core in each stage since :meth:`prepare`; empty where nobody counts."""
        return {}


class Workers:
    """Threads of Python's own that each keep torch on one core.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(
            count, initializer=_keep_to_one_core, thread_name_prefix="bench"
        )
        # All of them begin now: the pool would otherwise start one in the middle of a clip.
        together = threading.Barrier(count)
        list(self._pool.map(lambda _: together.wait(), range(count)))

    def map(self, function: Callable[..., T], *arguments: Sequence[Any]) -> list[T]:
        """``function`` of each tuple of arguments, all at the same time, in order."""
        return list(self._pool.map(function, *arguments))


def _keep_to_one_core() -> None:
    # torch's number of threads belongs to the thread that asks. Setting it once is enough, and
    # setting it again would empty oneDNN's cache of compiled kernels.
    torch.set_num_threads(1)
    # A thread that asks for the first time gets what was set last, by whomever: so ask now.
    torch.get_num_threads()


def consecutive_parts(frames: Tensor, count: int) -> list[Tensor]:
    """At most ``count`` runs of consecutive frames, of equal length but for the last ones."""
    return list(torch.tensor_split(frames, min(count, len(frames))))
