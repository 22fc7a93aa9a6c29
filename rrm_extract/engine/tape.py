"""The calls that make a native network, kept so that another process can make them again."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

__all__ = ["Call", "TapedNetwork", "replayed"]

Call = tuple[str, tuple[Any, ...]]
"""A method of the native module's ``Network``, and its arguments."""


class TapedNetwork:
    """Passes calls on to a native network under construction, and remembers them.

    Args:
        network: of the native module, nothing added yet.

    Attributes:
        network: the same.
        calls: what was called, in order. Arrays among the arguments are the ones that the native
            network points into, not copies.
    """

    def __init__(self, network: Any) -> None:
        self.network = network
        self.calls: list[Call] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.network, name)

        def call(*arguments: Any) -> Any:
            self.calls.append((name, arguments))
            return method(*arguments)

        return call


def replayed(
    native: ModuleType, calls: tuple[Call, ...], *, isa: str, precision: str, batch: int
) -> Any:
    """The native network that these calls make."""
    network = native.Network(isa, precision, batch)
    for name, arguments in calls:
        getattr(network, name)(*arguments)
    return network
