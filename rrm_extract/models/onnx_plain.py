"""From onnx2torch's modules to ones that torch.fx traces at any batch size.

onnx2torch keeps what ONNX does at run time: shapes are tensors computed in the graph, weights of
a MatMul are operands. Here the graph is run once; every value that does not depend on the input is
a constant, every shape is known, and each of onnx2torch's own modules whose meaning is then fixed
becomes a module of torch, or one of the small ones below. What has no rule stays as it is.

The first dimension of every activation is the batch; the caller checks that this holds.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

__all__ = ["RuntimeSlice", "make_plain", "repair_slices"]

_RESHAPING = (
    "OnnxFlatten",
    "OnnxReshape",
    "OnnxSqueezeDynamicAxes",
    "OnnxSqueezeStaticAxes",
    "OnnxUnsqueezeDynamicAxes",
    "OnnxUnsqueezeStaticAxes",
)
"""Modules that keep the order of the elements."""

_BINARY: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "_onnx_div": operator.truediv,
}


class Reshape(nn.Module):
    """(N, ...) -> (N, *sizes)."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, x: Tensor) -> Tensor:
        return torch.reshape(x, (-1, *self.sizes))


class Permute(nn.Module):
    """Dimensions in another order."""

    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return torch.permute(x, self.order)


class Binary(nn.Module):
    """Two operands, element by element, with broadcasting."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        result: Tensor = self.function(x, y)
        return result


class Sum(nn.Module):
    """Any number of operands, added in order."""

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            x = x + other
        return x


class Concat(nn.Module):
    """Operands side by side along one dimension."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *parts: Tensor) -> Tensor:
        return torch.cat(parts, self.dim)


