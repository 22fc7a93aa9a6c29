"""Native networks beside the readable engine, and numbers on which both are exact."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from rrm_extract.engine import NativeNetwork
from rrm_extract.engine.forms import Tiles, tiles_of
from rrm_extract.engine.native import native_module
from rrm_extract.engine.parts import Part
from rrm_extract.engine.plan import ConvStep
from rrm_extract.engine.seen import joined, seen_of
from rrm_extract.graph import Program, fold, trace
from rrm_extract.rrm import FrameDensities, LayerCost, RecurrentNetwork

ISAS: tuple[str, ...] = tuple(native_module().available_isas())
"""Of this processor, the slowest first; "reference" is the oracle of the kernels."""

CHANGES = ("same", "pixel", "corner", "few", "half", "most", "all")
"""What may happen from one frame to the next."""


@contextmanager
def forced(isa: str) -> Iterator[None]:
    """Networks made inside use this instruction set; "" leaves the choice to the engine."""
    with mock.patch.dict(os.environ, {"RRM_ISA": isa}):
        yield


@contextmanager
def tiles(wanted: bool) -> Iterator[list[Tiles]]:
    """Networks made inside run dense layers in Winograd's tiles only if that is wanted.

    The list is filled with those that are used: where it is empty sums have no rounding.
    """
    used: list[Tiles] = []

    def choose(*args: Any) -> Tiles | None:
        found = tiles_of(*args) if wanted else None
        if found is not None:
            used.append(found)
        return found

    with mock.patch("rrm_extract.engine.lower.tiles_of", choose):
        yield used


@contextmanager
def every_frame() -> Iterator[None]:
    """Kernels compute frames, too, that are the one before once more."""
    with mock.patch("rrm_extract.engine.repeats._same", return_value=False):
        yield


def program_of(module: nn.Module) -> Program:
    return fold(trace(module.eval()))


def native(
    program: Program, shape: Sequence[int], *, isa: str = "", **options: Any
) -> NativeNetwork:
    with forced(isa):
        channels, height, width = shape
        return NativeNetwork(program, input_shape=(channels, height, width), **options)


def forms_of(network: NativeNetwork) -> list[str]:
    parts = [part for part in network.sequence if isinstance(part, Part)]
    return [step.form for part in parts for step in part.steps if isinstance(step, ConvStep)]


def readable(
    module: nn.Module, frames: Tensor, **options: Any
) -> tuple[tuple[Tensor, ...], FrameDensities, tuple[LayerCost, ...]]:
    """Outputs, densities and statistics of the readable engine in float64."""
    network = RecurrentNetwork(program_of(copy.deepcopy(module).double()), **options)
    outputs, seen = network.run(frames.double())
    return outputs, seen, network.stats()


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


def assert_same_densities(parts: Sequence[FrameDensities], expected: FrameDensities) -> None:
    """What several calls saw, to the last element: the readable engine divides in float32."""
    seen, wanted = joined([seen_of(part) for part in parts]), seen_of(expected)
    np.testing.assert_allclose(seen.density, wanted.density, rtol=0, atol=1e-7)
    np.testing.assert_allclose(seen.density_delta, wanted.density_delta, rtol=0, atol=1e-7)
    np.testing.assert_allclose(seen.work, wanted.work, rtol=0, atol=1e-7)
    assert np.array_equal(seen.key_frame, wanted.key_frame)


def assert_same_costs(
    costs: Sequence[LayerCost], expected: Sequence[LayerCost], *, within: float = 1e-7
) -> None:
    assert len(costs) == len(expected)
    for cost, other in zip(costs, expected, strict=True):
        for name in ("name", "macs", "input_elements", "output_elements", "channels"):
            assert getattr(cost, name) == getattr(other, name)
        for name in ("density", "density_delta"):
            one, two = (torch.tensor(getattr(value, name)) for value in (cost, other))
            torch.testing.assert_close(one, two, rtol=0, atol=within, equal_nan=True)
