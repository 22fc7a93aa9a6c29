"""``timm/NAME``."""

from __future__ import annotations

import importlib
import pickle
import sys
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from rrm_extract.errors import ModelError, WeightsError
from rrm_extract.jobs.compress import compress_network
from rrm_extract.models import load_model, parse_preprocess, timm_models
from rrm_extract.models.compression.dcz_reader import describe_dcz


@pytest.fixture
def timm() -> Any:
    return pytest.importorskip("timm", reason="the extra `timm` is not installed")


def frames(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=generator)


def test_random_weights_need_no_network(timm: Any) -> None:
    before = torch.get_rng_state()
    loaded = load_model("timm/resnet10t", weights="random:4")
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        expected = timm.create_model("resnet10t", pretrained=False).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded.module(x), expected(x))
    assert (loaded.source, loaded.weights_id) == ("timm", "random:4")


@pytest.mark.parametrize("size", [(120, 160), (160, 90), (20, 30)])
@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050"])
def test_transform_is_timms_on_pil_images(timm: Any, name: str, size: tuple[int, int]) -> None:
    loaded = load_model(f"timm/{name}", weights="random:0")
    data = importlib.import_module("timm.data")
    config = data.resolve_data_config({}, model=loaded.module)
    transform = data.create_transform(**config, is_training=False)
    x = frames(*size)
    expected = torch.stack([transform(to_pil_image(frame)) for frame in x])
    assert torch.equal(loaded.transform(x), expected)
    assert loaded.input_shape == tuple(expected.shape[1:])
    assert loaded.preprocess["crop_pct"] == config["crop_pct"]


def test_leaves_for_tracing(timm: Any) -> None:
    loaded = load_model("timm/mobilenetv3_small_050", weights="random:0")
    assert "BatchNormAct2d" in {leaf.__name__ for leaf in loaded.leaf_modules}
    extraction = importlib.import_module("torchvision.models.feature_extraction")
    tracer = extraction.NodePathTracer(
        leaf_modules=list(loaded.leaf_modules),
        autowrap_functions=loaded.leaf_functions,
    )
    tracer.trace(loaded.module)
    assert "bn1" in tracer.node_to_qualname.values()


def test_pickles(timm: Any) -> None:
    loaded = load_model("timm/resnet10t", weights="random:0")
    again = pickle.loads(pickle.dumps(loaded))
    x = frames(50, 60)
    assert torch.equal(again.transform(x), loaded.transform(x))
    assert again.leaf_functions == loaded.leaf_functions


def test_weights_file(timm: Any, tmp_path: Path) -> None:
    first = load_model("timm/resnet10t", weights="random:1")
    torch.save({"state_dict": first.module.state_dict()}, tmp_path / "w.pth")
    second = load_model("timm/resnet10t", weights=str(tmp_path / "w.pth"))
    assert second.weights_sha256 == first.weights_sha256


