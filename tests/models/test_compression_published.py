"""The layout of AlexNet_compressed.net, and Caffe's AlexNet with weights from such a file."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rrm_extract.engine import open_network
from rrm_extract.errors import ModelError, WeightsError
from rrm_extract.graph import fold_batch_norm, select
from rrm_extract.jobs.compress import compress_network
from rrm_extract.models import load_model
from rrm_extract.models.caffe_alexnet import CAFFE_PREPROCESS, caffe_alexnet
from rrm_extract.models.compression import compressed_columns, read_dcz, read_published_net
from tests.models.test_compression_network import dense_columns

# Of bvlc_alexnet's deploy.prototxt, in its order: outputs, inputs / groups, kernel.
SHAPES = {
    "conv1": (96, 3, 11, 11),
    "conv2": (256, 48, 5, 5),
    "conv3": (384, 256, 3, 3),
    "conv4": (384, 192, 3, 3),
    "conv5": (256, 192, 3, 3),
    "fc6": (4096, 9216),
    "fc7": (4096, 4096),
    "fc8": (1000, 4096),
}

Entries = list[tuple[int, int]]
"""(code, gap) of each entry."""


def write_net(path: Path, entries: dict[str, Entries], seed: int = 0) -> dict[str, NDArray]:
    """Write a file value by value as its published decoder reads it; the codebooks and biases."""
    rng = np.random.default_rng(seed)
    written: dict[str, NDArray] = {}
    out = b"".join(struct.pack("<I", len(entries.get(name, []))) for name in SHAPES)
    for name, shape in SHAPES.items():
        codebook = rng.normal(size=256 if "conv" in name else 16).astype(np.float32)
        codebook[0] = 0
        bias = rng.normal(size=shape[0]).astype(np.float32)
        written[name], written[f"{name}.bias"] = codebook, bias
        codes = [code for code, _ in entries.get(name, [])]
        gaps = [gap for _, gap in entries.get(name, [])]
        out += codebook.tobytes() + bias.tobytes()
        out += bytes(codes) if "conv" in name else nibbles(codes)
        out += nibbles(gaps)
    path.write_bytes(out)
    return written


def nibbles(values: list[int]) -> bytes:
    """Two to a byte, the first one low."""
    values = [*values, *[0] * (len(values) % 2)]
    return bytes(low + 16 * high for low, high in zip(values[::2], values[1::2], strict=True))


def plain_weights(name: str, entries: Entries, codebook: NDArray) -> NDArray:
    weights = np.full(int(np.prod(SHAPES[name])), codebook[0])
    position = -1
    for code, gap in entries:
        position += gap + 1
        weights[position] = codebook[code]
    return weights.reshape(SHAPES[name])


def random_entries(seed: int = 0) -> dict[str, Entries]:
    """Odd numbers of entries, even ones, and a layer without any."""
    rng = np.random.default_rng(seed)
    counts = {"conv1": 501, "conv2": 64, "conv4": 7, "fc6": 1001, "fc7": 40, "fc8": 3}
    return {
        name: [
            (int(rng.integers(256 if "conv" in name else 16)), int(rng.integers(16)))
            for _ in range(count)
        ]
        for name, count in counts.items()
    }


def test_bytes_by_hand() -> None:
    assert nibbles([3, 0, 15]) == bytes([0x03, 0x0F])


def test_a_layer_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "small.net"
    # Two weights with 16 in between: a filler (code 0) at the longest gap, then one right behind.
    codebooks = write_net(path, {"fc6": [(3, 2), (0, 15), (15, 1)]})
    data = path.read_bytes()
    assert data[:32] == struct.pack("<8I", 0, 0, 0, 0, 0, 3, 0, 0)
    before_fc6 = 32 + sum(4 * 256 + 4 * SHAPES[f"conv{n}"][0] for n in range(1, 6))
    streams = before_fc6 + 4 * 16 + 4 * 4096
    assert data[streams : streams + 4] == bytes([0x03, 0x0F, 0xF2, 0x01])
    net = read_published_net(path)
    fc6 = net.layers[5]
    assert (fc6.name, fc6.shape, fc6.bits, fc6.index_bits) == ("fc6.weight", (4096, 9216), 4, 4)
    weights = fc6.weights().reshape(-1)
    assert np.flatnonzero(weights).tolist() == [2, 20]
    assert weights[[2, 20]].tolist() == codebooks["fc6"][[3, 15]].tolist()
    assert net.sha256 == hashlib.sha256(data).hexdigest()


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "random.net"
    entries = random_entries()
    codebooks = write_net(path, entries)
    net = read_published_net(path)
    assert [layer.name for layer in net.layers] == [f"{name}.weight" for name in SHAPES]
    for layer, name in zip(net.layers, SHAPES, strict=True):
        expected = plain_weights(name, entries.get(name, []), codebooks[name])
        assert np.array_equal(layer.weights(), expected)
        assert np.array_equal(net.biases[f"{name}.bias"], codebooks[f"{name}.bias"])
        assert layer.kind == ("convolution" if "conv" in name else "fully-connected")
    columns = compressed_columns(net.fully_connected[2])
    assert np.array_equal(dense_columns(columns), net.fully_connected[2].weights())


def test_the_file_is_a_model(tmp_path: Path) -> None:
    path = tmp_path / "AlexNet_compressed.net"
    write_net(path, random_entries())
    loaded = load_model(str(path))
    assert (loaded.source, loaded.architecture) == ("caffe", "caffe_alexnet")
    assert loaded.weights_id == "file:AlexNet_compressed.net"
    assert loaded.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.transform == CAFFE_PREPROCESS
    assert loaded.input_shape == (3, 227, 227)
    assert loaded.missing_keys == loaded.unexpected_keys == frozenset()
    net = read_published_net(path)
    state = loaded.module.state_dict()
    assert state.keys() == net.state().keys()
    for name, array in net.state().items():
        assert np.array_equal(state[name].numpy(), array)
    again = load_model("caffe_alexnet", weights=str(path))
    assert all(torch.equal(again.module.state_dict()[name], state[name]) for name in state)
    with pytest.raises(WeightsError, match="carries its own weights"):
        load_model(str(path), weights="random:0")


def test_compressed_anew_it_has_the_same_weights(tmp_path: Path) -> None:
    """It is denser than the paper's rounded tables, which are not for it."""
    path = tmp_path / "some.net"
    n_conv1 = int(np.prod(SHAPES["conv1"]))
    entries = {**random_entries(), "conv1": [(1 + i % 255, 0) for i in range(n_conv1)]}
    write_net(path, entries)
    summary = compress_network(str(path), tmp_path / "some.dcz")
    given = read_published_net(path)
    for layer, again in zip(given.layers, read_dcz(summary.output).layers, strict=True):
        assert np.array_equal(layer.weights(), again.weights())
        assert (layer.bits, layer.index_bits) == (again.bits, again.index_bits)
    assert [row.error for row in summary.layers] == [0] * 8
    assert summary.layers[0].kept == n_conv1


