"""torchvision's networks: random weights, published weights, the list."""

from __future__ import annotations

import copy
import json
import os
import pickle
import urllib.error
import urllib.request
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision import models

from rrm_extract.errors import ModelError, PreprocessError, WeightsError
from rrm_extract.jobs.compress import compress_network
from rrm_extract.jobs.recipe import weights_notes
from rrm_extract.models import list_models, load_model, torchvision_models
from rrm_extract.models.download import ensure_cached
from rrm_extract.models.loaded import hash_state
from tests.torch_defaults import other_defaults


def noise(count: int, side: int) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small", "resnet18"])
def test_random_weights_are_torchvisions_own(name: str) -> None:
    before = torch.get_rng_state()
    loaded = load_model(name, weights="random:3")
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        expected = models.get_model(name, weights=None).state_dict()
    state = loaded.module.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in state)
    assert loaded.weights_id == "random:3"


def test_random_weights_depend_on_the_seed_only() -> None:
    first = load_model("squeezenet1_1", weights="random")
    torch.rand(1)
    assert first.weights_id == "random:0"
    assert load_model("squeezenet1_1", weights="random:0").weights_sha256 == first.weights_sha256
    assert load_model("squeezenet1_1", weights="random:1").weights_sha256 != first.weights_sha256


def test_random_weights_do_not_depend_on_torchs_defaults() -> None:
    expected = load_model("squeezenet1_1", weights="random:0").weights_sha256
    with other_defaults():
        found = load_model("squeezenet1_1", weights="random:0").weights_sha256
        assert torch.get_default_dtype() == torch.float64, "put back"
        assert torch.empty(0).is_meta
    assert found == expected


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_input_is_transformed_as_with_published_weights(name: str) -> None:
    loaded = load_model(name, weights="random:0")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ordinary = models.get_model(name, weights=None, init_weights=True, transform_input=True)
    x = noise(1, 128)
    assert torch.equal(loaded.module(x), ordinary.eval()(x))
    assert not any("aux" in key.lower() for key in loaded.module.state_dict())
    assert loaded.missing_keys == frozenset()


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache to put files in; what is there passes for published weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torchvision_models, "ensure_cached", lambda *_, **__: None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("weights", ["default", "IMAGENET1K_V1", "GoogLeNet_Weights.IMAGENET1K_V1"])
def test_published_weights_make_the_ordinary_network(published: Path, weights: str) -> None:
    entry = models.GoogLeNet_Weights.IMAGENET1K_V1
    state = models.googlenet(weights=None, init_weights=False).state_dict()
    torch.save(state, published / Path(entry.url).name)
    before = torch.get_rng_state()
    loaded = load_model("googlenet", weights=weights)
    assert torch.equal(torch.get_rng_state(), before)
    ordinary = models.googlenet(weights=entry).eval()
    x = noise(1, 128)
    assert torch.equal(loaded.module(x), ordinary(x))
    assert loaded.weights_id == "GoogLeNet_Weights.IMAGENET1K_V1"
    assert loaded.categories is not None
    assert loaded.categories[:2] == ("tench", "goldfish")
    assert loaded.missing_keys == frozenset()
    frame = torch.zeros(1, 3, 50, 60, dtype=torch.uint8)
    assert torch.equal(loaded.transform(frame), entry.transforms()(frame))
    # The same file given by its path, with its heads for training, makes the same network.
    from_file = load_model("googlenet", weights=str(published / Path(entry.url).name))
    assert from_file.weights_sha256 == loaded.weights_sha256
    assert torch.equal(from_file.module(x), ordinary(x))
    assert from_file.unexpected_keys == frozenset()


@pytest.mark.parametrize(
    ("entry", "resize"),
    [
        (models.MobileNet_V3_Large_Weights.IMAGENET1K_V1, 256),
        (models.MobileNet_V3_Large_Weights.IMAGENET1K_V2, 232),
    ],
)
def test_a_published_file_has_its_own_transform(tmp_path: Path, entry: Any, resize: int) -> None:
    path = tmp_path / Path(entry.url).name
    torch.save(models.mobilenet_v3_large(weights=None).state_dict(), path)
    loaded = load_model("mobilenet_v3_large", weights=str(path))
    assert loaded.preprocess["resize"] == resize
    frame = torch.zeros(1, 3, 300, 400, dtype=torch.uint8)
    frame[..., 150:] = 200
    assert torch.equal(loaded.transform(frame), entry.transforms()(frame))
    assert weights_notes(loaded) == ()
    given = load_model("mobilenet_v3_large", weights=str(path), preprocess="imagenet")
    assert given.preprocess["resize"] == 256


