from __future__ import annotations

import numpy as np
import pytest
import torch

from rrm_extract.rrm.cuts import CutDetector

random = np.random.default_rng(0)


def scene(seed: int, frames: int, *, noise: float = 0.02) -> np.ndarray:
    """(T, 3, 64, 64): a smooth picture that moves slowly, with noise."""
    generator = np.random.default_rng(seed)
    coarse = generator.standard_normal((3, 10, 10))
    picture = np.kron(coarse, np.ones((10, 10)))
    return np.stack(
        [
            picture[:, t : t + 64, 5 : 5 + 64] + noise * generator.standard_normal((3, 64, 64))
            for t in range(frames)
        ]
    ).astype(np.float32)


def found(frames: np.ndarray, *, portion: int = 8) -> list[int]:
    detector = CutDetector()
    return [
        begin + cut
        for begin in range(0, len(frames), portion)
        for cut in detector.cuts(frames[begin : begin + portion])
    ]


def test_joined_scenes() -> None:
    frames = np.concatenate([scene(seed, 12) for seed in range(4)])
    for portion in (1, 5, 8, 48):
        assert found(frames, portion=portion) == [12, 24, 36]


def test_a_flash_begins_and_ends() -> None:
    frames = scene(0, 20)
    frames[9:11] += 6.0
    assert found(frames) == [9, 11]


def test_from_black_and_to_black() -> None:
    black = np.zeros((6, 3, 64, 64), np.float32)
    assert found(np.concatenate([black, scene(0, 8), black])) == [6, 14]


def test_noise_is_no_row_of_cuts() -> None:
    noise = random.standard_normal((40, 3, 64, 64)).astype(np.float32)
    assert len(found(noise)) <= 2
    assert all(cut < 4 for cut in found(noise))


@pytest.mark.parametrize("times", [2, 3, 5])
def test_nor_is_noise_that_is_shown_several_times(times: int) -> None:
    """As a clip of few frames a second is, where more are sampled."""
    noise = random.standard_normal((24, 3, 64, 64)).astype(np.float32)
    assert len(found(np.repeat(noise, times, axis=0))) <= 2


def test_still_pictures_and_numbers_that_are_none() -> None:
    still = np.ones((8, 3, 32, 32), np.float32)
    assert found(still) == []
    still[3, 0, 0, 0] = np.nan
    assert found(still) == []


def test_a_clip_begins_without_a_cut_and_tensors_will_do() -> None:
    detector = CutDetector()
    assert detector.cuts(torch.from_numpy(scene(0, 4))) == []
    detector.reset()
    assert detector.cuts(torch.from_numpy(scene(1, 4))) == []
    assert detector.cuts(torch.from_numpy(scene(2, 4))) == [0]
