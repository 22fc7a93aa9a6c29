"""One small network of every family, on a real video."""

from __future__ import annotations

import io
import pickle

import pytest
import torch
from torch import Tensor

from rrm_extract.models import list_models
from rrm_extract.rrm import RecurrentNetwork, overall_density
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.rrm.lively import FAMILIES, Lively, lively

FRAMES = 8


@pytest.fixture(scope="module", params=FAMILIES)
def network(request: pytest.FixtureRequest) -> Lively:
    return lively(request.param, frames=FRAMES, size=FAMILIES[request.param])


def test_every_family_is_here() -> None:
    entries = {
        entry.name: entry
        for entry in list_models()
        if entry.is_cnn and entry.source == "torchvision"
    }
    assert {entries[name].family for name in FAMILIES} == {e.family for e in entries.values()}


def test_the_networks_answer_to_their_input(network: Lively) -> None:
    # Or else the tests below could not fail: a network that says the same to every frame is
    # equalled by one that never updates.
    for values in network.expected:
        assert 0.03 < relative_l2(values[1:], values[:-1]) < 1


class _WithoutTensors(pickle.Pickler):
    def persistent_id(self, item: object) -> str | None:
        return "tensor" if isinstance(item, Tensor) else None


def test_workers_can_be_told_of_them(network: Lively) -> None:
    _WithoutTensors(io.BytesIO()).dump(network.program)


def test_threshold_0_equals_the_ordinary_network(network: Lively) -> None:
    recurrent = RecurrentNetwork(network.program, threshold=0)
    steps = [recurrent.step(frame) for frame in network.inputs]
    recurrent.reset()
    batch, _ = recurrent.run(network.inputs)
    for values, one_by_one, together in zip(
        network.expected, zip(*steps, strict=True), batch, strict=True
    ):
        assert relative_l2(torch.stack(one_by_one), values) < EXACT_RECURRENCE
        assert relative_l2(together, values) < EXACT_RECURRENCE


def test_a_threshold_saves_work_for_a_small_error(network: Lively) -> None:
    exact = RecurrentNetwork(network.program, threshold=0)
    exact.run(network.inputs)
    recurrent = RecurrentNetwork(network.program, threshold=1e-2)
    batch, _ = recurrent.run(network.inputs)
    density = overall_density(recurrent.stats())
    assert 0 < density < overall_density(exact.stats()) < 1
    for values, together in zip(network.expected, batch, strict=True):
        error = relative_l2(together, values)
        assert EXACT_RECURRENCE < error < 0.3 * relative_l2(values[1:], values[:-1])