class Split(nn.Module):
    """Consecutive parts of given sizes along one dimension."""

    def __init__(self, sizes: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.dim = dim

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.split(x, list(self.sizes), self.dim)


class Index(nn.Module):
    """``x[index]``, basic indexing."""

    def __init__(self, index: tuple[slice | int, ...]) -> None:
        super().__init__()
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        return x[self.index]


class RuntimeSlice(nn.Module):
    """ONNX Slice with bounds known only at run time, as in a computed shape."""

    def forward(
        self,
        x: Tensor,
        starts: Tensor,
        ends: Tensor,
        axes: Tensor | None = None,
        steps: Tensor | None = None,
    ) -> Tensor:
        """Slice ``x`` as ONNX says: one start, end and step per axis."""
        for axis, bounds in _slices(x, starts, ends, axes, steps):
            kept = range(x.shape[axis])[bounds]
            x = x.index_select(axis, torch.tensor(list(kept), dtype=torch.int64, device=x.device))
        return x


def repair_slices(converted: fx.GraphModule) -> None:
    """Replace onnx2torch's slices, in place.

    They index with a list of slices, which torch has announced to understand differently.
    """
    for name, module in list(converted.named_modules()):
        if type(module).__name__ == "OnnxSlice":
            converted.add_submodule(name, RuntimeSlice())


def make_plain(converted: fx.GraphModule, example: Tensor) -> fx.GraphModule:
    """Replace what can be replaced.

    Args:
        converted: what onnx2torch gave, in eval mode; its modules are taken over.
        example: (N, ...) float32 network input, N the batch size the file is for.

    Returns:
        A new GraphModule with the nodes' names kept.
    """
    rewriter = _Rewriter(converted)
    with torch.no_grad():
        rewriter.run(example)
    graph = converted.graph
    for node in list(graph.nodes):
        if node in rewriter.replacements:
            _replace(converted, node, rewriter.replacements[node])
        elif node.op == "call_module" and node in rewriter.constants:
            _fold(converted, node, rewriter.constants[node])
    for node in list(graph.nodes):
        _join_bias(converted, node)
        _join_reshapes(converted, node)
    graph.eliminate_dead_code()
    converted.delete_all_unused_submodules()
    _delete_unused_buffers(converted)
    graph.lint()
    return fx.GraphModule(converted, graph)


class _Rewriter(fx.Interpreter):
    """Runs the graph once and notes constants and replacements; changes nothing."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.constants: dict[fx.Node, Any] = {}
        self.replacements: dict[fx.Node, nn.Module] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        inputs = n.all_input_nodes
        if n.op == "get_attr" or (
            n.op in ("call_module", "call_function")
            and all(node in self.constants for node in inputs)
        ):
            self.constants[n] = result
        elif n.op == "call_module":
            module = self.submodules[str(n.target)]
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            fixed = {
                index: self.constants[node]
                for index, node in enumerate(n.args)
                if isinstance(node, fx.Node) and node in self.constants
            }
            plain = _plain_module(module, list(args), kwargs, fixed, result)
            if plain is not None:
                self.replacements[n] = plain
        return result


def _plain_module(
    module: nn.Module,
    operands: list[Any],
    named: dict[str, Any],
    fixed: dict[int, Any],
    result: Any,
) -> nn.Module | None:
    """A plain module that does on its variable operands what ``module`` did, or None.

    Args:
        module: one of onnx2torch's modules, or of torch's.
        operands: the values it was called with, by position.
        named: those it was called with by name, which come after one that was left out.
        fixed: those of ``operands`` that are constants, by position.
        result: what it returned.
    """
    kind = type(module).__name__
    x = operands[0]
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return None
    own: Any = module
    plain: nn.Module | None = None
    if kind in _RESHAPING:
        if result.shape[:1] == x.shape[:1]:
            sizes = tuple(result.shape[1:])
            plain = nn.Flatten(1) if len(sizes) == 1 else Reshape(sizes)
    elif kind == "OnnxTranspose":
        plain = Permute(tuple(int(index) for index in own.perm))
    elif kind == "OnnxBinaryMathOperation":
        function = _BINARY.get(own.math_op_function.__name__)
        if function is not None and own.broadcast is None:
            plain = Binary(function)
    elif kind == "OnnxSum":
        plain = Sum()
    elif kind == "OnnxConcat":
        plain = Concat(int(own.axis))
    elif kind in ("OnnxSplit", "OnnxSplit13"):
        plain = Split(tuple(part.shape[own.axis] for part in result), int(own.axis))
    elif kind == "RuntimeSlice":
        plain = _slice(operands, named)
    elif kind == "OnnxGather":
        plain = _gather(own, operands)
    elif kind in ("OnnxMatMul", "OnnxGemm"):
        plain = _linear(own, operands, fixed)
    elif kind.startswith("OnnxGlobalAveragePool") or kind in ("OnnxReduceStaticAxes",):
        plain = _global_average(own, x, result)
    elif kind == "OnnxSoftmaxV1V11":
        if own.axis in (-1, x.ndim - 1):
            plain = nn.LogSoftmax(-1) if own.is_log else nn.Softmax(-1)
    elif kind in ("OnnxCopyIdentity", "OnnxDropoutDynamic"):
        plain = nn.Identity()
    elif kind == "OnnxBatchNorm":
        plain = _batch_norm(own, x, operands, fixed)
    elif kind == "OnnxPReLU":
        plain = _prelu(x, fixed)
    elif kind == "OnnxClip":
        if own.min_val is not None and own.max_val is not None:
            plain = nn.Hardtanh(own.min_val, own.max_val)
    elif kind == "OnnxHardSigmoid":
        if abs(own.alpha - 1 / 6) < 1e-6 and own.beta == 0.5:
            plain = nn.Hardsigmoid()
    elif kind in ("OnnxPadStatic", "OnnxPadDynamic"):
        plain = _pad(own, operands, fixed)
    elif kind == "Sequential":
        plain = _padded(own, x, result)
    return None if plain is None else plain.eval()


def _slice(operands: list[Any], named: dict[str, Any]) -> nn.Module | None:
    """Slices of any dimension but the batch. The bounds may come from a shape: it is fixed."""
    x = operands[0]
    index: list[slice | int] = [slice(None)] * x.ndim
    for axis, bounds in _slices(*operands, **named):
        if axis == 0 or bounds.step < 1:
            return None
        index[axis] = bounds
    return Index(tuple(index))


def _slices(
    x: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> list[tuple[int, slice]]:
    """(axis, slice) of each sliced dimension of ``x``; an end of None is the far end."""
    starts_, ends_ = starts.tolist(), ends.tolist()
    axes_ = range(len(starts_)) if axes is None else axes.tolist()
    steps_ = [1] * len(starts_) if steps is None else steps.tolist()
    result = []
    for axis, start, end, step in zip(axes_, starts_, ends_, steps_, strict=True):
        size = x.shape[axis]
        # ONNX says "to the end" with a number beyond it; backwards, with one before the start.
        beyond = end >= size if step > 0 else end < -size
        result.append((axis % x.ndim, slice(start, None if beyond else end, step)))
    return result


def _gather(module: Any, operands: list[Any]) -> nn.Module | None:
    """One index of one dimension, but not of the batch."""
    x, position = operands[0], operands[1]
    axis = int(module._axis) % x.ndim
    if axis == 0 or position.ndim != 0:
        return None
    return Index((*[slice(None)] * axis, int(position)))


def _linear(module: Any, operands: list[Any], fixed: dict[int, Any]) -> nn.Module | None:
    """The operation x @ W (+ c), with constant 2-D W, 1-D c."""
    weight = fixed.get(1)
    if 0 in fixed or weight is None or weight.ndim != 2:
        return None
    bias = None
    if type(module).__name__ == "OnnxGemm":
        if module.trans_a or (len(operands) > 2 and 2 not in fixed):
            return None
        weight = (weight.T if module.trans_b else weight) * module.alpha
        bias = fixed.get(2)
    if bias is not None:
        bias = bias * module.beta
        if bias.numel() not in (1, weight.shape[1]) or bias.numel() != bias.shape[-1:].numel():
            return None
        bias = bias.reshape(-1).expand(weight.shape[1])
    return _make_linear(weight.T, bias)


def _make_linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """``weight``: (out, in); ``bias``: (out,) or None."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.contiguous(), requires_grad=False)
    return linear


def _global_average(module: Any, x: Tensor, result: Tensor) -> nn.Module | None:
    if x.ndim != 4 or getattr(module, "operation_type", "ReduceMean") != "ReduceMean":
        return None
    axes = getattr(module, "axes", (2, 3))  # of a ReduceMean none stand for all
    if sorted(int(axis) % 4 for axis in axes or ()) != [2, 3]:
        return None
    pool = nn.AdaptiveAvgPool2d(1)
    return pool if result.ndim == 4 else nn.Sequential(pool, nn.Flatten(1))


def _batch_norm(
    module: Any, x: Tensor, operands: list[Any], fixed: dict[int, Any]
) -> nn.Module | None:
    if x.ndim != 4 or any(index not in fixed for index in range(1, 5)):
        return None
    weight, bias, mean, var = (operands[index] for index in range(1, 5))
    norm = nn.BatchNorm2d(len(weight), eps=module.epsilon)
    norm.load_state_dict(
        {"weight": weight, "bias": bias, "running_mean": mean, "running_var": var}, strict=False
    )
    return norm


def _prelu(x: Tensor, fixed: dict[int, Any]) -> nn.Module | None:
    slope = fixed.get(1)
    if slope is None or slope.numel() not in (1, x.shape[1]):
        return None
    if slope.numel() != max(slope.shape, default=1):  # one number may have no dimension
        return None
    if slope.numel() > 1 and (x.ndim != slope.ndim + 1 or slope.shape[0] != slope.numel()):
        return None
    prelu = nn.PReLU(slope.numel())
    prelu.weight = nn.Parameter(slope.reshape(-1).clone(), requires_grad=False)
    return prelu


def _pad(module: Any, operands: list[Any], fixed: dict[int, Any]) -> nn.Module | None:
    """Padding of height and width by constants."""
    x = operands[0]
    if type(module).__name__ == "OnnxPadStatic":
        pads, value = list(module.pads), module.constant_value
    else:
        if any(index not in fixed for index in range(1, len(operands))):
            return None
        begin, end = fixed[1].reshape(2, -1).tolist()
        # ONNX: all beginnings, all ends; torch: (begin, end) from the last dimension on.
        pads = [value for pair in zip(begin[::-1], end[::-1], strict=True) for value in pair]
        value = float(fixed[2]) if 2 in fixed else 0.0
    if x.ndim != 4 or any(pads[4:]):
        return None
    left, right, top, bottom = (int(count) for count in (*pads, 0, 0, 0, 0)[:4])
    if module.mode == "constant":
        return nn.ConstantPad2d((left, right, top, bottom), value)
    if module.mode == "reflect":
        return nn.ReflectionPad2d((left, right, top, bottom))
    return nn.ReplicationPad2d((left, right, top, bottom))


def _padded(module: Any, x: Tensor, result: Tensor) -> nn.Module | None:
    """onnx2torch's (uneven padding, layer): plain padding, or none where ``ceil_mode`` does it."""
    if len(module) != 2:
        return None
    pad, layer = module
    if type(pad).__name__ != "OnnxPadStatic":
        return None
    if isinstance(layer, nn.MaxPool2d):
        rounded = nn.MaxPool2d(
            layer.kernel_size, layer.stride, dilation=layer.dilation, ceil_mode=True
        )
        begins = list(pad.pads[0:4:2])
        if begins == [0, 0] and rounded(x).shape == result.shape and rounded(x).equal(result):
            return rounded
    plain = _pad(pad, [x], {})
    return None if plain is None else nn.Sequential(plain, layer)


def _replace(converted: fx.GraphModule, node: fx.Node, plain: nn.Module) -> None:
    """Put ``plain`` in the place of the node's module."""
    converted.add_submodule(str(node.target), plain)
    operands = [arg for arg in node.args if isinstance(arg, fx.Node)]
    node.args = tuple(operands) if isinstance(plain, (Binary, Concat, Sum)) else (operands[0],)
    node.kwargs = {}


def _fold(converted: fx.GraphModule, node: fx.Node, value: Any) -> None:
    """Make a constant node an attribute of the module."""
    if not isinstance(value, Tensor):
        return
    name = f"constant_{node.name}"
    converted.register_buffer(name, value)
    with converted.graph.inserting_before(node):
        constant = converted.graph.get_attr(name)
    node.replace_all_uses_with(constant)
    converted.graph.erase_node(node)


def _join_bias(converted: fx.GraphModule, node: fx.Node) -> None:
    """MatMul, then Add of a constant vector: one linear layer, under the name of the MatMul."""
    if node.op != "call_module" or len(node.args) != 2:
        return
    module = converted.get_submodule(str(node.target))
    if not isinstance(module, Binary) or module.function is not operator.add:
        return
    product, constant = (
        sorted(node.all_input_nodes, key=lambda arg: arg.op == "get_attr")[:2]
        if (len(node.all_input_nodes) == 2)
        else (None, None)
    )
    if product is None or constant is None or constant.op != "get_attr":
        return
    if product.op != "call_module" or len(product.users) != 1:
        return
    linear = converted.get_submodule(str(product.target))
    bias = operator.attrgetter(str(constant.target))(converted)
    if not isinstance(linear, nn.Linear) or linear.bias is not None:
        return
    if bias.numel() not in (1, linear.out_features) or bias.numel() != bias.shape[-1:].numel():
        return
    linear.bias = nn.Parameter(
        bias.detach().reshape(-1).expand(linear.out_features).clone(), requires_grad=False
    )
    node.replace_all_uses_with(product)
    converted.graph.erase_node(node)


def _join_reshapes(converted: fx.GraphModule, node: fx.Node) -> None:
    """One reshape after another: the first is without effect."""
    source = node.args[0] if node.op == "call_module" and node.args else None
    if not isinstance(source, fx.Node) or source.op != "call_module":
        return
    first, second = (converted.get_submodule(str(each.target)) for each in (source, node))
    if isinstance(first, (Reshape, nn.Flatten)) and isinstance(second, (Reshape, nn.Flatten)):
        node.replace_input_with(source, source.all_input_nodes[0])


def _delete_unused_buffers(converted: fx.GraphModule) -> None:
    used = {str(node.target) for node in converted.graph.nodes if node.op == "get_attr"}
    for path, _ in list(converted.named_buffers()):
        owner, _, name = path.rpartition(".")
        module = converted.get_submodule(owner)
        if path not in used and (not owner or type(module).__name__ == "InitializersContainer"):
            delattr(module, name)
