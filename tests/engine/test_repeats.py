"""Frames that are the one before once more."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")

from rrm_extract.engine import NativeNetwork
from rrm_extract.engine import compiled as compiled_module
from rrm_extract.engine.compiled import CompiledNetwork, NotFiniteError
from rrm_extract.engine.repeats import Repeats
from rrm_extract.engine.seen import Seen
from rrm_extract.graph import trace
from tests.engine.running import native, program_of

SHAPE = (3, 12, 12)


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(8 * 144, 5)),
    )


def network(**options: Any) -> NativeNetwork:
    return native(program_of(module()), SHAPE, **{"threshold": 0.01, **options})


def frames_of(*numbers: int) -> Tensor:
    """Frames of noise, of which equal numbers are equal frames."""
    some = torch.randn(max(numbers) + 1, *SHAPE, generator=torch.Generator().manual_seed(1))
    return some[list(numbers)]


class Counter:
    """A network whose output is the sum of a frame, and that knows what it computed."""

    def __init__(self) -> None:
        self.computed: list[float] = []

    def __call__(self, frames: np.ndarray[Any, Any]) -> tuple[tuple[Any, ...], Seen]:
        sums = frames.reshape(len(frames), -1).sum(axis=1)
        self.computed += sums.tolist()
        ones = np.ones((len(frames), 1))
        seen = Seen(
            density=ones * sums[:, None],
            density_delta=ones,
            key_frame=np.ones(len(frames), bool),
            work=ones[:, 0],
            truncated=ones * sums[:, None],
        )
        return (sums,), seen


@pytest.mark.parametrize("loses", [False, True])
@pytest.mark.parametrize("sizes", [[9], [1] * 9, [3, 3, 3], [2, 5, 2], [4, 1, 4]])
def test_only_other_frames_are_computed(sizes: list[int], loses: bool) -> None:
    shown = np.array([1, 1, 2, 2, 2, 3, 1, 1, 1], np.float32)[:, None]
    counter = Counter()
    repeats: Repeats[Any] = Repeats(np.concatenate, loses=loses)
    results = [
        repeats.run(part, counter) for part in np.split(shown, np.cumsum(sizes)[:-1].tolist())
    ]
    assert counter.computed == [1, 2, 3, 1]
    again = np.concatenate([result[2] for result in results])
    assert again.tolist() == [False, True, False, True, True, False, False, True, True]
    assert np.concatenate([result[0][0] for result in results]).tolist() == shown[:, 0].tolist()
    seen = [result[1] for result in results]
    assert np.concatenate([one.density[:, 0] for one in seen]).tolist() == shown[:, 0].tolist()
    for name in ("density_delta", "work", "key_frame"):
        values = np.concatenate([getattr(one, name).reshape(-1) for one in seen])
        assert values.tolist() == (~again).astype(float).tolist(), name
    truncated = np.concatenate([one.truncated[:, 0] for one in seen if one.truncated is not None])
    assert truncated.tolist() == np.where(again & loses, 0, shown[:, 0]).tolist()


def test_what_is_not_a_number_is_computed_again() -> None:
    counter = Counter()
    frames = np.full((2, 40), 1, np.float32)
    frames[:, -1] = np.nan
    Repeats[Any](np.concatenate, loses=False).run(frames, counter)
    assert len(counter.computed) == 2


@pytest.mark.parametrize("threshold", [0.0, 0.5])
@pytest.mark.parametrize("policy", ["bounded", "paper"])
def test_nothing_is_done_where_layers_run_dense(threshold: float, policy: str) -> None:
    once, numbers = frames_of(*range(6)), [0, 1, 1, 2, 3, 3, 3, 4, 5, 5]
    plain, again = (network(threshold=threshold, policy=policy, batch=4) for _ in range(2))
    (expected,), alone = plain.run(once)
    (result,), seen = again.run(once[numbers])
    repeated = torch.tensor([False, *(a == b for a, b in itertools.pairwise(numbers))])
    # Which frames share a batch decides which layers run dense.
    torch.testing.assert_close(
        result, expected[numbers], rtol=1e-5, atol=1e-5 if threshold == 0 else 0.2
    )
    assert torch.equal(result[2], result[1])
    assert (seen.work[repeated] == 0).all()
    assert (seen.density_delta[repeated] == 0).all()
    assert (seen.work[~repeated] > 0).all()
    assert seen.key_frame.tolist()[0]
    assert not seen.key_frame[repeated].any()
    torch.testing.assert_close(seen.density, alone.density[numbers])


def test_statistics_count_them() -> None:
    once = network(batch=1)
    once.run(frames_of(0, 1))
    twice = network(batch=1)
    twice.run(frames_of(0, 1, 1, 1))
    for one, two in zip(once.stats(), twice.stats(), strict=True):
        assert two.density_delta == pytest.approx(one.density_delta / 3)


def test_what_a_caller_does_with_densities_changes_no_later_ones() -> None:
    net, frame = network(), frames_of(0)
    net.track()
    names = ("density", "density_delta", "work", "truncated")
    _, seen = net.run(frame)
    expected = {name: getattr(seen, name).clone() for name in ("density", "truncated")}
    for name in names:
        getattr(seen, name).add_(100)
    _, again = net.run(frame)
    for name, values in expected.items():
        assert torch.equal(getattr(again, name), values), name
    assert [cost.density for cost in net.stats()] == pytest.approx(expected["density"][0].tolist())


def forgets(net: Any, what: str) -> None:
    if what == "scale":
        net.scale_thresholds(0.5)
    else:
        getattr(net, what)()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("what", ["reset", "key_frame", "track", "scale"])
def test_another_state_computes_the_frame_again(what: str, compiled: bool) -> None:
    net: Any = network()
    if compiled:
        net = CompiledNetwork(net.compiled())
    frame: Any = frames_of(0) if not compiled else frames_of(0).numpy()
    net.run(frame)
    _, seen = net.run(frame)
    assert float(seen.work[0]) == 0
    forgets(net, what)
    _, seen = net.run(frame)
    assert float(seen.work[0]) == (0 if what == "scale" else 1)
    assert bool(seen.key_frame[0]) == (what != "scale")


def test_a_smaller_threshold_shows_what_was_held_back() -> None:
    frames = frames_of(0, 0)
    frames[1] += 0.3
    net = network(threshold=0.5, adaptive=False)
    _, first = net.run(frames)
    assert float(first.work[1]) < 0.05
    net.scale_thresholds(0.1)
    _, seen = net.run(frames[1:])
    assert float(seen.density_delta[0, 0]) == 1


@pytest.mark.parametrize("compiled", [False, True])
def test_frames_after_what_is_not_finite(compiled: bool) -> None:
    frames = frames_of(0, 1, 1, 1)
    frames[0, 0, 0, 0] = float("nan")
    net = network()
    if compiled:
        lane = CompiledNetwork(net.compiled())  # type: ignore[arg-type]
        with pytest.raises(NotFiniteError):
            lane.run(frames.numpy())
        _, after = lane.run(frames[1:2].numpy())
        assert after.key_frame[0]
        return
    (result,), _ = net.run(frames)
    with torch.inference_mode():
        expected = module()(frames)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4, equal_nan=True)
    _, seen = net.run(frames[1:2])
    assert seen.key_frame[0], "the frame that follows is computed from nothing"


class Refusing(nn.Module):
    """Two layers with an operation between them that may refuse a frame."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 16, 3, padding=1)
        self.after = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.after(fails_once(self.before(x)))
        return result


