"""Both engines through the command: the same pictures in, the same features out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")

from rrm_extract import FeatureFile
from rrm_extract.config import JobConfig
from rrm_extract.engine import NativeTransform
from rrm_extract.errors import EngineError
from rrm_extract.jobs import make_recipe, network_input, run_job, sampling_of
from rrm_extract.jobs import run as run_module
from rrm_extract.jobs.recipe import RecipeNetwork
from rrm_extract.models import load_model
from rrm_extract.video import ClipReader, scan_clip
from rrm_extract.video.synthetic import write_demo_clip
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.command import called, extraction, rrm_extract
from tests.jobs import single
from tests.tiny import MODEL


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_clip(tmp_path_factory.mktemp("engines") / "c.mp4", seconds=2, size=(90, 64))


def test_features_are_equal(clip: Path) -> None:
    features = {}
    for engine in ("native", "torch"):
        output = clip.with_name(f"{engine}.h5")
        done = rrm_extract(
            *extraction(clip, output, "--engine", engine, "--threshold", "0", "--workers", "1"),
            cwd=clip.parent,
        )
        assert done.returncode == 0, done.stderr
        with FeatureFile(output) as file:
            assert file.attrs["engine"] == engine
            assert file.attrs["precision"] == "fp32"
            features[engine] = torch.from_numpy(np.array(file["c.mp4"].features))
    assert features["native"].shape == (16, 16)
    assert relative_l2(features["native"], features["torch"]) < EXACT_RECURRENCE


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_one_number_for_each_frame(clip: Path, tmp_path: Path, engine: str) -> None:
    options = ("--model", single.SCORE, "--layer", "squeeze", "--engine", engine)
    config = JobConfig(
        inputs=(str(clip),), model=single.SCORE, layer="squeeze", engine=engine, threshold=0
    )
    recipe = make_recipe(load_model(single.SCORE), config)
    network, x = RecipeNetwork(recipe), torch.randn(3, 3, 32, 32)
    expected = single.score().eval()(x).detach().numpy()[:, None]
    ((rows,), _), exact = network.run(x), network.exact(x)
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(exact, expected, rtol=1e-4, atol=1e-5)
    done = called("verify", clip, *options, "--max-frames", "4", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["relative_l2_max"] < 1e-2


def test_threads_are_taken_from_workers_on_the_torch_engine_alone(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "usable_cores", lambda: 4)

    def config(engine: str, threads: int, workers: int | None) -> JobConfig:
        return JobConfig(
            inputs=(str(clip),),
            output=str(tmp_path / f"{engine}{threads}.h5"),
            model=MODEL,
            engine=engine,
            threads=threads,
            workers=workers,
        )

    assert run_job(config("native", 2, None)).workers == 4
    assert run_job(config("native", 3, 1)).workers == 1

    class StartedError(Exception):
        """They would take PyTorch, and seconds."""

    def started(**options: object) -> None:
        assert (options["size"], options["threads"], options["with_torch"]) == (2, 2, True)
        raise StartedError

    monkeypatch.setattr(run_module, "WorkerPool", started)
    with pytest.raises(StartedError):
        run_job(config("torch", 2, None))


def test_inputs_are_equal(clip: Path) -> None:
    recipes = []
    for engine in ("native", "torch"):
        config = JobConfig(model="squeezenet1_1", weights="random:0", engine=engine)
        recipes.append(make_recipe(load_model(config.model, weights=config.weights), config))
    native, plain = recipes
    assert isinstance(native.transform, NativeTransform)
    assert not isinstance(plain.transform, NativeTransform)
    with ClipReader(scan_clip(clip), sampling_of(config)) as reader:
        batch = list(reader.read(0))[:5]
    batch.insert(2, batch[1])  # shown twice
    x, y = network_input(batch, native), network_input(batch, plain)
    assert x.shape == (6, 3, 224, 224)
    # To the bit where torch's own rounding is known; elsewhere a level of few pixels may differ.
    assert relative_l2(x, y) < 1e-4
    assert torch.equal(x[1], x[2])


def test_a_transform_without_a_native_form_stays(clip: Path) -> None:
    spec = "resize=32,crop=32,mean=0/0/0,std=1/1/1,antialias=false"
    config = JobConfig(model="squeezenet1_1", weights="random:0", preprocess=spec)
    model = load_model(config.model, weights=config.weights, preprocess=config.preprocess)
    made = make_recipe(model, config)
    assert made.engine == "native"
    assert made.transform is model.transform
    assert made.without_torch() is None


@pytest.mark.parametrize("engine", ["torch", "native"])
def test_a_frame_that_the_network_cannot_take_fails_in_one_line(engine: str) -> None:
    config = JobConfig.from_mapping(
        {
            "model": "alexnet",
            "weights": "random:0",
            "engine": engine,
            "preprocess": "resize=32,crop=32,mean=0/0/0,std=1/1/1",
        }
    )
    model = load_model("alexnet", weights="random:0", preprocess=config.preprocess)
    with pytest.raises(EngineError, match=r"'features.\d+' cannot be computed for a frame of inp"):
        make_recipe(model, config)
