from __future__ import annotations

import pytest
import torch

from rrm_extract.rrm import Policy, truncated_deltas


def deltas_one_by_one(
    x: torch.Tensor, snapshot: torch.Tensor, threshold: float, policy: Policy
) -> tuple[torch.Tensor, torch.Tensor]:
    """The definition, element by element."""
    deltas = torch.zeros_like(x)
    snapshot = snapshot.clone()
    for t in range(len(x)):
        for i in range(x.shape[1]):
            d = x[t, i] - snapshot[i]
            if abs(d) > threshold:
                deltas[t, i] = d
                snapshot[i] = x[t, i]
            elif policy == "paper":
                snapshot[i] = x[t, i]
    return deltas, snapshot


@pytest.mark.parametrize("policy", ["bounded", "paper"])
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 10.0])
def test_equals_the_definition(policy: Policy, threshold: float) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(6, 40, generator=generator).cumsum(0) * 0.2
    x[3, :10] = x[2, :10]
    snapshot = torch.randn(40, generator=generator) * 0.2
    expected, after = deltas_one_by_one(x, snapshot, threshold, policy)
    deltas, kept = truncated_deltas(x, snapshot, threshold=threshold, policy=policy)
    assert torch.equal(deltas, expected)
    assert torch.equal(kept, after)


def test_bounded_is_never_further_than_the_threshold_from_the_truth() -> None:
    x = torch.linspace(0, 1, 101)[:, None]  # steps of 0.01: each alone is under the threshold
    _, bounded = truncated_deltas(x, torch.zeros(1), threshold=0.05, policy="bounded")
    deltas, _ = truncated_deltas(x, torch.zeros(1), threshold=0.05, policy="paper")
    assert abs(float(bounded) - 1) <= 0.05
    assert float(deltas.sum()) == 0, "the paper's policy loses a slow drift altogether"


def test_not_a_number_is_propagated() -> None:
    x = torch.tensor([[1.0, float("nan")]])
    deltas, _ = truncated_deltas(x, torch.zeros(2), threshold=5.0, policy="bounded")
    assert deltas[0, 0] == 0
    assert torch.isnan(deltas[0, 1])
