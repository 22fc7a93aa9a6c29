"""Hooks of modules: those that make weights are run, others are not passed over in silence."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from rrm_extract.errors import TraceError

__all__ = ["make_weights", "put_weights", "refuse_hooks", "refuse_root_hooks"]

_MAKE_WEIGHTS = (WeightNorm, SpectralNorm, BasePruningMethod)
"""Hooks that set a weight from other parameters before each call, and do nothing else."""


def make_weights(module: nn.Module) -> None:
    """Sets the weights of one module that its hooks would set before a call.

    They are those of the call before, or of none, if a state dict was loaded since.

    Args:
        module: in evaluation mode; its weight is replaced, so a copy.
    """
    with torch.no_grad():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, _MAKE_WEIGHTS):
                hook(module, ())


def put_weights(module: nn.Module) -> None:
    """Puts the weights that parametrizations compute in their place, in a module and its parts.

    As they are they could not be handed to another process.

    Args:
        module: from ``evaluating_copy``: its parts are its own, its parameters are not.
    """
    for part in list(module.modules()):
        if not is_parametrized(part):
            continue
        with torch.no_grad():
            names = cast(nn.ModuleDict, part.parametrizations)
            weights = {name: getattr(part, name) for name in names}
        # Not by remove_parametrizations, which changes the class, and the caller's with it.
        part.__class__ = type(part).__bases__[0]
        del part._modules["parametrizations"]
        part._parameters = dict(part._parameters)
        for name, weight in weights.items():
            part._parameters[name] = nn.Parameter(weight.detach(), requires_grad=False)
        part._load_state_dict_pre_hooks = OrderedDict()


def refuse_hooks(module: nn.Module, name: str) -> None:
    """Checks that calling a layer is no more than its forward, with weights that can be made.

    Raises:
        TraceError: it has a forward hook, or a forward of its own apart from its class, or what
            the forward of convolutions calls.
    """
    before = module._forward_pre_hooks.values()
    others = [hook for hook in before if not isinstance(hook, _MAKE_WEIGHTS)]
    what = _own_ways(module, others)
    if not what and "_conv_forward" in vars(module):
        what = "a _conv_forward that is not its class's"
    if what:
        msg = (
            f"layer {name!r} ({type(module).__name__}) has {what}, which would be passed over; "
            "remove it, or have a module of its own do the same"
        )
        raise TraceError(msg)


def refuse_root_hooks(module: nn.Module) -> None:
    """Checks that calling a whole network is no more than its class's forward.

    Raises:
        TraceError: as for :func:`refuse_hooks`; hooks that make weights are not run there either.
            Or it is what ``torch.compile`` made of a network.
    """
    if "_orig_mod" in module._modules:
        msg = (
            f"{type(module).__name__} is a network that went through torch.compile; expected the "
            "network itself: give its _orig_mod"
        )
        raise TraceError(msg)
    what = _own_ways(module, list(module._forward_pre_hooks.values()))
    if what:
        msg = (
            f"{type(module).__name__} has {what}, which torch.fx does not see at the network "
            "itself; remove it, or give torch.nn.Sequential(network)"
        )
        raise TraceError(msg)


def _own_ways(module: nn.Module, pre_hooks: list[Any]) -> str:
    if pre_hooks:
        hook = pre_hooks[0]
        return f"a forward pre-hook, {getattr(hook, '__name__', type(hook).__name__)!r}"
    if module._forward_hooks:
        return "a forward hook"
    return "a forward that is not its class's" if "forward" in vars(module) else ""
