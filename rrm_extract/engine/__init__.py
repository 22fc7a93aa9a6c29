"""Runs a Program fast: the choice of an engine, and the native one.

Workers import what needs no torch from here (``compiled``, ``pictures``): nothing that does is
imported before it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rrm_extract.engine.backend import (
        ENGINES,
        PRECISIONS,
        Choice,
        Network,
        choose_engine,
        open_network,
    )
    from rrm_extract.engine.native import NativeNetwork
    from rrm_extract.engine.preprocess import NativeTransform, supports

__all__ = [
    "ENGINES",
    "PRECISIONS",
    "Choice",
    "NativeNetwork",
    "NativeTransform",
    "Network",
    "choose_engine",
    "open_network",
    "supports",
]


def __getattr__(name: str) -> Any:
    if name == "NativeNetwork":
        from rrm_extract.engine.native import NativeNetwork

        return NativeNetwork
    if name in {"NativeTransform", "supports"}:
        from rrm_extract.engine import preprocess

        return getattr(preprocess, name)
    if name in __all__:
        from rrm_extract.engine import backend

        return getattr(backend, name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
