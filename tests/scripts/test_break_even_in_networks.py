"""Lists beside dense frames in a tiny network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import break_even_in_networks
import pytest

from tests.clips import write_clip
from tests.engines import needs_native
from tests.tiny import MODEL


@needs_native
@pytest.mark.parametrize(("model", "layers"), [(MODEL, 3), ("mobilenet_v2", 52)])
def test_every_layer_is_measured_both_ways(
    model: str,
    layers: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Those with a batch-norm folded into them, too."""
    clip = write_clip(tmp_path / "clip.mp4", n_frames=6)
    argv = ["break_even_in_networks.py", "--videos", str(clip), "--models", model]
    argv += ["--weights", "random:0"]
    argv += ["--repeats", "1", "--thresholds", "0.1", "--json", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", argv)
    break_even_in_networks.main()
    records = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["records"]
    assert len(records) == len(capsys.readouterr().out.splitlines()) == layers
    for record in records:
        (run,) = record["runs"]
        assert (run["clip"], run["threshold"]) == ("clip.mp4", 0.1)
        assert 0 <= run["density"] <= 1
        assert run["list_over_dense"] > 0
        assert run["milliseconds_dense"] > 0


@pytest.mark.parametrize(
    "option", [("--add",), ("--threads", "2"), ("--engines", "torch"), ("--noise",)]
)
def test_options_that_would_do_nothing_are_refused(
    option: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["break_even_in_networks.py", *option])
    with pytest.raises(SystemExit, match="2"):
        break_even_in_networks.main()
    assert f"unrecognized arguments: {' '.join(option)}" in capsys.readouterr().err


def test_a_clip_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["break_even_in_networks.py"])
    with pytest.raises(SystemExit, match="--videos"):
        break_even_in_networks.main()
