"""Settings of modules that their own words for themselves do not tell."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["untold_settings"]

_PLAIN = (bool, int, float, complex, str, bytes, type, torch.dtype)


def untold_settings(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Public attributes of a module and its parts that ``repr(module)`` does not depend on.

    PyTorch's own layers have what they were made with; what they have by default is left out.

    Yields:
        Dotted names in a stable order, and values: numbers, text, None, functions, classes, types
        of numbers, or tuples and lists of such.
    """
    for path, part in module.named_modules():
        arguments = _arguments(type(part))
        for name, value in sorted(vars(part).items()):
            if name.startswith("_") or name == "training" or not _is_plain(value):
                continue
            if arguments is not None and _goes_without_saying(name, value, arguments):
                continue
            if not _is_told(part, name):
                yield f"{path}.{name}", value


def _arguments(kind: type[nn.Module]) -> Mapping[str, inspect.Parameter] | None:
    """What PyTorch's own layer is made with; None for other modules, and where it is hidden."""
    if not kind.__module__.startswith("torch."):
        return None
    parameters = inspect.signature(kind).parameters
    hidden = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return None if any(one.kind in hidden for one in parameters.values()) else parameters


def _goes_without_saying(name: str, value: Any, arguments: Mapping[str, inspect.Parameter]) -> bool:
    """Whether an attribute of PyTorch's own layer follows from the rest, or is the default."""
    if name not in arguments:
        return True
    default = arguments[name].default
    one_for_all = isinstance(value, tuple) and len(value) > 0
    return bool(value == default) or (one_for_all and all(item == default for item in value))


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, _PLAIN) or inspect.isroutine(value)


def _is_told(part: nn.Module, name: str) -> bool:
    """Whether the module's words would be others with another value."""
    changed: nn.Module = object.__new__(type(part))
    vars(changed).update(vars(part))
    vars(changed)[name] = object()
    try:
        return repr(changed) != repr(part)
    except Exception:  # noqa: BLE001 - it looks at the value, and does not know this one
        return True
