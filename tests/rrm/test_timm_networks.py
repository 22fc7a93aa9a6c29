"""timm writes its networks in its own way: some of it has been folded wrongly before."""

from __future__ import annotations

import pytest

from rrm_extract.rrm import RecurrentNetwork
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.rrm.lively import lively

NETWORKS = {
    "efficientnet_b0": 82,  # and how many of its layers are recurrent
    "mobilenetv3_small_050": 54,
    "ghostnet_050": 96,
    "regnety_002": 71,
    "convnext_atto": 41,
    "repvgg_a0": 45,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_threshold_0_equals_the_ordinary_network(name: str) -> None:
    pytest.importorskip("timm", reason="the extra `timm` is not installed")
    network = lively(f"timm/{name}", frames=8, size=64)
    recurrent = RecurrentNetwork(network.program, threshold=0)
    batch, _ = recurrent.run(network.inputs)
    assert len(network.program.linear_ops) == NETWORKS[name]
    for values, together in zip(network.expected, batch, strict=True):
        assert relative_l2(values[1:], values[:-1]) > 0.01, "the network ignores its input"
        assert relative_l2(together, values) < EXACT_RECURRENCE
