"""Weights files: every usual way of writing one, and what does not fit."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import Tensor, nn
from torchvision import models

from rrm_extract.errors import WeightsError
from rrm_extract.models import load_model
from rrm_extract.models.checkpoint import fit_checkpoint, read_checkpoint
from rrm_extract.models.xnor.alexnet import xnor_alexnet

State = dict[str, Tensor]


class Small(nn.Module):
    """Names like those of torchvision: a body under ``features``, a head."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.fc = nn.Linear(width, 2)


def small_state(seed: int = 1) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(tensor.shape, generator=generator)
        if tensor.is_floating_point()
        else torch.tensor(7)
        for name, tensor in Small().state_dict().items()
    }


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


def wrapped_features(state: State) -> State:
    """As after ``model.features = DataParallel(model.features)``."""
    return {
        f"features.module.{name.removeprefix('features.')}"
        if name.startswith("features.")
        else name: tensor
        for name, tensor in state.items()
    }


def backbone_and_head(state: State) -> State:
    return {
        name if name.startswith("fc") else f"backbone.{name}": tensor
        for name, tensor in state.items()
    }


@pytest.mark.parametrize(
    "rename",
    [
        dict,
        prefixed("module."),
        prefixed("model."),
        prefixed("module.model.backbone."),
        prefixed("something_else."),
        backbone_and_head,
        wrapped_features,
    ],
    ids=["plain", "module", "model", "three", "unheard of", "backbone and head", "wrapped part"],
)
def test_prefixes_are_stripped(rename: Callable[[State], State]) -> None:
    module = Small()
    state = small_state()
    fit = fit_checkpoint(module, rename(state), what="test")
    assert (fit.missing, fit.unexpected) == (frozenset(), frozenset())
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_a_wrapped_part_of_the_network_is_unwrapped() -> None:
    """The network's own part may be wrapped, the file's not."""
    module = Small()
    module.features = nn.DataParallel(module.features)
    state = small_state()
    fit = fit_checkpoint(module, state, what="test")
    assert (fit.missing, fit.unexpected) == (frozenset(), frozenset())
    assert torch.equal(module.fc.weight, state["fc.weight"])


@pytest.mark.parametrize(
    "build", [models.alexnet, xnor_alexnet], ids=["torchvision's", "the XNOR-Net's"]
)
def test_files_of_alexnet_with_wrapped_features(build: Callable[[], nn.Module]) -> None:
    module = build()
    state = module.state_dict()
    for tensor in state.values():
        if not tensor.is_floating_point():
            tensor.fill_(7)  # counters of batch norms, in both parts
    saved = {name: tensor.clone() for name, tensor in state.items()}
    for tensor in state.values():
        tensor.zero_()
    fit = fit_checkpoint(module, wrapped_features(saved), what="test")
    assert (fit.missing, fit.unexpected) == (frozenset(), frozenset())
    assert all(torch.equal(tensor, saved[name]) for name, tensor in module.state_dict().items())


def test_a_whole_network_beside_a_wrapped_part_fails() -> None:
    state = {**small_state(), **wrapped_features(small_state(2))}
    with pytest.raises(WeightsError, match=r"w\.pth holds 2 sets of weights that fit"):
        fit_checkpoint(Small(), state, what="w.pth")


@pytest.mark.parametrize("rename", [wrapped_features, prefixed("backbone.")])
def test_of_two_tensors_for_one_name_none_is_taken(rename: Callable[[State], State]) -> None:
    """One of a kind that fits as a whole, with one tensor of another beside it."""
    name = "features.0.weight"
    state = {**rename(small_state()), name: small_state(2)[name]}
    with pytest.raises(
        WeightsError,
        match=r"w\.pth holds 1 of 9 tensors twice, with different numbers: features\.0\.weight as "
        r"'(features\.module|backbone\.features)\.0\.weight' and 'features\.0\.weight'; expected",
    ):
        fit_checkpoint(Small(), state, what="w.pth")
    state[name] = small_state()[name]  # the same one twice, as of a shared layer
    module = Small()
    assert fit_checkpoint(module, state, what="w.pth").missing == frozenset()
    assert torch.equal(module.features[0].weight, state[name])
    state[name] = torch.zeros(1)  # another network's
    assert fit_checkpoint(module, state, what="w.pth").unexpected == {name}
    assert torch.equal(module.features[0].weight, small_state()[name])


def test_prefix_is_added_and_the_missing_head_is_nan() -> None:
    module = Small()
    state = small_state()
    body = {
        name.removeprefix("features."): tensor
        for name, tensor in state.items()
        if name.startswith("features.")
    }
    fit = fit_checkpoint(module, body, what="test")
    assert fit.missing == {"fc.weight", "fc.bias"}
    assert fit.unexpected == frozenset()
    assert torch.equal(module.features[0].weight, state["features.0.weight"])
    assert module.fc.weight.isnan().all()
    assert module.fc.bias.isnan().all()


