"""What is measured: errors against a known perturbation, and runs in rounds."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import network_bench
import pytest
import torch
from network_bench import Measurement, Plan, baseline_peers, best_of, feature_errors, measure
from peers import Peer
from subjects import load_subject
from torch import Tensor

from tests.tiny import MODEL


class Pretended(Peer):
    """Gives prepared features after a while, and writes down its turns."""

    precision = "fp32"

    def __init__(
        self, name: str, turns: list[str], features: Tensor, *, seconds: float = 0.0
    ) -> None:
        self.runtime, self.threads = name, 1
        self.turns, self.features, self.seconds = turns, features, seconds

    def prepare(self) -> None:
        pass

    def run(self, frames: Tensor) -> Tensor:
        self.turns.append(self.runtime)
        time.sleep(self.seconds)
        return self.features[: len(frames)]


class Counting(Pretended):
    """Also says where its time goes."""

    def density(self) -> float | None:
        return 0.25

    def stages(self) -> Mapping[str, float]:
        # Three seconds of convolution for every run there has been.
        return {"convolution": 3.0 * self.turns.count(self.runtime)}


class Batches(Pretended):
    """Takes whole batches alone, and writes down how many frames it was given."""

    width = 5

    def __init__(self, batch: int, lengths: list[int]) -> None:
        super().__init__("batches", [], torch.empty(0))
        self.batch, self.lengths = batch, lengths

    def run(self, frames: Tensor) -> Tensor:
        assert len(frames) % self.batch == 0
        self.lengths.append(len(frames))
        return torch.zeros(len(frames), self.width)


def features(frames: int) -> Tensor:
    return torch.randn(frames, 5, generator=torch.Generator().manual_seed(0))


def test_the_error_is_that_of_a_known_perturbation() -> None:
    reference = features(3)
    # Perpendicular to the second frame, and of a tenth of its length.
    across = torch.linalg.qr(reference[1:2].T, mode="complete").Q[:, 1]
    result = reference.clone()
    result[1] += 0.1 * reference[1].norm() * across
    result[2] *= 1.01
    expected = torch.tensor([0.0, 0.1, 0.01], dtype=torch.float64)
    torch.testing.assert_close(feature_errors(result, reference), expected, rtol=1e-4, atol=0)


def test_a_feature_of_zeros_has_no_error_or_an_infinite_one() -> None:
    result = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    assert feature_errors(result, torch.zeros(2, 2)).tolist() == [0.0, math.inf]


def test_runtimes_take_turns() -> None:
    turns: list[str] = []
    expected = features(4)
    peers = [Pretended(name, turns, expected) for name in ("a", "b", "c")]
    measured = measure(peers, torch.zeros(4, 1), expected, repeats=3)
    # One run each for the error, then rounds in which each wakes up and is timed.
    assert "".join(turns) == "abc" + 3 * "aabbcc"
    assert [len(m.rates) for m in measured] == [3, 3, 3]


def test_rates_errors_and_densities_belong_to_their_peer() -> None:
    turns: list[str] = []
    expected = features(4)
    peers = [
        Pretended("fast", turns, expected),
        Pretended("slow", turns, 1.5 * expected, seconds=0.02),
        Counting("counts", turns, expected),
    ]
    fast, slow, counts = measure(peers, torch.zeros(4, 1), expected, repeats=2)
    assert slow.rate < 4 / 0.02 < fast.rate
    assert float(fast.errors.max()) == 0
    assert slow.errors.tolist() == pytest.approx([0.5] * 4)
    assert (fast.density, counts.density) == (None, 0.25)
    # Timed runs only: two of them, with four frames each.
    assert counts.stages == {"convolution": pytest.approx(1000 * 3.0 / 4)}
    assert slow.stages == {"network": pytest.approx(1000 / slow.rate)}


def test_the_best_setting_of_each_runtime_is_kept() -> None:
    nothing = torch.empty(0)
    first, second, other = (Pretended(name, [], nothing) for name in ("a", "a", "b"))
    measured = [
        Measurement(first, rates=[1.0, 100.0, 2.0]),
        Measurement(second, rates=[3.0, 3.0, 3.0]),
        Measurement(other, rates=[1.0]),
    ]
    assert [m.peer for m in best_of(measured)] == [second, other]


def test_every_threshold_is_kept() -> None:
    peers = [Pretended("a", [], torch.empty(0)) for _ in range(2)]
    peers[0].threshold, peers[1].threshold = 0.0, 0.1
    measured = [Measurement(peer, rates=[1.0]) for peer in peers]
    assert best_of(measured) == measured


@pytest.mark.parametrize(
    ("frames", "trial_frames", "threads", "batches", "trial"),
    [
        (32, 2, 1, (1, 8, 16), 16),
        (48, 8, 2, (1, 8, 16), 32),
        (48, 20, 1, (1, 8, 16), 32),
        (48, 8, 4, (1, 8, 16), 48),
        (16, 8, 2, (1, 8, 16), 16),
        (24, 2, 1, (1, 8), 8),
        (6, 2, 1, (1,), 2),
        (1, 2, 2, (1,), 1),
    ],
)
def test_every_batch_that_fits_the_clip_is_tried_on_every_thread(
    frames: int,
    trial_frames: int,
    threads: int,
    batches: tuple[int, ...],
    trial: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []
    lengths: list[int] = []

    def candidates(*_: object, **options: Any) -> list[Peer]:
        tried.extend(options["batches"])
        return [Batches(batch, lengths) for batch in options["batches"]]

    monkeypatch.setattr(network_bench, "baseline_candidates", candidates)
    subject = load_subject(MODEL)
    plan = Plan(
        thresholds=(),
        baselines=("torch",),
        precisions=("fp32",),
        trial_frames=trial_frames,
        trial_rounds=1,
        pause=0,
        wake=1,
    )
    clips = {"clip": torch.zeros(frames, 1)}
    chosen = baseline_peers(subject, subject.dense(), clips, plan, threads)
    assert tuple(tried) == batches
    assert len(chosen) == min(2, len(batches))
    # A first run and a timed one, and a batch to wake up.
    assert sorted(lengths) == sorted([*2 * len(batches) * [trial], *batches])


def test_a_short_clip_keeps_no_rival_of_another_from_its_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calibrated: list[Tensor] = []

    def candidates(*_: object, **options: Any) -> list[Peer]:
        calibrated.append(options["calibration"])
        return [Batches(options["batches"][-1], [])]

    monkeypatch.setattr(network_bench, "baseline_candidates", candidates)
    subject = load_subject(MODEL)
    monkeypatch.setattr(Batches, "width", 16)
    plan = Plan(
        thresholds=(), baselines=("torch",), precisions=("fp32",), repeats=1, trial_rounds=1,
        pause=0, wake=1,
    )  # fmt: skip
    shape = subject.recipe.input_shape
    clips = {name: torch.zeros(count, *shape) for name, count in (("a", 6), ("b", 16), ("c", 5))}
    records = network_bench.bench_subject(subject, clips, plan)
    assert [(r["clip"], r["rivals_largest_batch"]) for r in records] == [
        ("a", 1), ("b", 16), ("c", 1),
    ]  # fmt: skip
    # Whatever the batches, quantised networks are made with frames of all clips.
    assert len(calibrated) == 2
    assert torch.equal(calibrated[0], calibrated[1])
    assert len(calibrated[0]) > 6
    assert [r["settings"] for r in records] == [Batches(n, []).settings for n in (1, 16, 1)]
