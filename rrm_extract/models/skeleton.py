"""What the numbers of a pose network's raw output are."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limb", "Skeleton"]


@dataclass(frozen=True, kw_only=True)
class Limb:
    """Two parts of the body, and the field that leads from one to the other."""

    begin: int
    """Number of the part it leads from."""
    end: int
    """Number of the part it leads to."""
    field: int
    """Number of its part-affinity field: the channels 2 * field (x) and 2 * field + 1 (y)."""
    is_extra: bool = False
    """Whether it only adds to people that other limbs have found."""


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """The output of a network of part-affinity fields (arXiv 1611.08050) and how to read it.

    A network's raw output is (N, J + 1 + 2 * L, H, W): J heat maps, one for each part, the heat
    map of the background, then an x and a y for each of the L limbs' fields.
    """

    parts: tuple[str, ...]
    """Names of the J parts."""
    limbs: tuple[Limb, ...]
    """The L limbs in the order in which people are put together."""
    stride: int
    """Pixels of the network's input, in each direction, for one cell of the H x W map."""

    @property
    def heat_maps(self) -> int:
        """Heat maps, the background's included: J + 1."""
        return len(self.parts) + 1

    @property
    def channels(self) -> int:
        """Channels of the raw output, J + 1 + 2 * L."""
        return self.heat_maps + 2 * len(self.limbs)
