"""From a PyTorch module to a Program, by symbolic tracing."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from rrm_extract.errors import TraceError
from rrm_extract.graph.binary import BINARY_MODULES, BinaryConv2d, BinaryLinear, Sign
from rrm_extract.graph.constants import constant_value
from rrm_extract.graph.dtypes import type_of, type_of_frames
from rrm_extract.graph.evaluation import evaluating_copy, evaluation, unchanged_buffers
from rrm_extract.graph.hooks import make_weights, put_weights, refuse_hooks, refuse_root_hooks
from rrm_extract.graph.kinds import (
    NORM_ACTIVATION_CHILDREN,
    is_binary,
    is_norm_activation,
    kind_of_function,
    kind_of_method,
    kind_of_module,
)
from rrm_extract.graph.linear import Convolution, FullyConnected
from rrm_extract.graph.memory import ConflictError, Memory
from rrm_extract.graph.program import (
    LINEAR_KINDS,
    Constant,
    Op,
    Program,
    Ref,
    references,
    substitute,
)
from rrm_extract.graph.tracer import IN_PLACE, NetworkTracer

__all__ = ["MethodCall", "trace"]

_LIBRARIES = (torch, nn.functional)
"""Where a function whose name ends in "_" works in place, and has a twin that does not."""

for _public, _function in vars(nn.functional).items():
    # max_pool2d and others that choose between two have the name of an inner function, by which
    # nobody who reads a pickled Program would find them, nor a digest tell them apart.
    if getattr(_function, "__qualname__", "").startswith("boolean_dispatch."):
        _function.__qualname__ = _public


@dataclass(frozen=True)
class MethodCall:
    """``x.name(*args)`` as a function that can be pickled."""

    name: str

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls the method."""
        return getattr(x, self.name)(*args, **kwargs)


_LINEAR_FUNCTIONS = (nn.functional.linear, torch.conv1d, torch.conv2d, torch.conv3d)
_FACTS = ("shape", "dtype", "device", "ndim", "size", "dim", "numel")


def is_fact(op: Op) -> bool:
    """Whether it asks a tensor for what does not depend on its numbers."""
    if isinstance(op.call, MethodCall):
        return op.call.name in _FACTS
    return op.call is getattr and op.args[-1] in _FACTS


def trace(
    module: nn.Module,
    *,
    leaf_modules: Sequence[type[nn.Module]] = (),
    leaf_functions: Sequence[Callable[..., Any]] = (),
) -> Program:
    """Traces a network in evaluation mode.

    In-place operations become ordinary ones, and whoever read the changed tensor afterwards
    reads their result, so that no operation of the Program alters a value of another. The
    memory that a view shares with its base may be written, but not then be read as another's. The
    Program shares the network's parameters, but for layers whose weights are computed from them,
    and stays in evaluation mode whatever is done to it.

    Args:
        module: takes one (N, C, H, W) tensor; arguments with a default value have that. Put in
            evaluation mode for the time of the trace.
        leaf_modules: classes that become one opaque operation each.
        leaf_functions: functions that become one opaque operation each.

    Returns:
        The whole network, with one output; names are torchvision's node names.

    Raises:
        TraceError: it is no network, the control flow depends on the data, there is more than one
            input, memory is read that was written in place through a view of it, a layer has
            hooks, it changes its parameters or buffers, or computes under ``torch.autocast``.
    """
    if not isinstance(module, nn.Module):
        msg = f"a {type(module).__name__} is no network; expected a torch.nn.Module"
        raise TraceError(msg)
    refuse_root_hooks(module)
    tracer = NetworkTracer(
        autowrap_modules=(math, torchvision.ops),
        autowrap_functions=tuple(leaf_functions),
        leaf_modules=[*leaf_modules, *BINARY_MODULES, Sign],
    )
    with evaluation(module), unchanged_buffers(module):
        graph = _graph(module, tracer)
        memory = Memory(module, tuple(leaf_functions))
        return _Translation(module, tracer, graph, memory).program()


