"""Which activation of PyTorch is which of the engine's."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from rrm_extract.engine.plan import Activation
from rrm_extract.graph import Sign
from rrm_extract.graph.kinds import kind_of_module

__all__ = ["activation_of"]

_MODULES: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.Sigmoid: "sigmoid",
    nn.SiLU: "silu",
    nn.Hardsigmoid: "hardsigmoid",
    nn.Hardswish: "hardswish",
    nn.Tanh: "tanh",
    Sign: "sign",
}
_FUNCTIONS: dict[Any, str] = {
    F.relu: "relu",
    torch.relu: "relu",
    torch.sigmoid: "sigmoid",
    F.sigmoid: "sigmoid",
    F.silu: "silu",
    F.hardsigmoid: "hardsigmoid",
    F.hardswish: "hardswish",
    torch.tanh: "tanh",
    F.tanh: "tanh",
}
_METHODS = {"relu": "relu", "sigmoid": "sigmoid", "tanh": "tanh"}


def activation_of(
    call: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Activation | None:
    """The engine's form of a module, function or method; None if it has none."""
    if isinstance(call, nn.Module) and kind_of_module(call) != "activation":
        return None  # perhaps a subclass that computes something else
    rest = {name: value for name, value in kwargs.items() if name != "inplace"}
    if isinstance(call, nn.ReLU6) or (call is F.relu6 and not args):
        return Activation("clamp", 0.0, 6.0)
    if call is F.hardtanh:
        given = {"min_val": -1.0, "max_val": 1.0, **rest}
        given.update(zip(("min_val", "max_val"), args, strict=False))
        return Activation("clamp", float(given["min_val"]), float(given["max_val"]))
    if isinstance(call, nn.Hardtanh):
        return Activation("clamp", float(call.min_val), float(call.max_val))
    if isinstance(call, nn.LeakyReLU):
        return Activation("leaky_relu", float(call.negative_slope))
    if call is F.leaky_relu:
        slope = operator.getitem(args, 0) if args else rest.get("negative_slope", 0.01)
        return Activation("leaky_relu", float(slope))
    if args or rest:
        return None
    by_type = _MODULES.get(type(call)) if isinstance(call, nn.Module) else None
    name = by_type or _METHODS.get(str(getattr(call, "name", "")))
    if name is None and not isinstance(call, nn.Module):
        name = _FUNCTIONS.get(call)
    return None if name is None else Activation(name)
