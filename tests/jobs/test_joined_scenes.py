"""A clip of several scenes, through the real extraction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rrm_extract.config import JobConfig
from rrm_extract.jobs import ChunkExtractor, make_recipe
from rrm_extract.jobs.control import relative_errors
from rrm_extract.jobs.recipe import network_input, sampling_of
from rrm_extract.models import load_model
from rrm_extract.store import ChunkResult
from rrm_extract.video import ClipReader, scan_clip
from rrm_extract.video.synthetic import write_demo_clip
from tests.clips import decode_all, write_pictures
from tests.engines import ENGINES, needs_native
from tests.tiny import MODEL

RATE = 8
CUTS = [12, 20]
"""Sampled frames at which a scene begins."""


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joined")
    pictures = []
    for seed, seconds in enumerate((1.5, 1.0, 1.5)):
        scene = write_demo_clip(folder / f"{seed}.mp4", seconds=seconds, size=(64, 48), seed=seed)
        pictures += decode_all(scene)
    return write_pictures(folder / "joined.mp4", pictures)


def extracted(clip: Path, **options: object) -> tuple[ChunkResult, np.ndarray]:
    """The only chunk of a clip, and the dense network's features."""
    config = JobConfig.from_mapping({"model": MODEL, "fps": RATE, "threshold": 0.02, **options})
    recipe = make_recipe(load_model(MODEL), config)
    with ClipReader(scan_clip(clip), sampling_of(config)) as reader:
        result = ChunkExtractor(recipe).extract(reader, 0, clip.name)
        frames = list(reader.read(0))
    assert len(result.features) == len(frames) == 32
    return result, recipe.open().exact(network_input(frames, recipe))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("time_batch", [1, 8, 64])
def test_key_frames_at_the_cuts(joined: Path, engine: str, time_batch: int) -> None:
    result, dense = extracted(joined, engine=engine, time_batch=time_batch)
    assert result.key_frame.nonzero()[0].tolist() == [0, *CUTS]
    assert result.attrs["n_cuts"] == 2
    assert not result.attrs["n_refreshes"]
    errors = relative_errors(result.features, dense)
    assert errors.max() < 0.02
    assert errors[[0, *CUTS]].max() < 1e-5, "nothing of the scene before is left"
    assert (result.work[result.key_frame] == 1).all()
    assert result.work[~result.key_frame].max() < 0.9


@pytest.mark.parametrize("engine", ENGINES)
def test_cuts_can_be_ignored(joined: Path, engine: str) -> None:
    result, dense = extracted(joined, engine=engine, cuts="ignore")
    assert result.key_frame.nonzero()[0].tolist() == [0]
    assert not result.attrs["n_cuts"]
    errors = relative_errors(result.features, dense)
    assert errors[CUTS].min() > 1e-4
    assert errors.max() < 0.02, "the policy bounded is right all the same"


def test_refresh_and_cuts_together(joined: Path) -> None:
    result, dense = extracted(joined, refresh=1.0)
    assert result.key_frame.nonzero()[0].tolist() == [0, 8, 12, 20, 28]
    assert (result.attrs["n_cuts"], result.attrs["n_refreshes"]) == (2, 2)
    assert relative_errors(result.features, dense)[result.key_frame].max() < 1e-5


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_native)])
def test_audited_errors_are_the_true_ones(joined: Path, precision: str) -> None:
    plain, dense = extracted(joined)
    result, _ = extracted(joined, audit="1/3", precision=precision)
    assert result.audit_error is not None
    audited = np.flatnonzero(~np.isnan(result.audit_error))
    assert 3 < len(audited) < 25
    assert result.attrs["n_audited"] == len(audited)
    true = relative_errors(result.features, dense)[audited]
    np.testing.assert_allclose(result.audit_error[audited], true, rtol=1e-3, atol=1e-6)
    if precision == "fp32":
        np.testing.assert_array_equal(result.features, plain.features)
    else:
        assert true.min() > 1e-4, "beside fp32, not beside itself"
