"""The native engine as a dense runtime: what the recurrence is faster than in its own kernels."""

from __future__ import annotations

import torch
from every_layer_dense import every_layer_dense
from torch import Tensor

from peers.base import Peer, Workers, consecutive_parts
from rrm_extract.engine import NativeNetwork
from rrm_extract.jobs import Recipe, pooled

__all__ = ["DenseEnginePeer"]


class DenseEnginePeer(Peer):
    """Every layer computes every frame densely and in full, as many frames together as ever.

    The engine computes nothing of a frame that has not changed, dense layers' tiles included. So
    that nothing can be left out the frames are others: of noise, as many and of the same shape.
    How long a dense layer takes does not depend on what its numbers are.

    Args:
        recipe: the network, and the frames in a time batch.
        noise: (T, *input_shape) float32, frames of which every pixel is new in each.
        threads: cores, and parts of the clip.
    """

    runtime = "rrm-native dense"
    precision = "fp32"

    def __init__(self, recipe: Recipe, noise: Tensor, *, threads: int) -> None:
        self.threads = threads
        self.settings = f"time batch {recipe.time_batch}, every layer dense, noise"
        self._recipe, self._noise = recipe, noise
        self._as_many: dict[int, Tensor] = {}
        self._work: list[Tensor] = []

    def prepare(self) -> None:
        """Opens the networks, which share their packed weights."""
        with every_layer_dense():
            first = NativeNetwork(
                self._recipe.program,
                input_shape=self._recipe.transform.output_shape,
                threshold=0.0,
                batch=self._recipe.time_batch,
            )
        self._networks = [first, *(first.fork() for _ in range(1, self.threads))]
        self._workers = Workers(self.threads)

    def run(self, frames: Tensor) -> Tensor:
        """Features of as many frames of noise, (T, D): those of ``frames`` are not computed.

        Args:
            frames: (T, *input_shape) float32, of which only the number counts.
        """
        count = len(frames)
        if count not in self._as_many:  # the first run, which no time counts
            repeats = -(-count // len(self._noise))
            self._as_many[count] = torch.cat([self._noise] * repeats)[:count]
        self._work = []
        parts = self._workers.map(
            self._part, self._networks, consecutive_parts(self._as_many[count], self.threads)
        )
        return torch.cat(parts)

    def _part(self, network: NativeNetwork, frames: Tensor) -> Tensor:
        network.reset()
        features: list[Tensor] = []
        for batch in torch.split(frames, self._recipe.time_batch):
            (output,), seen = network.run(batch)
            features.append(pooled(output, self._recipe.pool).flatten(1))
            self._work.append(seen.work)
        return torch.cat(features)

    def work(self) -> float:
        """Share of the dense MACs: all of them."""
        return float(torch.cat(self._work).mean())
