"""A network in evaluation mode, for a while or as a copy; the caller's is left as it was."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from rrm_extract.errors import TraceError

__all__ = ["evaluating_copy", "evaluation", "unchanged_buffers"]


@contextmanager
def evaluation(module: nn.Module) -> Iterator[None]:
    """Evaluation mode while a network is traced.

    Afterwards each submodule is in the mode it was in, a frozen batch-norm in a network under
    training say, and what the tracer and a traced forward have left in attributes is gone.
    """
    modes = {part: part.training for part in module.modules()}
    module.eval()
    # Only from here on: what eval() has changed, train() changes back.
    attributes = [_Attributes(part) for part in modes]
    try:
        yield
    finally:
        for each in attributes:
            each.put_back()
        # By train(), which networks override, as long as that does it; a parent before its parts.
        for part, mode in modes.items():
            if part.training != mode:
                part.train(mode)
        for part, mode in modes.items():
            part.training = mode


@contextmanager
def unchanged_buffers(module: nn.Module) -> Iterator[None]:
    """Refuses what changes a buffer meanwhile, after putting back what was there.

    One that is made meanwhile is no such change: it is made once.

    Raises:
        TraceError: On leaving: one was changed, or another tensor put in its place.
    """
    before = [
        (f"{name}.{key}" if name else key, part, key, buffer)
        for name, part in module.named_modules()
        for key, buffer in part._buffers.items()
        if buffer is not None and not buffer.is_inference()
    ]
    contents = [(buffer._version, buffer.clone()) for *_, buffer in before]
    changed = ""
    try:
        yield
    finally:
        for (name, part, key, buffer), (version, content) in zip(before, contents, strict=True):
            if key not in part._buffers or part._buffers[key] is not buffer:
                changed = name
                part._buffers[key] = buffer
            if buffer._version != version:
                changed = name
                with torch.no_grad():
                    buffer.copy_(content)
    if changed:
        msg = (
            f"{type(module).__name__} changes its buffer {changed!r} in forward: each frame would "
            "see another network; expected one that leaves its buffers as they are"
        )
        raise TraceError(msg)


_CONTAINERS = (dict, OrderedDict, list, set)


class _Attributes:
    """What a module's attributes are, and what is in those that hold others."""

    def __init__(self, part: nn.Module) -> None:
        self._part = part
        self._values = dict(vars(part))
        self._contents = {
            name: copy.copy(value)
            for name, value in self._values.items()
            if type(value) in _CONTAINERS
        }

    def put_back(self) -> None:
        """Makes them so again."""
        own = vars(self._part)
        for name in own.keys() - self._values.keys():
            del own[name]
        own.update(self._values)
        for name, content in self._contents.items():
            value: Any = self._values[name]
            if _is_same(value, content):
                continue
            value.clear()
            if isinstance(value, list):
                value.extend(content)
            else:
                value.update(content)


def _is_same(one: Any, other: Any) -> bool:
    """Whether two containers hold the same objects; no value is asked whether it equals another."""
    pair = [
        [id(item) for each in container.items() for item in each]
        if isinstance(container, dict)
        else [id(item) for item in container]
        for container in (one, other)
    ]
    return pair[0] == pair[1]


def evaluating_copy(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode that shares the parameters and buffers."""
    if is_parametrized(module):  # it forbids to be copied, lest it be pickled
        evaluating: nn.Module = object.__new__(type(module))
        vars(evaluating).update(vars(module))
    else:
        evaluating = copy.copy(module)
    evaluating.training = False
    evaluating._modules = {
        name: None if child is None else evaluating_copy(child)
        for name, child in module._modules.items()
    }
    return evaluating
