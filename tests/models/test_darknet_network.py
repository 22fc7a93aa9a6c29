"""Darknet's networks in the tool: their layers, their input, and the recurrence on them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rrm_extract.errors import LayerError, ModelError, PreprocessError
from rrm_extract.graph import default_layer, fold_batch_norm, layer_names, resolve_layer, select
from rrm_extract.models import Letterbox, Region, list_models, load_model
from rrm_extract.models.darknet.blocks import Reorg, max_pool
from rrm_extract.rrm import RecurrentNetwork
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.models.darknet import REGION, build, cfg, conv
from tests.rrm.videos import moving_frames

EVERYTHING = cfg(
    conv(8, batch_normalize=1),
    "[maxpool] size=2 stride=1",
    conv(8, stride=2, batch_normalize=1, groups=2),
    "[route] layers=-2",
    conv(4, 1, batch_normalize=1),
    "[reorg] stride=2",
    "[route] layers=-1,2",
    conv(8, activation="logistic"),
    conv(12, batch_normalize=1),
    "[shortcut] from=-2 activation=leaky",
    "[upsample] stride=2 scale=0.5",
    "[maxpool] size=4 stride=1",
    "[route] layers=0,-1",
    conv(16, 1, activation="linear"),
    REGION,
    side=24,
)


def darknets_reorg(x: np.ndarray, stride: int) -> np.ndarray:
    """What the loops of Darknet's `reorg_cpu` say, called with forward=0 as for inference."""
    batch, c, h, w = x.shape
    flat, out = x.reshape(-1), np.empty(x.size, x.dtype)
    out_c = c // (stride * stride)
    for b in range(batch):
        for k in range(c):
            for j in range(h):
                for i in range(w):
                    in_index = i + w * (j + h * (k + c * b))
                    c2, offset = k % out_c, k // out_c
                    w2 = i * stride + offset % stride
                    h2 = j * stride + offset // stride
                    out_index = w2 + w * stride * (h2 + h * stride * (c2 + out_c * b))
                    out[in_index] = flat[out_index]
    return out.reshape(batch, c * stride * stride, h // stride, w // stride)


@pytest.mark.parametrize(
    ("shape", "stride"),
    [
        ((2, 4, 2, 2), 2),
        ((1, 8, 6, 4), 2),
        ((1, 64, 26, 26), 2),
        ((2, 9, 6, 3), 3),
        ((1, 5, 3, 4), 1),
    ],
)
def test_reorg(shape: tuple[int, ...], stride: int) -> None:
    x = torch.arange(int(np.prod(shape)), dtype=torch.float32).reshape(shape)
    expected = darknets_reorg(x.numpy(), stride)
    actual = Reorg(*shape[1:], stride)(x)
    np.testing.assert_array_equal(actual.numpy(), expected)
    if stride == 2:
        assert not np.array_equal(expected, nn.PixelUnshuffle(2)(x).numpy()), "not space-to-depth"


def darknets_maximum(x: Tensor, size: int, stride: int, padding: int) -> Tensor:
    """Darknet's pooling, window by window."""
    _, _, height, width = x.shape
    rows, columns = ((side + padding - size) // stride + 1 for side in (height, width))
    out = torch.full((*x.shape[:2], rows, columns), torch.finfo(torch.float32).min)
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride - padding // 2, j * stride - padding // 2
            window = x[:, :, max(top, 0) : top + size, max(left, 0) : left + size]
            if window.numel():
                out[:, :, i, j] = window.amax((2, 3))
    return out


@pytest.mark.parametrize("sides", [(8, 8), (9, 7), (6, 11), (13, 13)])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_maximum(sides: tuple[int, int], size: int, stride: int) -> None:
    x = torch.randn(1, 2, *sides, generator=torch.Generator().manual_seed(0)) - 3
    for padding in {0, 1, size - 1, size, 2 * (size - 1)}:
        if padding > 2 * (size - 1):
            continue
        layer = max_pool(*sides, size=size, stride=stride, padding=padding)
        assert torch.equal(layer(x), darknets_maximum(x, size, stride, padding)), padding


def test_activations() -> None:
    x = torch.tensor([-2.0, 0.0, 3.0]).reshape(1, 1, 1, 3).expand(1, 3, 1, 3)
    expected = {
        "linear": [-2, 0, 3], "relu": [0, 0, 3], "leaky": [-0.2, 0, 3],
        "logistic": [0.119203, 0.5, 0.952574],
    }  # fmt: skip
    for name, values in expected.items():
        text = "[net]\nwidth=3\nheight=1\n[convolutional]\nactivation=" + name
        network = build(text)
        with torch.no_grad():
            network.layers[0].conv.weight.copy_(torch.tensor([1.0, 0, 0]).reshape(1, 3, 1, 1))  # type: ignore[union-attr]
            network.layers[0].conv.bias.zero_()  # type: ignore[union-attr]
        torch.testing.assert_close(network(x).flatten(), torch.tensor(values, dtype=torch.float32))


def test_shortcut_with_factors() -> None:
    text = cfg(conv(4), conv(4), "[shortcut] from=-2 alpha=0.5 beta=2 activation=relu")
    network = build(text)
    x = torch.rand(1, 3, 16, 16)
    one = network.layers[0](x)
    two = network.layers[1](one)
    torch.testing.assert_close(network(x), (0.5 * two + 2 * one).relu())


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("darknet") / "net.cfg"
    path.write_text(EVERYTHING)
    return f"darknet:{path}"


def test_names_of_layers_are_darknets_numbers(everything: str) -> None:
    program = load_model(everything, weights="random:0").trace()
    names = layer_names(program)
    assert names[:3] == ("layers.0.conv", "layers.0.norm", "layers.0.activation")
    assert {name.split(".")[1] for name in names} == {str(number) for number in range(14)}
    assert resolve_layer(program, "layers.6") == "layers.6.cat"
    assert program.outputs == ("layers.13.conv",)
    assert default_layer(program) == "layers.12.cat"
    with pytest.raises(LayerError):
        resolve_layer(program, "layers.14")


@pytest.mark.parametrize("policy", ["bounded", "paper"])
def test_threshold_0_equals_the_plain_network(everything: str, policy: str) -> None:
    model = load_model(everything, weights="random:0")
    check_recurrence(model.module, model.input_shape[1], policy)


@pytest.mark.parametrize("name", ["yolov2", "tiny_yolov2"])
def test_published_networks_at_threshold_0(name: str) -> None:
    model = load_model(name, weights="random:0", preprocess="letterbox=64")
    check_recurrence(model.module, 64, "bounded")


def check_recurrence(module: nn.Module, side: int, policy: str) -> None:
    """On both engines; the native one runs all of it."""
    from rrm_extract.graph import trace

    program = fold_batch_norm(trace(module))
    frames = moving_frames(5, side)
    with torch.inference_mode():
        expected = module(frames)
    assert 0.01 < relative_l2(expected[1:], expected[:-1]) < 2, "it answers to its input"
    options = {"threshold": 0, "policy": policy}
    (readable,), seen = RecurrentNetwork(program, **options).run(frames)  # type: ignore[arg-type]
    assert relative_l2(readable, expected) < EXACT_RECURRENCE
    assert float(seen.density_delta[1:].mean()) < 0.99
    pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")
    from tests.engine.running import native

    network = native(program, (3, side, side), batch=2, **options)
    (result,), _ = network.run(frames)
    assert network.islands == ()
    assert relative_l2(result, readable) < EXACT_RECURRENCE
    plan = network.compiled()
    assert plan is not None, "workers do not need torch for it"
    from rrm_extract.engine.compiled import CompiledNetwork

    (compiled,), _ = CompiledNetwork(pickle.loads(pickle.dumps(plan))).run(frames.numpy())
    np.testing.assert_array_equal(compiled, result.numpy())


@pytest.mark.parametrize("layer", ["layers.1", "layers.5", "layers.10", "layers.11"])
def test_moved_numbers_as_the_feature(everything: str, layer: str) -> None:
    pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")
    from tests.engine.running import native

    model = load_model(everything, weights="random:0")
    program = select(model.trace(), (layer,))
    frames = moving_frames(3, 24)
    (expected,) = program(frames)
    (result,), _ = native(fold_batch_norm(program), model.input_shape, threshold=0).run(frames)
    assert relative_l2(result, expected) < EXACT_RECURRENCE


def test_the_input_is_the_letterbox_of_the_cfg(everything: str) -> None:
    model = load_model(everything, weights="random:0")
    assert model.transform == Letterbox(size=(24, 24))
    assert model.input_shape == (3, 24, 24)
    assert model.source == "darknet"
    assert model.region == Region(anchors=((1.0, 1.5), (3.0, 2.0)), classes=3, softmax=True)
    assert model.categories is None
    again = pickle.loads(pickle.dumps(model))
    x = torch.rand(2, 3, 24, 24)
    assert torch.equal(again.module(x), model.module(x))


def test_another_size_is_what_preprocess_says(everything: str) -> None:
    model = load_model(everything, weights="random:0", preprocess="letterbox=32/48")
    assert model.input_shape == (3, 32, 48)
    assert model.module(torch.zeros(1, *model.input_shape)).shape == (1, 16, 32, 48)
    own = load_model(everything, weights="random:0")
    assert own.weights_sha256 == model.weights_sha256
    cropped = "resize=40,crop=40,mean=0/0/0,std=1/1/1"
    assert load_model(everything, weights="random:0", preprocess=cropped).input_shape[1] == 40


@pytest.mark.parametrize(
    ("preprocess", "error", "message"),
    [
        ("letterbox=33", ModelError, "its input is 4x33x33; .*multiples of 2"),
        ("letterbox=32,layout=nhwc", PreprocessError, r"gives \(32, 32, 3\); give layout=nchw"),
    ],
)
def test_other_input_fails(
    everything: str, preprocess: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_model(everything, weights="random:0", preprocess=preprocess)


def test_missing_file_fails(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"g\.cfg' does not exist; expected darknet:FILE\.cfg"):
        load_model("darknet:nothing.cfg", weights="random:0")


def test_published_networks_are_listed() -> None:
    entries = {entry.name: entry for entry in list_models() if entry.source == "darknet"}
    assert set(entries) == {"yolov2", "tiny_yolov2"}
    assert entries["yolov2"].input_shape == (3, 608, 608)
    assert entries["tiny_yolov2"].input_shape == (3, 416, 416)
    # 50,983,561 and 11,237,145 numbers in the files, less the means and variances.
    assert entries["yolov2"].n_parameters == 50_962_889
    assert entries["tiny_yolov2"].n_parameters == 11_232_057
    assert entries["yolov2"].default_weights == ""


def test_shortcut_from_a_larger_map() -> None:
    """As in Darknet's ResNets: every second row and column, on the channels that both have."""
    network = build(cfg(conv(4), conv(8, stride=2), "[shortcut] from=-2 activation=linear"))
    x = torch.rand(1, 3, 16, 16)
    one = network.layers[0](x)
    expected = network.layers[1](one).clone()
    for row in range(8):
        for column in range(8):
            expected[:, :4, row, column] += one[:, :, 2 * row, 2 * column]
    torch.testing.assert_close(network(x), expected)
