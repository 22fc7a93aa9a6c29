"""Weights of OpenPose's network under the names that programs give them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rrm_extract.errors import WeightsError
from rrm_extract.models import load_model
from rrm_extract.models.compression import compress_weights, encode_layer
from rrm_extract.models.rtpose import COCO_BODY, RTPOSE_PREPROCESS, RtPose
from rrm_extract.models.rtpose.names import with_caffes_names
from tests.models.caffe import blob, layer, sized
from tests.models.compression import file_bytes

TRUNK = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25)
"""Places of the convolutions among VGG's ReLUs and poolings."""


@pytest.fixture(scope="module")
def shapes() -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in RtPose().state_dict().items()}


def numbered_names() -> list[str]:
    """All names of rtpose_vgg, in the order in which it has them."""
    parts = [("model0", TRUNK)]
    for number in (1, 2):
        parts += [
            (f"model{stage}_{number}", range(0, 10 if stage == 1 else 14, 2))  # type: ignore[list-item]
            for stage in range(1, 7)
        ]
    return [
        f"{part}.{place}.{role}"
        for part, places in parts
        for place in places
        for role in ("weight", "bias")
    ]


def test_every_number_is_a_layer(shapes: dict[str, torch.Size]) -> None:
    numbered = {name: torch.zeros(0) for name in numbered_names()}
    assert len(numbered) == 184
    assert with_caffes_names(numbered).keys() == shapes.keys()


@pytest.mark.parametrize(
    ("name", "expected", "shape"),
    [
        ("model0.0.weight", "conv1_1.weight", (64, 3, 3, 3)),
        ("model0.2.bias", "conv1_2.bias", (64,)),
        ("model0.5.weight", "conv2_1.weight", (128, 64, 3, 3)),
        ("model0.16.weight", "conv3_4.weight", (256, 256, 3, 3)),
        ("model0.19.weight", "conv4_1.weight", (512, 256, 3, 3)),
        ("model0.25.weight", "conv4_4_CPM.weight", (128, 256, 3, 3)),
        ("model1_1.6.weight", "conv5_4_CPM_L1.weight", (512, 128, 1, 1)),
        ("model1_1.8.bias", "conv5_5_CPM_L1.bias", (38,)),
        ("model1_2.8.weight", "conv5_5_CPM_L2.weight", (19, 512, 1, 1)),
        ("model2_1.0.weight", "Mconv1_stage2_L1.weight", (128, 185, 7, 7)),
        ("model5_2.10.weight", "Mconv6_stage5_L2.weight", (128, 128, 1, 1)),
        ("model6_1.12.weight", "Mconv7_stage6_L1.weight", (38, 128, 1, 1)),
        ("model6_2.12.bias", "Mconv7_stage6_L2.bias", (19,)),
        ("module.model6_2.12.bias", "module.Mconv7_stage6_L2.bias", None),
        ("model0.conv4_3_CPM.bias", "conv4_3_CPM.bias", (256,)),
        ("model3_2.Mconv2_stage3_L2.weight", "Mconv2_stage3_L2.weight", (128, 128, 7, 7)),
        ("Mconv2_stage3_L2.weight", "Mconv2_stage3_L2.weight", (128, 128, 7, 7)),
        ("model0.4.weight", "model0.4.weight", None),  # a pooling has none
        ("model1_1.10.weight", "model1_1.10.weight", None),
        ("model7_1.0.weight", "model7_1.0.weight", None),
        ("epoch", "epoch", None),
    ],
)
def test_names(
    name: str, expected: str, shape: tuple[int, ...] | None, shapes: dict[str, torch.Size]
) -> None:
    assert [*with_caffes_names({name: torch.zeros(1)})] == [expected]
    assert shape is None or shapes[expected] == shape


def test_a_name_that_is_there_already_is_not_replaced() -> None:
    both = {"model0.0.bias": torch.zeros(1), "conv1_1.bias": torch.ones(1)}
    assert with_caffes_names(both) == both


