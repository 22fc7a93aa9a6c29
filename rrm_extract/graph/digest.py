"""A digest of what a Program computes: two networks with equal weights may differ in the rest."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rrm_extract.graph.linear import UNTOLD
from rrm_extract.graph.program import Program
from rrm_extract.graph.settings import untold_settings

__all__ = ["add_tensor", "digest_of", "tensor_digest"]

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""What Python's own words for an object say of where it lies, which is nobody's business."""


def digest_of(program: Program) -> str:
    """SHA-256 over the operations: what each computes, with its settings, weights and inputs.

    The same for every process that traces the same code with the same weights.
    """
    digest = hashlib.sha256()
    for op in program.ops:
        for part in _parts((op.name, op.kind, op.call, op.args, dict(op.kwargs))):
            digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    for name in program.outputs:
        digest.update(name.encode() + b"\0")
    return digest.hexdigest()


def add_tensor(digest: hashlib._Hash, tensor: Tensor) -> None:
    """Feeds a tensor's dtype, shape and bytes to a digest."""
    tensor = tensor.detach().cpu().contiguous()
    digest.update(f"{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
    if tensor.numel():  # an empty one cannot be viewed as bytes
        # A view as bytes needs at least one dimension; no copy, for weights may be large.
        view: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        digest.update(view)


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 over a tensor's dtype, shape and bytes."""
    digest = hashlib.sha256()
    add_tensor(digest, tensor)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[str]:
    if isinstance(value, Tensor):
        yield tensor_digest(value)
    elif isinstance(value, nn.Module):
        yield f"{_name(type(value))} {_words(value)}"
        for name, tensor in [*value.named_parameters(), *value.named_buffers()]:
            yield name
            yield from _parts(tensor)
        for name, setting in untold_settings(value):
            yield name
            yield from _parts(setting)
    elif isinstance(value, functools.partial):
        yield from _parts((value.func, value.args, value.keywords))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield _words(key)
            yield from _parts(item)
    elif isinstance(value, (tuple, list)):
        yield f"{type(value).__name__} of {len(value)}"
        for item in value:
            yield from _parts(item)
    elif is_dataclass(value) and not isinstance(value, type):
        yield _name(type(value))
        for field in fields(value):
            part = getattr(value, field.name)
            if part is None and field.metadata == UNTOLD:
                continue
            yield field.name
            yield from _parts(part)
    elif callable(value) and hasattr(value, "__qualname__"):
        yield _name(value)
    else:
        yield _words(value)


def _name(value: Any) -> str:
    # Methods that are written in C have no module.
    return f"{getattr(value, '__module__', None)}.{value.__qualname__}"


def _words(value: Any) -> str:
    return _ADDRESS.sub("", repr(value))
