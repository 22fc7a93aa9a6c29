"""The recurrent network, in the native engine or in plain PyTorch."""

from __future__ import annotations

import importlib
import math
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from peers.base import Peer, Workers, consecutive_parts
from rrm_extract.graph import Program
from rrm_extract.jobs import Recipe, pooled
from rrm_extract.rrm import RecurrentNetwork

__all__ = ["SPLIT", "RrmPeer"]

SPLIT = ("linear", "lists", "activation", "pooling", "other")
"""What the native engine's time goes to: ``linear``, the layers' sums, of deltas or dense;
``lists``, comparing, truncating and listing; ``activation``, residual sums and all that is fused to
a layer's end, the pooling behind a first layer among it; ``pooling`` elsewhere; and ``other``:
islands, moves, and handing frames in and features out."""

_OWN_WORK = {
    "ConvStep": "linear",
    "PoolStep": "pooling",
    "GlobalAverageStep": "pooling",
    "PointwiseStep": "activation",
}


@dataclass(frozen=True)
class _Done:
    """Of one part of the clip.

    Attributes:
        features: (T, D) float32.
        density_delta: (frames that do not begin a chunk, L).
        work: (T,).
    """

    features: Tensor
    density_delta: Tensor
    work: Tensor


class RrmPeer(Peer):
    """As many networks as threads, each with a state and a part of the clip of its own.

    Each part begins with a key frame, and so does each chunk inside it, as in an extraction.

    Args:
        recipe: the network, its policy and the frames in a time batch.
        engine: "native" or "torch".
        threshold: in units of the layers' inputs.
        precision: "fp32" or "bf16".
        threads: cores, and parts of the clip.
        chunk: frames from one key frame to the next; None makes all frames one chunk. Clips of
            different rates have different ones: it may be set anew before each.
    """

    threshold: float
    chunk: int | None

    def __init__(
        self,
        recipe: Recipe,
        *,
        engine: str,
        threshold: float,
        precision: str,
        threads: int,
        chunk: int | None,
    ) -> None:
        self.runtime = f"rrm-{engine}"
        self.precision = precision
        self.threads = threads
        self.threshold = threshold
        self.settings = f"time batch {recipe.time_batch}, {recipe.policy}"
        self.chunk = chunk
        self._recipe, self._engine = recipe, engine
        macs = torch.tensor([layer.macs for layer in recipe.layers], dtype=torch.float64)
        self._weights = macs / macs.sum()
        self._done: list[_Done] = []

    def prepare(self) -> None:
        """Opens the networks; their packed weights are one copy where the engine has such."""
        first = _open(self._recipe, self._engine, self.threshold, self.precision)
        self._networks = [first]
        for _ in range(1, self.threads):
            self._networks.append(
                first.fork()
                if hasattr(first, "fork")
                else _open(self._recipe, self._engine, self.threshold, self.precision)
            )
        self._workers = Workers(self.threads)

    def run(self, frames: Tensor) -> Tensor:
        """See :meth:`Peer.run`."""
        parts = consecutive_parts(frames, self.threads)
        self._done = self._workers.map(self._part, self._networks, parts)
        return torch.cat([done.features for done in self._done])

    def _part(self, network: Any, frames: Tensor) -> _Done:
        features: list[Tensor] = []
        deltas: list[Tensor] = []
        work: list[Tensor] = []
        for chunk in torch.split(frames, self.chunk or len(frames)):
            network.reset()
            for number, batch in enumerate(torch.split(chunk, self._recipe.time_batch)):
                (output,), seen = network.run(batch)
                features.append(pooled(output, self._recipe.pool).flatten(1))
                deltas.append(seen.density_delta[1 if number == 0 else 0 :])
                work.append(seen.work)
        return _Done(
            features=torch.cat(features), density_delta=torch.cat(deltas), work=torch.cat(work)
        )

    def density(self) -> float | None:
        """Share of non-zero deltas by MACs, mean over frames that do not begin a chunk."""
        deltas = torch.cat([done.density_delta for done in self._done])
        return float((deltas.double() @ self._weights).mean()) if len(deltas) else None

    def work(self) -> float:
        """Share of the dense MACs that were done, mean over all frames."""
        return float(torch.cat([done.work for done in self._done]).double().mean())

    def stages(self) -> Mapping[str, float]:
        """What the networks' ``profile()`` say, summed; empty for an engine without it."""
        seconds: Counter[str] = Counter()
        for network in self._networks:
            if hasattr(network, "profile"):
                seconds.update(network.profile())
        return seconds

    def split(self, frames: Tensor, *, repeats: int = 5) -> dict[str, float] | None:
        """Where the time of the native engine goes, in other runs of one core.

        These runs are slower than :meth:`run`: only shares are to be taken from them. Of each step
        and share the least of all repeats counts, for a thread that has to wait waits anywhere.

        Args:
            frames: (T, *input_shape) float32.
            repeats: how often it is run, after a first time that does not count.

        Returns:
            Seconds by :data:`SPLIT`; None for an engine that cannot tell.
        """
        network = self._networks[0]
        if not hasattr(network, "split_times"):
            return None
        kinds = {
            step.name: type(step).__name__
            for part in network.sequence
            for step in getattr(part, "steps", ())
        }
        self._part(network, frames)
        network.split_times(True)
        whole = math.inf
        least: dict[tuple[str, str], float] = {}
        for _ in range(repeats):
            before, began = network.profile_split(), time.thread_time()
            self._part(network, frames)
            whole = min(whole, time.thread_time() - began)
            for step, shares in network.profile_split().items():
                for share, value in shares.items():
                    key = (step, share)
                    least[key] = min(least.get(key, math.inf), value - before[step][share])
        network.split_times(False)
        seconds = dict.fromkeys(SPLIT, 0.0)
        for (step, share), value in least.items():
            # What is no step hands an input to the first layers.
            own = _OWN_WORK.get(kinds[step], "other") if step in kinds else "lists"
            seconds[{"own": own, "finish": "activation"}.get(share, share)] += value
        seconds["other"] += max(0.0, whole - sum(seconds.values()))
        return seconds


def _open(recipe: Recipe, engine: str, threshold: float, precision: str) -> Any:
    """A network of that engine; ends the program where there is none."""
    program: Program = recipe.program
    try:
        module = importlib.import_module("rrm_extract.engine")
        open_network = module.open_network
    except (ImportError, AttributeError) as error:
        if engine == "torch" and precision == "fp32":
            return RecurrentNetwork(program, threshold=threshold, policy=recipe.policy)
        sys.exit(
            f"the native engine is not built ({error}); install rrm-extract from a built package, "
            "or choose --engines torch"
        )
    return open_network(
        program,
        engine=engine,
        threshold=threshold,
        policy=recipe.policy,
        precision=precision,
        input_shape=recipe.transform.output_shape,
        batch=recipe.time_batch,
        # One copy of the weights for all thresholds: large networks would not fit else.
        packed=recipe.packed if precision == recipe.precision else None,
    )
