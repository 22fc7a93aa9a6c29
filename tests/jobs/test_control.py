"""Key frames and thresholds, decided for a made-up network whose truncation is known."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rrm_extract.engine.seen import Seen, joined
from rrm_extract.jobs.control import (
    AccumulatedControl,
    Control,
    ControlledNetwork,
    Outputs,
    TargetControl,
    Watch,
    relative_errors,
)
from rrm_extract.rrm.aecs import AccumulatedError
from rrm_extract.rrm.estimate import ErrorEstimate
from rrm_extract.rrm.governor import FIRST_PROBE, FIRST_SCALE, LONGEST_GAP

LINEAR = AccumulatedError(coefficients=(1.0, 0.0, 0.0, 0.0), reach=100.0)
"""The error is a hundredth of what has accumulated."""

GAINS = np.array([1.0, 1.0])


class Core:
    """One layer truncates the frame's first number times the scale, the other nothing.

    The first output is 1 and an error, the second the frame's number. With "paper" errors add up.
    """

    def __init__(self, *, policy: str = "paper", bias: float = 1.0) -> None:
        self.policy = policy
        self.bias = bias
        self.resets = 0
        self.scales: list[float] = []
        self.work = 0.0
        self.asked: list[int] = []
        self._tracks = False
        self._error: float | None = None

    def reset(self) -> None:
        self.resets += 1
        self._error = None

    def key_frame(self) -> None:
        self.reset()

    def track(self) -> None:
        self._tracks = True

    def scale_thresholds(self, factor: float, /) -> None:
        self.scales.append(factor)

    def run(self, x: NDArray[np.float32], /) -> tuple[Outputs, Seen]:
        scale = self.scales[-1] if self.scales else 1.0
        lost, errors, work = np.zeros((len(x), 2)), np.zeros(len(x)), np.zeros(len(x))
        key_frame = np.zeros(len(x), bool)
        for row, change in enumerate(x[:, 0, 0, 0].astype(float)):
            if self._error is None:
                self._error, key_frame[row], work[row] = 0.0, True, 1.0
                continue
            lost[row, 1] = (scale * change) ** 2
            before = self._error if self.policy == "paper" else 0.0
            self._error = before + self.bias * scale * change
            errors[row], work[row] = self._error, 0.25
        self.work += work.sum()
        seen = Seen(
            density=np.ones((len(x), 2)),
            density_delta=np.ones((len(x), 2)),
            key_frame=key_frame,
            work=work,
            truncated=lost if self._tracks else None,
        )
        return (np.float32(1 + errors)[:, None], x[:, 0, 0, 1:]), seen

    def exact(self, x: NDArray[np.float32], /) -> NDArray[np.float32]:
        self.asked += x[:, 0, 0, 1].astype(int).tolist()
        return np.ones((len(x), 1), np.float32)


def frames(changes: Sequence[float]) -> NDArray[np.float32]:
    """(T, 1, 1, 2): what each frame truncates, and its number."""
    return np.array([[[[v, number]]] for number, v in enumerate(changes)], np.float32)


def run(
    core: Core,
    control: Control,
    x: NDArray[np.float32],
    *,
    portions: Sequence[int] = (8,),
    rate: float = 10.0,
    clip: str = "a.mp4",
) -> tuple[Outputs, Seen, Watch, ControlledNetwork]:
    """All frames of one chunk, in portions of these sizes, in turn."""
    network = ControlledNetwork(core, control)
    network.begin(clip)
    parts, begin = [], 0
    while begin < len(x):
        end = min(len(x), begin + portions[len(parts) % len(portions)])
        numbers = range(begin, end)
        parts.append(
            network.run(x[begin:end], samples=numbers, timestamps=[n / rate for n in numbers])
        )
        begin = end
    outputs = tuple(np.concatenate(some) for some in zip(*(p[0] for p in parts), strict=True))
    seen, watch = joined([p[1] for p in parts]), Watch.joined([p[2] for p in parts])
    return outputs, seen, watch, network


def keys(seen: Seen) -> list[int]:
    return np.flatnonzero(seen.key_frame).tolist()


def accumulating(limit: float, **options: object) -> Control:
    scheme = AccumulatedControl(model=LINEAR, limit=limit)
    return Control(cuts=False, scheme=scheme, **options)  # type: ignore[arg-type]


def keeping(
    target: float, *, floor: float = 0.0, ceiling: float = 1.2, **options: object
) -> Control:
    estimate = ErrorEstimate(gains=GAINS, floor=floor)
    scheme = TargetControl(estimate=estimate, target=target, aim=0.8, ceiling=ceiling)
    return Control(cuts=False, scheme=scheme, **options)  # type: ignore[arg-type]


def scenes(*lengths: int) -> NDArray[np.float32]:
    """(T, 1, 32, 32): pictures that stand still, joined."""
    random = np.random.default_rng(0)
    return np.concatenate(
        [np.repeat(random.normal(size=(1, 1, 32, 32)), length, axis=0) for length in lengths]
    ).astype(np.float32)


PORTIONS = [(1,), (3,), (8,), (5, 1, 7), (100,)]


@pytest.mark.parametrize("portions", PORTIONS)
def test_cuts_become_key_frames(portions: tuple[int, ...]) -> None:
    core = Core()
    _, seen, _, network = run(core, Control(), scenes(9, 6, 8), portions=portions)
    assert keys(seen) == [0, 9, 15]
    assert network.events["cuts"] == 2
    assert core.resets == 3
    _, seen, _, network = run(Core(), Control(cuts=False), scenes(9, 6, 8), portions=portions)
    assert keys(seen) == [0]
    assert not network.events["cuts"]


@pytest.mark.parametrize("portions", PORTIONS)
def test_refresh_counts_from_the_last_key_frame(portions: tuple[int, ...]) -> None:
    # A cut at 0.9 s makes the second refresh come 0.5 s later, and not at 1.0 s.
    _, seen, _, network = run(Core(), Control(refresh=0.5), scenes(9, 12), portions=portions)
    assert keys(seen) == [0, 5, 9, 14, 19]
    assert (network.events["cuts"], network.events["refreshes"]) == (1, 3)
    # The end of a round does so as well.
    control = accumulating(0.035, refresh=0.5)
    changes = [0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    _, seen, _, network = run(Core(), control, frames(changes), portions=portions)
    assert keys(seen) == [0, 4, 9]
    assert (network.events["rounds"], network.events["refreshes"]) == (1, 1)


@pytest.mark.parametrize("rate", [10.0, 30.0, 24000 / 1001])
def test_refresh_is_not_put_off_by_rounding(rate: float) -> None:
    control = Control(cuts=False, refresh=3 / rate)
    _, seen, _, _ = run(Core(), control, frames([0] * 400), rate=rate)
    assert keys(seen) == list(range(0, 400, 3))


@pytest.mark.parametrize("portions", PORTIONS)
def test_rounds_end_at_the_exact_frame(portions: tuple[int, ...]) -> None:
    core = Core()
    outputs, seen, watch, network = run(
        core, accumulating(0.035), frames([1] * 20), portions=portions
    )
    # A of 1, 2, 3 is let pass, 4 is not.
    assert keys(seen) == [0, 4, 8, 12, 16]
    expected = np.array([0, 1, 2, 3] * 5)
    np.testing.assert_allclose(outputs[0][:, 0], 1 + expected)
    np.testing.assert_allclose(watch.estimate, expected / 100, rtol=1e-4, atol=1e-9)
    assert np.isnan(watch.audit_error).all()
    assert network.events["rounds"] == 4
    assert network.events["beyond_data"] == 0


def test_a_round_ends_where_the_data_end() -> None:
    model = AccumulatedError(coefficients=(0.01, 0.0, 0.0, 0.0), reach=2.5)
    control = Control(cuts=False, scheme=AccumulatedControl(model=model, limit=0.5))
    _, seen, _, network = run(Core(), control, frames([1] * 8))
    assert keys(seen) == [0, 3, 6]
    assert network.events["beyond_data"] == network.events["rounds"] == 2


def test_frames_that_were_computed_for_nothing_are_work() -> None:
    core = Core()
    _, seen, _, network = run(core, accumulating(0.035), frames([1] * 8))
    assert network.events["recomputed"] == 4
    assert seen.work.tolist() == [1, 0.25, 0.25, 0.25, 1 + 4 * 0.25, 0.25, 0.25, 0.25]
    assert seen.work.sum() == core.work
    # Frame by frame only the first one over the limit is computed twice.
    core = Core()
    _, seen, _, network = run(core, accumulating(0.035), frames([1] * 8), portions=(1,))
    assert network.events["recomputed"] == 1
    assert seen.work[4] == 1.25
    assert seen.work.sum() == core.work


@given(
    changes=st.lists(st.sampled_from([0.0, 0.1, 1.0, 3.0, 50.0, 1e4]), min_size=1, max_size=40),
    portions=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    limit=st.sampled_from([1e-9, 0.02, 0.5, 1e9]),
    scheme=st.sampled_from(["none", "accumulated", "target"]),
    refresh=st.sampled_from([None, 0.05, 0.35]),
    audit=st.sampled_from([0.0, 0.3, 1.0]),
    floor=st.sampled_from([0.0, 1e-4, 4.0]),
)
@settings(max_examples=150, deadline=None)
def test_all_frames_come_out_in_order(
    changes: list[float],
    portions: list[int],
    limit: float,
    scheme: str,
    refresh: float | None,
    audit: float,
    floor: float,
) -> None:
    control = {
        "none": Control(cuts=False, refresh=refresh, audit=audit),
        "accumulated": accumulating(limit, refresh=refresh, audit=audit),
        "target": keeping(limit, floor=floor, refresh=refresh, audit=audit),
    }[scheme]
    core, x = Core(), frames(changes)
    outputs, seen, watch, network = run(core, control, x, portions=portions)
    assert outputs[1][:, 0].tolist() == list(range(len(x)))
    assert all(len(output) == len(x) for output in outputs)
    assert {len(seen), len(watch.estimate), len(watch.audit_error)} == {len(x)}
    assert seen.key_frame[0]
    assert seen.work.sum() == pytest.approx(core.work), "work is neither lost nor made up"
    np.testing.assert_allclose(outputs[0][seen.key_frame], 1)
    assert np.isnan(watch.estimate).all() == (scheme == "none")
    if scheme == "accumulated":
        assert watch.estimate.max() <= np.float32(limit)
    if scheme != "target":
        one = run(Core(), control, x, portions=(1,))
        np.testing.assert_array_equal(outputs[0], one[0][0])
        np.testing.assert_array_equal(seen.key_frame, one[1].key_frame)
        np.testing.assert_array_equal(watch.audit_error, one[2].audit_error)
        for event in ("rounds", "refreshes", "audited", "beyond_data"):
            assert network.events[event] == one[3].events[event]


@pytest.mark.parametrize("portion", [8, 32])
def test_little_is_computed_for_nothing_where_rounds_are_short(portion: int) -> None:
    """Whatever the portions: a round of two frames must not cost a whole batch."""
    core = Core()
    x = frames([6.0] * 96)
    _, seen, _, network = run(core, accumulating(0.1), x, portions=(portion,))
    assert keys(seen) == list(range(0, 96, 2))
    assert network.events["recomputed"] < 1.5 * len(x)
    assert seen.work.sum() == core.work < len(x), "no more than all of them computed densely"


@pytest.mark.parametrize("portions", PORTIONS)
def test_a_key_frame_over_the_limit_stays(portions: tuple[int, ...]) -> None:
    """As with bfloat16, where rounding alone may be too much."""
    core = Core(policy="bounded")
    control = keeping(0.01, floor=1.0)
    outputs, seen, _, _ = run(core, control, frames([1] * 12), portions=portions)
    assert keys(seen) == list(range(12))
    assert outputs[1][:, 0].tolist() == list(range(12))
    assert core.resets < 14


def test_the_governor_steers_and_no_estimate_is_over_the_ceiling() -> None:
    core = Core(policy="bounded")
    outputs, seen, watch, network = run(core, keeping(0.01), frames([0.3] * 400))
    errors = outputs[0][:, 0] - 1
    assert errors.max() <= 1.2 * 0.01
    assert watch.estimate.max() <= np.float32(1.2 * 0.01)
    assert np.median(errors[200:]) == pytest.approx(0.8 * 0.01, rel=0.1)
    assert np.diff(keys(seen))[-1] >= LONGEST_GAP - 8, "it settles: only probes are key frames"
    assert core.scales[0] == FIRST_SCALE
    assert network.events["recomputed"] > 0
    assert core.asked == [], "a probe needs no second network"


def test_a_probe_finds_a_true_error_over_the_target() -> None:
    """The estimate says 0.006, the truth is three times that: found at the first probe."""
    core = Core(policy="bounded", bias=3.0)
    changes = [0.006 / FIRST_SCALE] * 8 + [0.0] * 8
    _, seen, watch, network = run(core, keeping(0.01), frames(changes), portions=(8,))
    assert keys(seen)[:2] == [0, FIRST_PROBE - 1], "the probed frame is a key frame"
    assert np.isnan(watch.audit_error).all(), "what is stored of it is exact"
    assert network.events["breaches"] == 1
    assert core.scales[-1] < FIRST_SCALE


def test_a_probe_does_not_see_the_error_that_all_frames_have() -> None:
    """Of bfloat16: the key frame has it too, so that it is added to what the probe measures."""
    core = Core(policy="bounded")
    changes = [0.0085 / FIRST_SCALE] * 8 + [0.0] * 8
    control = keeping(0.01, floor=0.006**2, ceiling=1.5)
    network = run(core, control, frames(changes), portions=(8,))[3]
    assert network.events["breaches"] == 1


def test_audits_over_a_target_are_counted_where_nothing_is_steered() -> None:
    core = Core(policy="bounded")
    control = Control(cuts=False, audit=1.0, target=0.01)
    x = frames([0.0, 0.02, 0.005, 0.02])
    network = run(core, control, x)[3]
    assert network.events["audited"] == 4
    assert network.events["breaches"] == 2


def test_a_chunk_knows_nothing_of_the_one_before() -> None:
    for control in (accumulating(0.035), keeping(0.01), Control(refresh=0.5)):
        network = ControlledNetwork(Core(), control)
        results = []
        for _ in range(2):
            network.begin("a.mp4")
            x = frames([0.01, 1, 1, 0.01, 1, 1, 0.5])
            outputs, seen, watch = network.run(
                x, samples=range(7), timestamps=[n / 10 for n in range(7)]
            )
            results.append((outputs[0].tolist(), seen.work.tolist(), watch.estimate.tolist()))
            results[-1] += (dict(network.events),)
        assert repr(results[0]) == repr(results[1])


def test_audits_are_the_same_frames_whoever_asks() -> None:
    x = frames([0.01] * 300)
    found = {}
    for portions in PORTIONS:
        core = Core()
        control = Control(cuts=False, audit=0.1)
        outputs, _, watch, network = run(core, control, x, portions=portions)
        audited = np.flatnonzero(~np.isnan(watch.audit_error))
        found[portions] = audited.tolist()
        assert core.asked == found[portions]
        assert network.events["audited"] == len(audited)
        np.testing.assert_allclose(
            watch.audit_error[audited], outputs[0][audited, 0] - 1, atol=1e-6
        )
    assert len({tuple(audited) for audited in found.values()}) == 1
    other = Core()
    run(other, Control(cuts=False, audit=0.1), x, clip="b.mp4")
    assert other.asked != found[(8,)]


def test_the_share_of_audited_frames_is_that_asked_for() -> None:
    counts = []
    for clip in range(100):
        core = Core()
        control = Control(cuts=False, audit=0.1)
        run(core, control, frames([0.0] * 200), portions=(200,), clip=f"{clip}\udce9.mp4")
        counts.append(len(core.asked))
    # Binomial: 20 and a standard deviation of 4.2 for each clip; hashes are the same every time.
    assert np.mean(counts) == pytest.approx(20, abs=1.5)
    assert 3 < np.std(counts) < 6
    for share, expected in ((0.0, 0), (1.0, 50)):
        core = Core()
        run(core, Control(cuts=False, audit=share), frames([0.0] * 50))
        assert len(core.asked) == expected


def test_an_audit_alone_tracks_nothing_and_changes_nothing() -> None:
    x = frames([0.1] * 30)
    plain, _, _, _ = run(Core(), Control(cuts=False), x)
    audited, _, watch, _ = run(Core(), Control(cuts=False, audit=1.0), x)
    np.testing.assert_array_equal(plain[0], audited[0])
    assert np.isnan(watch.estimate).all()
    assert watch.audit_error.dtype == watch.estimate.dtype == np.float32


def test_features_without_numbers_are_infinitely_wrong() -> None:
    nan, inf = np.nan, np.inf
    reference = np.array([[3, nan], [3, 4], [inf, 1], [3, 4], [inf, 1], [nan, 1]], np.float32)
    features = np.array([[3, 4], [nan, 4], [1, 1], [inf, 4], [inf, 1], [nan, 1]], np.float32)
    expected = [inf, inf, inf, inf, 0, inf]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(relative_errors(features, reference), expected)


def test_relative_errors() -> None:
    reference = np.array([[3, 4], [0, 0], [0, 0], [1, 1]], np.float32)
    features = np.array([[3, 4.5], [0, 0], [0, 1], [1, 1]], np.float32)
    np.testing.assert_allclose(relative_errors(features, reference), [0.1, 0, np.inf, 0])
    maps = reference.reshape(4, 1, 1, 2)
    np.testing.assert_allclose(
        relative_errors(features.reshape(4, 1, 1, 2), maps), [0.1, 0, np.inf, 0]
    )
    far = np.full((1, 2), 1e30, np.float32)
    assert relative_errors(2 * far, far) == pytest.approx([1.0]), "no overflow"
