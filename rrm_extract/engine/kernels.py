"""The compiled module, and which of its instruction sets is used. Needs no torch."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

from rrm_extract.errors import EngineError

__all__ = ["isa_of_this_process", "native_module"]


def native_module() -> ModuleType:
    """The compiled kernels.

    Raises:
        EngineError: this installation has none.
    """
    try:
        module = importlib.import_module("rrm_extract.engine._native")
    except ImportError as error:
        msg = (
            f"the native engine is not part of this installation ({error}); put that right (it "
            "takes a C++ compiler, GCC 11, Clang 14 or later, and Python's headers) and install "
            "rrm-extract again, or use --engine torch"
        )
        raise EngineError(msg) from error
    return module


def isa_of_this_process() -> str:
    """The instruction set that is used: the best of this processor, or the one in RRM_ISA.

    Raises:
        EngineError: RRM_ISA names one that this processor does not have.
    """
    available: list[str] = native_module().available_isas()
    wanted = os.environ.get("RRM_ISA", "")
    if wanted:
        if wanted not in available:
            msg = (
                f"RRM_ISA is {wanted!r}, which cannot be used on this processor; expected one of "
                f"{', '.join(available)}"
            )
            raise EngineError(msg)
        return wanted
    return available[-1]
