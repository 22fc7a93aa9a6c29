"""The Program: a network as a list of typed operations on named tensors."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from rrm_extract.graph.linear import LinearMap

__all__ = [
    "LINEAR_KINDS",
    "Constant",
    "Op",
    "Program",
    "Ref",
    "execute",
    "mapped",
    "needed_for",
    "ordinary_values",
    "references",
    "substitute",
]

LINEAR_KINDS = frozenset({"conv", "linear"})
"""Kinds of operation that are linear in their one input, up to a constant bias."""


@dataclass(frozen=True)
class Ref:
    """The value of another operation, or the network's input."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Op:
    """One operation.

    Attributes:
        name: name of the value it makes, a node name of torchvision's feature extraction.
        kind: "conv", "linear", "norm", "activation", "pool", "add", "multiply", "concat",
            "reshape", "identity", "constant" or "other".
        call: what computes it: a :class:`LinearMap` for the kinds of ``LINEAR_KINDS``,
            otherwise a module or a function without side effects.
        args, kwargs: its arguments, nested tuples, lists and mappings with :class:`Ref`.
        source: dotted name of the module it came from, "" for a plain function.
        parameters: state-dict names of the parameters and buffers it reads.
    """

    name: str
    kind: str
    call: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    parameters: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the values it reads, in order, repeats included."""
        return tuple(references((self.args, self.kwargs)))

    @property
    def linear_map(self) -> LinearMap:
        """The linear map of a "conv" or "linear" operation.

        Raises:
            TypeError: the operation is of another kind.
        """
        if not isinstance(self.call, LinearMap):
            msg = f"operation {self.name!r} of kind {self.kind!r} has no linear map"
            raise TypeError(msg)
        return self.call


@dataclass(frozen=True, kw_only=True)
class Program:
    """A network as operations in the order of their execution.

    Attributes:
        input: name of the network's input tensor (N, C, H, W).
        ops: the operations; each reads only the input and earlier operations.
        outputs: names of the values that a run returns.
    """

    input: str
    ops: tuple[Op, ...]
    outputs: tuple[str, ...]

    @property
    def linear_ops(self) -> tuple[Op, ...]:
        """The convolutions and fully-connected layers, in order."""
        return tuple(op for op in self.ops if op.kind in LINEAR_KINDS)

    def linear_names(self) -> dict[str, str]:
        """A name for people for each linear operation, by the operation's own name.

        The module it came from, as users know it: a convolution that a batch-norm was folded into
        makes the batch-norm's value, but is still the convolution. A module that is used twice,
        and a plain function, have the operation's own name.
        """
        uses = Counter(op.source for op in self.linear_ops)
        return {
            op.name: op.source if op.source and uses[op.source] == 1 else op.name
            for op in self.linear_ops
        }

    def op(self, name: str) -> Op:
        """The operation of that name; KeyError if there is none."""
        for op in self.ops:
            if op.name == name:
                return op
        raise KeyError(name)

    def to(self, device: torch.device) -> Program:
        """A Program whose parameters are on ``device``; the original is left as it was.

        So is what it makes, and moves, where its parameters were.
        """

        def there(argument: Any) -> Any:
            return device if isinstance(argument, torch.device) else argument

        return replace(
            self,
            ops=tuple(
                replace(
                    op,
                    call=_moved(op.call, device),
                    args=mapped(op.args, there),
                    kwargs=mapped(op.kwargs, there),
                )
                for op in self.ops
            ),
        )

    def __call__(self, x: Tensor) -> tuple[Any, ...]:
        """Runs the ordinary network, without gradients.

        Args:
            x: (N, C, H, W) float tensor.

        Returns:
            The values of ``outputs``, in order.
        """
        with torch.inference_mode():
            values = execute(self, x, lambda op, args, kwargs: op.call(*args, **kwargs))
        return ordinary_values(values, x)


def execute(
    program: Program, x: Tensor, call: Callable[[Op, tuple[Any, ...], dict[str, Any]], Any]
) -> tuple[Any, ...]:
    """Runs a Program with ``call(op, args, kwargs)`` computing each operation.

    A value is dropped after its last reader, so that memory holds only what is still needed.
    """
    last_reader: dict[str, int] = {}
    for position, op in enumerate(program.ops):
        for name in op.inputs:
            last_reader[name] = position
    for name in program.outputs:
        last_reader[name] = len(program.ops)

    values: dict[str, Any] = {program.input: x}
    for position, op in enumerate(program.ops):
        args = substitute(op.args, values)
        kwargs = substitute(dict(op.kwargs), values)
        values[op.name] = call(op, args, kwargs)
        for name in {op.name, *op.inputs}:
            if last_reader.get(name, position) <= position:
                values.pop(name, None)
    return tuple(values[name] for name in program.outputs)


def ordinary_values(values: tuple[Any, ...], x: Tensor) -> tuple[Any, ...]:
    """The same as tensors of their own, no parts of ``x``, that may be changed and trained on."""
    if torch.is_inference_mode_enabled():  # of the caller's, who knows what he does
        return values
    frame = x.untyped_storage().data_ptr()

    def own(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return tuple(map(own, value))
        if not isinstance(value, Tensor):
            return value
        is_part = value.layout == torch.strided and value.untyped_storage().data_ptr() == frame
        return value.clone() if value.is_inference() or is_part else value

    return tuple(map(own, values))


def references(tree: Any) -> Iterator[str]:
    """Names of all :class:`Ref` in nested tuples, lists, mappings and slices."""
    if isinstance(tree, Ref):
        yield tree.name
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from references(item)
    elif isinstance(tree, Mapping):
        for item in tree.values():
            yield from references(item)
    elif isinstance(tree, slice):
        yield from references((tree.start, tree.stop, tree.step))


def needed_for(names: Iterable[str], ops: Mapping[str, Op]) -> set[str]:
    """Some values and all that they are made from, the network's input among them."""
    needed: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting.extend(ops[name].inputs if name in ops else ())
    return needed