def test_missing_statistics_are_nan_but_the_counter_is_no_loss() -> None:
    state = small_state()
    del state["features.1.running_var"], state["features.1.num_batches_tracked"]
    module = Small()
    fit = fit_checkpoint(module, state, what="test")
    assert fit.missing == {"features.1.running_var"}
    assert module.features[1].running_var.isnan().all()
    assert module.features[1].num_batches_tracked == 0


def test_unexpected_names_are_those_of_the_file() -> None:
    state = {**prefixed("module.")(small_state()), "module.aux.weight": torch.zeros(3)}
    assert fit_checkpoint(Small(), state, what="test").unexpected == {"module.aux.weight"}


def test_half_precision_is_converted() -> None:
    module = Small()
    state = {name: t.half() if t.ndim else t for name, t in small_state().items()}
    fit_checkpoint(module, state, what="test")
    assert module.fc.weight.dtype == torch.float32
    assert torch.equal(module.fc.weight, state["fc.weight"].float())


def test_shapes_fail() -> None:
    with pytest.raises(
        WeightsError,
        match=r"w\.pth: 7 of 9 tensors do not fit .*: features\.0\.weight is \(8, 3, 3, 3\), "
        r"expected \(4, 3, 3, 3\); .*; and 4 more",
    ):
        fit_checkpoint(Small(), Small(8).state_dict(), what="w.pth")


def test_other_network_fails() -> None:
    with pytest.raises(WeightsError, match=r"none of its 2 names fits .* begins with a; b"):
        fit_checkpoint(Small(), {"a": torch.zeros(1), "b": torch.zeros(1)}, what="w.pth")


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net"])
def test_nested_files_are_read(tmp_path: Path, key: str) -> None:
    path = tmp_path / "w.pth"
    state = small_state()
    torch.save({"epoch": 3, "best": torch.tensor(0.5), key: state}, path)
    read = read_checkpoint(path)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], state[name]) for name in state)


def test_doubly_nested_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"model": {"state_dict": small_state()}}, path)
    assert read_checkpoint(path).keys() == small_state().keys()


def test_files_give_what_was_saved(tmp_path: Path) -> None:
    model = models.squeezenet1_1(weights=None)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    loaded = [
        load_model("squeezenet1_1", weights=str(tmp_path / name))
        for name in ("w.pth", "w.safetensors")
    ]
    for each in loaded:
        assert each.missing_keys == each.unexpected_keys == frozenset()
        state = each.module.state_dict()
        assert all(torch.equal(state[n], t) for n, t in model.state_dict().items())
    assert loaded[0].weights_sha256 == loaded[1].weights_sha256
    assert [each.weights_id for each in loaded] == ["file:w.pth", "file:w.safetensors"]
    assert loaded[0].categories is None


def test_features_only_file_lists_the_classifier(tmp_path: Path) -> None:
    path = tmp_path / "features.pth"
    torch.save(models.squeezenet1_1(weights=None).features.state_dict(), path)
    loaded = load_model("squeezenet1_1", weights=str(path))
    assert loaded.missing_keys == {"classifier.1.weight", "classifier.1.bias"}
    x = torch.zeros(1, *loaded.input_shape)
    assert loaded.module(x).isnan().all()
    assert loaded.module.features(x).isfinite().all()


def test_old_densenet_names_are_understood(tmp_path: Path) -> None:
    state = models.densenet121(weights=None).state_dict()
    old = {
        name.replace("norm1", "norm.1").replace("conv2", "conv.2")
        if "denselayer" in name
        else name: tensor
        for name, tensor in state.items()
    }
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "densenet.pth")
    loaded = load_model("densenet121", weights=str(tmp_path / "densenet.pth"))
    assert loaded.missing_keys == loaded.unexpected_keys == frozenset()


def test_mnasnet_keeps_its_version_without_metadata(tmp_path: Path) -> None:
    model = models.mnasnet0_5(weights=None)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    loaded = load_model("mnasnet0_5", weights=str(tmp_path / "w.safetensors"))
    assert loaded.missing_keys == frozenset()
    assert loaded.module.layers[0].weight.shape == model.layers[0].weight.shape


