"""ONNX Runtime on the CPU, fp32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from benchmarking import require
from torch import Tensor

from peers.base import Peer, Workers, consecutive_parts
from peers.dense import INPUT, DenseNetwork

__all__ = ["OnnxRuntimePeer", "onnxruntime_sessions"]


class OnnxRuntimePeer(Peer):
    """One or several sessions.

    Args:
        sessions: what shares the cores, each with a part of the clip of its own.
        threads: cores in all.
        batch: frames in a call.
    """

    runtime = "onnxruntime"
    precision = "fp32"

    def __init__(self, sessions: Sequence[Any], *, threads: int, batch: int) -> None:
        self.threads = threads
        self.settings = f"{len(sessions)} x {threads // len(sessions)} threads, batch {batch}"
        self._sessions, self.batch = sessions, batch

    def prepare(self) -> None:
        """Starts the threads that call the sessions."""
        self._workers = Workers(len(self._sessions))

    def run(self, frames: Tensor) -> Tensor:
        """See :meth:`Peer.run`."""
        parts = consecutive_parts(frames, len(self._sessions))
        return torch.cat(self._workers.map(self._features, self._sessions, parts))

    def _features(self, session: Any, frames: Tensor) -> Tensor:
        outputs = [
            session.run(None, {INPUT: batch.numpy()})[0]
            for batch in torch.split(frames, self.batch)
        ]
        return torch.cat([torch.from_numpy(output) for output in outputs])


def onnxruntime_sessions(network: DenseNetwork, *, count: int, threads: int) -> list[Any]:
    """Sessions for any batch size, each with the same share of ``threads``."""
    onnxruntime = require("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads // count
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    # Its threads spin while it computes, but not into the turn of the next runtime.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return [
        onnxruntime.InferenceSession(network.onnx, options, providers=["CPUExecutionProvider"])
        for _ in range(count)
    ]