def constants(shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """Weights of one number each, which take no room in a file."""
    return {
        name: torch.tensor(float(number)).expand(shape)
        for number, (name, shape) in enumerate(shapes.items())
    }


def as_rtpose_vgg(state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name in numbered_names():
        ((own, _),) = with_caffes_names({name: torch.zeros(1)}).items()
        yield f"module.{name}", state[own]


@pytest.mark.parametrize("style", ["caffe", "numbers"])
def test_files_of_both_kinds(style: str, shapes: dict[str, torch.Size], tmp_path: Path) -> None:
    state = constants(shapes)
    content = state if style == "caffe" else {"state_dict": dict(as_rtpose_vgg(state))}
    torch.save(content, tmp_path / "pose.pth")
    assert (tmp_path / "pose.pth").stat().st_size < 1e6
    model = load_model("rtpose", weights=str(tmp_path / "pose.pth"))
    assert not model.missing_keys | model.unexpected_keys
    for name, tensor in model.module.state_dict().items():
        assert tensor.flatten()[0] == state[name].flatten()[0], name


def test_what_a_file_lacks_is_told(shapes: dict[str, torch.Size], tmp_path: Path) -> None:
    state = {f"model0.{place}.bias": torch.ones(64) for place in (0, 2)}
    torch.save({**state, "model0.4.bias": torch.ones(1)}, tmp_path / "pose.pth")
    model = load_model("rtpose", weights=str(tmp_path / "pose.pth"))
    assert model.missing_keys == shapes.keys() - {"conv1_1.bias", "conv1_2.bias"}
    assert model.unexpected_keys == {"model0.4.bias"}


def test_a_compressed_file_is_a_model(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(64, 3, 3, 3)).astype(np.float32)
    compressed = compress_weights(
        weights, name="conv1_1.weight", kind="convolution", density=0.5, bits=8, index_bits=4
    )
    path = tmp_path / "pose.dcz"
    path.write_bytes(file_bytes(encode_layer(compressed), model="rtpose"))
    own, other = load_model(str(path)), load_model("rtpose", weights=str(path))
    assert (own.architecture, own.skeleton) == ("rtpose", COCO_BODY)
    for model in (own, other):
        kernel = model.module.get_submodule("conv1_1").weight
        assert int((kernel != 0).sum()) == weights.size // 2
        assert "conv1_2.weight" in model.missing_keys
    sized = load_model(str(path), preprocess="letterbox=184")
    assert sized.transform == replace(RTPOSE_PREPROCESS, size=(184, 184))


def test_random_weights() -> None:
    before = torch.get_rng_state()
    one, same, other = (
        load_model("rtpose", weights=weights, preprocess="letterbox=8")
        for weights in ("random", "random:0", "random:1")
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert one.weights_sha256 == same.weights_sha256 != other.weights_sha256
    assert one.weights_id == "random:0"


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            "default",
            r"rtpose comes without weights: give --weights pose_iter_440000\.caffemodel \(as "
            r"OpenPose publishes it\), a \.safetensors or \.pth file .*random:0",
        ),
        ("COCO", "rtpose has no weights 'COCO', and no such file exists: give --weights pose_iter"),
        ("pose.caffemodel", r"weights file 'pose\.caffemodel' does not exist"),
    ],
)
def test_no_weights_fail(weights: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load_model("rtpose", weights=weights)


def test_weights_of_another_network_fail(tmp_path: Path) -> None:
    path = tmp_path / "pose.caffemodel"
    wrong = np.zeros((96, 3, 11, 11), np.float32)
    path.write_bytes(layer("conv1", "Convolution", [blob(wrong)]))
    with pytest.raises(WeightsError, match=r"none of its 1 names fits .* with conv1\.weight, the"):
        load_model("rtpose", weights=str(path))
    path.write_bytes(layer("conv1_1", "Convolution", [blob(wrong)]))
    with pytest.raises(WeightsError, match=r"conv1_1\.weight is \(96, 3, 11, 11\), expected \(64"):
        load_model("rtpose", weights=str(path))
    path.write_bytes(sized(100, b"\x3a\x05"))
    with pytest.raises(WeightsError, match=r"is damaged or no \.caffemodel file"):
        load_model("rtpose", weights=str(path))
