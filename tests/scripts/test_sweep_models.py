"""A row of the table of networks, of a tiny one."""

from __future__ import annotations

from pathlib import Path

import pytest
import sweep_models

from rrm_extract.models import ModelEntry
from rrm_extract.video.synthetic import write_demo_clip
from tests.engines import needs_native
from tests.tiny import MODEL

TINY = ModelEntry(
    name=MODEL,
    family="tiny",
    source="torchvision",
    is_cnn=True,
    paper=False,
    default_weights="",
    n_parameters=None,
    input_shape=(3, 32, 32),
)


@needs_native
def test_the_native_engine_selects_as_the_readable_one(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    write_demo_clip(clip, seconds=1, size=(64, 48), seed=0)
    row = sweep_models.measure(TINY, clip, 4)
    readable, native = row["at"]["0.01"], row["native"]["at"]["0.01"]
    assert native["density"] == pytest.approx(readable["density"], abs=1e-3)
    assert 0 < native["density"] < 1
    assert native["errors"] == pytest.approx(readable["errors"], rel=1e-2)
    assert min(native["errors"]) > max(row["native"]["errors"])
    text = sweep_models._table([row])
    assert f"| {native['density']:.2f} | 0 |" in text, "beside its islands"


def test_plain_is_the_density_at_threshold_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is truncated changes what later layers would read."""
    clip = tmp_path / "clip.mp4"
    write_demo_clip(clip, seconds=1, size=(64, 48), seed=0)
    plain = []
    for thresholds in ((0.0,), (0.0, 0.5)):
        monkeypatch.setattr(sweep_models, "THRESHOLDS", thresholds)
        row = sweep_models.measure(TINY, clip, 4)
        assert [float(name) for name in row["at"]] == list(thresholds)
        plain.append(row["density_input"])
    assert 0 < plain[0] == plain[1] < 1