def test_python_objects_fail(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"state_dict": small_state(), "args": argparse.Namespace(lr=1)}, path)
    with pytest.raises(WeightsError, match=r"Python objects other than tensors"):
        read_checkpoint(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 broken zip"])
def test_unreadable_file_fails(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"weights file '.*w\.\w+'"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 1}, torch.zeros(2)])
def test_file_without_state_dict_fails(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_checkpoint(tmp_path / "w.pth")


def test_missing_file_fails() -> None:
    with pytest.raises(WeightsError, match=r"'nothing\.pth' does not exist"):
        load_model("resnet18", weights="nothing.pth")


@pytest.mark.parametrize("length", [1, 120, 10_000])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_cut_short_fails(tmp_path: Path, length: int, legacy: bool) -> None:
    path = tmp_path / "w.pth"
    state = {"weight": torch.zeros(10_000)}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(WeightsError, match=r"w\.pth' (is no file of torch\.save, or|cannot be)"):
        read_checkpoint(path)


def test_sparse_tensors_fail() -> None:
    state = {**small_state(), "fc.weight": small_state()["fc.weight"].to_sparse()}
    with pytest.raises(WeightsError, match=r"fc\.weight is a sparse tensor; expected dense"):
        fit_checkpoint(Small(), state, what="w.pth")


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
def test_codes_and_masks_are_no_weights(dtype: torch.dtype) -> None:
    state = {**small_state(), "fc.weight": small_state()["fc.weight"].to(dtype)}
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(WeightsError, match=rf"fc\.weight is {kind}, expected floating-point"):
        fit_checkpoint(Small(), state, what="w.pth")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_quantized_tensors_fail() -> None:
    weight = torch.quantize_per_tensor(small_state()["fc.weight"], 0.1, 0, torch.qint8)
    with pytest.raises(WeightsError, match=r"fc\.weight is a quantized tensor; expected plain"):
        fit_checkpoint(Small(), {**small_state(), "fc.weight": weight}, what="w.pth")


def test_tensors_without_data_fail() -> None:
    state = {name: tensor.to("meta") for name, tensor in small_state().items()}
    with pytest.raises(WeightsError, match=r"is a tensor without data \(on the meta device\)"):
        fit_checkpoint(Small(), state, what="w.pth")


@pytest.mark.parametrize("names", [("model", "ema"), ("teacher", "student")])
@pytest.mark.parametrize("classifier", [True, False])
def test_of_two_networks_none_is_taken(names: tuple[str, str], classifier: bool) -> None:
    state = {
        f"{name}.{key}": value
        for name in names
        for key, value in small_state().items()
        if classifier or not key.startswith("fc")
    }
    with pytest.raises(WeightsError, match=r"w\.pth holds 2 sets of weights that fit, with names"):
        fit_checkpoint(Small(), state, what="w.pth")


class Shared(nn.Module):
    """Layers that share weights: as one module, as one parameter, and as one memory."""

    def __init__(self) -> None:
        super().__init__()
        self.a = self.b = nn.Conv2d(3, 3, 3)
        self.c, self.d = nn.Linear(4, 4), nn.Linear(4, 4)
        self.d.weight = self.c.weight
        self.d.bias = nn.Parameter(self.c.bias.detach())


def test_shared_layers_are_given_by_one_name(tmp_path: Path) -> None:
    saved, module = Shared(), Shared()
    save_model(saved, tmp_path / "w.safetensors")
    state = read_checkpoint(tmp_path / "w.safetensors")
    assert len(state) == 4, "else nothing is tested"
    fit = fit_checkpoint(module, state, what="test")
    assert (fit.missing, fit.unexpected) == (frozenset(), frozenset())
    expected = saved.state_dict()
    assert all(torch.equal(tensor, expected[n]) for n, tensor in module.state_dict().items())


def test_shared_layers_that_are_missing_are_nan() -> None:
    state = {name: tensor for name, tensor in Shared().state_dict().items() if name[0] in "ab"}
    fit = fit_checkpoint(Shared(), state, what="test")
    assert fit.missing == {"c.weight", "c.bias", "d.weight", "d.bias"}


def test_a_nest_that_holds_itself_fails(tmp_path: Path) -> None:
    content: dict[str, object] = {"epoch": 3}
    content["model"] = content
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_checkpoint(tmp_path / "w.pth")
    content["state_dict"] = small_state()
    torch.save(content, tmp_path / "w.pth")
    assert read_checkpoint(tmp_path / "w.pth").keys() == small_state().keys()


def test_nests_under_many_names_are_searched_once(tmp_path: Path) -> None:
    content: dict[str, object] = {}
    for _ in range(30):
        content = dict.fromkeys(("state_dict", "model", "net", "params"), content)
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_checkpoint(tmp_path / "w.pth")


def test_one_dictionary_under_two_names_is_where_it_is_likeliest(tmp_path: Path) -> None:
    ema = {name: tensor + 1 for name, tensor in small_state().items()}
    same = small_state()
    torch.save({"state_dict": same, "state_dict_ema": ema, "model": same}, tmp_path / "w.pth")
    read = read_checkpoint(tmp_path / "w.pth")
    assert all(torch.equal(read[name], tensor) for name, tensor in same.items())


def test_the_likeliest_nest_is_taken(tmp_path: Path) -> None:
    ema = {name: tensor + 1 for name, tensor in small_state().items()}
    torch.save({"params_ema": ema, "model": {"net": small_state()}}, tmp_path / "w.pth")
    read = read_checkpoint(tmp_path / "w.pth")
    assert all(torch.equal(read[name], tensor) for name, tensor in small_state().items())
