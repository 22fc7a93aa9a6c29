"""Caffe's .caffemodel files: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrm_extract.errors import WeightsError
from rrm_extract.models import load_model
from rrm_extract.models.caffemodel import read_caffemodel, wire
from rrm_extract.models.checkpoint import read_checkpoint
from tests.models.caffe import (
    FULLY_CONNECTED,
    blob,
    caffemodel,
    layer,
    old_blob,
    old_layer,
    sized,
    whole,
)

WEIGHT = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
BIAS = np.array([0.5, -1], np.float32)
SMALL = {"conv1_1.weight": WEIGHT, "conv1_1.bias": BIAS}


def read(tmp_path: Path, content: bytes) -> dict[str, np.ndarray]:
    (tmp_path / "net.caffemodel").write_bytes(content)
    return read_caffemodel(tmp_path / "net.caffemodel")


def check(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_layers_by_name(tmp_path: Path) -> None:
    more = {"fc/6.weight": np.ones((5, 7), np.float32), "fc/6.bias": np.zeros(5, np.float32)}
    found = read(tmp_path, caffemodel(SMALL | more))
    check(found, SMALL | more)
    found["conv1_1.bias"][0] = 1  # in memory of its own: the file may go


@pytest.mark.parametrize("packed", [True, False])
def test_shapes_packed_or_not(tmp_path: Path, packed: bool) -> None:
    blobs = [blob(WEIGHT, packed_shape=packed), blob(BIAS, packed_shape=packed)]
    check(read(tmp_path, layer("conv1_1", "Convolution", blobs)), SMALL)


def test_files_of_before_2015(tmp_path: Path) -> None:
    matrix = np.arange(10, dtype=np.float32).reshape(2, 5)
    content = (
        old_layer("conv1_1", 4, [old_blob(WEIGHT), old_blob(BIAS)])
        + old_layer("relu", 18)
        + old_layer("fc", FULLY_CONNECTED, [old_blob(matrix), old_blob(BIAS)])
        + old_layer("one", 4, [old_blob(WEIGHT[:1, :1]), old_blob(BIAS[:1])])
    )
    expected = {
        **SMALL, "fc.weight": matrix, "fc.bias": BIAS,
        "one.weight": WEIGHT[:1, :1], "one.bias": BIAS[:1],
    }  # fmt: skip
    check(read(tmp_path, content), expected)


def test_more_blobs_doubles_and_numbers_in_pieces(tmp_path: Path) -> None:
    pieces = sized(5, WEIGHT[:1].tobytes()) + sized(5, WEIGHT[1:].tobytes())
    shape = sized(7, sized(1, bytes(WEIGHT.shape)))
    scalar = np.array([3.0], np.float64)
    content = layer("norm", "BatchNorm", [pieces + shape, blob(BIAS), blob(scalar)])
    check(
        read(tmp_path, content),
        {"norm.weight": WEIGHT, "norm.bias": BIAS, "norm.blobs.2": scalar},
    )


def test_fields_of_other_programs_are_passed_over(tmp_path: Path) -> None:
    strange = whole(77, 2**63) + b"\x09" + bytes(8) + b"\x0d" + bytes(4) + sized(3000, b"\xff")
    content = layer("conv1_1", "Convolution", [blob(WEIGHT) + strange, blob(BIAS)])
    check(read(tmp_path, strange + content + strange), SMALL)


def blob_of(data: bytes, *sides: int) -> bytes:
    return layer("c", "Convolution", [sized(5, data) + sized(7, sized(1, bytes(sides)))])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read: .*empty"),
        (caffemodel({}), "holds no layer with weights; expected a trained"),
        (b"PK\x03\x04" + bytes(40), "damaged or no .caffemodel file: it has"),
        (b"\x00\x00", "it has no field at byte 0"),
        (b"\x0b\x0c", "it has no field at byte 0"),  # a group, which Caffe has none of
        (b"\x0f", "it has no field at byte 0"),
        (b"\x08" + b"\xff" * 20, "it has a number at byte 1 that does not end"),
        (b"\x08\xff", "it has a number at byte 1 that does not end"),
        (
            b"\xa2\x06\xff\xff\xff\xff\xff\xff\xff\x7f",
            "it has a field at byte 0 of 72,057,594,037,927,935 bytes, of which 0 are there",
        ),
        (b"\xa0\x06\x05", "it has a number at byte 3, where a message should be"),
        (blob_of(bytes(12), 2, 2), r"it has 3 numbers in a blob of layer 'c', whose shape is \(2"),
        (blob_of(bytes(7), 1), "it has something other than numbers at byte"),
        (blob_of(b"", *[1] * 33), "it has a shape at byte .* of over 32 sides"),
        (blob_of(b"", 255, 255), "it has a number at byte .* that does not end"),
        (layer("c", "C", [sized(5, bytes(4)) + b"\x2d" + bytes(3)]), "it has a field at byte"),
        (blob_of(b"\x00\x00\xc0\x7f", 1), "it has numbers that are not finite in layer 'c'"),
        (2 * layer("n" * 999, "C", [blob(BIAS)]), "it has two layers 'n{60}' with weights"),
        (2 * caffemodel(SMALL), "it has two layers 'conv1_1' with weights"),
    ],
)
def test_other_content_fails(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        read(tmp_path, content)
    assert "net.caffemodel" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_of_nothing_but_fields_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MOST_FIELDS", 100)
    check(read(tmp_path, caffemodel(SMALL)), SMALL)
    for content in (b"\x08\x00" * 101, 50 * layer("a", "ReLU")):
        with pytest.raises(WeightsError, match="it has more than 100 fields"):
            read(tmp_path, content)


def test_a_shape_of_astronomical_size_takes_no_memory(tmp_path: Path) -> None:
    sides = b"".join([b"\xff" * 8 + b"\x7f"] * 4)
    content = layer("c", "Convolution", [sized(5, bytes(4)) + sized(7, sized(1, sides))])
    with pytest.raises(WeightsError, match="1 numbers in a blob of layer 'c', whose shape is"):
        read(tmp_path, content)


def test_truncated_anywhere_fails_or_lacks_layers(tmp_path: Path) -> None:
    content = caffemodel({**SMALL, "fc.weight": WEIGHT[0, 0], "fc.bias": BIAS})
    whole_file = read(tmp_path, content)
    for length in range(len(content)):
        try:
            found = read(tmp_path, content[:length])
        except WeightsError:
            continue
        assert found.keys() < whole_file.keys(), "at most whole layers at the end are missing"


@given(st.binary(max_size=60), st.integers(0, 250))
def test_damage_is_never_another_error(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, position: int
) -> None:
    content = bytearray(caffemodel(SMALL))
    content[position : position + len(noise)] = noise
    path = tmp_path_factory.getbasetemp() / "damaged.caffemodel"
    path.write_bytes(content)
    try:
        found = read_caffemodel(path)
    except WeightsError:
        return
    assert all(name.count(".") and array.dtype.kind == "f" for name, array in found.items())


def test_unreadable_files_fail(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        read_caffemodel(tmp_path / "net.caffemodel")
    with pytest.raises(WeightsError, match="cannot be read: Is a directory"):
        read_caffemodel(tmp_path)


def test_every_network_takes_such_files(tmp_path: Path) -> None:
    content = old_layer("conv1", 4, [old_blob(np.full((96, 3, 11, 11), 2, np.float32))])
    (tmp_path / "net.caffemodel").write_bytes(content)
    assert read_checkpoint(tmp_path / "net.caffemodel").keys() == {"conv1.weight"}
    model = load_model("caffe_alexnet", weights=str(tmp_path / "net.caffemodel"))
    state = model.module.state_dict()
    assert bool((state["conv1.weight"] == 2).all())
    assert model.missing_keys == state.keys() - {"conv1.weight"}
    assert model.weights_id == "file:net.caffemodel"
