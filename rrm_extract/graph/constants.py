"""Values that a network makes from its parameters alone, which are the same for every frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rrm_extract.graph.digest import tensor_digest
from rrm_extract.graph.program import Op, Program, execute, needed_for

__all__ = ["constant_value"]


def constant_value(name: str, ops: Mapping[str, Op]) -> tuple[Any, tuple[str, ...]] | None:
    """What an operation makes, if no frame has a part in it.

    Args:
        name: of the operation.
        ops: all operations before it, by name.

    Returns:
        The value, and the state-dict names of the parameters it is made from; None where it depends
        on the network's input, is drawn at random, or cannot be computed.
    """
    names = needed_for((name,), ops)
    if not names <= ops.keys():  # the network's input is among them
        return None
    needed = tuple(op for key, op in ops.items() if key in names)
    parameters = tuple(dict.fromkeys(key for op in needed for key in op.parameters))
    if len(needed) == 1 and needed[0].kind == "constant":
        return needed[0].call(), parameters
    try:
        # What is drawn at random would be the same twice only if it were drawn once.
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            value, again = (_computed(name, needed) for _ in range(2))
    except Exception:  # noqa: BLE001 - a layer that cannot be computed says so when it is run
        return None
    return (value, parameters) if _same(value, again) else None


def _computed(name: str, ops: tuple[Op, ...]) -> Any:
    program = Program(input="", ops=ops, outputs=(name,))
    call = execute(program, torch.empty(0), lambda op, args, kwargs: op.call(*args, **kwargs))
    return call[0]


def _same(value: Any, again: Any) -> bool:
    if isinstance(value, Tensor) and value.is_meta:  # it has no numbers that could differ
        return bool(value.shape == again.shape)
    if isinstance(value, Tensor):
        return tensor_digest(value) == tensor_digest(again)
    return bool(value == again)
