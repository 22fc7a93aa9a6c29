"""A network in evaluation mode, for a while or as a copy; the caller's is left as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
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
    attributes = {part: dict(vars(part)) for part in modes}
    try:
        yield
    finally:
        for part, before in attributes.items():
            _tidy(part, before)
        # By train(), which networks override, as long as that does it; a parent before its parts.
        for part, mode in modes.items():
            if part.training != mode:
                part.train(mode)
        for part, mode in modes.items():
            part.training = mode


@contextmanager
def unchanged_buffers(module: nn.Module) -> Iterator[None]:
    """Refuses what changes a buffer meanwhile, after putting back what was there.

    Raises:
        TraceError: On leaving: one was changed, or another tensor put in its place.
    """
    before = {part: dict(part._buffers) for part in module.modules()}
    contents = {
        buffer: (buffer._version, buffer.clone())
        for buffer in module.buffers()
        if not buffer.is_inference()
    }
    changed = ""
    try:
        yield
    finally:
        for name, part in module.named_modules():
            for key, buffer in part._buffers.items():
                if buffer is not before[part].get(key) or not _is_as_before(buffer, contents):
                    changed = f"{name}.{key}" if name else key
            part._buffers.clear()
            part._buffers.update(before[part])
        for buffer, (version, content) in contents.items():
            if buffer._version != version:
                with torch.no_grad():
                    buffer.copy_(content)
    if changed:
        msg = (
            f"{type(module).__name__} changes its buffer {changed!r} in forward: each frame would "
            "see another network; expected one that leaves its buffers as they are"
        )
        raise TraceError(msg)


def _is_as_before(buffer: Tensor | None, contents: Mapping[Tensor, tuple[int, Tensor]]) -> bool:
    return buffer is None or buffer not in contents or buffer._version == contents[buffer][0]


def _tidy(part: nn.Module, before: dict[str, object]) -> None:
    own = vars(part)
    for name in own.keys() - before.keys():
        del own[name]
    own.update(before)


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
