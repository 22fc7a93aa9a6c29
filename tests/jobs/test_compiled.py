"""Native networks without torch: the same numbers, in a process that never imports it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")

from rrm_extract.config import JobConfig
from rrm_extract.engine.compiled import CompiledNetwork
from rrm_extract.engine.mapped import is_mapped, load_mapped, save_mapped
from rrm_extract.errors import ModelError, StoreWriteError
from rrm_extract.jobs import ChunkExtractor, make_recipe
from rrm_extract.jobs.compiled import load_compiled, save_compiled
from rrm_extract.jobs.network_cache import copied
from rrm_extract.jobs.recipe import (
    Recipe,
    load_recipe,
    sampling_of,
    save_computation,
    save_recipe,
)
from rrm_extract.models import load_model
from rrm_extract.video import ClipReader, scan_clip
from rrm_extract.video.synthetic import write_demo_clip
from tests.command import environment
from tests.hostile.networks import MODEL as WITH_AN_ISLAND
from tests.jobs import branching
from tests.memory import assert_mapped_not_copied
from tests.tiny import MODEL


def recipe(model: str = MODEL, **options: object) -> Recipe:
    config = JobConfig.from_mapping({"model": model, "threshold": 0, **options})
    return make_recipe(load_model(config.model, weights=config.weights), config)


def pictures(count: int, size: int) -> torch.Tensor:
    """Frames of which a corner changes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, size, size, generator=generator).repeat(count, 1, 1, 1)
    x[:, :, : size // 3, : size // 3] += torch.randn(
        count, 3, size // 3, size // 3, generator=generator
    )
    return x


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        (MODEL, "fc"),
        (MODEL, "features"),
        (branching.MODEL, None),
        ("squeezenet1_1", None),
        ("mnasnet0_5", None),
    ],
)
def test_the_same_numbers_as_with_torch(model: str, layer: str | None, tmp_path: Path) -> None:
    weights = "default" if model == MODEL else "random:0"
    made = recipe(model, layer=layer, weights=weights, time_batch=4)
    save_computation(made, tmp_path / "computation")
    plan = load_compiled(tmp_path / "computation").plan
    x = pictures(6, made.input_shape[1])
    (expected,), seen = made.network().run(x)
    (result,), counted = CompiledNetwork(plan).run(x.numpy())
    np.testing.assert_array_equal(result, expected.numpy())
    np.testing.assert_array_equal(counted.density, seen.density.numpy())
    np.testing.assert_array_equal(counted.density_delta, seen.density_delta.numpy())
    np.testing.assert_array_equal(counted.work, seen.work.numpy())
    assert counted.key_frame.tolist() == seen.key_frame.tolist()


def test_frames_that_are_not_finite_are_torchs(tmp_path: Path) -> None:
    made = recipe(layer="fc", time_batch=4)
    save_computation(made, tmp_path / "computation")
    network, expected = load_compiled(tmp_path / "computation").open(), made.open()
    x = pictures(4, 32)
    broken = x.clone()
    broken[2, 0, 0, 0] = torch.nan
    for some in (x, broken, x, broken):
        (features,), seen = network.run(some.numpy())
        (wanted,), wanted_seen = expected.run(some)
        np.testing.assert_array_equal(features, wanted)
        assert seen.key_frame.tolist() == wanted_seen.key_frame.tolist()
        np.testing.assert_array_equal(seen.density_delta, wanted_seen.density_delta)
        assert np.isnan(features).any() == (some is broken)
        assert (seen.key_frame.sum() == 4) == (some is broken)


