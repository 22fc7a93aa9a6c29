"""A Program as a plain torch module, as one would write the ordinary network for speed."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from rrm_extract.graph.linear import Convolution, FullyConnected, LinearMap, with_zeros
from rrm_extract.graph.program import Op, Program, Ref
from rrm_extract.graph.trace import MethodCall

__all__ = ["dense_module"]

_INPUT = "frames"
_FRESH = frozenset({"conv", "linear", "norm", "add"})
"""Kinds of operation that make a tensor of their own, which their only reader may overwrite."""


def dense_module(program: Program, *, in_place: bool) -> nn.Module:
    """A Program with one output as torch would have it written.

    Convolutions add their bias themselves. The weights are copies: the module may be converted.

    Args:
        program: the network.
        in_place: let activations and sums overwrite what nobody else reads, as networks written
            for speed do.
    """
    graph, root = fx.Graph(), nn.Module()
    values: dict[str, Any] = {program.input: graph.placeholder(_INPUT)}
    readers = Counter(name for op in program.ops for name in op.inputs)
    readers.update(program.outputs)
    fresh = {op.name for op in program.ops if op.kind in _FRESH and readers[op.name] == 1}
    for number, op in enumerate(program.ops):
        name = f"op{number}"
        args, kwargs = _nodes(op.args, values), _nodes(dict(op.kwargs), values)
        first = op.args[0] if op.args else None
        if in_place and isinstance(first, Ref) and first.name in fresh:
            op = _overwriting(op)
            kwargs = {key: value for key, value in kwargs.items() if key in op.kwargs}
        if isinstance(op.call, (LinearMap, nn.Module)):
            root.add_module(name, _module(op.call))
            values[op.name] = graph.call_module(name, args, kwargs)
        elif op.kind == "constant":
            values[op.name] = op.call()
            if isinstance(values[op.name], Tensor):
                root.register_buffer(name, values[op.name].clone())
                values[op.name] = graph.get_attr(name)
        elif isinstance(op.call, MethodCall):
            values[op.name] = graph.call_method(op.call.name, args, kwargs)
        else:
            values[op.name] = graph.call_function(op.call, args, kwargs)
    graph.output(values[program.outputs[0]])
    return fx.GraphModule(root, graph).eval().requires_grad_(False)


def _overwriting(op: Op) -> Op:
    """The operation that writes its result over its first argument, where there is one."""
    if op.kind == "activation" and hasattr(op.call, "inplace"):
        module: Any = copy.deepcopy(op.call)
        module.inplace = True
        return replace(op, call=module)
    if op.call in (torch.relu, nn.functional.relu) and len(op.args) == 1:
        return replace(op, call=nn.functional.relu_, kwargs={})
    if op.kind == "add" and len(op.args) == 2 and not op.kwargs:
        return replace(op, call=_add_in_place)
    return op


def _add_in_place(x: Any, y: Any) -> Any:
    # The sum may be larger than what it would overwrite, or of another type.
    fits = isinstance(y, Tensor) and x.shape == y.shape and x.dtype == y.dtype
    return x.add_(y) if fits else x + y


def _module(call: LinearMap | nn.Module) -> nn.Module:
    """A module with weights of its own."""
    if isinstance(call, nn.Module):
        return copy.deepcopy(call)
    linear = call
    bias = linear.bias is not None
    module: Any
    if isinstance(linear, FullyConnected):
        outputs, inputs = linear.weight.shape
        module = nn.Linear(inputs, outputs, bias=bias, device="meta")
    elif isinstance(linear, Convolution):
        same = linear.padding == "same"
        if linear.behind is not None or (same and max(linear.stride) > 1):
            return _Padded(linear)
        classes: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
        module = classes[linear.weight.dim() - 3](
            linear.weight.shape[1] * linear.groups,
            linear.weight.shape[0],
            tuple(linear.weight.shape[2:]),
            stride=linear.stride,
            padding=linear.padding,
            dilation=linear.dilation,
            groups=linear.groups,
            bias=bias,
            padding_mode=linear.padding_mode,
            device="meta",
        )
    else:
        msg = f"expected a convolution or a fully-connected layer, got {type(linear).__name__}"
        raise TypeError(msg)
    module.weight = nn.Parameter(linear.weight.detach().clone(), requires_grad=False)
    if linear.bias is not None:
        module.bias = nn.Parameter(linear.bias.detach().clone(), requires_grad=False)
    return module  # type: ignore[no-any-return]


class _Padded(nn.Module):
    """A convolution that pads one side more than the other, as TensorFlow's do."""

    def __init__(self, linear: Convolution) -> None:
        super().__init__()
        # For its geometry alone: the convolution has a copy of the weights.
        self.geometry = replace(linear, weight=linear.weight.to("meta"), bias=None)
        self.convolution = _module(replace(linear, padding="valid", behind=None))

    def forward(self, x: Tensor) -> Tensor:
        x = with_zeros(x, self.geometry.zeros(x.shape[2:]))
        return self.convolution(x)  # type: ignore[no-any-return]


def _nodes(tree: Any, values: Mapping[str, Any]) -> Any:
    """The same nesting with the node of every value in place of its Ref."""
    if isinstance(tree, Ref):
        return values[tree.name]
    if isinstance(tree, tuple):
        return tuple(_nodes(item, values) for item in tree)
    if isinstance(tree, list):
        return [_nodes(item, values) for item in tree]
    if isinstance(tree, dict):
        return {key: _nodes(item, values) for key, item in tree.items()}
    if isinstance(tree, slice):
        return slice(*_nodes((tree.start, tree.stop, tree.step), values))
    return tree
