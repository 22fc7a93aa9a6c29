"""An operation for which there is no native step."""

from __future__ import annotations

import torch.nn.functional as F

from rrm_extract.graph import Op

__all__ = ["NoStepError", "name_of"]


class NoStepError(Exception):
    """Says why an operation has no native step; it becomes an island, nobody else sees this."""


def name_of(op: Op) -> str:
    """What an operation calls, for a person."""
    if op.call is F.max_pool2d:  # its own name is that of a dispatcher
        return "max_pool2d"
    method = getattr(op.call, "name", None)
    if isinstance(method, str):
        return method
    return str(getattr(op.call, "__name__", type(op.call).__name__))