def test_a_transform_that_is_assumed_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save(models.mobilenet_v3_large(weights=None).state_dict(), path)
    loaded = load_model("mobilenet_v3_large", weights=str(path))
    assert loaded.preprocess["resize"] == 232
    assert weights_notes(loaded) == (
        "weights file:mine.pth do not say how frames become their input; it is assumed to be as "
        "for MobileNet_V3_Large_Weights.IMAGENET1K_V2 (--preprocess says otherwise)",
    )
    given = load_model("mobilenet_v3_large", weights=str(path), preprocess="imagenet")
    assert weights_notes(given) == ()
    torch.save(models.squeezenet1_1(weights=None).state_dict(), path)
    assert weights_notes(load_model("squeezenet1_1", weights=str(path))) == (), "there is but one"


def small_transformer(_name: str = "", *, image_size: int, weights: None = None) -> torch.nn.Module:
    """A vision transformer with patches as those of vit_b_16, in place of 86 million weights."""
    assert weights is None
    sizes = {"num_layers": 1, "num_heads": 1, "hidden_dim": 8, "mlp_dim": 8, "num_classes": 4}
    return models.VisionTransformer(image_size=image_size, patch_size=16, **sizes)


def test_a_vision_transformer_is_made_for_the_size_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "get_model", small_transformer)
    path = tmp_path / Path(models.ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1.url).name
    torch.save(small_transformer(image_size=384).state_dict(), path)
    loaded = load_model("vit_b_16", weights=str(path))
    assert loaded.input_shape == (3, 384, 384)
    assert loaded.module(noise(1, 384)).shape == (1, 4)
    compressed = tmp_path / "vit.dcz"
    compress_network("vit_b_16", compressed, weights=str(path), densities={None: 0.5})
    for again in (load_model(str(compressed)), load_model("vit_b_16", weights=str(compressed))):
        assert again.input_shape == (3, 384, 384)
        assert again.missing_keys == frozenset()
    assert load_model("vit_b_16", weights="random:0").input_shape == (3, 224, 224)


@pytest.mark.parametrize(
    ("given", "found"),
    [("crop=100", "3x100x100"), ("crop=64/128", "3x64x128"), ("crop=64,layout=nhwc", "64x64x3")],
)
def test_sizes_that_no_vision_transformer_takes_fail(given: str, found: str) -> None:
    described = f"resize=128,mean=0/0/0,std=1/1/1,{given}"
    with pytest.raises(
        PreprocessError,
        match=rf"vit_b_16 takes 3xSxS with S a multiple of 16, preprocess gives {found}: change",
    ):
        load_model("vit_b_16", weights="random:0", preprocess=described)


def test_published_weights_without_classifier_are_reported(published: Path) -> None:
    state = models.squeezenet1_1(weights=None).state_dict()
    for name in state:
        if name.startswith("classifier"):
            state[name].fill_(float("nan"))
    torch.save(state, published / Path(models.SqueezeNet1_1_Weights.DEFAULT.url).name)
    loaded = load_model("squeezenet1_1")
    assert loaded.missing_keys == {"classifier.1.weight", "classifier.1.bias"}


def test_offline_fails_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(WeightsError) as info:
        load_model("resnet18")
    message = str(info.value)
    for part in (
        "ResNet18_Weights.IMAGENET1K_V1",
        "Name or service not known",
        f"at {tmp_path}/hub/checkpoints/resnet18-f37072fd.pth",
        "--weights FILE",
        "--weights random:0",
    ):
        assert part in message
    assert "\n" not in message


def test_dead_proxy_fails_quickly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxies
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    start = monotonic()
    with pytest.raises(WeightsError, match="neither cached nor downloadable"):
        load_model("squeezenet1_1")
    assert monotonic() - start < 5
    assert list(tmp_path.rglob("*.*")) == []


def test_cache_that_cannot_be_written_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match="neither cached nor downloadable"):
        load_model("resnet18")


def test_cache_that_cannot_be_looked_into_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / ("a" * 300)))
    with pytest.raises(WeightsError, match=r"cached nor downloadable \(OSError: .* too long: "):
        load_model("resnet18")


def test_cache_of_a_user_without_a_home_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", "~nobody-of-that-name/torch")
    with pytest.raises(WeightsError, match=r"no folder to be kept in \(.*\): set TORCH_HOME"):
        load_model("resnet18")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with a published file; the cache is another folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    content = b"weights"
    path = tmp_path / f"net-{sha256(content).hexdigest()[:8]}.pth"
    path.write_bytes(content)
    return path


def test_download_is_kept(server: Path) -> None:
    cached = ensure_cached("net", server.as_uri(), weights_id="Net.V1")
    server.unlink()
    assert ensure_cached("net", server.as_uri(), weights_id="Net.V1") == cached
    assert cached.read_bytes() == b"weights"