def _graph(module: nn.Module, tracer: NodePathTracer) -> fx.Graph:
    name = type(module).__name__
    try:
        graph: fx.Graph = tracer.trace(module)
    except TraceError as error:
        raise TraceError(f"{name} cannot be traced: {error}") from error
    except Exception as error:
        msg = (
            f"{name} cannot be traced by torch.fx: {type(error).__name__}: {_one_line(error)}; "
            "expected a network whose control flow does not depend on its input"
        )
        raise TraceError(msg) from error
    inputs = [str(node) for node in graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        msg = f"{name} takes {len(inputs)} inputs {inputs}; expected one (N, C, H, W) tensor"
        raise TraceError(msg)
    return graph


class _Translation:
    """Carries the names while the nodes of one graph are translated in order."""

    def __init__(
        self, module: nn.Module, tracer: NodePathTracer, graph: fx.Graph, memory: Memory
    ) -> None:
        self.module = module
        self.graph = graph
        self.memory = memory
        self.names = _unique_names(tracer, graph)
        # What a reader of a node reads now: the node itself, or the last in-place change of it.
        self.current: dict[fx.Node, str] = {}
        self.ops: list[Op] = []
        self.moving: set[str] = set()  # values that depend on the network's input
        self.types: dict[str, torch.dtype] = {}

    def program(self) -> Program:
        placeholder = ""
        outputs: tuple[str, ...] = ()
        for node in self.graph.nodes:
            self._check(node)
            if node.op == "placeholder":
                self.memory.add(node)
                placeholder = self.names[node]
                self.current[node] = placeholder
                self.moving.add(placeholder)
                self.types[placeholder] = type_of_frames(self.module)
            elif node.op == "output":
                outputs = self._outputs(node)
            else:
                op, changed = self._op(node)
                self._append(self._of_its_type(op, changed), node)
                self._remember(node, changed)
        return Program(input=placeholder, ops=tuple(self.ops), outputs=outputs)

    def _check(self, node: fx.Node) -> None:
        try:
            self.memory.read(node)
        except ConflictError as conflict:
            writer, tensor = self.names[conflict.writer], self.names[conflict.tensor]
            reader = "the output" if node.op == "output" else repr(self.names[node])
            msg = (
                f"{type(self.module).__name__}: {writer!r} writes in place into memory that "
                f"{reader} reads afterwards, as {tensor!r}, by another view of it; expected an "
                f"operation that makes a new tensor: write {writer!r} without inplace=True, "
                "trailing underscore or +="
            )
            raise TraceError(msg) from conflict

    def _remember(self, node: fx.Node, changed: fx.Node | None) -> None:
        """Has whoever reads a tensor from here on read what became of it."""
        if changed is None or self.memory.is_number(changed):
            earlier = self.memory.add(node)
            if earlier is not None:
                self.current[node] = self.current[earlier]
            return
        parameter = self.memory.parameter(changed)
        if parameter is not None:
            msg = (
                f"{type(self.module).__name__} changes its {parameter!r} in place, at "
                f"{self.names[node]!r}: each frame would see another network; expected an "
                "operation that makes a new tensor"
            )
            raise TraceError(msg)
        for same in self.memory.write(node, changed):
            self.current[same] = self.current[node]

    def _of_its_type(self, op: Op, changed: fx.Node | None) -> Op:
        """In place a tensor keeps its type, whatever it is combined with; otherwise not.

        Where the other operand has a wider type, that is two operations. The last one, which makes
        the value, has its name.
        """
        if changed is None or self.memory.is_number(changed):
            return op
        before = self.types.get(self.current[changed])
        if before is None or not before.is_floating_point or type_of(op, self.types) == before:
            return op
        wide = replace(op, name=f"{op.name}.wide")
        self._add(wide)
        args = (Ref(wide.name), Ref(self.current[changed]))
        return Op(name=op.name, kind="other", call=MethodCall("type_as"), args=args)

    def _append(self, op: Op, node: fx.Node) -> None:
        self._add(op)
        self.current[node] = op.name

    def _add(self, op: Op) -> None:
        if not self.moving.isdisjoint(op.inputs):
            if not is_fact(op):
                self.moving.add(op.name)
        elif op.kind in LINEAR_KINDS:
            # A layer of constants, or of the frames' shape, has nothing that could recur.
            op = replace(op, kind="other")
        self.ops.append(op)
        its_type = type_of(op, self.types)
        if its_type is not None:
            self.types[op.name] = its_type

    def _outputs(self, node: fx.Node) -> tuple[str, ...]:
        tree = self._tree(node.args[0])
        if isinstance(tree, Ref):
            return (tree.name,)
        names = tuple(references(tree))
        if not names:
            msg = f"{type(self.module).__name__} returns no tensor"
            raise TraceError(msg)
        return names

    def _tree(self, argument: Any) -> Any:
        """Arguments of a node, with Ref in place of nodes."""
        if isinstance(argument, fx.Node):
            return Ref(self.current[argument])
        if isinstance(argument, tuple):
            return tuple(self._tree(item) for item in argument)
        if isinstance(argument, list):  # fx keeps lists in an immutable class of its own
            return [self._tree(item) for item in argument]
        if isinstance(argument, dict):
            return {key: self._tree(item) for key, item in argument.items()}
        if isinstance(argument, slice):
            return slice(
                *(self._tree(item) for item in (argument.start, argument.stop, argument.step))
            )
        return argument

    def _op(self, node: fx.Node) -> tuple[Op, fx.Node | None]:
        """The operation of a node, and the node whose value it changes in place, if any."""
        name = self.names[node]
        args, kwargs = self._tree(node.args), self._tree(dict(node.kwargs))
        first = _first_argument(node)
        if node.op == "get_attr":
            target = str(node.target)
            value = operator.attrgetter(target)(self.module)
            call = Constant(value.detach()) if isinstance(value, Tensor) else _Value(value)
            parameters = (target,) if isinstance(value, Tensor) else ()
            return Op(
                name=name, kind="constant", call=call, source=target, parameters=parameters
            ), None
        if node.op == "call_module":
            return self._module_op(name, str(node.target), args, kwargs, first)
        if node.op == "call_method":
            return self._method_op(name, str(node.target), args, kwargs, first)
        return self._function_op(name, node, args, kwargs, first)

    def _module_op(
        self,
        name: str,
        target: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        first: fx.Node | None,
    ) -> tuple[Op, fx.Node | None]:
        module = evaluating_copy(self.module.get_submodule(target))
        make_weights(module)
        kind = kind_of_module(module)
        known = kind != "other" or is_binary(module) or is_norm_activation(module)
        # A leaf of which nothing is known is called, and so are its hooks.
        if known or type(module).__module__.startswith("torch.nn."):
            refuse_hooks(module, target)
        if known and not args:  # of one input, whatever its name
            args, kwargs = tuple(kwargs.values()), {}
        if is_binary(module):
            return self._binary(name, target, module, args, kwargs), None
        parameters = tuple(f"{target}.{key}" for key in module.state_dict())
        changed = None
        call: Callable[..., Any]
        if kind in ("conv", "linear"):
            call = _linear_map(module)
        elif is_norm_activation(module):
            return self._norm_activation(name, target, module, args), None
        else:
            put_weights(module)
            call = module
            if getattr(module, "inplace", False) is True:
                call.inplace = False  # type: ignore[assignment]
                changed = first
        op = Op(
            name=name,
            kind=kind,
            call=call,
            args=args,
            kwargs=kwargs,
            source=target,
            parameters=parameters,
        )
        return op, changed

    def _binary(
        self,
        name: str,
        target: str,
        module: BinaryConv2d | BinaryLinear,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Op:
        """A binary layer as two operations: sums of whole numbers, which are exact, and the scale.

        The last one, which makes the module's value, has its name.
        """
        linear = replace(_linear_map(module), weight=module.signs(), bias=None)
        sums = Op(
            name=f"{name}.sums",
            kind="linear" if isinstance(module, nn.Linear) else "conv",
            call=linear,
            args=args,
            kwargs=kwargs,
            source=target,
            parameters=(f"{target}.weight",),
        )
        self._add(sums)
        return Op(
            name=name,
            kind="multiply",
            call=module.channel_scale(),
            args=(Ref(sums.name),),
            source=target,
            parameters=tuple(f"{target}.{key}" for key in module.state_dict()),
        )

    def _norm_activation(
        self, name: str, target: str, module: nn.Module, args: tuple[Any, ...]
    ) -> Op:
        """A batch-norm with an activation inside as two operations: alone, the norm can be folded.

        The last one, which makes the module's value, has its name.
        """
        norm = evaluating_copy(module)
        norm.__class__ = nn.BatchNorm2d
        norm._modules = {}
        parts: list[tuple[str, nn.Module]] = [("batch_norm", norm)]
        for child in NORM_ACTIVATION_CHILDREN:
            part = evaluating_copy(module.get_submodule(child))
            refuse_hooks(part, f"{target}.{child}")
            if not isinstance(part, nn.Identity):
                if getattr(part, "inplace", False) is True:
                    part.inplace = False  # type: ignore[assignment]
                parts.append((child, part))
        for position, (child, part) in enumerate(parts):
            prefix = target if part is norm else f"{target}.{child}"
            is_last = position == len(parts) - 1
            op = Op(
                name=name if is_last else f"{name}.{child}",
                kind=kind_of_module(part),
                call=part,
                args=args,
                source=prefix,
                parameters=tuple(f"{prefix}.{key}" for key in part.state_dict()),
            )
            if not is_last:
                self._add(op)
                args = (Ref(op.name),)
        return op

    def _method_op(
        self,
        name: str,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        first: fx.Node | None,
    ) -> tuple[Op, fx.Node | None]:
        in_place = method.endswith("_") and not method.endswith("__")
        if in_place:
            method = method[:-1]
            if not callable(getattr(Tensor, method, None)):
                self._refuse_in_place(f"{method}_")
        call = MethodCall(method)
        op = Op(name=name, kind=kind_of_method(method), call=call, args=args, kwargs=kwargs)
        return op, first if in_place else None

    def _function_op(
        self,
        name: str,
        node: fx.Node,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        first: fx.Node | None,
    ) -> tuple[Op, fx.Node | None]:
        function: Callable[..., Any] = node.target  # type: ignore[assignment]
        in_place = IN_PLACE in node.meta or kwargs.get("inplace") is True
        called = getattr(function, "__name__", "")
        if called.endswith("_") and function in (
            getattr(library, called, None) for library in _LIBRARIES
        ):
            in_place = True
            ordinary = [getattr(library, called[:-1], None) for library in _LIBRARIES]
            function = next(filter(None, ordinary), None) or self._refuse_in_place(called)
        if isinstance(node.kwargs.get("out"), fx.Node):
            self._refuse_in_place(f"{called}(out=...)")
        if kwargs.get("inplace") is True:
            kwargs = {**kwargs, "inplace": False}
        folded = self._functional_linear(name, function, args, kwargs)
        if folded is not None:
            op = replace(folded, name=name)
        else:
            op = Op(
                name=name, kind=kind_of_function(function), call=function, args=args, kwargs=kwargs
            )
        return op, first if in_place else None

    def _refuse_in_place(self, operation: str) -> NoReturn:
        msg = (
            f"{type(self.module).__name__} calls {operation!r}, which writes in place; expected an "
            "operation that makes a new tensor"
        )
        raise TraceError(msg)

    def _functional_linear(
        self,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Op | None:
        """``F.conv2d(x, self.weight, ...)`` and the like, where weights depend on no frame."""
        if function not in _LINEAR_FUNCTIONS:
            return None
        by_name = {op.name: op for op in self.ops}
        values: dict[str, Any] = {}
        parameters: tuple[str, ...] = ()
        for ref in references((args[1:], kwargs)):
            found = constant_value(ref, by_name)
            if found is None:
                return None
            values[ref], its_parameters = found
            parameters += its_parameters
        names = ("weight", "bias", "stride", "padding", "dilation", "groups")
        given: dict[str, Any] = dict(zip(names, substitute(args[1:], values), strict=False))
        given.update(substitute(kwargs, values))
        if not isinstance(given.get("weight"), Tensor):
            return None
        linear: FullyConnected | Convolution
        if function is nn.functional.linear and set(given) <= {"weight", "bias"}:
            if given["weight"].dim() != 2:  # a vector makes no channels, but a number of each row
                return None
            linear = FullyConnected(weight=given["weight"], bias=given.get("bias"))
        elif function is not nn.functional.linear and set(given) <= set(names):
            dims = given["weight"].dim() - 2
            padding = given.get("padding", 0)
            linear = Convolution(
                weight=given["weight"],
                bias=given.get("bias"),
                stride=_tuple(given.get("stride", 1), dims),
                padding=padding if isinstance(padding, str) else _tuple(padding, dims),
                dilation=_tuple(given.get("dilation", 1), dims),
                groups=given.get("groups", 1),
            )
        else:
            return None
        return Op(
            name="",
            kind="linear" if isinstance(linear, FullyConnected) else "conv",
            call=linear,
            args=args[:1],
            source=self._layer_around(name),
            parameters=parameters,
        )

    def _layer_around(self, name: str) -> str:
        """The layer in whose forward an operation is, which users know by its name; "" if none."""
        around = name.rpartition(".")[0]
        try:
            part = self.module.get_submodule(around)
        except AttributeError:  # a module that is called again has a number behind its name
            return ""
        is_layer = isinstance(part, (nn.Linear, nn.modules.conv._ConvNd))
        return around if is_layer else ""


@dataclass(frozen=True)
class _Value:
    """A constant that is not a tensor."""

    value: Any

    def __call__(self) -> Any:
        return self.value


def _module_names(graph: fx.Graph) -> dict[fx.Node, str]:
    """Calls of modules: the module's name, from the second call on with "_1", "_2", ... behind.

    So has torchvision's tracer, but it takes a "_1" that belongs to the module's name for its own:
    VGG's "conv1_1" and "conv1_2" become "conv1" and "conv1_1".
    """
    calls = [node for node in graph.nodes if node.op == "call_module"]
    taken = {str(node.target) for node in calls}
    seen: Counter[str] = Counter()
    names = {}
    for node in calls:
        target = name = str(node.target)
        while seen[target] and name in taken:
            name = f"{target}_{seen[target]}"
            seen[target] += 1
        seen[target] = max(seen[target], 1)
        taken.add(name)
        names[node] = name
    return names


def _unique_names(tracer: NodePathTracer, graph: fx.Graph) -> dict[fx.Node, str]:
    names = _module_names(graph)
    used = set(names.values())
    for node in graph.nodes:
        if node in names:
            continue
        # The tracer does not name parameters that are handed to a module as they are.
        name = tracer.node_to_qualname.get(node, node.name)
        while name in used:
            name += "_"
        names[node] = name
        used.add(name)
    return names


def _first_argument(node: fx.Node) -> fx.Node | None:
    """The tensor that an operation changes if it works in place."""
    first = node.args[0] if node.args else node.kwargs.get("input")
    if first is None and len(node.kwargs) == 1:
        (first,) = node.kwargs.values()
    return first if isinstance(first, fx.Node) else None


def _tuple(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    """One number for each dimension, as PyTorch understands a single one and ``(2,)``."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dims if len(values) == 1 else values


def _linear_map(module: nn.Module) -> Convolution | FullyConnected:
    if isinstance(module, nn.Linear):
        bias = None if module.bias is None else module.bias.detach()
        return FullyConnected(weight=module.weight.detach(), bias=bias)
    if not isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        msg = f"expected a convolution or a fully-connected layer, got {type(module).__name__}"
        raise TypeError(msg)
    dims = module.weight.dim() - 2
    padding: tuple[int, ...] | str = (
        module.padding if isinstance(module.padding, str) else _tuple(module.padding, dims)
    )
    return Convolution(
        weight=module.weight.detach(),
        bias=None if module.bias is None else module.bias.detach(),
        stride=_tuple(module.stride, dims),
        padding=padding,
        dilation=_tuple(module.dilation, dims),
        groups=module.groups,
        padding_mode=module.padding_mode,
        pad=tuple(module._reversed_padding_repeated_twice),
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
