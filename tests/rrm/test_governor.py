"""The governor on a made-up network whose error is a known function of its thresholds."""

from __future__ import annotations

import numpy as np
import pytest

from rrm_extract.rrm.estimate import ErrorEstimate
from rrm_extract.rrm.governor import Governor

GAINS = np.array([1e-4, 3e-4])
TARGET = 0.01


def run(
    *, frames: int = 240, sensitivity: float = 1.0, bias: float = 1.0, aim: float = 0.8
) -> tuple[np.ndarray, list[float], int]:
    """True errors of the frames that stay, the scales, and the number of key frames.

    ``sensitivity``: how much more than usual this clip truncates at a threshold; ``bias``: true
    over estimated error.
    """
    random = np.random.default_rng(0)
    governor = Governor(ErrorEstimate(gains=GAINS), target=TARGET, aim=aim)
    errors: list[float] = []
    scales: list[float] = []
    keys, since_key = 1, 0
    while len(errors) < frames:
        # What is held back grows over a few frames after a key frame.
        age = np.minimum(np.arange(since_key, since_key + 8), 6) / 6
        noise = random.lognormal(0, 0.05, 8)
        truncated = 0.2 * (sensitivity * governor.scale * age * noise)[:, None] ** 2
        truncated = truncated * np.ones(2)
        keep, estimates = governor.judge(truncated)
        keep = max(keep, 1) if since_key == 0 else keep
        true = bias * np.sqrt(truncated @ GAINS)
        errors += true[:keep].tolist()
        again = keep < 8
        if governor.probe_is_due(keep, key_frame=False):
            governor.measured(
                true=float(true[keep - 1]), estimated=float(estimates[keep - 1]), age=64
            )
            again = True
        since_key = 0 if again else since_key + keep
        keys += again
        scales.append(governor.scale)
    return np.array(errors), scales, keys


@pytest.mark.parametrize("sensitivity", [0.05, 1.0, 20.0])
def test_the_estimate_is_steered_to_the_aim(sensitivity: float) -> None:
    errors, scales, keys = run(sensitivity=sensitivity)
    assert errors.max() <= TARGET
    assert 0.4 * TARGET < np.median(errors[120:]) < TARGET, "the room is used"
    assert keys < 40
    assert scales[-1] == pytest.approx(scales[-5], rel=0.3), "it settles"


@pytest.mark.parametrize("bias", [0.5, 1.0, 1.8])
def test_a_wrong_estimate_is_corrected(bias: float) -> None:
    errors, _, _ = run(bias=bias, aim=0.65)
    assert np.percentile(errors, 95) <= 1.1 * TARGET
    assert np.percentile(errors[24:], 95) <= TARGET
    assert np.median(errors[120:]) > 0.4 * TARGET


def test_an_estimate_beyond_all_correction_is_steered_all_the_same() -> None:
    errors, _, _ = run(frames=480, bias=20.0)
    assert (errors[120:] <= TARGET).mean() > 0.95


def test_a_frame_over_the_target_does_not_stay() -> None:
    governor = Governor(ErrorEstimate(gains=np.array([1.0])), target=TARGET, aim=0.8)
    truncated = np.array([[1e-6], [2e-5], [2e-4], [1e-6]])
    keep, errors = governor.judge(truncated)
    assert keep == 2
    np.testing.assert_allclose(errors, np.sqrt(truncated[:, 0]))
    assert governor.scale < 1


def test_a_breach_is_told_and_learnt_from() -> None:
    governor = Governor(ErrorEstimate(gains=np.array([1.0])), target=TARGET, aim=0.8)
    before = governor.judge(np.full((4, 1), 2.5e-5))[1]
    assert governor.measured(true=0.02, estimated=float(before[0]), age=64)
    after = governor.judge(np.full((4, 1), 2.5e-5))[1]
    assert (after > 2 * before).all()
    governor.reset()
    np.testing.assert_allclose(governor.judge(np.full((4, 1), 2.5e-5))[1], before)


def test_a_breach_is_learnt_from_however_low_the_estimate_was() -> None:
    governor = Governor(ErrorEstimate(gains=np.array([1.0])), target=TARGET, aim=0.8)
    held = np.full((4, 1), (0.09 * TARGET) ** 2)
    before = governor.judge(held)[1]
    scale = governor.scale
    # Within the target it would say nothing.
    assert not governor.measured(true=0.5 * TARGET, estimated=float(before[0]), age=64)
    assert governor.scale == scale
    assert governor.measured(true=5 * TARGET, estimated=float(before[0]), age=64)
    assert governor.scale < scale
    assert (governor.judge(held)[1] > 5 * before).all()


def test_every_breach_lowers_the_thresholds_however_low_the_estimate_is() -> None:
    governor = Governor(ErrorEstimate(gains=np.array([1.0])), target=TARGET, aim=0.8)
    scales = []
    for _ in range(3):
        estimated = float(governor.judge(np.full((8, 1), 1e-10))[1][-1])
        before = governor.scale
        assert governor.measured(true=1.5 * TARGET, estimated=estimated, age=64)
        scales.append(governor.scale)
        assert governor.scale <= before / 1.5
    assert scales == sorted(scales, reverse=True)
    assert governor.measured(true=1.5 * TARGET, estimated=estimated, age=64), "of the same batch"
    assert governor.scale == scales[-1], "which has been answered"
    governor.judge(np.full((8, 1), 1e-10))
    assert governor.scale == scales[-1], "no room is seen in it"
    assert not governor.measured(true=0.5 * TARGET, estimated=1e-5, age=64)
    governor.judge(np.full((8, 1), 1e-10))
    assert governor.scale > scales[-1]


