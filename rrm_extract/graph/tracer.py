"""torchvision's tracer, which notes ``+=`` and its kin as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx
from torchvision.models.feature_extraction import NodePathTracer

__all__ = ["IN_PLACE", "InPlaceTracer"]

IN_PLACE = "in_place"
"""Key in the ``meta`` of a node that changes its first argument, though its function does not."""


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


class InPlaceTracer(NodePathTracer):  # type: ignore[misc]
    """Names nodes as torchvision's does."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """See :meth:`torch.fx.Tracer.proxy`."""
        return _Proxy(node, self)
