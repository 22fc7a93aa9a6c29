"""XNOR-Nets: what their layers compute, their weights, and the commands."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rrm_extract import FeatureFile
from rrm_extract.errors import ModelError, WeightsError
from rrm_extract.graph import (
    BinaryConv2d,
    BinaryLinear,
    Sign,
    default_layer,
    fold_batch_norm,
    select,
)
from rrm_extract.graph import trace as trace_module
from rrm_extract.models import list_models, load_model
from rrm_extract.models.loaded import hash_state
from rrm_extract.models.xnor import xnor_alexnet, xnor_resnet18
from rrm_extract.video.synthetic import write_demo_clip
from tests.command import called, rrm_extract

LAYERS = (
    lambda: BinaryConv2d(5, 7, 3, stride=2, padding=1),
    lambda: BinaryConv2d(4, 6, (1, 3), padding=(0, 2), groups=2, bias=False),
    lambda: BinaryLinear(11, 3),
    lambda: BinaryLinear(8, 5, bias=False),
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def signs_for(layer: nn.Module, count: int = 3) -> Tensor:
    linear = isinstance(layer, nn.Linear)
    shape = (layer.in_features,) if linear else (layer.in_channels, 6, 9)  # type: ignore[union-attr]
    return Sign()(torch.randn(count, *shape, generator=generator()))


def test_zero_has_the_sign_of_positive_numbers() -> None:
    x = torch.tensor([-math.inf, -1e-40, -0.0, 0.0, 1e-40, 2.0, math.inf])
    assert Sign()(x).tolist() == [-1, -1, 1, 1, 1, 1, 1]
    assert Sign()(torch.tensor(math.nan)).isnan()
    assert Sign()(x.double()).dtype == torch.float64


@pytest.mark.parametrize("make", LAYERS)
def test_a_layer_is_its_signs_times_the_mean_magnitude(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    layer = make()
    with torch.no_grad():
        layer.weight.view(-1)[0] = 0.0  # whose sign is 1
    x = signs_for(layer)
    weight = layer.weight.detach().double()
    magnitude = torch.stack([one.abs().mean() for one in weight])
    signs = torch.where(weight >= 0, 1.0, -1.0)
    ordinary = nn.Linear if isinstance(layer, nn.Linear) else nn.Conv2d
    with torch.no_grad():
        layer_64 = make().double()
        layer_64.load_state_dict({**layer.state_dict()})
        layer_64.weight.copy_(signs * magnitude.reshape(-1, *[1] * (weight.dim() - 1)))
        expected = ordinary.forward(layer_64, x.double())
        torch.testing.assert_close(layer(x).double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("make", LAYERS)
def test_what_is_binary_stays_as_it_is(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    layer = make()
    x = signs_for(layer)
    before = layer(x)
    for _ in range(2):
        layer.binarise()
        assert all(len(one.abs().unique()) == 1 for one in layer.weight)
        assert torch.equal(layer(x), before)


def test_the_border_is_zero_not_a_sign() -> None:
    layer = BinaryConv2d(2, 1, 3, padding=1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    y = layer(torch.ones(1, 2, 4, 4))
    assert y[0, 0, 0, 0] == 2 * 4  # of nine taps five see nothing
    assert y[0, 0, 0, 1] == 2 * 6
    assert y[0, 0, 1, 1] == 2 * 9


@pytest.mark.parametrize("make", LAYERS)
def test_a_program_has_sums_and_a_scale(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(Sign(), make()).eval()
    program = trace_module(module)
    assert [op.kind for op in program.ops][-1] == "multiply"
    assert [op.name for op in program.ops] == ["0", "1.sums", "1"]
    assert program.linear_names() == {"1.sums": "1"}
    x = signs_for(module[1]) * torch.rand(1)
    with torch.no_grad():
        assert torch.equal(program(x)[0], module(x))
    (sums,) = (op for op in program.linear_ops)
    assert set(sums.linear_map.weight.unique().tolist()) == {-1.0, 1.0}


def test_no_scale_is_folded_into_the_signs() -> None:
    module = nn.Sequential(Sign(), BinaryConv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    folded = fold_batch_norm(trace_module(module))
    assert [op.kind for op in folded.ops] == ["activation", "conv", "multiply", "norm"]


def test_a_program_on_another_device_takes_the_scale_along() -> None:
    program = trace_module(nn.Sequential(BinaryConv2d(3, 4, 3)).eval())
    moved = program.to(torch.device("meta"))
    assert moved(torch.zeros(1, 3, 5, 5, device="meta"))[0].is_meta
    assert program(torch.zeros(1, 3, 5, 5))[0].device.type == "cpu"


@pytest.mark.parametrize(
    ("name", "size", "layer", "features", "parameters"),
    [
        ("xnor_alexnet", 227, "classifier.2", 4096, 62_415_592),
        ("xnor_resnet18", 224, "flatten", 512, 11_689_640),
    ],
)
def test_networks_by_name(name: str, size: int, layer: str, features: int, parameters: int) -> None:
    (entry,) = (entry for entry in list_models() if entry.name == name)
    assert (entry.source, entry.default_weights) == ("xnor", "")
    assert entry.is_cnn
    assert entry.input_shape == (3, size, size)
    loaded = load_model(name, weights="random:0")
    assert loaded.input_shape == entry.input_shape
    assert entry.n_parameters == sum(p.numel() for p in loaded.module.parameters()) == parameters
    assert (loaded.source, loaded.weights_id) == ("xnor", "random:0")
    assert not loaded.missing_keys
    program = loaded.trace()
    assert default_layer(program) == layer
    binary = [m for m in loaded.module.modules() if isinstance(m, (BinaryConv2d, BinaryLinear))]
    linear = program.linear_ops
    assert [op.name.endswith(".sums") for op in (linear[0], linear[-1])] == [False, False]
    assert sum(op.name.endswith(".sums") for op in linear) == len(binary)
    x = loaded.transform(torch.randint(0, 256, (2, 3, 240, 320), generator=generator()).byte())
    with torch.inference_mode():
        scores = loaded.module(x)
        assert torch.equal(program(x)[0], scores)
        (feature,) = select(program, (layer,))(x)
    assert scores.shape == (2, 1000)
    assert feature.shape == (2, features)
    # An untrained network is of use only if its signs are of both kinds and differ by frame.
    signs: list[Tensor] = []
    for module in loaded.module.modules():
        if isinstance(module, Sign):
            module.register_forward_hook(lambda _m, _i, output: signs.append(output))
    with torch.inference_mode():
        loaded.module(x)
    assert len(signs) == len(binary)
    for values in signs:
        assert 0.05 < float((values > 0).float().mean()) < 0.95
        assert not torch.equal(values[0], values[1])


def test_random_weights_depend_on_the_seed_only() -> None:
    before = torch.get_rng_state()
    first = load_model("xnor_resnet18", weights="random:1")
    assert torch.equal(torch.get_rng_state(), before)
    again, other = (load_model("xnor_resnet18", weights=f"random:{seed}") for seed in (1, 2))
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_real_weights_is_binarised(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    trained = xnor_resnet18()
    path = tmp_path / f"trained{suffix}"
    state = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    if suffix == ".pth":  # as training programs save it
        named = {f"module.{name}": tensor for name, tensor in state.items()}
        torch.save({"state_dict": named, "epoch": 3}, path)
    else:
        save_file(state, path)
    loaded = load_model("xnor_resnet18", weights=str(path))
    assert (loaded.weights_id, loaded.missing_keys, loaded.unexpected_keys) == (
        f"file:{path.name}",
        frozenset(),
        frozenset(),
    )
    x = torch.randn(1, 3, 64, 64, generator=generator())
    with torch.inference_mode():
        assert torch.equal(loaded.module(x), trained.eval()(x))
    weight = loaded.module.get_submodule("layer1.0.conv1").weight
    assert all(len(one.abs().unique()) == 1 for one in weight)
    assert torch.equal(loaded.module.get_submodule("conv1").weight, trained.conv1.weight)
    # The hash is of what is computed: the same network saved as it is now is the same network.
    saved = tmp_path / "binary.safetensors"
    save_file(loaded.module.state_dict(), saved)
    assert load_model("xnor_resnet18", weights=str(saved)).weights_sha256 == loaded.weights_sha256
    assert hash_state(trained) != loaded.weights_sha256


def test_names_are_those_of_the_port() -> None:
    with torch.device("meta"):
        names = set(xnor_alexnet().state_dict())
    weights = {name for name in names if name.endswith("weight")}
    assert weights == {
        *("features.0.weight", "features.1.weight"),
        *(f"features.{block}.{part}.weight" for block in (4, 6, 7, 8) for part in ("bn", "conv")),
        *(f"classifier.{block}.{part}.weight" for block in (0, 1) for part in ("bn", "linear")),
        *("classifier.2.weight", "classifier.4.weight"),
    }


def test_weights_that_a_file_lacks_are_nan_and_not_signs(tmp_path: Path) -> None:
    state = {k: v for k, v in xnor_resnet18().state_dict().items() if "layer1.0.conv1" not in k}
    path = tmp_path / "part.safetensors"
    save_file(state, path)
    loaded = load_model("xnor_resnet18", weights=str(path))
    assert loaded.missing_keys == {"layer1.0.conv1.weight"}
    with torch.inference_mode():
        assert loaded.module(torch.zeros(1, 3, 32, 32)).isnan().all()


@pytest.mark.parametrize("name", ["xnor_alexnet", "xnor_resnet18"])
@pytest.mark.parametrize("weights", ["default", "IMAGENET1K_V1"])
def test_published_weights_fail(name: str, weights: str) -> None:
    with pytest.raises(WeightsError) as caught:
        load_model(name, weights=weights)
    message = str(caught.value)
    for part in (name, repr(weights), ".safetensors", "random:SEED"):
        assert part in message
    assert "\n" not in message


def test_weights_of_another_network_fail(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file(nn.Linear(3, 3).state_dict(), path)
    with pytest.raises(WeightsError, match="none of its 2 names fits"):
        load_model("xnor_resnet18", weights=str(path))


def test_a_near_name_fails_with_a_hint() -> None:
    with pytest.raises(ModelError, match="did you mean xnor_resnet18"):
        load_model("xnor_resnet_18")


def test_the_commands_know_them(tmp_path: Path) -> None:
    listed = called("models", cwd=tmp_path)
    for name in ("xnor_alexnet", "xnor_resnet18"):
        (line,) = (line for line in listed.stdout.splitlines() if line.startswith(f"{name} "))
        assert "--weights FILE.pth" in line
    layers = called("models", "xnor_resnet18", "--layers", cwd=tmp_path)
    assert "layer1.0.conv1" in layers.stdout.splitlines()
    explained = json.loads(
        called("models", "xnor_resnet18", "--explain", "--json", cwd=tmp_path).stdout
    )
    assert explained["engine"] in ("native", "torch")
    assert explained["islands"] == []


def test_a_clip_is_extracted_and_verified(tmp_path: Path) -> None:
    clip = write_demo_clip(tmp_path / "c.mp4", seconds=1, size=(64, 48))
    network = [
        *("--model", "xnor_resnet18", "--weights", "random:0", "--fps", "4", "--threshold", "0"),
        *("--preprocess", "resize=48,crop=48,mean=0.485/0.456/0.406,std=0.229/0.224/0.225"),
    ]
    output = tmp_path / "f.h5"
    done = rrm_extract(clip, *network, "-o", output, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with FeatureFile(output) as file:
        assert file["c.mp4"].features.shape == (4, 512)
        assert file.attrs["weights_id"] == "random:0"
    verified = called("verify", clip, *network, "--json", cwd=tmp_path)
    assert verified.returncode == 0, verified.stderr
    assert json.loads(verified.stdout)


def test_nothing_is_extracted_without_weights(tmp_path: Path) -> None:
    clip = write_demo_clip(tmp_path / "c.mp4", seconds=1, size=(64, 48))
    done = rrm_extract(clip, "--model", "xnor_resnet18", "-o", tmp_path / "f.h5", cwd=tmp_path)
    assert done.returncode == 2
    assert "xnor_resnet18 has no weights 'default'" in done.stderr


def test_signs_cannot_be_pruned(tmp_path: Path) -> None:
    output = tmp_path / "x.dcz"
    done = called(
        "compress", "--model", "xnor_resnet18", "--weights", "random:0", "-o", output, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "xnor_resnet18 cannot be compressed" in done.stderr
    assert not output.exists()
