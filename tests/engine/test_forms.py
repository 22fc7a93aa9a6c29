"""From which density on layers run dense."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

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


def widening(outputs: int, precision: str = "fp32") -> float:
    """Of a 1x1 layer of so many outputs."""
    module = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, outputs, 1))
    found = break_evens(native(program_of(module), (3, 12, 12), precision=precision))
    return list(found.values())[-1]


def test_layers_of_few_products_run_dense_early() -> None:
    few, some, many, more = (widening(outputs) for outputs in (16, 96, 384, 1000))
    assert 0 < few < 0.2 < some < many == more < 1


def test_two_products_count_as_one_in_bfloat16() -> None:
    share = widening(2000, "bf16") / widening(1000)
    assert 0.5 < share < 1
    assert widening(256, "bf16") == pytest.approx(share * widening(128))


def test_products_of_layers_with_the_same_input_are_added_up() -> None:
    found = break_evens(native(program_of(Branches(added=False)), (3, 12, 12)))
    assert found["few"] == found["more"] == pytest.approx(widening(128))


def test_what_is_kept_for_others_is_searched_longer() -> None:
    """Dense frames may have to copy it."""
    alone = break_evens(native(program_of(Branches(added=False)), (3, 12, 12)))
    shared = break_evens(native(program_of(Branches(added=True)), (3, 12, 12)))
    assert shared["last"] == alone["last"]
    assert shared["few"] >= alone["few"]
    module = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), Sum())
    found = list(break_evens(native(program_of(module), (3, 12, 12))).values())[-1]
    assert found > widening(32)


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
