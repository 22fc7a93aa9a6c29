"""A .dcz file as a network, and as weights of one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rrm_extract.errors import (
    ConfigError,
    ModelError,
    PreprocessError,
    StoreWriteError,
    WeightsError,
)
from rrm_extract.jobs.compress import CompressionSummary, compress_network
from rrm_extract.models import load_model, parse_preprocess
from rrm_extract.models.compression import read_dcz
from tests.models.compression import set_at_top, write_lie, write_small
from tests.tiny import MODEL, Tiny, network

HALF = {None: 0.5}


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory: pytest.TempPathFactory) -> CompressionSummary:
    path = tmp_path_factory.mktemp("dcz") / "squeezenet.dcz"
    return compress_network("squeezenet1_1", path, weights="random:0", densities={None: 0.4})


def test_the_file_is_a_model(squeezenet: CompressionSummary) -> None:
    path = squeezenet.output
    loaded = load_model(str(path))
    ordinary = load_model("squeezenet1_1", weights="random:0")
    assert (loaded.name, loaded.architecture, loaded.source) == (str(path), "squeezenet1_1", "dcz")
    assert loaded.weights_id == "file:squeezenet.dcz"
    assert loaded.weights_text == "file:squeezenet.dcz of random:0"
    assert (loaded.is_untrained, ordinary.is_untrained) == (True, True)
    assert loaded.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.weights_sha256 == squeezenet.output_sha256
    assert loaded.preprocess == ordinary.preprocess
    assert loaded.missing_keys == loaded.unexpected_keys == frozenset()
    state, before = loaded.module.state_dict(), ordinary.module.state_dict()
    assert state.keys() == before.keys()
    network = read_dcz(path)
    for layer in network.layers:
        assert torch.equal(state[layer.name], torch.from_numpy(layer.weights()))
        assert layer.density == pytest.approx(0.4, abs=0.5 / layer.n_weights)
        relative = (state[layer.name] - before[layer.name]).norm() / before[layer.name].norm()
        (row,) = (row for row in squeezenet.layers if f"{row.name}.weight" == layer.name)
        assert row.error == pytest.approx(float(relative), rel=1e-4)
    for name in state.keys() - {layer.name for layer in network.layers}:
        assert torch.equal(state[name], before[name])
    assert network.description.weights_sha256 == ordinary.weights_sha256


def test_weights_of_the_network_named_have_the_files_preprocess(tmp_path: Path) -> None:
    path = tmp_path / "small.dcz"
    text = "resize=72,crop=64,mean=0/0/0,std=1/1/1"
    compress_network("squeezenet1_1", path, weights="random:0", preprocess=text, densities=HALF)
    assert load_model("squeezenet1_1", weights=str(path)).transform == parse_preprocess(text)
    given = load_model("squeezenet1_1", weights=str(path), preprocess="imagenet")
    assert given.transform == parse_preprocess("imagenet")
    write_lie(tmp_path / "bad.dcz", set_at_top(preprocess={"resize": 0}))
    with pytest.raises(PreprocessError, match=r"bad\.dcz: .*; or pass --preprocess"):
        load_model("alexnet", weights=str(tmp_path / "bad.dcz"))


def test_other_weights_fail(squeezenet: CompressionSummary) -> None:
    with pytest.raises(WeightsError, match="carries its own weights; 'random:0' cannot"):
        load_model(str(squeezenet.output), weights="random:0")
    with pytest.raises(ModelError, match=r"'nothing\.dcz' does not exist"):
        load_model("nothing.dcz")


def test_another_preprocess_may_be_given(squeezenet: CompressionSummary) -> None:
    text = "resize=64,crop=64,mean=0/0/0,std=1/1/1"
    loaded = load_model(str(squeezenet.output), preprocess=text)
    assert loaded.preprocess == parse_preprocess(text).describe()


def test_another_size_of_letterbox_keeps_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "boxed.dcz"
    asked = "letterbox=64,fill=0.25,scale=255,channels=bgr,mean=1/2/3,std=4/5/6"
    compress_network(
        "squeezenet1_1", path, weights="random:0", preprocess=asked, densities={None: 0.4}
    )
    for text in ("letterbox=96/128", {"letterbox": [96, 128]}):
        loaded = load_model(str(path), preprocess=text)
        assert loaded.transform == parse_preprocess(asked.replace("=64", "=96/128"))
        loaded = load_model("squeezenet1_1", weights=str(path), preprocess=text)
        assert loaded.transform == parse_preprocess(asked.replace("=64", "=96/128"))
    loaded = load_model(str(path), preprocess="letterbox=64,fill=1")
    assert loaded.transform == parse_preprocess(asked.replace("0.25", "1"))


def test_another_size_of_a_letterbox_that_cannot_be_fails(tmp_path: Path) -> None:
    path = write_lie(tmp_path / "bad.dcz", set_at_top(preprocess={"letterbox": 64, "fill": 2}))
    with pytest.raises(PreprocessError, match=r"bad\.dcz: .*fill is 2; .*--model alexnet --w"):
        load_model(str(path), preprocess="letterbox=96")
    # What it advises gets beyond that: these are not alexnet's weights at all.
    with pytest.raises(WeightsError, match="none of its 3 names fits"):
        load_model("alexnet", weights=str(path), preprocess="letterbox=96")


def test_weights_of_the_users_own_network(tmp_path: Path) -> None:
    path = tmp_path / "tiny.dcz"
    compress_network(MODEL, path, densities=HALF)
    loaded = load_model(MODEL, weights=str(path))
    assert loaded.weights_id == "file:tiny.dcz"
    assert loaded.weights_text == f"file:tiny.dcz of factory:{MODEL}"
    assert not loaded.is_untrained
    assert loaded.missing_keys == loaded.unexpected_keys == frozenset()
    network = read_dcz(path)
    assert all(
        torch.equal(loaded.module.state_dict()[name], torch.from_numpy(array))
        for name, array in network.state().items()
    )
    with pytest.raises(ModelError, match=rf"--model {MODEL} --weights .*tiny\.dcz"):
        load_model(str(path))


def test_code_that_a_file_names_is_not_run(tmp_path: Path) -> None:
    path = write_small(tmp_path / "bad.dcz", model="tests.models.test_compression_model:explode")
    with pytest.raises(ModelError, match="code that is not in the file"):
        load_model(str(path))


def explode() -> None:
    raise AssertionError("it was run")


def test_a_cfg_file_is_not_looked_for(tmp_path: Path) -> None:
    path = write_small(tmp_path / "bad.dcz", model="darknet:net.cfg")
    with pytest.raises(
        ModelError, match=r"whose \.cfg file is not in it; give --model darknet:net\.cfg --weights "
    ):
        load_model(str(path))


def test_a_file_of_another_network_fails(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="none of its 3 names fits"):
        load_model(str(write_small(tmp_path / "wrong.dcz", model="squeezenet1_1")))
    with pytest.raises(ModelError, match="'resnet1e9', which is no network of this installation"):
        load_model(str(write_small(tmp_path / "unknown.dcz", model="resnet1e9")))
    with pytest.raises(ModelError, match="timm has no model"):
        load_model(str(write_small(tmp_path / "timm.dcz", model="timm/resnet1e9")))


@pytest.mark.parametrize(
    ("preprocess", "words"),
    [
        ({"resize": 1 << 30, "crop": 224, "mean": [0, 0, 0], "std": [1, 1, 1]}, "expected up to"),
        ({"resize": 10}, "crop, mean, std missing"),
        ({"crop": {}}, "missing"),
    ],
)
def test_an_impossible_input_fails(
    tmp_path: Path, preprocess: dict[str, object], words: str
) -> None:
    path = write_lie(tmp_path / "bad.dcz", set_at_top(preprocess=preprocess))
    with pytest.raises(PreprocessError, match=rf"bad\.dcz.*{words}"):
        load_model(str(path))


def test_compressed_again_it_is_the_same(squeezenet: CompressionSummary, tmp_path: Path) -> None:
    """What is pruned and shared already is kept exactly."""
    again = compress_network(str(squeezenet.output), tmp_path / "again.dcz", densities={None: 0.4})
    first, second = read_dcz(squeezenet.output), read_dcz(again.output)
    assert second.description.model == "squeezenet1_1"
    for one, two in zip(first.layers, second.layers, strict=True):
        assert one.weights().tobytes() == two.weights().tobytes()
    assert all(row.error == 0 for row in again.layers)
    assert second.description.weights_id == "file:squeezenet.dcz of random:0"
    unasked = compress_network(str(squeezenet.output), tmp_path / "unasked.dcz")
    assert [row.kept for row in unasked.layers] == [row.kept for row in squeezenet.layers]
    loaded = load_model("squeezenet1_1", weights=str(again.output))
    assert loaded.weights_text == "file:again.dcz of file:squeezenet.dcz of random:0"
    assert loaded.is_untrained


def test_a_compressed_file_keeps_what_it_has(tmp_path: Path) -> None:
    first = compress_network(
        MODEL,
        tmp_path / "tiny.dcz",
        densities={None: 0.5, "fc": 0.3},
        bits={"convolution": 3, "fully-connected": 7},
        index_bits={"convolution": 2, "fully-connected": 3},
    )
    path = tmp_path / "again.dcz"
    again = compress_network(MODEL, path, weights=str(first.output))
    for one, two in zip(read_dcz(first.output).layers, read_dcz(again.output).layers, strict=True):
        assert one.weights().tobytes() == two.weights().tobytes()
        assert (one.bits, one.index_bits) == (two.bits, two.index_bits)
    other = compress_network(
        MODEL,
        path,
        weights=str(first.output),
        densities={"fc": 0.1},
        bits={"convolution": 2},
        overwrite=True,
    )
    assert [row.kept for row in other.layers[:-1]] == [row.kept for row in first.layers[:-1]]
    assert other.layers[-1].kept < first.layers[-1].kept
    assert [row.bits for row in other.layers] == [2, 2, 2, 7]


class Wrapped(nn.Module):
    """The same network under other names."""

    preprocess = Tiny.preprocess

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


WRAPPED = f"{__name__}:Wrapped"


@pytest.mark.parametrize(("first", "second"), [(WRAPPED, MODEL), (MODEL, WRAPPED)])
def test_a_compressed_file_keeps_what_it_has_under_other_names(
    tmp_path: Path, first: str, second: str
) -> None:
    one, two = tmp_path / "one.dcz", tmp_path / "two.dcz"
    before = compress_network(first, one, densities=HALF, bits={"convolution": 3})
    after = compress_network(second, two, weights=str(one))
    assert [row.kept for row in after.layers] == [row.kept for row in before.layers]
    assert [row.bits for row in after.layers] == [3, 3, 3, 5]
    assert all(row.error == 0 for row in after.layers)
    other = compress_network(second, two, weights=str(one), densities={None: 0.2}, overwrite=True)
    assert all(a.kept < b.kept for a, b in zip(other.layers, before.layers, strict=True))


def test_an_existing_file_is_not_written_over_unasked(tmp_path: Path) -> None:
    path = tmp_path / "tiny.dcz"
    path.write_text("mine")
    with pytest.raises(StoreWriteError, match="use --overwrite"):
        compress_network(MODEL, path, densities=HALF)
    assert path.read_text() == "mine"
    compress_network(MODEL, path, densities=HALF, overwrite=True)
    assert len(read_dcz(path).layers) == 4
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.dcz"], "nothing temporary is left"
    with pytest.raises(StoreWriteError, match="no/such"):
        compress_network(MODEL, tmp_path / "no/such/tiny.dcz", densities=HALF)


def test_a_network_that_no_file_holds_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rrm_extract.jobs.compress.MAX_WEIGHTS", 1000)
    with pytest.raises(ModelError, match=r"has 2061 weights; a \.dcz file holds up to 1000"):
        compress_network(MODEL, tmp_path / "tiny.dcz", densities=HALF)
    monkeypatch.setattr("rrm_extract.jobs.compress.TENSOR_TYPES", {})
    monkeypatch.setattr("rrm_extract.jobs.compress.MAX_WEIGHTS", 1 << 20)
    with pytest.raises(ModelError, match=r"features\.0\.bias is of type float32"):
        compress_network(MODEL, tmp_path / "tiny.dcz", densities=HALF)


def test_nothing_is_written_when_the_request_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        compress_network(MODEL, tmp_path / "tiny.dcz")
    assert list(tmp_path.iterdir()) == []


def test_timm_networks_come_back_by_name(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    path = tmp_path / "timm.dcz"
    name = "timm/test_resnet"
    compress_network(name, path, weights="random:3", densities=HALF)
    loaded, ordinary = load_model(str(path)), load_model(name, weights="random:3")
    assert loaded.architecture == name
    assert loaded.preprocess == ordinary.preprocess
    assert loaded.leaf_functions == ordinary.leaf_functions
    x = torch.rand(1, *loaded.input_shape)
    assert loaded.module(x).isfinite().all()


def test_weights_of_a_timm_network_have_the_transform_of_their_tag(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    path = tmp_path / "timm.dcz"
    compress_network("timm/resnet18.tv_in1k", path, weights="random:0", densities=HALF)
    loaded = load_model("timm/resnet18", weights=str(path))
    assert loaded.name == "timm/resnet18"
    assert loaded.preprocess == load_model(str(path)).preprocess
    assert loaded.preprocess != load_model("timm/resnet18", weights="random:0").preprocess
    again = tmp_path / "again.dcz"
    compress_network("timm/resnet18", again, weights=str(path), densities=HALF)
    assert load_model(str(again)).preprocess == loaded.preprocess
    other = load_model("timm/resnet18.a1_in1k", weights=str(path))  # which was asked for by name
    assert other.preprocess != loaded.preprocess


def test_weights_of_a_timm_network_by_its_old_name(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    path = tmp_path / "timm.dcz"
    asked = "resize=72,crop=64,scale=255,mean=0/0/0,std=1/1/1"
    compress_network(
        "timm/resnet18.gluon_in1k", path, weights="random:0", preprocess=asked, densities=HALF
    )
    loaded = load_model("timm/gluon_resnet18_v1b", weights=str(path))
    assert loaded.preprocess == parse_preprocess(asked).describe()


def test_an_onnx_file_fails(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"net\.onnx cannot be compressed"):
        compress_network("net.onnx", tmp_path / "net.dcz", densities=HALF)
