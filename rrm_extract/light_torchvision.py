"""torchvision, in half of the time that it takes to be imported.

One function of ``torch._dynamo.utils`` tells ``torchvision.ops`` whether an operation can be
compiled, and torchvision imports all of ``torch._dynamo`` for it, which takes as long as PyTorch
itself. Here something stands in for that module while torchvision is imported, and fetches it
when it is asked.

To be imported before torchvision is; where that, or ``torch._dynamo``, has been imported already,
nothing is changed.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

__all__ = ["torchvision"]

_NAME = "torch._dynamo.utils"


class _StandIn(ModuleType):
    """Has what the module has; fetches it when that is needed."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_real(), name)

    @staticmethod
    def is_compile_supported(device_type: str) -> bool:
        """What torchvision asks when it computes."""
        supported: bool = _real().is_compile_supported(device_type)
        return supported


def _real() -> ModuleType:
    if isinstance(sys.modules.get(_NAME), _StandIn):
        del sys.modules[_NAME]
    return importlib.import_module(_NAME)


def _import() -> ModuleType:
    if _NAME not in sys.modules:
        sys.modules[_NAME] = _StandIn(_NAME)
    try:
        return importlib.import_module("torchvision")
    finally:
        if isinstance(sys.modules.get(_NAME), _StandIn):
            del sys.modules[_NAME]


torchvision = _import()
