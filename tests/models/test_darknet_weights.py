"""Darknet's .weights files, and the other weights that Darknet's networks take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rrm_extract.errors import ModelError, WeightsError
from rrm_extract.jobs.compress import compress_network
from rrm_extract.models import Letterbox, load_model
from rrm_extract.models.compression import compress_weights, encode_layer
from rrm_extract.models.darknet import DarknetNetwork, read_weights, write_weights
from tests.models.compression import file_bytes
from tests.models.darknet import build, cfg, conv, images

TEXT = cfg(conv(4, batch_normalize=1), conv(3, 1, activation="linear"))
COUNT = 4 * 4 + 4 * 27 + 3 + 12


@pytest.fixture
def network() -> DarknetNetwork:
    return build(TEXT)


def numbered() -> np.ndarray:
    """Parameters that are their own place in the file."""
    return np.arange(COUNT, dtype="<f4")


def test_order_of_the_file(tmp_path: Path, network: DarknetNetwork) -> None:
    header = np.array([0, 2, 0, 0, 0], "<i4").tobytes()
    (tmp_path / "net.weights").write_bytes(header + numbered().tobytes())
    read_weights(network, tmp_path / "net.weights")
    state = network.state_dict()
    in_order = [
        "layers.0.norm.bias", "layers.0.norm.weight", "layers.0.norm.running_mean",
        "layers.0.norm.running_var", "layers.0.conv.weight", "layers.1.conv.bias",
        "layers.1.conv.weight",
    ]  # fmt: skip
    flat = torch.cat([state[name].flatten() for name in in_order])
    assert torch.equal(flat, torch.arange(COUNT, dtype=torch.float32))
    assert set(state) - set(in_order) == {"layers.0.norm.num_batches_tracked"}


@pytest.mark.parametrize(
    ("version", "seen"),
    [((0, 1, 0), "<i4"), ((0, 2, 0), "<i8"), ((0, 2, 5), "<i8"), ((1, 0, 0), "<i8"),
     ((0, 1001, 0), "<i4"), ((2000, 0, 0), "<i4")],
)  # fmt: skip
def test_headers(
    tmp_path: Path, network: DarknetNetwork, version: tuple[int, ...], seen: str
) -> None:
    header = np.array(version, "<i4").tobytes() + np.array([32_013_312], seen).tobytes()
    (tmp_path / "net.weights").write_bytes(header + numbered().tobytes())
    read_weights(network, tmp_path / "net.weights")
    assert float(network.state_dict()["layers.1.conv.weight"].flatten()[-1]) == COUNT - 1


def test_written_and_read_again(tmp_path: Path, network: DarknetNetwork) -> None:
    write_weights(network, tmp_path / "net.weights", seen=7)
    content = (tmp_path / "net.weights").read_bytes()
    assert len(content) == 20 + 4 * COUNT
    assert np.frombuffer(content[12:20], "<i8").tolist() == [7]
    other = build(TEXT, seed=5)
    x = images(network)
    assert not torch.equal(other(x), network(x))
    read_weights(other, tmp_path / "net.weights")
    assert torch.equal(other(x), network(x))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, "has 0 bytes, expected 576 .*truncated"),
        (11, "has 11 bytes, expected 576 .*truncated"),
        (20, r"has 20 bytes, expected 576 \(a header of 20 and 4 for each of the network's 139 "),
        (20 + 4 * COUNT - 1, "has 575 bytes, expected 576 .*: it is truncated"),
        (20 + 4 * COUNT + 4, "has 580 bytes, expected 576 .*: it is too long, or of another"),
    ],
)
def test_other_lengths_fail(
    tmp_path: Path, network: DarknetNetwork, size: int, message: str
) -> None:
    whole = np.array([0, 2, 0, 0, 0], "<i4").tobytes() + numbered().tobytes() + bytes(8)
    (tmp_path / "net.weights").write_bytes(whole[:size])
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        read_weights(network, tmp_path / "net.weights")
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, np.nan, r"layer 0 has numbers that are not finite \(norm\.bias\)"),
        (13, -1.0, r"layer 0 has variances below 0 \(norm\.running_var\)"),
        (COUNT - 1, np.inf, r"layer 1 has numbers that are not finite \(conv\.weight\)"),
    ],
)
def test_impossible_numbers_fail(
    tmp_path: Path, network: DarknetNetwork, position: int, value: float, message: str
) -> None:
    values = numbered()
    values[position] = value
    header = np.array([0, 2, 0, 0, 0], "<i4").tobytes()
    (tmp_path / "net.weights").write_bytes(header + values.tobytes())
    with pytest.raises(WeightsError, match=message):
        read_weights(network, tmp_path / "net.weights")


def test_unreadable_and_unwritable_files_fail(tmp_path: Path, network: DarknetNetwork) -> None:
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        read_weights(network, tmp_path / "net.weights")
    with pytest.raises(WeightsError, match=r"cannot write weights file .*No such file"):
        write_weights(network, tmp_path / "missing" / "net.weights")


@pytest.fixture
def model(tmp_path: Path, network: DarknetNetwork) -> str:
    """The name of the network, whose weights lie beside it in three kinds of file."""
    (tmp_path / "net.cfg").write_text(TEXT)
    write_weights(network, tmp_path / "net.weights")
    state = network.state_dict()
    save_file(state, tmp_path / "net.safetensors")
    torch.save({"state_dict": state}, tmp_path / "net.pth")
    return f"darknet:{tmp_path / 'net.cfg'}"


def test_weights_by_name_of_a_file(tmp_path: Path, model: str, network: DarknetNetwork) -> None:
    x = images(network)
    loaded = [
        load_model(model, weights=str(tmp_path / name))
        for name in ("net.weights", "net.safetensors", "net.pth")
    ]
    for one in loaded:
        assert torch.equal(one.module(x), network(x))
        assert one.weights_sha256 == loaded[0].weights_sha256
        assert not one.missing_keys | one.unexpected_keys
    assert loaded[0].weights_id == "file:net.weights"


def test_random_weights(model: str) -> None:
    before = torch.get_rng_state()
    one, same, other = (load_model(model, weights=f"random:{seed}") for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert one.weights_sha256 == same.weights_sha256 != other.weights_sha256
    assert one.weights_id == "random:3"


def test_another_activation_is_another_network(tmp_path: Path, model: str) -> None:
    weights = str(tmp_path / "net.weights")
    before = load_model(model, weights=weights).weights_sha256
    (tmp_path / "net.cfg").write_text("# of another day\n" + TEXT.replace("width=16", "width=32"))
    assert load_model(model, weights=weights).weights_sha256 == before
    (tmp_path / "net.cfg").write_text(TEXT.replace("leaky", "relu"))
    assert load_model(model, weights=weights).weights_sha256 != before


def test_what_a_file_lacks_is_told(tmp_path: Path, model: str, network: DarknetNetwork) -> None:
    state = network.state_dict()
    del state["layers.1.conv.bias"]
    torch.save({**state, "more": torch.zeros(1)}, tmp_path / "some.pth")
    loaded = load_model(model, weights=str(tmp_path / "some.pth"))
    assert loaded.missing_keys == {"layers.1.conv.bias"}
    assert loaded.unexpected_keys == {"more"}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            "default",
            r"net\.cfg comes without weights: give --weights FILE\.weights, a \.safetensors",
        ),
        ("COCO", r"net\.cfg has no weights 'COCO', and no such file exists: give --weights"),
        ("nothing.weights", r"weights file 'nothing\.weights' does not exist"),
    ],
)
def test_no_weights_fail(model: str, weights: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load_model(model, weights=weights)


def test_published_networks_say_which_file_they_need() -> None:
    message = r"tiny_yolov2 comes without weights: give --weights yolov2-tiny\.weights \(as the"
    with pytest.raises(WeightsError, match=message):
        load_model("tiny_yolov2")


def test_weights_of_another_network_fail(tmp_path: Path, model: str) -> None:
    with pytest.raises(WeightsError, match=r"has 576 bytes, expected 44,948,600"):
        load_model("tiny_yolov2", weights=str(tmp_path / "net.weights"))
    with pytest.raises(WeightsError, match="do not fit the network"):
        load_model("tiny_yolov2", weights=str(tmp_path / "net.pth"))


def test_a_compressed_file_is_a_model(tmp_path: Path) -> None:
    name, shape = "layers.0.conv.weight", (16, 3, 3, 3)
    weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    compressed = compress_weights(
        weights, name=name, kind="convolution", density=0.5, bits=8, index_bits=4
    )
    path = tmp_path / "tiny.dcz"
    path.write_bytes(file_bytes(encode_layer(compressed), model="tiny_yolov2"))
    own, other = load_model(str(path)), load_model("tiny_yolov2", weights=str(path))
    assert (own.name, own.architecture, own.source) == (str(path), "tiny_yolov2", "dcz")
    for model in (own, other):
        assert torch.equal(model.module.state_dict()[name], torch.from_numpy(compressed.weights()))
        assert "layers.2.conv.weight" in model.missing_keys
        assert model.transform == Letterbox(size=(416, 416))
        assert (model.region, model.categories) == (other.region, other.categories)
        assert model.region is not None


def test_a_compressed_file_of_ones_own_cfg_is_weights(tmp_path: Path) -> None:
    (tmp_path / "net.cfg").write_text(TEXT)
    name = f"darknet:{tmp_path / 'net.cfg'}"
    path = tmp_path / "net.dcz"
    compress_network(name, path, weights="random:0", densities={None: 0.5})
    loaded = load_model(name, weights=str(path))
    assert loaded.missing_keys == loaded.unexpected_keys == frozenset()
    with pytest.raises(ModelError, match=f"give --model {name} --weights {path}"):
        load_model(str(path))
