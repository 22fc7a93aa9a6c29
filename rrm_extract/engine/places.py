"""Where each element of a value comes from.

Operations that only move data (views, slices, transpositions, concatenations, shuffles) are run
once on integers that say where each element lies. What comes out tells what the native engine has
to do, if anything: no operation of this kind needs code of its own.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from rrm_extract.engine.plan import BLOCK, PlanTensor

__all__ = ["Places", "aligned_planes"]

_SHIFT = 40  # an element's number is below 2**40


class Places:
    """Numbers for the elements of plan tensors."""

    def __init__(self) -> None:
        self._tensors: list[PlanTensor] = []
        self._numbers: dict[int, int] = {}

    def of(self, tensor: PlanTensor) -> Tensor:
        """(1, C, H, W) int64: the places of a tensor's elements."""
        number = self._numbers.get(id(tensor))
        if number is None:
            number = self._numbers[id(tensor)] = len(self._tensors)
            self._tensors.append(tensor)
        places = torch.arange(tensor.elements, device="cpu") + (number << _SHIFT)
        return places.reshape(1, tensor.channels, tensor.height, tensor.width)

    def sources(self, places: Tensor) -> list[PlanTensor]:
        """The tensors that a value is made of."""
        return [self._tensors[int(number)] for number in torch.unique(places >> _SHIFT)]

    def index(self, places: Tensor, sources: list[PlanTensor]) -> Tensor:
        """Where each element lies in the flattened ``sources`` one after the other."""
        index = places & ((1 << _SHIFT) - 1)
        begin = 0
        for tensor in sources:
            index = torch.where(places >> _SHIFT == self._numbers[id(tensor)], index + begin, index)
            begin += tensor.elements
        return index

    def whole(self, places: Tensor) -> PlanTensor | None:
        """The one tensor whose elements these are, all of them in any order."""
        if places.numel() == 0:
            return None
        tensor = self._tensors[int(places.flatten()[0]) >> _SHIFT]
        if places.numel() != tensor.elements:
            return None
        own = self.of(tensor).flatten()
        same = torch.equal(places.flatten(), own)  # mostly they are in order: sorting takes long
        same = same or torch.equal(places.flatten().sort().values, own)
        return tensor if same else None

    def in_order(self, places: Tensor) -> PlanTensor | None:
        """The one tensor whose elements these are, in their own order."""
        if places.numel() == 0:
            return None
        tensor = self._tensors[int(places.flatten()[0]) >> _SHIFT]
        if places.numel() != tensor.elements:
            return None
        return tensor if torch.equal(places.flatten(), self.of(tensor).flatten()) else None

    def permuted(self, places: Tensor) -> tuple[PlanTensor, tuple[int, ...]] | None:
        """A tensor whose dimensions these are in another order, and the order."""
        if places.dim() != 4 or places.shape[0] != 1 or places.numel() == 0:
            return None
        tensor = self._tensors[int(places.flatten()[0]) >> _SHIFT]
        own = self.of(tensor)
        for order in itertools.permutations((1, 2, 3)):
            if torch.equal(own.permute(0, *order), places):
                return tensor, (0, *order)
        return None

    def channels(self, places: Tensor) -> list[tuple[PlanTensor, int]] | None:
        """The channels that a (1, C, H, W) value consists of; None if it is not made of such."""
        if places.dim() != 4 or places.shape[0] != 1 or places.numel() == 0:
            return None
        height, width = places.shape[2:]
        pixels = height * width
        first = places[0, :, 0, 0]
        order = torch.arange(pixels, device="cpu")
        if not torch.equal(places[0].flatten(1), first[:, None] + order):
            return None
        found: list[tuple[PlanTensor, int]] = []
        for place in first.tolist():
            tensor = self._tensors[place >> _SHIFT]
            element = place & ((1 << _SHIFT) - 1)
            if (tensor.height, tensor.width) != (height, width) or element % pixels:
                return None
            found.append((tensor, element // pixels))
        return found


def aligned_planes(channels: list[tuple[PlanTensor, int]]) -> list[tuple[PlanTensor, int]] | None:
    """The blocks of which a concatenation consists, if no channel has to change its lane."""
    planes: list[tuple[PlanTensor, int]] = []
    for begin in range(0, len(channels), BLOCK):
        tensor, first = channels[begin]
        if first % BLOCK:
            return None
        block = channels[begin : begin + BLOCK]
        if block != [(tensor, first + lane) for lane in range(len(block))]:
            return None
        # Lanes behind the last channel must be padding, not channels that were sliced off.
        if len(block) < BLOCK and first + len(block) != tensor.channels:
            return None
        planes.append((tensor, first // BLOCK))
    return planes
