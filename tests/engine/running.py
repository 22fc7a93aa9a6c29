"""Native networks beside the readable engine."""

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


def assert_same_densities(parts: Sequence[FrameDensities], expected: FrameDensities) -> None:
    """What several calls saw, to the last element: the readable engine divides in float32."""
    seen, wanted = joined([seen_of(part) for part in parts]), seen_of(expected)
    np.testing.assert_allclose(seen.density, wanted.density, rtol=0, atol=1e-7)
    np.testing.assert_allclose(seen.density_delta, wanted.density_delta, rtol=0, atol=1e-7)
    np.testing.assert_allclose(seen.work, wanted.work, rtol=0, atol=1e-7)
    assert np.array_equal(seen.key_frame, wanted.key_frame)


def assert_same_selection(
    parts: Sequence[FrameDensities], expected: Sequence[FrameDensities], costs: Sequence[LayerCost]
) -> None:
    """What several calls saw under a threshold, up to what rounding flips now and then.

    That is few elements of a layer in a frame, more of small layers, and very few of all.
    """
    seen, wanted = (joined([seen_of(part) for part in each]) for each in (parts, expected))
    elements = np.array([cost.input_elements for cost in costs])
    for name, share in (("density", 3e-3), ("density_delta", 1e-2)):
        flipped = np.abs(getattr(seen, name) - getattr(wanted, name)) * elements
        assert (flipped <= 4 + np.sqrt(elements) + share * elements).all(), name
        assert flipped.sum(axis=1).max() < 2e-3 * elements.sum(), name
    np.testing.assert_allclose(seen.work, wanted.work, rtol=0, atol=1e-3)


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