@pytest.mark.parametrize("bias", [50.0, 100.0, 200.0])
def test_an_estimate_that_says_nothing_is_steered_by_what_is_measured(bias: float) -> None:
    errors, _, _ = run(frames=480, bias=bias)
    assert errors[120:].max() < 1.6 * TARGET


def test_an_error_of_rounding_does_not_end_all_truncation() -> None:
    """In bfloat16 a frame may be over the target for what no threshold lowers."""
    estimate = ErrorEstimate(gains=np.array([1.0]), floor=0.02**2)
    governor = Governor(estimate, target=0.03, aim=0.8, ceiling=1.5)
    (estimated,) = governor.judge(np.array([[1e-8]]))[1]
    scale = governor.scale
    assert governor.measured(true=0.031, estimated=float(estimated), age=1)
    assert governor.scale >= scale / 8


def probed(true_over_estimated: float) -> list[int]:
    """Frames whose true error is measured, in batches of many sizes."""
    governor = Governor(ErrorEstimate(gains=np.array([1.0])), target=TARGET, aim=0.8)
    found, seen = [], 0
    for frames in [8, 8, 3, 5] + [8] * 50:
        estimated = float(governor.judge(np.full((frames, 1), 1e-5))[1][-1])
        seen += frames
        if governor.probe_is_due(frames, key_frame=False):
            found.append(seen)
            governor.measured(true=true_over_estimated * estimated, estimated=estimated, age=64)
    return found


def test_probes_come_soon_and_then_now_and_then() -> None:
    assert probed(1.0) == probed(0.8) == [8, 24, 56, 120, 248, 376]


def test_a_key_frame_uses_up_no_probe() -> None:
    governor = Governor(ErrorEstimate(gains=GAINS), target=TARGET, aim=0.8)
    assert not governor.probe_is_due(8, key_frame=True)
    assert governor.probe_is_due(1, key_frame=False)
    assert not governor.probe_is_due(8, key_frame=False), "the next one is due later"


def test_probes_come_often_as_long_as_the_estimate_is_too_low() -> None:
    often = probed(2.0)
    assert max(np.diff(often)) <= 24
    assert len(often) > 20


def test_many_true_errors_of_one_batch_correct_the_estimate_once() -> None:
    governor = Governor(ErrorEstimate(gains=np.array([1.0])), target=TARGET, aim=0.8)
    truncated = np.full((8, 1), 1e-5)
    estimates = governor.judge(truncated)[1]
    for estimate in estimates:
        governor.measured(true=1.5 * float(estimate), estimated=float(estimate), age=64)
    np.testing.assert_allclose(governor.judge(truncated)[1], 1.5 * estimates)


def test_the_floor_is_not_corrected() -> None:
    """What is off without any truncation says nothing about truncation."""
    estimate = ErrorEstimate(gains=np.array([1.0]), floor=(0.5 * TARGET) ** 2)
    governor = Governor(estimate, target=TARGET, aim=0.8)
    held = np.full((4, 1), (0.4 * TARGET) ** 2)
    before = governor.judge(held)[1]
    np.testing.assert_allclose(before, np.hypot(0.5, 0.4) * TARGET)
    assert not governor.measured(
        true=np.hypot(0.5, 0.8) * TARGET, estimated=float(before[0]), age=64
    )
    np.testing.assert_allclose(governor.judge(held)[1], np.hypot(0.5, 0.8) * TARGET)
    # What is below the floor teaches nothing, and nothing is divided by zero.
    after = governor.judge(held)[1]
    governor.measured(true=0.3 * TARGET, estimated=float(after[0]), age=64)
    np.testing.assert_allclose(governor.judge(held)[1], after)


def test_the_floor_takes_its_share_of_the_room() -> None:
    held = np.full((4, 1), (0.7 * TARGET) ** 2)
    scales = []
    for floor in (0.0, 0.6, 0.9):
        estimate = ErrorEstimate(gains=np.array([1.0]), floor=(floor * TARGET) ** 2)
        governor = Governor(estimate, target=TARGET, aim=0.8)
        for _ in range(2):
            governor.judge(held)
        scales.append(governor.scale)
    assert scales[0] > scales[1] > scales[2]


@pytest.mark.parametrize("true", [0.2, 2.0])
def test_a_low_error_soon_after_a_key_frame_is_hardly_trusted(true: float) -> None:
    """What is held back long bears more upon the feature: a high error is trusted at once."""
    ratios = []
    for age in (2, 64):
        governor = Governor(ErrorEstimate(gains=GAINS), target=TARGET, aim=0.5)
        held = np.full((1, 2), 0.1)
        before = float(governor.judge(held)[1][0])
        governor.measured(true=true * before, estimated=before, age=age)
        ratios.append(float(governor.judge(held)[1][0]) / before)
    young, old = ratios
    assert (young > 0.85 and old < 0.5) if true < 1 else young == old > 1.5
