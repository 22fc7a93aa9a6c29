"""Clips and weights on whose numbers every engine is exact."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

CHANGES = ("same", "pixel", "corner", "few", "half", "most", "all")
"""What may happen from one frame to the next."""


def coarse(*shape: int, generator: torch.Generator, steps: int, most: int) -> Tensor:
    """Multiples of 1 / steps, from -most to most.

    Sums of products of such numbers have no rounding in fp32: every order of a sum gives the same
    bits, and no difference is near a threshold by accident.
    """
    whole = torch.randint(-most * steps, most * steps + 1, shape, generator=generator)
    return whole.float() / steps


@torch.no_grad()
def make_coarse(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Weights of 0, a half or one, biases in quarters; thresholds of 0.3 are never met exactly."""
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            shape = part.weight.shape
            part.weight.copy_(coarse(*shape, generator=generator, steps=2, most=1))
            if part.bias is not None:
                part.bias.copy_(coarse(*part.bias.shape, generator=generator, steps=4, most=2))
        elif isinstance(part, nn.BatchNorm2d):
            part.eps = 0.0
            part.running_var.fill_(4.0)  # type: ignore[union-attr]
            channels = part.num_features
            for name in ("running_mean", "weight", "bias"):
                value = coarse(channels, generator=generator, steps=2, most=2)
                getattr(part, name).copy_(value)
    return module.eval()


def clip(
    shape: Sequence[int], changes: Sequence[str], *, generator: torch.Generator, exact: bool = True
) -> Tensor:
    """(T, C, H, W): a frame with zeros in it, then one for each change."""

    def fresh() -> Tensor:
        if exact:
            return coarse(*shape, generator=generator, steps=4, most=2)
        return torch.randn(*shape, generator=generator)

    def somewhere(share: float) -> Tensor:
        return torch.rand(*shape, generator=generator) < share

    frame = fresh() * somewhere(0.7)
    frames = [frame]
    _, height, width = shape
    for change in changes:
        where = torch.zeros(*shape, dtype=torch.bool)
        if change == "pixel":
            y, x = (int(torch.randint(size, (1,), generator=generator)) for size in (height, width))
            where[:, y, x] = True
        elif change == "corner":
            where[:1, -1, -1] = True
        elif change != "same":
            where = somewhere({"few": 0.03, "half": 0.5, "most": 0.9, "all": 1.1}[change])
        frame = torch.where(where, fresh(), frame)
        frames.append(frame)
    return torch.stack(frames)
