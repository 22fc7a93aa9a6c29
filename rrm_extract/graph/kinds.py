"""Which kind of operation a module, a function or a method is."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import stochastic_depth

from rrm_extract.graph.binary import BINARY_MODULES, BinaryConv2d, BinaryLinear, Sign

__all__ = [
    "NORM_ACTIVATION_CHILDREN",
    "is_binary",
    "is_norm_activation",
    "kind_of_function",
    "kind_of_method",
    "kind_of_module",
]

NORM_ACTIVATION_CHILDREN = ("drop", "act")
"""What follows the normalisation in timm's BatchNormAct2d, in this order."""

_MODULES: tuple[tuple[str, tuple[type[nn.Module], ...]], ...] = (
    ("conv", (nn.Conv1d, nn.Conv2d, nn.Conv3d)),
    ("linear", (nn.Linear,)),
    (
        "norm",
        (
            nn.BatchNorm1d,
            nn.BatchNorm2d,
            nn.BatchNorm3d,
            nn.LayerNorm,
            nn.GroupNorm,
            nn.InstanceNorm2d,
            nn.LocalResponseNorm,
        ),
    ),
    (
        "activation",
        (
            nn.ReLU,
            nn.ReLU6,
            nn.LeakyReLU,
            nn.PReLU,
            nn.ELU,
            nn.GELU,
            nn.SiLU,
            nn.Mish,
            nn.Sigmoid,
            nn.Tanh,
            nn.Hardswish,
            nn.Hardsigmoid,
            nn.Hardtanh,
            nn.Softmax,
            Sign,
        ),
    ),
    (
        "pool",
        (
            nn.MaxPool2d,
            nn.AvgPool2d,
            nn.AdaptiveAvgPool2d,
            nn.AdaptiveMaxPool2d,
            nn.MaxPool1d,
            nn.AvgPool1d,
            nn.AdaptiveAvgPool1d,
        ),
    ),
    (
        "identity",
        (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
    ),
    ("reshape", (nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle)),
)

_FUNCTIONS: Mapping[Callable[..., Any], str] = {
    operator.add: "add",
    torch.add: "add",
    operator.mul: "multiply",
    torch.mul: "multiply",
    torch.cat: "concat",
    torch.flatten: "reshape",
    torch.reshape: "reshape",
    torch.transpose: "reshape",
    torch.permute: "reshape",
    torch.squeeze: "reshape",
    torch.chunk: "reshape",
    torch.split: "reshape",
    operator.getitem: "reshape",
    torch.relu: "activation",
    torch.sigmoid: "activation",
    torch.tanh: "activation",
    F.relu: "activation",
    F.relu6: "activation",
    F.silu: "activation",
    F.gelu: "activation",
    F.hardswish: "activation",
    F.hardsigmoid: "activation",
    F.softmax: "activation",
    F.max_pool2d: "pool",
    F.avg_pool2d: "pool",
    F.adaptive_avg_pool2d: "pool",
    F.batch_norm: "norm",
    F.layer_norm: "norm",
    F.dropout: "identity",
    stochastic_depth: "identity",
}

_METHODS: Mapping[str, str] = {
    "add": "add",
    "mul": "multiply",
    "mean": "pool",
    "relu": "activation",
    "sigmoid": "activation",
    "softmax": "activation",
    **dict.fromkeys(
        (
            "flatten",
            "view",
            "reshape",
            "permute",
            "transpose",
            "contiguous",
            "chunk",
            "split",
            "squeeze",
            "unsqueeze",
            "size",
        ),
        "reshape",
    ),
}


def kind_of_module(module: nn.Module) -> str:
    """The kind of a module; a subclass with a forward of its own is "other"."""
    for kind, types in _MODULES:
        for base in types:
            if isinstance(module, base) and _computes_as(type(module), base):
                return kind
    return "other"


def _computes_as(own: type[nn.Module], base: type[nn.Module]) -> bool:
    """Whether a class has its base's forward, and what the forward of convolutions calls."""
    return all(
        getattr(own, name, None) is getattr(base, name, None)
        for name in ("forward", "_conv_forward")
    )


def is_binary(module: nn.Module) -> TypeGuard[BinaryConv2d | BinaryLinear]:
    """Whether it is a binary layer that computes as its class says."""
    return any(
        isinstance(module, base) and _computes_as(type(module), base) for base in BINARY_MODULES
    )


def is_norm_activation(module: nn.Module) -> bool:
    """Whether it is timm's BatchNormAct2d, a batch-norm with an activation inside.

    Told by its name and children, so that timm need not be installed.
    """
    return (
        isinstance(module, nn.BatchNorm2d)
        and type(module).__name__ == "BatchNormAct2d"
        and tuple(module._modules) == NORM_ACTIVATION_CHILDREN
    )


def kind_of_function(function: Callable[..., Any]) -> str:
    """The kind of a function, "other" if it is none of the known ones."""
    return _FUNCTIONS.get(function, "other")


def kind_of_method(name: str) -> str:
    """The kind of a tensor method, "other" if it is none of the known ones."""
    return _METHODS.get(name, "other")
