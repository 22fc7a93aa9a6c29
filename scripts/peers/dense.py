"""A Program as a plain torch module and as an ONNX file: the same feature for every rival."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from rrm_extract.graph import Program, dense_module
from rrm_extract.jobs import pooled
from rrm_extract.models.loaded import freeze

__all__ = ["INPUT", "DenseNetwork", "feature_module"]

INPUT = "frames"
"""Name of the ONNX file's input."""

_OPSET = 17


class DenseNetwork:
    """What the rivals of the recurrence compute.

    Args:
        program: the network up to the feature, batch normalisation folded.
        input_shape: of one frame.
        pool: "avg" or "none": of a feature that is a map, as in an extraction.
    """

    def __init__(self, program: Program, *, input_shape: Sequence[int], pool: str = "avg") -> None:
        self.program = program
        self.input_shape = tuple(input_shape)
        self.pool = pool

    def module(self) -> nn.Module:
        """(N, *input_shape) to (N, D), with weights of its own."""
        return feature_module(self.program, in_place=True, pool=self.pool)

    @cached_property
    def onnx(self) -> bytes:
        """The same as an ONNX file, for any batch size."""
        file: Any = io.BytesIO()
        with warnings.catch_warnings():
            # The exporter by TorchScript is announced to go, and says so at length; the other one
            # needs yet another package.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                feature_module(self.program, in_place=False, pool=self.pool),
                (torch.zeros(1, *self.input_shape),),
                file,
                dynamo=False,
                opset_version=_OPSET,
                input_names=[INPUT],
                output_names=["feature"],
                dynamic_axes={INPUT: {0: "batch"}, "feature": {0: "batch"}},
            )
        content: bytes = file.getvalue()
        return content


class _Feature(nn.Module):
    """The network and, where the feature is a map to be pooled, its mean over space; (N, D)."""

    def __init__(self, network: nn.Module, pool: str) -> None:
        super().__init__()
        self.network, self.pool = network, pool

    def forward(self, x: Tensor) -> Tensor:
        return pooled(self.network(x), self.pool).flatten(1)


def feature_module(program: Program, *, in_place: bool, pool: str = "avg") -> nn.Module:
    """A Program with one output as a module from frames to features, with weights of its own.

    Args:
        program: the network.
        in_place: see :func:`rrm_extract.graph.dense_module`.
        pool: "avg" or "none".
    """
    return freeze(_Feature(dense_module(program, in_place=in_place), pool))