def test_a_chunk_is_the_same_either_way(tmp_path: Path) -> None:
    clip = write_demo_clip(tmp_path / "clip.mp4", seconds=1.5, size=(64, 48))
    made = recipe(layer="features")
    compiled = made.without_torch()
    assert compiled is not None
    with ClipReader(scan_clip(clip), sampling_of(JobConfig(chunk=1.0))) as reader:
        one = ChunkExtractor(made).extract(reader, 1, "clip.mp4")
        two = ChunkExtractor(compiled).extract(reader, 1, "clip.mp4")
    assert one.features.shape == two.features.shape == (12, 16)
    np.testing.assert_allclose(two.features, one.features, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(two.density_delta, one.density_delta)
    assert two.key_frame.tolist() == one.key_frame.tolist()


def runs_without_torch(code: str) -> None:
    """Runs Python that has imported neither torch nor torchvision by its end."""
    code = f"import sys\n{code}\nprint(sorted({{'torch', 'torchvision'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_the_parent_does_without_torch() -> None:
    runs_without_torch("import rrm_extract.cli, rrm_extract.jobs, rrm_extract.report.summary")


def test_a_worker_does_without_torch(tmp_path: Path) -> None:
    save_computation(recipe(), tmp_path / "computation")
    runs_without_torch(
        "import rrm_extract.jobs.worker as w\n"
        f"w.ChunkExtractor(w._computation(w.Path({str(tmp_path / 'computation')!r}), 1))"
    )


def test_a_network_with_an_island_keeps_torch(tmp_path: Path) -> None:
    made = recipe(WITH_AN_ISLAND)
    assert made.without_torch() is None
    save_computation(made, tmp_path / "recipe")
    assert not is_mapped(tmp_path / "recipe")
    x = pictures(3, 32)
    assert torch.equal(
        load_recipe(tmp_path / "recipe").network().run(x)[0][0], made.network().run(x)[0][0]
    )


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc")
def test_weights_are_mapped_not_copied(tmp_path: Path) -> None:
    path = tmp_path / "computation"
    save_computation(recipe("squeezenet1_1", weights="random:0"), path)
    network = load_compiled(path).open()
    network.run(pictures(2, 224).numpy())
    assert_mapped_not_copied(path)


def test_arrays_come_back_aligned_and_may_be_written(tmp_path: Path) -> None:
    value = {"a": np.arange(5), "b": (np.ones((3, 7), np.float32), "text"), "c": np.zeros(0)}
    save_mapped(value, tmp_path / "file")
    for _ in range(2):
        loaded = load_mapped(tmp_path / "file")
        np.testing.assert_array_equal(loaded["a"], value["a"])
        np.testing.assert_array_equal(loaded["b"][0], np.ones((3, 7)))
        assert (loaded["b"][1], loaded["c"].shape) == ("text", (0,))
        assert loaded["b"][0].ctypes.data % 64 == 0
        loaded["a"][:] = 7  # of this process alone


def test_a_computation_under_another_name_finds_what_is_beside_it(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    save_computation(recipe(), tmp_path / "kept/computation")
    copied(tmp_path / "kept/computation", tmp_path / "recipe.1.tmp")
    shutil.rmtree(tmp_path / "kept")
    network = load_compiled(tmp_path / "recipe.1.tmp").open()
    x = np.zeros((1, 3, 32, 32), np.float32)
    finite = network.run(x)[0][0]
    x[0, 0, 0, 0] = np.nan  # only torch computes that
    assert np.isnan(network.run(x)[0][0]).any()
    assert np.isfinite(finite).all()


def test_no_room_fails(tmp_path: Path) -> None:
    compiled = recipe().without_torch()
    assert compiled is not None
    with pytest.raises(StoreWriteError, match=r"cannot write .*no-such-folder"):
        save_compiled(compiled, tmp_path / "no-such-folder/file")


def test_what_workers_cannot_read_is_refused(tmp_path: Path) -> None:
    made = recipe()
    (first, *rest) = made.program.ops
    bad = replace(first, call=lambda x: x)
    program = replace(made.program, ops=(bad, *rest))
    with pytest.raises(ModelError, match="cannot be handed to workers"):
        save_recipe(replace(made, program=program), tmp_path / "recipe")