def mapped(tree: Any, change: Callable[[Any], Any]) -> Any:
    """Nested tuples, lists, mappings and slices with every leaf replaced by ``change(leaf)``."""
    if isinstance(tree, torch.Size):  # takes numbers only
        return change(tree)
    if isinstance(tree, (tuple, list)):
        return type(tree)([mapped(item, change) for item in tree])
    if isinstance(tree, Mapping):
        return {key: mapped(item, change) for key, item in tree.items()}
    if isinstance(tree, slice):
        return slice(*(mapped(item, change) for item in (tree.start, tree.stop, tree.step)))
    return change(tree)


def substitute(tree: Any, values: Mapping[str, Any]) -> Any:
    """The same nesting with every :class:`Ref` replaced by its value."""
    if isinstance(tree, Ref):
        return values[tree.name]
    if isinstance(tree, tuple):
        return tuple(substitute(item, values) for item in tree)
    if isinstance(tree, list):
        return [substitute(item, values) for item in tree]
    if isinstance(tree, Mapping):
        return {key: substitute(item, values) for key, item in tree.items()}
    if isinstance(tree, slice):
        return slice(*substitute((tree.start, tree.stop, tree.step), values))
    return tree


def _moved(call: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    if isinstance(call, LinearMap):
        return call.to(device)
    if isinstance(call, nn.Module) and any(True for _ in _state(call)):
        # Module.to works in place: without the copy the caller's network would move as well.
        return copy.deepcopy(call).to(device)
    if isinstance(call, Constant):
        return Constant(call.value.to(device))
    return call


def _state(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


@dataclass(frozen=True, eq=False)
class Constant:
    """A parameter or buffer that the network reads directly (a "constant" operation)."""

    value: Tensor

    def __call__(self) -> Tensor:
        """The tensor itself."""
        return self.value
