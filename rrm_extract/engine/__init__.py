"""Runs a Program fast: the choice of an engine, and the native one."""

from rrm_extract.engine.backend import (
    ENGINES,
    PRECISIONS,
    Choice,
    Network,
    choose_engine,
    open_network,
)
from rrm_extract.engine.native import NativeNetwork

__all__ = [
    "ENGINES",
    "PRECISIONS",
    "Choice",
    "NativeNetwork",
    "Network",
    "choose_engine",
    "open_network",
]
