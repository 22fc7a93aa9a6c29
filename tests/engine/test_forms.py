"""From which density on layers run dense."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")

from rrm_extract.engine import NativeNetwork
from rrm_extract.engine.parts import Part
from rrm_extract.engine.plan import ConvStep
from tests.engine.running import native, program_of


class Branches(nn.Module):
    """Two layers of 16 and 112 products for each number of what the first layer makes."""

    def __init__(self, *, added: bool) -> None:
        super().__init__()
        self.added = added
        self.first = nn.Conv2d(3, 32, 3, padding=1)
        self.few = nn.Conv2d(32, 16, 1)
        self.more = nn.Conv2d(32, 112, 1)
        self.last = nn.Conv2d(128, 32, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        y: Tensor = self.last(torch.cat([self.few(x), self.more(x)], 1))
        return y + x if self.added else y


def break_evens(network: NativeNetwork) -> dict[str, float]:
    """By layer."""
    steps = [step for part in network.sequence if isinstance(part, Part) for step in part.steps]
    return {step.name: step.delta.break_even for step in steps if isinstance(step, ConvStep)}


def widening(outputs: int, precision: str = "fp32", *, inputs: int = 32) -> float:
    """Of a 1x1 layer of so many outputs."""
    module = nn.Sequential(nn.Conv2d(3, inputs, 3, padding=1), nn.Conv2d(inputs, outputs, 1))
    found = break_evens(native(program_of(module), (3, 12, 12), precision=precision))
    return list(found.values())[-1]


def test_layers_of_few_products_run_dense_early() -> None:
    few, some, many, more = (widening(outputs) for outputs in (16, 96, 384, 1000))
    assert 0 < few < 0.2 < some < many == more < 1


def test_in_bfloat16_products_of_an_output_count_as_those_of_an_input() -> None:
    few, some, many = (widening(1000, "bf16", inputs=inputs) for inputs in (32, 64, 1000))
    assert 0 < few < some < many < widening(1000)
    assert widening(64, "bf16", inputs=1000) == pytest.approx(some)
    module = nn.Sequential(
        nn.Conv2d(3, 256, 3, padding=1), nn.Conv2d(256, 256, 3, padding=1, stride=2)
    )
    found = break_evens(native(program_of(module), (3, 12, 12), precision="bf16"))
    assert list(found.values())[-1] > widening(576, "bf16", inputs=256), "several taps"


def test_products_of_layers_with_the_same_input_are_added_up() -> None:
    found = break_evens(native(program_of(Branches(added=False)), (3, 12, 12)))
    assert found["few"] == found["more"] == pytest.approx(widening(128))


def test_what_is_kept_for_others_is_searched_longer() -> None:
    """Dense frames may have to copy it."""
    alone = break_evens(native(program_of(Branches(added=False)), (3, 12, 12)))
    shared = break_evens(native(program_of(Branches(added=True)), (3, 12, 12)))
    assert shared["last"] == alone["last"]
    assert shared["few"] >= alone["few"]
    assert summed("fp32") > widening(32)
    assert summed("bf16") == widening(32, "bf16"), "there is one copy for all"


def summed(precision: str) -> float:
    """Of a 1x1 layer whose input is added to what it makes."""
    module = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), Sum())
    found = break_evens(native(program_of(module), (3, 12, 12), precision=precision))
    return list(found.values())[-1]


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(32, 32, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.layer(x))


def test_lists_alone_where_nothing_may_adapt() -> None:
    program = program_of(Branches(added=False))
    found = break_evens(native(program, (3, 12, 12), adaptive=False))
    assert min(found.values()) > 1
