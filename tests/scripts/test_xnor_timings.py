"""The script that times XNOR-Nets: what takes part, and what the records say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")

import xnor_timings
from subjects import clip_frames, load_subject

from rrm_extract.engine.parts import Part
from rrm_extract.engine.plan import ConvStep
from rrm_extract.graph import BinaryConv2d, Sign
from rrm_extract.models import load_model
from rrm_extract.video.synthetic import write_demo_clip


def forms(network: xnor_timings.NativeNetwork | None) -> set[str]:
    assert network is not None
    parts = [part for part in network.sequence if isinstance(part, Part)]
    return {step.form for part in parts for step in part.steps if isinstance(step, ConvStep)}


def test_every_way_has_its_record(tmp_path: Path) -> None:
    clip = write_demo_clip(tmp_path / "c.mp4", seconds=1, size=(64, 48))
    weights = str(tmp_path / "weights.pth")
    torch.save(load_model("xnor_resnet18", weights="random:0").module.state_dict(), weights)
    subject = load_subject("xnor_resnet18", weights=weights)
    twin = xnor_timings.twin_program(subject, weights)
    frames = clip_frames(clip, subject, count=3)
    ways = xnor_timings.contestants_of(subject, twin, [0.0])
    assert "xnor" in forms(ways[0].network)
    for way in ways:
        if way.network is not None and not way.name.startswith("bits"):
            assert "xnor" not in forms(way.network)
    records = xnor_timings.measure(subject, twin, frames, [0.0, 1e-2], repeats=1)
    assert [(r["way"], r["threshold"]) for r in records] == [
        ("bits, recurrent", 0.0),
        ("bits, recurrent", 1e-2),
        ("bits, first in full", 0.0),
        ("bits, anew", None),
        ("numbers, recurrent", 0.0),
        ("fp32 twin, recurrent", 0.0),
        ("fp32 twin, anew", None),
        ("fp32 twin, torch", None),
    ]
    by_way = {(r["way"], r["threshold"]): r for r in records}
    anew = by_way["bits, anew", None]
    assert (anew["equals_anew"], anew["ratio_to_bits_anew"]) == (1.0, 1.0)
    assert by_way["fp32 twin, torch", None]["feature_error"] == 0
    assert by_way["fp32 twin, recurrent", 0.0]["feature_error"] < 1e-5
    exact = by_way["bits, recurrent", 0.0]
    assert exact["signs_changed"] < 1e-2
    assert len(exact["flips"]) == 16
    assert 0 < exact["mean_flips"] < 0.5
    assert all(record["frames_per_second"] > 0 for record in records)
    assert "frames/s" in xnor_timings.in_words(exact)


def test_the_twin_has_no_signs() -> None:
    module = nn.Sequential(nn.Sequential(Sign(), BinaryConv2d(3, 4, 3)), nn.ReLU()).eval()
    x = torch.randn(1, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    expected = nn.functional.conv2d(x, module[0][1].weight, module[0][1].bias).relu()
    twin = xnor_timings.full_precision(module)
    assert torch.equal(twin(x), expected)
    assert not any(isinstance(part, (Sign, BinaryConv2d)) for part in twin.modules())
