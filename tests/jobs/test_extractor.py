from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from rrm_extract.config import JobConfig
from rrm_extract.errors import ClipDamagedError, ConfigError, LayerError, WeightsError
from rrm_extract.jobs import ChunkExtractor, batches, make_recipe, network_input
from rrm_extract.jobs import recipe as recipe_module
from rrm_extract.jobs.recipe import Recipe, load_recipe, sampling_of, save_recipe
from rrm_extract.models import load_model
from rrm_extract.report.network import describe_network
from rrm_extract.report.verify import Verifier
from rrm_extract.video import ClipReader, SampledFrame, scan_clip
from rrm_extract.video.synthetic import write_demo_clip
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.memory import assert_mapped_not_copied
from tests.tiny import MODEL
from tests.torch_defaults import other_defaults


def recipe(**options: object) -> Recipe:
    config = JobConfig.from_mapping({"model": MODEL, "threshold": 0, **options})
    return make_recipe(load_model(config.model, weights=config.weights), config)


def frame(number: int, image: np.ndarray | None = None) -> SampledFrame:
    if image is None:
        image = np.full((40, 50, 3), number, np.uint8)
    return SampledFrame(
        image=image, sample_index=number, timestamp=0.0, pts=0, frame_index=number, rotation=0
    )


def test_features_equal_the_ordinary_network(tmp_path: Path) -> None:
    clip = write_demo_clip(tmp_path / "clip.mp4", seconds=1.5, size=(64, 48))
    config = JobConfig(model=MODEL, threshold=0, chunk=1.0)
    model = load_model(MODEL)
    made = make_recipe(model, config)
    extractor = ChunkExtractor(made)
    with ClipReader(scan_clip(clip), sampling_of(config)) as reader:
        results = [extractor.extract(reader, index, "clip.mp4") for index in range(2)]
        frames = [frame for index in range(2) for frame in reader.read(index)]
    assert [len(result.features) for result in results] == [24, 12]
    assert all(result.key_frame[0] for result in results), "each chunk begins anew"
    pixels = torch.from_numpy(np.stack([frame.image for frame in frames])).permute(0, 3, 1, 2)
    with torch.inference_mode():
        maps = model.module.features(model.transform(pixels))  # type: ignore[operator]
    features = torch.from_numpy(np.concatenate([result.features for result in results]))
    assert made.feature_shape == (16,)
    assert relative_l2(features, maps.mean(dim=(2, 3))) < EXACT_RECURRENCE


def test_an_unpooled_feature_map_keeps_its_shape() -> None:
    made = recipe(layer="features", pool="none")
    assert made.feature_shape == (16, 16, 16)
    assert recipe(layer="features").feature_shape == (16,)


def test_recipes_survive_a_file(tmp_path: Path) -> None:
    made = recipe()
    save_recipe(made, tmp_path / "recipe")
    loaded = load_recipe(tmp_path / "recipe")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded.program(x)[0], made.program(x)[0])


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc")
def test_weights_of_a_recipe_are_shared_not_copied(tmp_path: Path) -> None:
    config = JobConfig(model="squeezenet1_1", weights="random:0")
    path = tmp_path / "recipe"
    save_recipe(make_recipe(load_model(config.model, weights=config.weights), config), path)
    loaded = load_recipe(path)
    loaded.network().run(torch.randn(2, 3, 224, 224))
    assert_mapped_not_copied(path)


def test_frames_of_several_sizes_and_repeated_frames() -> None:
    made = recipe()
    same = frame(3)
    images = [frame(1), same, same, frame(2, np.full((60, 33, 3), 9, np.uint8))]
    x = network_input(images, made)
    one_by_one = torch.cat([network_input([image], made) for image in images])
    assert torch.equal(x, one_by_one)


def damaged(count: int) -> Iterator[SampledFrame]:
    for number in range(count):
        yield frame(number)
    raise ClipDamagedError("the rest is gone")


@pytest.mark.parametrize("count", [0, 3, 4, 9])
def test_frames_before_the_damage_are_kept(count: int) -> None:
    source = batches(damaged(count), 4)
    got = [frame.sample_index for _ in range(-(-count // 4)) for frame in next(source)]
    assert got == list(range(count))
    with pytest.raises(ClipDamagedError):
        next(source)


def test_missing_weights_that_the_feature_needs_fail(tmp_path: Path) -> None:
    model = load_model(MODEL)
    state = {k: v for k, v in model.module.state_dict().items() if k.startswith("features")}
    torch.save(state, tmp_path / "features.pth")
    partial = load_model(MODEL, weights=str(tmp_path / "features.pth"))
    assert partial.missing_keys == {"fc.weight", "fc.bias"}
    make_recipe(partial, JobConfig(model=MODEL))  # the feature does not depend on the classifier
    with pytest.raises(WeightsError, match=r"lack 2 .*'fc'.*fc\.bias\).* --layer$"):
        make_recipe(partial, JobConfig(model=MODEL, layer="fc"))


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_recipes_do_not_depend_on_torchs_defaults(engine: str) -> None:
    if engine == "native":
        pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")
    config = JobConfig(model=MODEL, engine=engine)
    expected = recipe(engine=engine)
    with other_defaults():
        made = make_recipe(load_model(MODEL), config)
        verifier = Verifier(config)
        description = describe_network(MODEL)
    for name in ("feature_shape", "layers", "layer"):
        assert str(getattr(made, name)) == str(getattr(expected, name)), "NaN are not equal"
    assert len(verifier.ordinary(torch.zeros(1, 3, 32, 32))) == 2, "the feature and the classes"
    assert description.to_json() == describe_network(MODEL).to_json()


def test_a_verifier_refuses_a_target_without_thresholds() -> None:
    with pytest.raises(ConfigError, match=r"target_error 0\.01 .* expected thresholds: "):
        Verifier(JobConfig(model=MODEL, target_error=0.01))


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cpu", torch.backends.cpu.get_cpu_capability()),
        ("cuda:0", "A GPU"),
        ("meta", "meta"),
    ],
)
def test_what_computed_is_the_device(
    device: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_module, "check_device", lambda _: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A GPU")
    plan, _ = recipe_module.load_plan(JobConfig(model=MODEL, engine="torch", device=device))
    assert plan.kernel_isa == words


def test_unknown_layer_and_device_fail() -> None:
    with pytest.raises(LayerError, match="nearest"):
        recipe(layer="featurez.0")
    for device in ("cuda:77", "meta"):
        with pytest.raises(ConfigError, match=f"device '{device}' cannot be used here"):
            recipe(device=device)
