"""A row of the table of networks, of a tiny one."""

from __future__ import annotations

from pathlib import Path

import pytest
import sweep_models

from rrm_extract.models import ModelEntry
from rrm_extract.video.synthetic import write_demo_clip
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