def test_cut_or_lengthened_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.net"
    write_net(path, random_entries())
    data = path.read_bytes()
    for changed in (b"", data[:3], data[:31], data[:32], data[:-1], data + b"\0", b"\xff" * 99):
        path.write_bytes(changed)
        size = len(changed)
        reason = (
            "it is shorter than a list of layers"
            if size < 32
            else f"its size, {size} bytes, does not fit its first numbers"
        )
        said = rf"bad\.net' has not the layout of AlexNet_compressed\.net: {reason}; expected"
        with pytest.raises(WeightsError, match=said):
            load_model(str(path))


def test_entries_behind_the_last_weight_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.net"
    n_conv1 = int(np.prod(SHAPES["conv1"]))
    write_net(path, {"conv1": [(1, 15)] * (n_conv1 // 16)})
    assert read_published_net(path).layers[0].weights().reshape(-1)[-1] != 0
    write_net(path, {"conv1": [(1, 15)] * (n_conv1 // 16 + 1)})
    with pytest.raises(WeightsError, match="conv1 has entries behind its last weight"):
        read_published_net(path)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.net"
    write_net(path, {})
    data = bytearray(path.read_bytes())
    data[36:40] = struct.pack("<f", float("nan"))
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="conv1 has values that are not finite"):
        read_published_net(path)


def test_missing_file_fails() -> None:
    with pytest.raises(ModelError, match=r"'nothing\.net' does not exist"):
        load_model("nothing.net")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_published_net(Path("nothing.net"))


def test_caffes_alexnet_has_no_default_weights() -> None:
    with pytest.raises(WeightsError, match=r"no weights 'default'; give AlexNet_compressed\.net"):
        load_model("caffe_alexnet")
    with pytest.raises(ModelError, match="did you mean caffe_alexnet"):
        load_model("cafe_alexnet")


def test_caffes_alexnet() -> None:
    with torch.device("meta"):
        module = caffe_alexnet()
        assert module(torch.zeros(2, 3, 227, 227)).shape == (2, 1000)
    state = module.state_dict()
    assert {name: tuple(state[f"{name}.weight"].shape) for name in SHAPES} == SHAPES
    assert sum(tensor.numel() for tensor in state.values()) == 60_965_224, "as is well known"


@pytest.mark.parametrize("engine", ["torch", "native"])
def test_caffes_alexnet_is_recurrent_too(engine: str) -> None:
    """Groups, normalisation and all."""
    if engine == "native":
        pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")
    loaded = load_model("caffe_alexnet", weights="random:0")
    program = fold_batch_norm(select(loaded.trace(), ("pool5",)))
    network = open_network(program, input_shape=loaded.input_shape, engine=engine, threshold=0.0)
    ordinary = loaded.module.get_submodule("pool5")
    seen: list[torch.Tensor] = []
    ordinary.register_forward_hook(lambda module, inputs, output: seen.append(output))
    x = torch.rand(1, *loaded.input_shape) * 100
    for _ in range(2):
        x = x + (torch.rand_like(x) < 0.1)
        feature = network.step(x)
        loaded.module(x)
        assert (feature - seen[-1]).norm() <= 1e-5 * seen[-1].norm()


def test_normalisation_is_caffes() -> None:
    # x / (1 + alpha / n * sum of the squares of the n channels around) ** beta, zeros outside.
    x = torch.rand(1, 9, 2, 3) * 100
    expected = torch.empty_like(x)
    for channel in range(9):
        around = x[:, max(0, channel - 2) : channel + 3]
        expected[:, channel] = x[:, channel] / (1 + 1e-4 / 5 * around.square().sum(1)) ** 0.75
    with torch.device("meta"):
        norm = caffe_alexnet().get_submodule("norm1")
    torch.testing.assert_close(norm(x), expected)
