"""An observer sees the deltas that are propagated, and changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rrm_extract.graph import Op, fold_batch_norm, trace
from rrm_extract.rrm import Policy, RecurrentNetwork
from tests.rrm.videos import moving_frames
from tests.tiny import network


def recurrent(policy: Policy = "bounded", threshold: float = 0.05) -> RecurrentNetwork:
    return RecurrentNetwork(
        fold_batch_norm(trace(network().eval())), threshold=threshold, policy=policy
    )


@pytest.mark.parametrize("policy", ["bounded", "paper"])
def test_what_is_seen_is_what_is_counted(policy: Policy) -> None:
    frames = moving_frames(6, 32)
    plain, watched = recurrent(policy), recurrent(policy)
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def observer(op: Op, deltas: Tensor, dense: Tensor) -> None:
        seen.setdefault(op.name, []).append((deltas.clone(), dense.clone()))

    watched.observe(observer)
    for part in (frames[:4], frames[4:]):
        (expected,), _ = plain.run(part)
        (output,), counted = watched.run(part)
        assert torch.equal(output, expected)
        for layer, (name, shown) in enumerate(seen.items()):
            assert name == watched.program.linear_ops[layer].name
            deltas, dense = shown[-1]
            share = (deltas != 0).flatten(1).double().mean(1)
            assert torch.allclose(share, counted.density_delta[:, layer], atol=1e-6)
            assert torch.equal(dense, counted.key_frame)
    assert len(seen) == 4
    assert all(len(shown) == 2 for shown in seen.values())
    (first, dense), (later, _) = seen["features.0"]
    assert dense.tolist() == [True, False, False, False]
    assert torch.equal(first[0, 0], frames[0])
    nonzero = later[later != 0]
    assert len(nonzero)
    assert nonzero.abs().min() > 0.05


def test_a_frame_that_is_not_finite_is_dense() -> None:
    frames = moving_frames(3, 32)
    frames[1, 0, 3, 3] = float("nan")
    watched = recurrent()
    seen = []
    watched.observe(lambda op, deltas, dense: seen.append((op.name, deltas, dense.tolist())))
    watched.step(frames[0])
    seen.clear()
    watched.step(frames[1])
    name, deltas, dense = seen[0]
    assert (name, dense) == ("features.0", [True])
    assert torch.equal(deltas[0, 0].isnan(), frames[1].isnan())


def test_a_first_frame_that_was_interrupted_was_not_taken() -> None:
    def interrupted(op: Op, deltas: Tensor, dense: Tensor) -> None:
        raise KeyboardInterrupt

    frames = moving_frames(4, 32)
    watched, shown = recurrent(), []
    watched.observe(interrupted)
    with pytest.raises(KeyboardInterrupt):
        watched.step(frames)  # four lanes
    watched.observe(lambda op, deltas, dense: shown.append(dense.tolist()))
    assert torch.equal(watched.step(frames[0]), recurrent().step(frames[0]))
    assert shown == [[True]] * 4, "a key frame in each layer"
