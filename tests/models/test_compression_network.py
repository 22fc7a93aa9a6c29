"""Whole networks: which layers, which densities, what is counted, and columns for a kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision import models

from rrm_extract.errors import ConfigError, ModelError, WeightsError
from rrm_extract.jobs.compress import compress_network
from rrm_extract.models import LoadedModel, load_model
from rrm_extract.models.caffe_alexnet import caffe_alexnet
from rrm_extract.models.compression import (
    CompressedColumns,
    CompressedLayer,
    compress_layers,
    compress_weights,
    compressed_columns,
    encode_layer,
    parse_density,
    plan_compression,
)
from rrm_extract.models.compression.published import PUBLISHED
from tests.models.compression import small_layer

TABLE_4 = {
    "conv1": 84, "conv2": 38, "conv3": 35, "conv4": 37, "conv5": 37, "fc6": 9, "fc7": 9, "fc8": 25,
}  # fmt: skip


@pytest.fixture(scope="module")
def alexnet() -> LoadedModel:
    return load_model("alexnet", weights="random:0")


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    return load_model("tests.tiny:network")


def test_published_densities_are_reached_to_one_weight(alexnet: LoadedModel) -> None:
    plans = plan_compression(alexnet)
    assert {plan.paper_name: round(100 * plan.density) for plan in plans} == TABLE_4
    assert {plan.bits for plan in plans if plan.kind == "convolution"} == {8}
    assert {plan.bits for plan in plans if plan.kind == "fully-connected"} == {5}
    assert {plan.index_bits for plan in plans} == {4}
    state = alexnet.module.state_dict()
    assert plans[5].paper_name == "fc6"
    plans = plans[:5] + plans[6:]  # without the largest, for time's sake: fc7 is like it
    for plan, layer in compress_layers(alexnet, plans):
        assert abs(layer.n_kept - plan.density * layer.n_weights) <= 1
        dense = torch.from_numpy(layer.weights())
        given_weights = state[plan.name]
        assert dense.shape == given_weights.shape
        smallest = given_weights[dense != 0].abs().min()
        assert smallest >= given_weights[dense == 0].abs().max()


@pytest.mark.parametrize(
    ("name", "build"),
    [("alexnet", models.alexnet), ("vgg16", models.vgg16), ("caffe_alexnet", caffe_alexnet)],
)
def test_published_layers_are_those_of_the_network(name: str, build: object) -> None:
    with torch.device("meta"):
        module = build()  # type: ignore[operator]
    linear = [n for n, m in module.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert list(PUBLISHED[name].layers) == linear
    names = [row.name for row in PUBLISHED[name].layers.values()]
    assert names == sorted(names)
    assert all(0 < row.density < 1 for row in PUBLISHED[name].layers.values())


def test_vgg16_comes_to_the_papers_overall_density() -> None:
    with torch.device("meta"):
        module = models.vgg16()
    rows = PUBLISHED["vgg16"].layers
    sizes = {name: module.get_submodule(name).weight.numel() for name in rows}
    kept = sum(rows[name].density * size for name, size in sizes.items())
    assert kept / sum(sizes.values()) == pytest.approx(0.075, abs=0.002)


def test_other_networks_need_a_density(tiny: LoadedModel) -> None:
    with pytest.raises(ConfigError, match=r"no density for layer 'features\.0'.*--density 0\.3"):
        plan_compression(tiny)
    with pytest.raises(ConfigError, match=r"no density for layer 'features\.2'"):
        plan_compression(tiny, densities={"features.0": 0.5})
    plans = plan_compression(tiny, densities={None: 0.5, "fc": 0.25}, bits={"convolution": 6})
    assert {plan.module: plan.density for plan in plans} == {
        "features.0": 0.5, "features.2": 0.5, "features.4": 0.5, "fc": 0.25,
    }  # fmt: skip
    assert [(plan.bits, plan.index_bits) for plan in plans] == [(6, 8)] * 3 + [(5, 5)]
    assert all(plan.paper_name is None for plan in plans)


def test_layers_go_by_the_papers_names_too(alexnet: LoadedModel) -> None:
    plans = plan_compression(alexnet, densities={"fc8": 0.5, "features.0": 1.0})
    chosen = {plan.module: plan.density for plan in plans}
    assert (chosen["classifier.6"], chosen["features.0"]) == (0.5, 1.0)
    assert chosen["classifier.1"] == 0.09
    with pytest.raises(ConfigError, match="given twice"):
        plan_compression(alexnet, densities={"fc8": 0.5, "classifier.6": 0.5})
    with pytest.raises(ConfigError, match=r"'features\.1'; did you mean 'features\.10'"):
        plan_compression(alexnet, densities={"features.1": 0.5})


def test_density_option() -> None:
    assert parse_density("0.25") == {None: 0.25}
    assert parse_density("0.25, conv1=1,fc6=9e-2") == {None: 0.25, "conv1": 1.0, "fc6": 0.09}
    for text in ("", "much", "0", "-0.5", "1.5", "nan", "inf", "conv1=", "conv1"):
        with pytest.raises(ConfigError, match="is no density; expected a number above 0"):
            parse_density(text)
    for text in ("0.5,0.6", "a=0.5,a=0.6"):
        with pytest.raises(ConfigError, match="twice"):
            parse_density(text)


def test_weights_that_are_not_finite_fail(tiny: LoadedModel) -> None:
    bad = load_model("tests.tiny:network")
    bad.module.features[2].weight[0, 0, 0, 0] = float("nan")  # type: ignore[index]
    with pytest.raises(WeightsError, match=r"layer 'features\.2' are missing or not finite"):
        plan_compression(bad, densities={None: 0.5})


def without_layers() -> nn.Module:
    module = nn.Sequential(nn.ReLU(), nn.Flatten())
    module.preprocess = {"resize": 8, "crop": 8, "mean": [0, 0, 0], "std": [1, 1, 1]}
    return module


def with_a_shared_layer() -> nn.Module:
    conv = nn.Conv2d(3, 3, 3, padding=1)
    module = nn.Sequential(conv, nn.ReLU(), conv, nn.Flatten(), nn.Linear(3 * 64, 2))
    module.preprocess = {"resize": 8, "crop": 8, "mean": [0, 0, 0], "std": [1, 1, 1]}
    return module


def test_a_network_without_layers_fails() -> None:
    loaded = load_model(f"{__name__}:without_layers")
    with pytest.raises(ModelError, match="no convolution and no fully-connected layer"):
        plan_compression(loaded, densities={None: 0.5})


def test_a_layer_that_is_used_twice_stays_one(tmp_path: Path) -> None:
    name, path = f"{__name__}:with_a_shared_layer", tmp_path / "net.dcz"
    compress_network(name, path, weights="random:0", densities={None: 0.5})
    loaded = load_model(name, weights=str(path))
    assert loaded.missing_keys == loaded.unexpected_keys == frozenset()
    assert loaded.module[0].weight.count_nonzero() == round(0.5 * 81)


def test_ratios_by_hand() -> None:
    # 2 x 10 weights, three of them kept, gaps of 2 bits (at most 3 weights in between).
    weights = np.zeros((2, 10), np.float32)
    weights[0, 1], weights[0, 2], weights[1, 5] = 4.0, -2.0, 4.0
    weights[0, 9] = 0.5
    layer = compress_weights(
        weights, name="w", kind="fully-connected", density=0.15, bits=4, index_bits=2
    )
    # Positions 1, 2, 15: 12 weights in between are three fillers (6, 10, 14), then a gap of 0.
    # Behind 15 are 4 weights, as many as may be left.
    assert layer.codebook.tolist() == [0, -2, 4]
    assert layer.codes.tolist() == [2, 1, 0, 0, 0, 2]
    assert layer.gaps.tolist() == [1, 0, 3, 3, 3, 0]
    coded = encode_layer(layer)
    assert (layer.n_weights, layer.n_kept, layer.n_entries, layer.density) == (20, 3, 6, 0.15)
    assert coded.dense_bits == 20 * 32
    assert coded.pruned_bits == 3 * 32
    assert coded.quantised_bits == 6 * (4 + 2) + 3 * 32
    # Codes: three 0, two 2, one 1: words of 1, 2 and 2 bits. Gaps: three 3, two 0, one 1 likewise.
    assert coded.codes.bits == coded.gaps.bits == 3 * 1 + 3 * 2
    # Codebook; lengths, one block and two bytes of codes; the same of gaps.
    assert coded.coded_bits == 8 * (3 * 4 + (3 + 2 + 2) + (4 + 2 + 2))


def test_a_layer_of_zeros() -> None:
    layer = compress_weights(
        np.zeros((4, 100), np.float32),
        name="w", kind="fully-connected", density=0.1, bits=5, index_bits=5,
    )  # fmt: skip
    assert layer.codebook.tolist() == [0]
    assert (layer.n_kept, layer.n_entries) == (0, 12)
    assert not layer.weights().any()
    columns = compressed_columns(layer)
    assert len(columns.codes) == 0
    assert columns.starts.tolist() == [0] * 101


def dense_columns(columns: CompressedColumns) -> np.ndarray:
    """The matrix, entry by entry."""
    outputs, inputs = columns.shape
    matrix = np.zeros((outputs, inputs), np.float32)
    for column in range(inputs):
        row = -1
        for entry in range(columns.starts[column], columns.starts[column + 1]):
            row += int(columns.gaps[entry]) + 1
            matrix[row, column] = columns.codebook[columns.codes[entry]]
    return matrix


@given(
    st.integers(1, 40), st.integers(1, 12), st.floats(0.01, 1), st.integers(1, 8), st.integers(1, 8)
)
def test_columns_are_the_same_matrix(
    outputs: int, inputs: int, density: float, index_bits: int, stored_bits: int
) -> None:
    weights = np.random.default_rng(outputs).normal(size=(outputs, inputs)).astype(np.float32)
    layer = compress_weights(
        weights, name="w", kind="fully-connected", density=density, bits=4, index_bits=stored_bits
    )
    columns = compressed_columns(layer, index_bits=index_bits)
    assert np.array_equal(dense_columns(columns), layer.weights())
    assert len(columns.codes) == len(columns.gaps) == columns.starts[-1]
    assert columns.gaps.max() < 1 << index_bits
    assert np.count_nonzero(columns.codes) == layer.n_kept


def test_columns_of_a_convolution_fail() -> None:
    with pytest.raises(WeightsError, match="expected a fully-connected one"):
        compressed_columns(small_layer(kind="convolution"))


def test_columns_of_what_is_not_pruned_to_0_fail() -> None:
    layer = small_layer()
    dense = CompressedLayer(**{**vars(layer), "codebook": layer.codebook + 1})
    with pytest.raises(WeightsError, match="not listed are 1"):
        compressed_columns(dense)
