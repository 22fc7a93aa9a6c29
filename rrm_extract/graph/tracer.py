"""torchvision's tracer, which notes ``+=`` as well, and calls a network with one argument."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx
from torchvision.models.feature_extraction import NodePathTracer

from rrm_extract.errors import TraceError

__all__ = ["IN_PLACE", "NetworkTracer"]

IN_PLACE = "in_place"
"""Key in the ``meta`` of a node that changes its first argument, though its function does not."""


_WITH_PARTS = (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict)
_WITH_WEIGHTS_OF_ANY_KIND = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)
"""A subclass may say what its weights are made from, and those are traced well."""


def _in_place(operation: str) -> Callable[[Any, Any], Any]:
    ordinary = getattr(fx.Proxy, f"__{operation}__")

    def change(self: Any, other: Any) -> Any:
        result = ordinary(self, other)
        if isinstance(result, fx.Proxy):
            result.node.meta[IN_PLACE] = True
        return result

    return change


class _Proxy(fx.Proxy):
    """A value under way: ``x += y`` is traced as ``x = x + y``, with a note of the difference."""

    __iadd__ = _in_place("add")
    __isub__ = _in_place("sub")
    __imul__ = _in_place("mul")
    __itruediv__ = _in_place("truediv")
    __ifloordiv__ = _in_place("floordiv")
    __imod__ = _in_place("mod")
    __ipow__ = _in_place("pow")
    __iand__ = _in_place("and")
    __ior__ = _in_place("or")
    __ixor__ = _in_place("xor")


_NUMBERED = re.compile(r"(.+)_[0-9]+")


class NetworkTracer(NodePathTracer):  # type: ignore[misc]
    """Names nodes as torchvision's does.

    Optional arguments of the network have their default values, so that ``if size is None`` goes
    the way that it goes in a call with the input alone.
    """

    def trace(
        self,
        root: torch.nn.Module | Callable[..., Any],
        concrete_args: dict[str, Any] | None = None,
    ) -> fx.Graph:
        """See :meth:`torch.fx.Tracer.trace`.

        Raises:
            TraceError: operations run under an autocast of the network's own.
        """
        self._outer_autocast = _autocast()
        graph: fx.Graph = super().trace(root, concrete_args)
        return graph

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """See :meth:`torch.fx.TracerBase.create_node`."""
        if _autocast() - self._outer_autocast:
            msg = (
                "it computes under torch.autocast, which a graph has no place for; expected a "
                "network without it (--precision chooses what is computed in)"
            )
            raise TraceError(msg)
        node: fx.Node = super().create_node(*args, **kwargs)
        return node

    def _get_node_qualname(self, module_qualname: str, node: fx.Node) -> str:
        """A node's name by torchvision's rule, whose own code trips over names within each other.

        It cannot number the third call of a module "1", behind "1_1".
        """
        name = module_qualname
        if node.op != "call_module":
            name = f"{name}.{node}" if name else str(node)
        if numbered := _NUMBERED.fullmatch(name):  # by torch.fx, over the whole network
            name = numbered[1]
        like_it = re.compile(re.escape(name) + "(?:_([0-9]+))?")
        for other in reversed(self.node_to_qualname.values()):
            if found := like_it.fullmatch(other):
                return f"{name}_{int(found[1] or 0) + 1}"
        return name

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        """See :meth:`torch.fx.Tracer.is_leaf_module`.

        A class of somebody's own that computes as PyTorch's does, a subclass of BatchNorm2d say, is
        a leaf as that is: inside of it control flow depends on the input's dimensions.
        """
        forward = type(m).forward
        inherits = (
            forward.__module__.startswith("torch.nn.")
            and forward is not torch.nn.Module.forward
            and "forward" not in vars(m)  # one of its own, as some classes choose when made
            and not isinstance(m, (*_WITH_PARTS, *_WITH_WEIGHTS_OF_ANY_KIND))
        )
        leaf: bool = super().is_leaf_module(m, module_qualified_name)
        return leaf or inherits

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """See :meth:`torch.fx.Tracer.proxy`."""
        return _Proxy(node, self)

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        """See :meth:`torch.fx.Tracer.create_args_for_root`.

        Raises:
            TraceError: the forward takes what it is given as ``*args`` alone.
        """
        parameters = inspect.signature(inspect.unwrap(root_fn)).parameters
        function, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        inputs = [arg for arg in args if isinstance(arg, fx.Proxy)]
        fixed = [arg for arg in inputs if str(arg.node.target).startswith("*")]
        if fixed and len(fixed) == len(inputs):
            taken = ", ".join(str(arg.node.target) for arg in fixed)
            msg = (
                f"its forward names no input (it takes {taken}); expected one (N, C, H, W) "
                "tensor by a name: give the network inside, such as .module"
            )
            raise TraceError(msg)
        optional = [arg for arg in inputs if arg.node.args]
        if len(fixed) + len(optional) < len(inputs):  # else one of the optional is the picture
            fixed += optional
        for arg in fixed:
            self.graph.erase_node(arg.node)
        return function, [
            _default(parameters, str(arg.node.target)) if any(arg is one for one in fixed) else arg
            for arg in args
        ]


def _autocast() -> set[str]:
    """The kinds of devices for which autocast is on."""
    return {kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)}


def _default(parameters: Mapping[str, inspect.Parameter], name: str) -> Any:
    if name.startswith("*"):
        return {} if name.startswith("**") else ()
    return parameters[name].default
