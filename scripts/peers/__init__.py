"""The runtimes that are measured side by side, each behind the same two calls."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from peers.base import Peer
from peers.dense import DenseNetwork

__all__ = ["BASELINES", "DenseNetwork", "Peer", "baseline_candidates"]

BASELINES = {
    "openvino": ("fp32", "bf16", "int8"),
    "onnxruntime": ("fp32",),
    "torch": ("fp32", "bf16"),
}
"""Dense runtimes and the precisions in which each is measured."""


def baseline_candidates(
    name: str,
    network: DenseNetwork,
    *,
    precision: str,
    threads: int,
    batches: Sequence[int],
    calibration: Tensor | None = None,
) -> list[Peer]:
    """Every way of running a dense runtime that may be its best; not prepared.

    Args:
        name: one of ``BASELINES``.
        network: what to compute.
        precision: one of those that ``BASELINES`` has for it.
        threads: cores.
        batches: frames in a call.
        calibration: (T, *input_shape) float32, for int8.

    Returns:
        Peers, none where the processor lacks the precision.
    """
    shares = sorted({1, threads})
    if name == "openvino":
        from peers.openvino_peer import OpenVinoPeer, openvino_model, quantised_model, supports

        if not supports(precision):
            return []
        if precision == "int8":
            if calibration is None:
                msg = "int8 needs frames for calibration, got none"
                raise ValueError(msg)
            model = quantised_model(network, calibration)
        else:
            model = openvino_model(network)
        return [
            OpenVinoPeer(
                model,
                input_shape=network.input_shape,
                precision=precision,
                threads=threads,
                hint=hint,
                batch=batch,
            )
            for hint in ("latency", "throughput")
            for batch in batches
        ]
    if name == "onnxruntime":
        from peers.onnxruntime_peer import OnnxRuntimePeer, onnxruntime_sessions

        groups = [onnxruntime_sessions(network, count=count, threads=threads) for count in shares]
        return [
            OnnxRuntimePeer(sessions, threads=threads, batch=batch)
            for sessions in groups
            for batch in batches
        ]
    from peers.torch_peer import TorchPeer, torch_module

    module = torch_module(network, precision)
    return [
        TorchPeer(
            module,
            input_shape=network.input_shape,
            precision=precision,
            threads=threads,
            callers=callers,
            batch=batch,
        )
        for callers in shares
        for batch in batches
    ]
