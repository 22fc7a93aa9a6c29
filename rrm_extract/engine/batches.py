"""Which islands may not be given several frames at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rrm_extract.engine.parts import Island, Known, Lowered, Opaque, leaves, mapped
from rrm_extract.rrm.apart import SCALES, same_apart

__all__ = ["island_without_batches"]

_Trial = tuple[Any, list[Any]]
"""A value for two frames at once, and for each of them."""


def island_without_batches(lowered: Lowered) -> str | None:
    """The first island that may make something else of two frames than of each by itself.

    An operation of PyTorch may do anything with its first dimension: give it another meaning, fold
    it into others, reduce over it, or be told its size. So each island is tried, on numbers drawn
    at random. Those that fail have to be given one frame at a time.

    Returns:
        The name of its operation, or None.
    """
    tried: dict[str, _Trial] = {}
    generator = torch.Generator("cpu").manual_seed(0)
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        for island in lowered.islands:
            trial = _tried(island, tried, generator)
            if trial is None:
                return island.op.name
            if island.out is None:  # else those who read it are given numbers of their own
                tried[island.op.name] = trial
    return None


def _tried(island: Island, tried: dict[str, _Trial], generator: torch.Generator) -> _Trial | None:
    given = leaves((island.args, island.kwargs))
    places = [leaf for leaf in given if isinstance(leaf, Tensor)]
    if any(value.dim() == 0 or value.shape[0] != 1 for value in places):
        return None  # frames are not its first dimension
    drawn = {id(value): _draw(value, generator) for value in places}

    def call(frame: slice, number: int | None) -> Any:
        def value(leaf: Any) -> Any:
            if isinstance(leaf, Opaque):
                together, alone = tried[leaf.name]
                return together if number is None else alone[number]
            if isinstance(leaf, Known):
                return leaf.value
            return drawn[id(leaf)][frame] if isinstance(leaf, Tensor) else leaf

        return island.op.call(*mapped(island.args, value), **mapped(island.kwargs, value))

    try:
        together = call(slice(2), None)
        alone = [call(slice(number, number + 1), number) for number in range(2)]
    except Exception:  # noqa: BLE001 - an operation may refuse two frames as it likes
        return None
    return (together, alone) if _agree(leaves(together), [leaves(each) for each in alone]) else None


def _draw(places: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.rand(2, *places.shape[1:], generator=generator, dtype=torch.float32, device="cpu")
    scales = noise.new_tensor(SCALES).reshape(2, *[1] * (places.dim() - 1))
    return (noise * 2 - 1) * scales


def _agree(together: Sequence[Any], alone: Sequence[Sequence[Any]]) -> bool:
    if any(len(together) != len(each) for each in alone):
        return False
    for whole, first, second in zip(together, *alone, strict=True):
        pair = [value for value in (first, second) if isinstance(value, Tensor)]
        if any(value.dim() == 0 or value.shape[0] != 1 for value in pair):
            return False  # frames are not its first dimension
        if not same_apart(whole, first, second):
            return False
    return True
