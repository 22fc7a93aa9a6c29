"""Which tensors of a traced graph share memory, and what an in-place operation does to them."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torchvision.ops import stochastic_depth

from rrm_extract.graph.kinds import kind_of_module
from rrm_extract.graph.places import Place, overlap

__all__ = ["ConflictError", "Memory"]

_VIEWS = frozenset(
    {
        "adjoint", "as_strided", "atleast_1d", "atleast_2d", "atleast_3d", "bfloat16",
        "broadcast_to", "chunk", "contiguous", "cpu", "cuda", "detach", "diagonal",
        "double", "dsplit", "expand", "expand_as", "flatten", "float",
        "getattr", "getitem", "half", "hsplit", "int", "long", "moveaxis", "movedim", "narrow",
        "permute", "positive", "ravel", "reshape", "reshape_as", "resolve_conj", "resolve_neg",
        "select", "split", "split_with_sizes", "squeeze", "swapaxes", "swapdims", "t",
        "tensor_split", "to", "transpose", "type", "type_as", "unbind", "unflatten",
        "unsafe_chunk", "unsafe_split", "unsqueeze", "view", "view_as", "vsplit",
    }
)  # fmt: skip
"""Functions and methods whose result is, or may be, in the memory of their first argument."""

_NUMBER_METHODS = frozenset(
    {"dim", "element_size", "item", "ndimension", "nelement", "numel", "size", "stride"}
)
_NUMBER_ATTRIBUTES = frozenset({"device", "dtype", "itemsize", "nbytes", "ndim", "shape"})

_TRAINING: Mapping[Callable[..., Any], int] = {
    F.dropout: 2,
    F.dropout1d: 2,
    F.dropout2d: 2,
    F.dropout3d: 2,
    F.alpha_dropout: 2,
    F.feature_alpha_dropout: 2,
    torch.dropout: 2,
    stochastic_depth: 3,
}
"""Functions that return their argument unless training, with the position of that argument."""

_MAY_RETURN_INPUT = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd)
_CONTAINERS = (nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict)


class ConflictError(Exception):
    """Memory is read that was written in place under another name.

    Attributes:
        writer: the node that wrote.
        tensor: the node that is read.
    """

    def __init__(self, writer: fx.Node, tensor: fx.Node) -> None:
        super().__init__()
        self.writer = writer
        self.tensor = tensor


class Memory:
    """Follows the nodes of one graph, which are shown to it in order.

    Args:
        module: the traced network, in evaluation mode.
        leaf_functions: functions of which nothing is known.
    """

    def __init__(self, module: nn.Module, leaf_functions: tuple[Callable[..., Any], ...]) -> None:
        self._module = module
        self._leaf_functions = leaf_functions
        # The first node that is the same tensor, not only the same memory.
        self._tensor: dict[fx.Node, fx.Node] = {}
        self._same: dict[fx.Node, list[fx.Node]] = {}  # and all of them
        # What follows is by that first node.
        self._places: dict[fx.Node, tuple[Place, ...]] = {}  # none: a number, or a size
        self._made: dict[fx.Node, int] = {}  # how many writes its value has seen
        self._changed: set[fx.Node] = set()
        self._elements: dict[Any, fx.Node] = {}  # parameters, and elements of what was indexed
        self._writes: list[tuple[fx.Node, tuple[Place, ...]]] = []

    def is_number(self, node: fx.Node) -> bool:
        """Whether it is a number or a size: ``+=`` then makes another, and changes nothing."""
        return not self._places[self._tensor[node]]

    def parameter(self, node: fx.Node) -> str | None:
        """The name of the parameter or buffer whose memory a tensor is in, if any."""
        for root, *_ in self._places[self._tensor[node]]:
            # What forward itself makes, as torch.zeros(...), is a constant of the tracer's.
            if isinstance(root, str) and not root.startswith("_tensor_constant"):
                return root
        return None

    def read(self, node: fx.Node) -> None:
        """Checks what a node reads.

        Raises:
            ConflictError: it was written in place under another name.
        """
        if self._makes_number(node):
            return
        element = self._known(node)
        if element is not None:
            self._check(element, self._places[element])
        elif _indexes(node):
            indexed = self._tensor[_first(node)]
            self._check(indexed, self._view(node, indexed))
        else:
            for argument in node.all_input_nodes:
                tensor = self._tensor[argument]
                self._check(tensor, self._places[tensor])

    def add(self, node: fx.Node) -> fx.Node | None:
        """Notes where a node's value is.

        Returns:
            An earlier node of the same value, if that was changed in place since.
        """
        element = self._known(node)
        if element is not None:
            self._join(node, element)
            return element if element in self._changed else None
        if self._is_identity(node):
            self._join(node, self._tensor[_first(node)])
            return None
        self._tensor[node] = node
        self._same[node] = [node]
        self._places[node] = tuple(self._find(node))
        self._made[node] = len(self._writes)
        key = self._key(node)
        if key is not None:
            self._elements[key] = node
        return None

    def write(self, node: fx.Node, changed: fx.Node) -> list[fx.Node]:
        """Notes that a node, not yet added, writes its result into the memory of another.

        Returns:
            All nodes that are that tensor: their value is now the result. Views of the same
            memory are outdated.
        """
        tensor = self._tensor[changed]
        self._writes.append((node, self._places[tensor]))
        self._made[tensor] = len(self._writes)
        self._changed.add(tensor)
        self._join(node, tensor)
        return list(self._same[tensor])

    def _join(self, node: fx.Node, tensor: fx.Node) -> None:
        self._tensor[node] = tensor
        self._same[tensor].append(node)

    def _check(self, tensor: fx.Node, places: tuple[Place, ...]) -> None:
        for writer, written in self._writes[self._made[tensor] :]:
            if any(overlap(a, b) for a in places for b in written):
                raise ConflictError(writer, tensor)

    def _key(self, node: fx.Node) -> Any:
        """What tells that two nodes are one tensor: a parameter's name, an element's index."""
        if node.op == "get_attr":
            return node.target
        if _indexes(node) and isinstance(node.args[1], (int, str)):
            return self._tensor[_first(node)], node.args[1]
        return None

    def _known(self, node: fx.Node) -> fx.Node | None:
        """The earlier node that is the same parameter or element, unless all was changed since."""
        element = self._elements.get(self._key(node))
        if element is None or not _indexes(node):
            return element
        indexed = self._tensor[_first(node)]
        return element if self._made[element] >= self._made[indexed] else None

    def _find(self, node: fx.Node) -> Iterator[Place]:
        if node.op == "get_attr":
            yield (str(node.target),)
        elif self._makes_number(node):
            return
        elif _indexes(node):
            yield from self._view(node, self._tensor[_first(node)])
        elif self._is_view(node):
            yield from self._places[self._tensor[_first(node)]]
        else:
            yield (node,)
            if self._is_opaque(node):
                for argument in node.all_input_nodes:
                    yield from self._places[self._tensor[argument]]

    def _view(self, node: fx.Node, indexed: fx.Node) -> tuple[Place, ...]:
        part = (indexed, node.args[1])
        return tuple(
            place if self._is_opaque(indexed) and place[0] is not indexed else (*place, part)
            for place in self._places[indexed]
        )

    def _makes_number(self, node: fx.Node) -> bool:
        if node.op == "call_method":
            return node.target in _NUMBER_METHODS
        if node.op != "call_function":
            return False
        if node.target is getattr:
            return node.args[1] in _NUMBER_ATTRIBUTES
        module = getattr(node.target, "__module__", "")
        if module == math.__name__:
            return True
        arguments = node.all_input_nodes[:1] if _indexes(node) else node.all_input_nodes
        return (
            module in (operator.add.__module__, "builtins")
            and bool(arguments)
            and all(self.is_number(argument) for argument in arguments)
        )

    def _is_identity(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return kind_of_module(self._module.get_submodule(str(node.target))) == "identity"
        position = _TRAINING.get(node.target) if node.op == "call_function" else None  # type: ignore[arg-type]
        if position is None:
            return False
        given = node.args[position] if len(node.args) > position else node.kwargs.get("training")
        return given is False

    def _is_view(self, node: fx.Node) -> bool:
        if node.op == "call_method":
            return node.target in _VIEWS or node.target in ("unfold", "__getitem__")
        if node.op == "call_module":
            return isinstance(self._module.get_submodule(str(node.target)), _MAY_RETURN_INPUT)
        if node.op != "call_function":
            return False
        if node.target is torch.einsum:  # of one operand it only permutes
            return len(node.all_input_nodes) == 1
        return getattr(node.target, "__name__", "") in _VIEWS or node.target in _TRAINING

    def _is_opaque(self, node: fx.Node) -> bool:
        """Whether nobody knows if the result is in the memory of an argument."""
        if node.op == "call_function":
            return node.target in self._leaf_functions or node.target is torch.broadcast_tensors
        if node.op != "call_module":
            return False
        module = self._module.get_submodule(str(node.target))
        # A subclass of a layer, say of nn.Conv2d, is supposed to make a tensor as that does.
        return kind_of_module(module) == "other" and not any(
            base.__module__.startswith("torch.nn.modules.") and base not in _CONTAINERS
            for base in type(module).__mro__
        )


def _first(node: fx.Node) -> fx.Node:
    first = node.args[0] if node.args else next(iter(node.kwargs.values()))
    return first if isinstance(first, fx.Node) else node.all_input_nodes[0]


def _indexes(node: fx.Node) -> bool:
    """Whether it is ``x[index]``."""
    return (
        node.op == "call_function"
        and node.target is operator.getitem
        and isinstance(node.args[0], fx.Node)
    )
