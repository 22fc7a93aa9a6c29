"""Turns a traceable network into a Program: typed operations on named tensors.

The only place that knows ``torch.fx``.
"""

from __future__ import annotations

from rrm_extract import light_torchvision  # noqa: F401 - before torchvision is imported
from rrm_extract.graph.binary import BinaryConv2d, BinaryLinear, ChannelScale, Sign
from rrm_extract.graph.dense import dense_module
from rrm_extract.graph.digest import add_tensor, digest_of, tensor_digest
from rrm_extract.graph.fold import fold, fold_batch_norm
from rrm_extract.graph.linear import Convolution, FullyConnected, LinearMap
from rrm_extract.graph.program import Op, Program, Ref, execute
from rrm_extract.graph.select import (
    default_layer,
    layer_names,
    prune,
    resolve_layer,
    select,
    sign_readers,
)
from rrm_extract.graph.trace import trace

__all__ = [
    "BinaryConv2d",
    "BinaryLinear",
    "ChannelScale",
    "Convolution",
    "FullyConnected",
    "LinearMap",
    "Op",
    "Program",
    "Ref",
    "Sign",
    "add_tensor",
    "default_layer",
    "dense_module",
    "digest_of",
    "execute",
    "fold",
    "fold_batch_norm",
    "layer_names",
    "prune",
    "resolve_layer",
    "select",
    "sign_readers",
    "tensor_digest",
    "trace",
]
