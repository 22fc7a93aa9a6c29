"""OpenVINO on the CPU: fp32, bf16, and int8 after NNCF's post-training quantisation."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from benchmarking import require
from torch import Tensor

from peers.base import Peer
from peers.dense import DenseNetwork

__all__ = ["OpenVinoPeer", "openvino_model", "quantised_model", "supports"]

_TYPES = {"fp32": "f32", "bf16": "bf16"}
"""Precisions as OpenVINO's hint names them; int8 is a matter of the model, not of the hint."""


class OpenVinoPeer(Peer):
    """One compiled model of a fixed batch size.

    Args:
        model: an ``openvino.Model``; not altered.
        input_shape: of one frame.
        precision: "fp32", "bf16" or "int8".
        threads: ``INFERENCE_NUM_THREADS``.
        hint: "latency", one request at a time on all threads, or "throughput", as many requests
            at a time as OpenVINO calls optimal.
        batch: frames in a request; clips must be a multiple of it.
    """

    runtime = "openvino"

    def __init__(
        self,
        model: Any,
        *,
        input_shape: Sequence[int],
        precision: str,
        threads: int,
        hint: str,
        batch: int,
    ) -> None:
        self.precision = precision
        self.threads = threads
        self.settings = f"{hint} hint, batch {batch}"
        self._model, self._hint, self.batch = model, hint, batch
        self._input_shape = tuple(input_shape)

    def prepare(self) -> None:
        """Compiles the model and makes its requests."""
        openvino = require("openvino")
        properties = {
            "PERFORMANCE_HINT": self._hint.upper(),
            "INFERENCE_NUM_THREADS": self.threads,
            # Else the latency hint leaves every second thread of a core alone.
            "ENABLE_HYPER_THREADING": True,
        }
        if self.precision in _TYPES:
            # Unasked, OpenVINO takes bf16 wherever the processor has it.
            properties["INFERENCE_PRECISION_HINT"] = _TYPES[self.precision]
        model = self._model.clone()
        model.reshape([self.batch, *self._input_shape])
        # OpenVINO gives the thread that compiles a stack for its signals, and takes it away with
        # the model, but not as it should where there are several: Ctrl-C in Python's own thread
        # would be a segmentation fault.
        with ThreadPoolExecutor(1) as apart:
            compiled = apart.submit(
                openvino.Core().compile_model, model, "CPU", properties
            ).result()
        count = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._size = int(compiled.output(0).shape[1])
        self._request = compiled.create_infer_request() if count == 1 else None
        self._queue = None if count == 1 else openvino.AsyncInferQueue(compiled, count)
        if self._queue is not None:
            self._queue.set_callback(_keep)

    def run(self, frames: Tensor) -> Tensor:
        """See :meth:`Peer.run`."""
        features = torch.empty(len(frames), self._size)
        batches = zip(
            frames.numpy().reshape(-1, self.batch, *self._input_shape),
            features.numpy().reshape(-1, self.batch, self._size),
            strict=True,
        )
        if self._request is not None:
            for batch, rows in batches:
                self._request.infer({0: batch}, share_inputs=True, share_outputs=True)
                rows[:] = self._request.get_output_tensor(0).data
        elif self._queue is not None:
            for batch, rows in batches:
                self._queue.start_async({0: batch}, userdata=rows, share_inputs=True)
            self._queue.wait_all()
        return features


def _keep(request: Any, rows: Any) -> None:
    rows[:] = request.get_output_tensor(0).data


def supports(precision: str) -> bool:
    """Whether OpenVINO computes in this precision on this processor."""
    if precision != "bf16":
        return True
    capabilities = require("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "BF16" in capabilities


def openvino_model(network: DenseNetwork) -> Any:
    """The network as an ``openvino.Model`` for any batch size."""
    return require("openvino").Core().read_model(network.onnx, b"")


def quantised_model(network: DenseNetwork, frames: Tensor) -> Any:
    """The network in int8, by NNCF's post-training quantisation with its own defaults.

    Args:
        network: what to quantise.
        frames: (T, *input_shape) float32, all of which serve for calibration.
    """
    os.environ.setdefault("NNCF_CI", "1")  # NNCF then reports to nobody that it was used
    nncf = require("nncf")
    nncf.set_log_level(logging.ERROR)
    dataset = nncf.Dataset([frame[None].numpy() for frame in frames])
    with contextlib.redirect_stdout(sys.stderr):  # its progress bar
        return nncf.quantize(
            openvino_model(network),
            dataset,
            subset_size=len(frames),
            target_device=nncf.TargetDevice.CPU,
        )
