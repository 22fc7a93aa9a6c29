"""Which instruction set runs, and how to choose another."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")

from rrm_extract.engine import choose_engine
from rrm_extract.engine.native import isa_of_this_process
from rrm_extract.errors import EngineError
from tests import tiny
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.coarse import clip
from tests.engine.running import ISAS, native, program_of

SHAPE = (3, 32, 32)


def test_there_is_always_the_oracle_and_portable_code() -> None:
    assert ISAS[:2] == ("reference", "portable")


def test_the_best_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for unset in (True, False):  # an empty variable is one that is not set
        if unset:
            monkeypatch.delenv("RRM_ISA", raising=False)
        else:
            monkeypatch.setenv("RRM_ISA", "")
        assert isa_of_this_process() == ISAS[-1]
        assert choose_engine("native").isa == ISAS[-1]
    assert native(program_of(tiny.network()), SHAPE).isa == ISAS[-1]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("isa", ISAS)
def test_each_one_runs_when_forced(
    isa: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RRM_ISA", isa)
    assert choose_engine("native").isa == isa
    frames = clip(SHAPE, ["few", "all"], generator=torch.Generator().manual_seed(0))
    module = tiny.network().eval()
    network = native(program_of(module), SHAPE, isa=isa, threshold=0, precision=precision)
    assert network.isa == isa
    # What the kernels call themselves, not what was asked for.
    assert {lane.isa for lane in network._lanes if lane is not None} == {isa}
    (result,), _ = network.run(frames)
    with torch.inference_mode():
        within = EXACT_RECURRENCE if precision == "fp32" else 0.02
        assert relative_l2(result, module(frames)) < within


def test_a_network_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is in the environment later is for networks that are made later.
    frames = clip(SHAPE, ["few", "all"], generator=torch.Generator().manual_seed(0))
    program = program_of(tiny.network())
    monkeypatch.setenv("RRM_ISA", "portable")
    network = native(program, SHAPE, isa="portable")
    (expected,), _ = network.run(frames)
    monkeypatch.setenv("RRM_ISA", ISAS[-1])
    other = network.fork()
    assert other.isa == network.isa == "portable"
    assert torch.equal(other.run(frames)[0][0], expected)


@pytest.mark.parametrize("name", ["sse9", "AVX2", " "])
def test_an_unknown_one_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RRM_ISA", name)
    for ask in (isa_of_this_process, lambda: choose_engine("native")):
        with pytest.raises(EngineError) as caught:
            ask()
        message = str(caught.value)
        assert "\n" not in message
        for part in (repr(name), "RRM_ISA", *ISAS):
            assert part in message
    with pytest.raises(EngineError, match="RRM_ISA"):
        native(program_of(nn.Conv2d(3, 3, 1)), SHAPE, isa=name)
