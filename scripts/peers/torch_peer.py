"""PyTorch itself: the dense network in channels_last, fp32 or bf16."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from peers.base import Peer, Workers, consecutive_parts
from peers.dense import DenseNetwork

__all__ = ["TorchPeer", "torch_module"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TorchPeer(Peer):
    """One module, called by one thread that uses all cores, or by one thread for each core.

    Args:
        module: from :func:`torch_module`.
        input_shape: of one frame.
        precision: "fp32" or "bf16".
        threads: cores in all.
        callers: 1, or ``threads``: how many parts of the clip are computed at a time.
        batch: frames in a call.
    """

    runtime = "torch"

    def __init__(
        self,
        module: nn.Module,
        *,
        input_shape: Sequence[int],
        precision: str,
        threads: int,
        callers: int,
        batch: int,
    ) -> None:
        self.precision = precision
        self.threads = threads
        self.settings = f"{callers} x {threads // callers} threads, channels_last, batch {batch}"
        self._module, self._callers, self.batch = module, callers, batch
        # Networks that take (h, w, C) have their channels last as they are.
        is_chw = input_shape[0] < min(input_shape[1:])
        self._layout = torch.channels_last if is_chw else torch.contiguous_format

    def prepare(self) -> None:
        """Starts the threads that call the module."""
        self._workers = Workers(self._callers) if self._callers > 1 else None

    def run(self, frames: Tensor) -> Tensor:
        """See :meth:`Peer.run`."""
        if self._workers is None:
            if torch.get_num_threads() != self.threads:
                torch.set_num_threads(self.threads)
            return self._features(frames)
        return torch.cat(
            self._workers.map(self._features, consecutive_parts(frames, self._callers))
        )

    @torch.inference_mode()
    def _features(self, frames: Tensor) -> Tensor:
        dtype = _DTYPES[self.precision]
        outputs = [
            self._module(batch.to(dtype=dtype, memory_format=self._layout)).float()
            for batch in torch.split(frames, self.batch)
        ]
        return torch.cat(outputs)


def torch_module(network: DenseNetwork, precision: str) -> nn.Module:
    """The network in channels_last, in that precision."""
    return network.module().to(memory_format=torch.channels_last).to(_DTYPES[precision])
