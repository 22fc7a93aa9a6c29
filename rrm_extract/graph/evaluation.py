"""A network in evaluation mode, for a while or as a copy; the caller's is left as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from torch import fx, nn
from torch.nn.utils.parametrize import is_parametrized

__all__ = ["evaluating_copy", "evaluation"]


@contextmanager
def evaluation(module: nn.Module) -> Iterator[None]:
    """Evaluation mode while a network is traced.

    Afterwards each submodule is in the mode it was in, a frozen batch-norm in a network under
    training say, and what the tracer and a traced forward have left in attributes is gone.
    """
    modes = {part: part.training for part in module.modules()}
    attributes = {part: dict(vars(part)) for part in modes}
    module.eval()
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


def _tidy(part: nn.Module, before: dict[str, object]) -> None:
    for name, value in list(vars(part).items()):
        if isinstance(value, fx.Proxy) and name in before:
            setattr(part, name, before[name])
        elif isinstance(value, fx.Proxy) or (
            name.startswith("_tensor_constant") and name not in before
        ):
            delattr(part, name)


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