def test_parts_of_downloads_that_were_killed_are_removed(server: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    others = ("other.pth.0a.partial", f"{server.name}.0b.part")
    left, recent, *kept = (
        folder / name
        for name in (f"{server.name}.0a.partial", f"{server.name}.0b.partial", *others)
    )
    for part in (left, recent, *kept):
        part.touch()
        if part != recent:  # somebody is writing it
            os.utime(part, (0, 0))
    cached = ensure_cached("net", server.as_uri(), weights_id="Net.V1")
    assert set(folder.iterdir()) == {cached, recent, *kept}


def test_damaged_download_fails_and_leaves_nothing(server: Path, tmp_path: Path) -> None:
    server.write_bytes(b"weight")
    with pytest.raises(WeightsError, match="invalid hash value"):
        ensure_cached("net", server.as_uri(), weights_id="Net.V1")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_damaged_cache_fails(server: Path) -> None:
    cached = ensure_cached("net", server.as_uri(), weights_id="Net.V1")
    cached.write_bytes(b"weight")
    with pytest.raises(WeightsError, match=r"damaged or another file .* delete it"):
        ensure_cached("net", server.as_uri(), weights_id="Net.V1")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("IMAGENET1K_V7", "it has IMAGENET1K_V1; did you mean IMAGENET1K_V1?"),
        ("ResNet50_Weights.IMAGENET1K_V2", "resnet18 has no weights"),
        ("DEFAULT ", "resnet18 has no weights"),
        ("random:x", "expected random:SEED"),
        ("random:-1", "expected random:SEED"),
        ("random:", "expected random:SEED"),
    ],
)
def test_weights_names_fail(weights: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message.replace("?", r"\?")):
        load_model("resnet18", weights=weights)


@pytest.mark.parametrize("name", ["resnet81", "ResNet18", "fasterrcnn_resnet50_fpn", "", "vgg"])
def test_unknown_names_fail(name: str) -> None:
    with pytest.raises(ModelError, match=r"no model .*Expected a torchvision name, timm/NAME"):
        load_model(name, weights="random:0")


def test_near_names_are_offered() -> None:
    with pytest.raises(ModelError, match=r"did you mean resnet18"):
        load_model("resnet81")


def test_module_is_ready_for_inference() -> None:
    loaded = load_model("mobilenet_v3_small", weights="random:0")
    assert not any(part.training for part in loaded.module.modules())
    assert not any(p.requires_grad for p in loaded.module.parameters())
    assert {p.dtype for p in loaded.module.parameters()} == {torch.float32}
    assert {p.device.type for p in loaded.module.parameters()} == {"cpu"}
    assert loaded.leaf_modules == ()
    assert loaded.leaf_functions == ()
    assert json.loads(json.dumps(loaded.preprocess)) == loaded.preprocess


def test_pickles() -> None:
    loaded = load_model("squeezenet1_1", weights="random:0")
    again = pickle.loads(pickle.dumps(loaded))
    x = torch.full((1, 3, 40, 30), 90, dtype=torch.uint8)
    assert torch.equal(again.module(again.transform(x)), loaded.module(loaded.transform(x)))
    assert hash_state(again.module) == loaded.weights_sha256


def test_hash_sees_names_dtypes_shapes_and_values() -> None:
    module = torch.nn.Linear(2, 3)
    original = hash_state(module)
    assert hash_state(copy.deepcopy(module)) == original
    changed = [copy.deepcopy(module) for _ in range(3)]
    changed[0].weight.data[0, 0] += 1
    changed[1].weight.data = changed[1].weight.data.reshape(2, 3)
    changed[2].half()
    renamed = torch.nn.Module()
    renamed.register_parameter("weights", module.weight)
    renamed.register_parameter("bias", module.bias)
    assert len({original, *(hash_state(each) for each in [*changed, renamed])}) == 5


def test_list_is_torchvisions() -> None:
    entries = {entry.name: entry for entry in list_models() if entry.source == "torchvision"}
    assert sorted(entries) == sorted(models.list_models(module=models))
    assert {name for name, entry in entries.items() if entry.paper} == {
        "alexnet",
        "resnet18",
        "vgg16",
    }
    assert {one.name for one in list_models() if one.paper and one.source != "torchvision"} == {
        "rtpose", "tiny_yolov2", "xnor_alexnet", "xnor_resnet18", "yolov2",
    }  # fmt: skip
    not_cnn = {entry.family for entry in entries.values() if not entry.is_cnn}
    assert not_cnn == {"vision_transformer", "swin_transformer", "maxvit"}
    resnet = entries["resnet18"]
    assert (resnet.family, resnet.source) == ("resnet", "torchvision")
    assert resnet.default_weights == "ResNet18_Weights.IMAGENET1K_V1"
    assert resnet.n_parameters == 11_689_512
    assert entries["inception_v3"].input_shape == (3, 299, 299)
