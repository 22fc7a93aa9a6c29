"""Fig. 5 on generated clips and a tiny network."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import fig5_overhead
import pytest
import torch
from layer_times import KINDS, ordinary_times
from network_bench import feature_errors
from peers.rrm_peer import SPLIT, RrmPeer
from sparsity import sparsity_of_clips
from subjects import Clip, Subject, load_subject, noise_frames
from torch import nn

from rrm_extract.graph import trace
from rrm_extract.rrm import RecurrentNetwork, overall_sparsity
from rrm_extract.video.synthetic import write_demo_clip
from tests.tiny import MODEL

OPTIONS = (
    "--models", MODEL, "--thresholds", "0", "0.1", "--changed", "0", "0.25", "--repeats", "1",
    "--timed-frames", "6", "--timed-videos", "2", "--dense", "torch",
)  # fmt: skip


@pytest.fixture(scope="module")
def subject() -> Subject:
    return load_subject(MODEL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fig5")
    (folder / "moving").mkdir()
    for seed in range(2):
        path = folder / "moving" / f"{seed}.mp4"
        write_demo_clip(path, seconds=1, size=(64, 48), seed=seed)
    (folder / "moving" / "broken.mp4").write_bytes(b"no video")
    return folder


def run(patch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    patch.setattr(sys, "argv", ["fig5_overhead.py", *map(str, arguments), *OPTIONS])
    fig5_overhead.main()


def make(folder: Path, engine: str) -> Any:
    pytest.importorskip("matplotlib")
    path = folder / f"{engine}.json"
    with pytest.MonkeyPatch.context() as patch:
        run(
            patch, folder / "moving", "--engine", engine, "--json", path,
            "--markdown", path.with_suffix(".md"), "--svg", path.with_suffix(".svg"),
        )  # fmt: skip
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def native(folder: Path) -> Any:
    pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")
    return make(folder, "native")


def by_setting(result: Any) -> dict[tuple[float, float | None], Any]:
    return {(row["key"]["threshold"], row["key"]["changed"]): row for row in result["rows"]}


def test_a_point_for_each_threshold_and_each_share(native: Any) -> None:
    rows = by_setting(native)
    assert list(rows) == [(0.0, None), (0.1, None), (0.0, 0.0), (0.0, 0.25)]
    for (threshold, changed), row in rows.items():
        measured = row["measured"]
        assert row["frames"] == (12 if changed is None else 6)
        assert set(measured["speedup_over"]) == {"torch", fig5_overhead.DENSE_ENGINE}
        assert measured["dense"][fig5_overhead.DENSE_ENGINE]["feature_error"] is None
        assert measured["dense"][fig5_overhead.DENSE_ENGINE]["work"] == 1
        assert (measured["feature_error"] < 1e-5) == (threshold == 0)
        assert list(measured["split"]) == list(SPLIT)
        assert sum(measured["split"].values()) == pytest.approx(1)
        assert measured["split"]["linear"] > 0
        assert row["speedup_theoretical_with_other_layers"] <= row["speedup_theoretical"]
    assert [row["video"] for row in rows[0.0, None]["videos_broken"]] == ["broken.mp4"]
    assert rows[0.1, None]["sparsity"] > rows[0.0, None]["sparsity"]
    assert rows[0.0, 0.0]["sparsity"] == 1, "nothing changes"
    assert rows[0.0, 0.0]["speedup_theoretical"] == pytest.approx(6), "but the first is a key frame"
    assert 0 < rows[0.0, 0.25]["sparsity"] < 1


def test_page_and_figure(native: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing, page = folder / "native.svg", folder / "native.md"
    before = drawing.read_bytes(), page.read_bytes()
    run(monkeypatch, "--from", folder / "native.json", "--markdown", page, "--svg", drawing)
    assert (drawing.read_bytes(), page.read_bytes()) == before
    assert before[0].startswith(b"<?xml")
    text = before[1].decode()
    for words in ("| speedup by MACs (theoretical) | with other layers (theoretical) |",
                  "| speedup over the same engine dense (measured) |", "| 25% changed |",
                  "linear / lists / activation / pooling / other (measured)", "not linear",
                  "1 round, the first 6 frames of 2 clips of each dataset.",
                  "moving: broken.mp4"):  # fmt: skip
        assert words in text


def test_the_readable_engine_has_points_too(folder: Path) -> None:
    for row in make(folder, "torch")["rows"]:
        assert set(row["measured"]["speedup_over"]) == {"torch"}
        assert row["measured"]["split"] is None


def test_without_a_usable_video_there_is_no_figure(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "f.json"
    run(
        monkeypatch, folder / "moving" / "broken.mp4", "--engine", "torch", "--json", path,
        "--svg", tmp_path / "f.svg",
    )  # fmt: skip
    for row in json.loads(path.read_text())["rows"][:2]:
        assert (row["videos_used"], row["sparsity"], row["measured"]) == (0, None, None)


def test_a_square_of_the_wanted_share_changes() -> None:
    noise = torch.randn(5, 3, 40, 60, generator=torch.Generator().manual_seed(0))
    frames = fig5_overhead.changing_square(noise, changed=0.25)
    different = (frames[1:] != frames[:-1]).all(dim=1)
    assert torch.equal(different, (frames[1:] != frames[:-1]).any(dim=1))
    assert different.sum(dim=(1, 2)).tolist() == [20 * 30] * 4
    assert torch.equal(fig5_overhead.changing_square(noise, changed=1.0), noise)
    still = fig5_overhead.changing_square(noise, changed=0.0)
    assert torch.equal(still, noise[:1].expand_as(still))


def test_theory_leaves_other_layers_at_their_share() -> None:
    ordinary = {"linear": 8.0, "batch-norm": 1.0, "activation": 1.0}
    found = fig5_overhead.theory(0.25, ordinary)
    assert found["speedup_theoretical"] == pytest.approx(4)
    assert found["speedup_theoretical_with_other_layers"] == pytest.approx(1 / (0.2 + 0.8 * 0.25))
    assert set(fig5_overhead.theory(None, ordinary).values()) == {None}


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_sparsity_is_the_readable_engines_where_layers_would_run_dense(
    subject: Subject, engine: str
) -> None:
    """Every pixel is new in the first half and none in the second: one frame stands for none."""
    if engine == "native":
        pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")
    moving = noise_frames(subject, count=16)
    clip = torch.cat([moving, moving[-1:].expand(13, -1, -1, -1)])
    network = RecurrentNetwork(subject.recipe.program, threshold=0.0)
    network.run(clip)
    found = sparsity_of_clips(subject, [Clip(frames=clip, chunk=240)], 0.0, engine=engine)
    assert overall_sparsity(found.layers) == pytest.approx(
        overall_sparsity(network.stats()), abs=1e-3
    )
    assert (found.frames, found.key_frames) == (29, 1)


def test_the_dense_engine_leaves_nothing_out(subject: Subject) -> None:
    pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")
    from peers.dense_engine_peer import DenseEnginePeer

    noise = noise_frames(subject, count=4)
    peer = DenseEnginePeer(subject.recipe, noise, threads=1)
    peer.prepare()
    features = peer.run(torch.zeros(6, *subject.input_shape))
    expected = subject.reference(torch.cat([noise, noise[:2]]))
    assert float(feature_errors(features, expected).max()) < 1e-5
    assert peer.work() == 1


def test_an_engine_that_cannot_tell_has_no_split(subject: Subject) -> None:
    peer = RrmPeer(
        subject.recipe, engine="torch", threshold=0.0, precision="fp32", threads=1, chunk=240
    )
    peer.prepare()
    assert peer.split(noise_frames(subject, count=2)) is None


def test_the_ordinary_networks_time_is_told_by_kind() -> None:
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Sigmoid())
    program = trace(nn.Sequential(*layers).eval())
    times = ordinary_times(program, torch.randn(2, 3, 16, 16), repeats=2)
    assert tuple(times) == KINDS
    assert all(times[kind] > 0 for kind in ("linear", "batch-norm", "activation", "pooling"))


@pytest.mark.parametrize("share", ["-0.1", "1.5", "half"])
def test_a_wrong_share_is_refused(
    share: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fig5_overhead.py", f"--changed={share}"])
    with pytest.raises(SystemExit, match="2"):
        fig5_overhead.main()
    assert "expected a share from 0 to 1" in capsys.readouterr().err