REFUSES: list[bool] = []


def fails_once(x: Tensor) -> Tensor:
    if REFUSES and REFUSES.pop(0):
        raise MemoryError
    return x.sin()


@pytest.mark.parametrize("good", [0, 1])
def test_a_frame_that_could_not_be_computed_is_computed_again(good: int) -> None:
    torch.manual_seed(0)
    program = trace(Refusing().eval(), leaf_functions=[fails_once])
    net = native(program, SHAPE, threshold=0.01)
    frames = frames_of(0, 1)
    if good:
        net.run(frames[:1])
    REFUSES[:] = [True]
    with pytest.raises(MemoryError):
        net.run(frames[1:])
    (result,), seen = net.run(frames[1:])
    assert float(seen.work[0]) == 1
    assert seen.key_frame[0], "some layers had seen the frame and others not"
    torch.testing.assert_close(result, program(frames[1:])[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("good", [0, 1])
def test_the_same_without_torch(good: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = network().compiled()
    assert plan is not None
    net, frames = CompiledNetwork(plan), frames_of(0, 1)
    if good:
        net.run(frames[:1].numpy())
    with monkeypatch.context() as patch:
        patch.setattr(compiled_module, "_output", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            net.run(frames[1:].numpy())
    (result,), seen = net.run(frames[1:].numpy())
    assert seen.key_frame[0]
    with torch.inference_mode():
        expected = module()(frames[1:])
    np.testing.assert_allclose(result, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_an_interrupt_leaves_nothing_to_repeat() -> None:
    def interrupted(_: object) -> Any:
        raise KeyboardInterrupt

    repeats: Repeats[Any] = Repeats(np.concatenate, loses=False)
    frame = np.ones((1, 4), np.float32)
    with pytest.raises(KeyboardInterrupt):
        repeats.run(frame, interrupted)
    counter = Counter()
    assert repeats.run(frame, counter)[0][0].tolist() == [4]
    assert counter.computed == [4]
