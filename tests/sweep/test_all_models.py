"""Every classification CNN of torchvision at its own input size; only when asked for.

RRM_SWEEP=1 pytest tests/sweep
"""

from __future__ import annotations

import os

import pytest
import torch

from rrm_extract.engine import NativeNetwork
from rrm_extract.models import list_models
from rrm_extract.rrm import RecurrentNetwork
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.engines import needs_native
from tests.rrm.lively import lively

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("RRM_SWEEP") != "1",
        reason="68 networks at full size, of up to 645 M parameters; RRM_SWEEP=1 asks for it",
    ),
    pytest.mark.timeout(3600),
]

FRAMES = 8
BATCH = 4
"""Two batches, in which early layers take one or two frames at a time."""
WITHIN = {"fp32": EXACT_RECURRENCE, "bf16": 0.03}

NAMES = [entry.name for entry in list_models() if entry.is_cnn and entry.source == "torchvision"]
NO_KERNEL = {"convnext": {"GELU", "LayerNorm", "layer_norm with a constant"}}
"""What the native engine leaves to PyTorch, by the first part of a network's name."""


@pytest.mark.parametrize("name", NAMES)
def test_threshold_0_equals_the_ordinary_network(name: str) -> None:
    network = lively(name, frames=FRAMES)
    recurrent = RecurrentNetwork(network.program, threshold=0)
    batches = [recurrent.run(batch)[0] for batch in torch.split(network.inputs, 4)]
    for values, parts in zip(network.expected, zip(*batches, strict=True), strict=True):
        assert relative_l2(values[1:], values[:-1]) > 0.01, "the network ignores its input"
        assert relative_l2(torch.cat(parts), values) < EXACT_RECURRENCE


@needs_native
@pytest.mark.parametrize(
    ("precision", "adaptive"), [("fp32", True), ("fp32", False), ("bf16", True)]
)
@pytest.mark.parametrize("name", NAMES)
def test_the_native_engine_equals_the_ordinary_network(
    name: str, precision: str, adaptive: bool
) -> None:
    network = lively(name, frames=FRAMES)
    channels, height, width = network.inputs.shape[1:]
    native = NativeNetwork(
        network.program,
        input_shape=(channels, height, width),
        threshold=0,
        precision=precision,
        adaptive=adaptive,
        batch=BATCH,
    )
    unknown = NO_KERNEL.get(name.partition("_")[0], set())
    reasons = set(dict(native.islands).values())
    assert reasons == {f"no kernel for {operation}" for operation in unknown}
    results, _ = native.run(network.inputs)
    for values, result in zip(network.expected, results, strict=True):
        assert relative_l2(result, values) < WITHIN[precision]


@needs_native
@pytest.mark.parametrize("name", NAMES)
def test_the_native_engine_selects_as_the_readable_one(name: str) -> None:
    from tests.engine.running import assert_same_selection, native

    network = lively(name, frames=FRAMES)
    shape = network.inputs.shape[1:]
    mine = native(network.program, shape, threshold=1e-2, adaptive=False, batch=BATCH)
    results, seen = mine.run(network.inputs)
    other = RecurrentNetwork(network.program, threshold=1e-2)
    expected, densities = zip(*map(other.run, torch.split(network.inputs, BATCH)), strict=True)
    for parts, result in zip(zip(*expected, strict=True), results, strict=True):
        assert relative_l2(result, torch.cat(parts)) < 1e-2
    assert_same_selection([seen], densities, other.stats())
