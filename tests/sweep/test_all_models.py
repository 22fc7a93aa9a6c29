"""Every classification CNN of torchvision at its own input size; only when asked for.

RRM_SWEEP=1 pytest tests/sweep
"""

from __future__ import annotations

import os

import pytest
import torch

from rrm_extract.models import list_models
from rrm_extract.rrm import RecurrentNetwork
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.rrm.lively import lively

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("RRM_SWEEP") != "1",
        reason="68 networks at full size, of up to 645 M parameters; RRM_SWEEP=1 asks for it",
    ),
    pytest.mark.timeout(3600),
]

FRAMES = 8


@pytest.mark.parametrize("name", [entry.name for entry in list_models() if entry.is_cnn])
def test_threshold_0_equals_the_ordinary_network(name: str) -> None:
    network = lively(name, frames=FRAMES)
    recurrent = RecurrentNetwork(network.program, threshold=0)
    batches = [recurrent.run(batch)[0] for batch in torch.split(network.inputs, 4)]
    for values, parts in zip(network.expected, zip(*batches, strict=True), strict=True):
        assert relative_l2(values[1:], values[:-1]) > 0.01, "the network ignores its input"
        assert relative_l2(torch.cat(parts), values) < EXACT_RECURRENCE
