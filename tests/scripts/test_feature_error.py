"""What features of two files differ by."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from feature_error import compare_features

from rrm_extract.store import OutputStore
from tests.store.helpers import IDENTITY, LAYERS, ROOT, chunk, source


def write(path: Path, features: np.ndarray) -> Path:
    what = source("a.mp4")
    with OutputStore(path, IDENTITY) as store:
        with store.part(what, feature_shape=(8,)) as part:
            part.append(replace(chunk("a.mp4"), features=features))
            part.finish(layers=LAYERS, attrs={})
        store.finish([what], [], ROOT, complete=True)
    return path


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_features_that_are_no_numbers_are_infinitely_wrong(
    tmp_path: Path, which: int, number: float
) -> None:
    features = chunk("a.mp4").features
    dense = features.copy()
    dense[4] = 0
    broken = [features.copy(), dense]
    broken[which][1] = number
    files = [write(tmp_path / f"{i}.h5", values) for i, values in enumerate(broken)]
    found = compare_features(files[0], files[1], ["a.mp4"])
    assert (found.frames, found.frames_of_zeros, found.frames_not_finite) == (4, 1, 1)
    assert found.worst == found.mean == math.inf