def test_cached_weights_need_no_network(
    timm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_model("timm/resnet10t", weights="random:1")
    torch.save(first.module.state_dict(), tmp_path / "model.pth")
    monkeypatch.setattr(timm_models, "_find_in_hub_cache", lambda _: tmp_path / "model.pth")
    loaded = load_model("timm/resnet10t")
    assert loaded.weights_sha256 == first.weights_sha256
    assert loaded.weights_id == "timm:resnet10t.c3_in1k"


def test_cached_weights_are_no_file_of_another_kind(
    timm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Big Transfer's networks read .npz files by themselves; the hub has others."""
    asked: list[dict[str, Any]] = []

    def create(name: str, *, pretrained: bool, pretrained_cfg_overlay: dict[str, Any]) -> None:
        asked.append(pretrained_cfg_overlay)
        raise RuntimeError("that is all")

    monkeypatch.setattr(timm_models, "_find_in_hub_cache", lambda _: tmp_path / "model.safetensors")
    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(WeightsError, match="that is all"):
        load_model("timm/resnetv2_50x1_bit")
    assert asked == [{"file": str(tmp_path / "model.safetensors"), "custom_load": False}]


@pytest.mark.parametrize(
    ("name", "current"),
    [("mnasnet_b1", "mnasnet_100"), ("tf_efficientnet_b0_ns", "tf_efficientnet_b0.ns_jft_in1k")],
)
def test_an_old_name_has_its_weights(
    timm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, current: str
) -> None:
    first = load_model(f"timm/{name}", weights="random:1")
    assert load_model(f"timm/{current}", weights="random:1").weights_sha256 == first.weights_sha256
    torch.save(first.module.state_dict(), tmp_path / "model.pth")
    monkeypatch.setattr(timm_models, "_find_in_hub_cache", lambda _: tmp_path / "model.pth")
    loaded = load_model(f"timm/{name}")
    assert loaded.weights_sha256 == first.weights_sha256
    assert loaded.weights_id.startswith(f"timm:{current}")
    tag = loaded.weights_id.partition(".")[2]
    assert load_model(f"timm/{name}", weights=tag).weights_id == loaded.weights_id


def test_a_damaged_cached_file_is_named(
    timm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blob").write_bytes(b"no weights at all")
    cached = tmp_path / "model.safetensors"
    cached.symlink_to(tmp_path / "blob")  # as in the hub's cache
    monkeypatch.setattr(timm_models, "_find_in_hub_cache", lambda _: cached)
    with pytest.raises(WeightsError, match=r"is damaged, or of another network") as info:
        load_model("timm/resnet10t")
    assert f"the cached file {cached} of weights timm/resnet10t.c3_in1k" in str(info.value)
    assert f"delete {tmp_path / 'blob'}, then" in str(info.value)
    assert "\n" not in str(info.value)


def test_any_error_of_the_hubs_client_is_told(timm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class ClientError(Exception):
        pass

    def create(*_: object, **__: object) -> None:
        raise ClientError("connection reset")

    monkeypatch.setattr(timm_models, "_find_in_hub_cache", lambda _: None)
    monkeypatch.setattr(timm_models, "_check_hub", lambda *_: None)
    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(WeightsError, match=r"nor downloadable \(ClientError: connection reset\)"):
        load_model("timm/resnet10t")


def test_offline_fails_quickly(timm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(timm_models, "_find_in_hub_cache", lambda _: None)
    monkeypatch.setattr(timm_models.urllib.request, "urlopen", offline)
    with pytest.raises(WeightsError, match=r"resnet10t.*Name or service.*--weights random:0"):
        load_model("timm/resnet10t")


@pytest.mark.parametrize("name", ["resnet10", "resnet10t.nowhere", "", "hf-hub:some/thing"])
def test_unknown_name_fails(timm: Any, name: str) -> None:
    with pytest.raises(ModelError, match="timm has no model"):
        load_model(f"timm/{name}", weights="random:0")


def test_unknown_tag_fails(timm: Any) -> None:
    with pytest.raises(WeightsError, match=r"resnet10t has no weights 'v9'; it has c3_in1k"):
        load_model("timm/resnet10t", weights="v9")


def test_not_installed_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r'pip install "rrm-extract\[timm\]"'):
        load_model("timm/resnet18")


def test_a_compressed_file_keeps_its_preprocess(timm: Any, tmp_path: Path) -> None:
    path = tmp_path / "t.dcz"
    text = "resize=128,crop=112,mean=0/0/0,std=1/1/1"
    compress_network(
        "timm/resnet10t", path, weights="random:0", preprocess=text, densities={None: 0.3}
    )
    loaded = load_model(str(path))
    assert loaded.preprocess == describe_dcz(path).preprocess == parse_preprocess(text).describe()
    assert loaded.transform == parse_preprocess(text)
    assert load_model(str(path), preprocess="imagenet").transform == parse_preprocess("imagenet")


def test_a_compressed_file_has_timms_own_preprocess(timm: Any, tmp_path: Path) -> None:
    path = tmp_path / "t.dcz"
    compress_network("timm/resnet10t", path, weights="random:0", densities={None: 0.3})
    own = load_model("timm/resnet10t", weights="random:0")
    assert load_model(str(path)).transform == own.transform
