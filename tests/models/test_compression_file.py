"""The .dcz file: what is written is read, and what is damaged or made up is refused."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rrm_extract.errors import WeightsError
from rrm_extract.models.compression import (
    compress_weights,
    dcz_bytes,
    encode_layer,
    read_dcz,
)
from rrm_extract.models.compression.container import unpack
from rrm_extract.models.compression.dcz_reader import describe_dcz
from tests.models.compression import (
    Lie,
    Metadata,
    file_bytes,
    float_arrays,
    set_at_top,
    small_layer,
    write_lie,
    write_metadata,
    write_small,
)

ALLOWED_MEMORY = 1 << 20
"""Bytes that a refusal of a file of a kilobyte may take."""


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < ALLOWED_MEMORY
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For files that hypothesis writes over again and again."""
    return tmp_path_factory.mktemp("dcz")


@given(
    float_arrays(min_size=2),
    st.floats(0.01, 1),
    st.integers(1, 8),
    st.integers(1, 8),
)
def test_round_trip(
    folder: Path, weights: NDArray[np.float32], density: float, bits: int, index_bits: int
) -> None:
    layer = compress_weights(
        weights.reshape(1, -1),
        name="a.weight",
        kind="fully-connected",
        density=density,
        bits=bits,
        index_bits=index_bits,
    )
    path = folder / "trip.dcz"
    path.write_bytes(file_bytes(encode_layer(layer)))
    (read,) = read_dcz(path).layers
    assert (read.name, read.kind, read.shape) == (layer.name, layer.kind, layer.shape)
    assert (read.bits, read.index_bits) == (bits, index_bits)
    assert np.array_equal(read.codes, layer.codes)
    assert np.array_equal(read.gaps, layer.gaps)
    assert read.codebook.tobytes() == layer.codebook.tobytes()
    dense = read.weights()
    assert dense.tobytes() == layer.weights().tobytes()
    kept = np.flatnonzero(dense)
    largest = np.argsort(-np.abs(weights), kind="stable")[: max(1, round(density * len(weights)))]
    assert set(kept) <= set(largest)
    assert read.n_kept == np.count_nonzero(weights[largest])


def test_everything_else_is_kept_too(tmp_path: Path) -> None:
    tensors = {
        "bias": np.array([1.5, -2.5, np.nan], np.float32),
        "steps": np.array(3),
        "none": np.zeros((0, 4), np.float32),
        "mask": np.array([[True, False]]),
        **{kind: np.array([-1, 5]).astype(kind) for kind in ("int8", "uint8", "int16", "int32")},
    }
    data = dcz_bytes(
        [encode_layer(small_layer("a.weight")), encode_layer(small_layer("b.weight", seed=1))],
        tensors,
        model="vgg16",
        preprocess={"resize": 256},
        weights_id="file:w.pth",
        weights_sha256="ab" * 32,
        tool_version="9",
    )
    path = tmp_path / "net.dcz"
    path.write_bytes(data)
    network = read_dcz(path)
    assert network.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert network.tensors[name].dtype == tensor.dtype
        assert network.tensors[name].shape == tensor.shape
        assert network.tensors[name].tobytes() == tensor.tobytes()
    assert [layer.name for layer in network.fully_connected] == ["a.weight", "b.weight"]
    assert list(network.state()) == ["a.weight", "b.weight", *tensors]
    description = describe_dcz(path)
    assert description == network.description
    assert (description.model, description.preprocess) == ("vgg16", {"resize": 256})
    assert (description.weights_id, description.weights_sha256) == ("file:w.pth", "ab" * 32)


def test_the_layout_is_the_documented_one(tmp_path: Path) -> None:
    data = write_small(tmp_path / "net.dcz").read_bytes()
    magic, major, minor, length, size, _, _ = struct.unpack("<8sHHIQII", data[:32])
    assert magic == bytes.fromhex("89 44 43 5A 0D 0A 1A 0A")
    assert (major, minor, size) == (1, 0, len(data))
    metadata = json.loads(data[32 : 32 + length])
    (layer,) = metadata["layers"]
    assert (layer["shape"], layer["bits"], layer["index_bits"]) == ([12, 30], 3, 2)
    # By hand, bit by bit, as sections 3 and 4 of docs/dcz.md say.
    start, sections = 32 + length, []
    for section_size, _ in layer["sections"]:
        sections.append(data[start : start + section_size])
        start += section_size
    codebook = struct.unpack(f"<{len(sections[0]) // 4}f", sections[0])
    codes = plain_decode(sections[1], sections[3], layer["entries"])
    gaps = plain_decode(sections[4], sections[6], layer["entries"])
    weights, position = np.zeros(360, np.float32), -1
    for code, gap in zip(codes, gaps, strict=True):
        position += gap + 1
        weights[position] = codebook[code]
    assert np.array_equal(weights.reshape(12, 30), small_layer().weights())


def plain_decode(lengths: bytes, words: bytes, count: int) -> list[int]:
    table, word, before = {}, 0, 0
    for length, symbol in sorted((length, s) for s, length in enumerate(lengths) if length):
        word <<= length - before
        table[f"{word:0{length}b}"] = symbol
        word, before = word + 1, length
    bits = "".join(f"{byte:08b}" for byte in words)
    symbols, read = [], ""
    for bit in bits:
        read += bit
        if read in table and len(symbols) < count:
            symbols.append(table[read])
            read = ""
    assert len(symbols) == count
    assert set(read) <= {"0"}
    return symbols


def test_cut_anywhere_it_is_refused(tmp_path: Path) -> None:
    path = write_small(tmp_path / "net.dcz")
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(WeightsError) as caught:
            read_dcz(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(data + b"\0")
    with pytest.raises(WeightsError, match=f"it has {len(data) + 1} bytes, expected {len(data)}"):
        read_dcz(path)


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = write_small(tmp_path / "net.dcz")
    data = path.read_bytes()
    for place in range(len(data)):
        # All bits of the header, and one a byte of the rest, for time's sake.
        for bit in range(8) if place < 32 else [place % 8]:
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            with pytest.raises(WeightsError):
                read_dcz(path)


def test_other_versions(tmp_path: Path) -> None:
    path = write_small(tmp_path / "net.dcz")
    data = bytearray(path.read_bytes())

    def version(major: int, minor: int) -> None:
        data[8:12] = struct.pack("<HH", major, minor)
        data[28:32] = struct.pack("<I", zlib.crc32(data[:28]))
        path.write_bytes(data)

    version(2, 0)
    with pytest.raises(WeightsError, match=r"format version 2\.0, expected 1\.x"):
        read_dcz(path)
    version(1, 7)
    assert len(read_dcz(path).layers) == 1


def test_what_is_no_file_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.dcz"
    for content in (b"", b"PK\x03\x04", b"\x89DCZ\n\x1a\n" + bytes(40)):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="is no compressed network"):
            read_dcz(path)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_dcz(tmp_path / "none.dcz")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_dcz(tmp_path)


def set_in_layer(**values: object) -> Lie:
    def lie(metadata: Metadata, sections: list[bytes]) -> None:
        metadata["layers"][0].update(values)

    return lie


def set_section(number: int, change: Callable[[bytes], bytes]) -> Lie:
    def lie(metadata: Metadata, sections: list[bytes]) -> None:
        sections[number] = change(sections[number])

    return lie


def set_in_tensor(**values: object) -> Lie:
    def lie(metadata: Metadata, sections: list[bytes]) -> None:
        metadata["tensors"][0].update(values)

    return lie


def more_entries(metadata: Metadata, sections: list[bytes]) -> None:
    """As many as fit no memory, over a shape that does not either."""
    metadata["layers"][0].update(shape=[1 << 29, 2], entries=1 << 29)


def long_blocks(metadata: Metadata, sections: list[bytes]) -> None:
    sections[2] = struct.pack("<H", 0xFFFF)


def twice(metadata: Metadata, sections: list[bytes]) -> None:
    metadata["tensors"][1]["name"] = "fc.weight"


def behind_the_end(metadata: Metadata, sections: list[bytes]) -> None:
    """A shape that the gaps lead out of."""
    metadata["layers"][0]["shape"] = [11, 30]


def far_from_the_end(metadata: Metadata, sections: list[bytes]) -> None:
    metadata["layers"][0]["shape"] = [12, 31]


def without_preprocess(metadata: Metadata, sections: list[bytes]) -> None:
    del metadata["preprocess"]


def something_left(metadata: Metadata, sections: list[bytes]) -> None:
    sections.append(b"more")


LIES: dict[str, tuple[Lie, str]] = {
    "absurd shape": (set_in_layer(shape=[1 << 40, 1 << 40]), "more than 1073741824 weights"),
    "absurd axis": (set_in_layer(shape=[1 << 70, 2]), "'shape' is not"),
    "more weights than entries": (set_in_layer(shape=[1 << 15, 1 << 14]), "'entries' is not"),
    "more entries than bits": (more_entries, "'sections' is not"),
    "entries below 0": (set_in_layer(entries=-1), "'entries' is not"),
    "entries no number": (set_in_layer(entries="many"), "'entries' is not"),
    "entries true": (set_in_layer(entries=True), "'entries' is not"),
    "one entry less": (set_in_layer(entries=119), "."),
    "wide codes": (set_in_layer(bits=9), "'bits' is not an integer from 1 to 8"),
    "narrow codes": (set_in_layer(bits=2), "'sections' is not"),
    "wide gaps": (set_in_layer(index_bits=63), "'index_bits' is not"),
    "other gaps": (set_in_layer(index_bits=3), "'sections' is not"),
    "flat": (set_in_layer(shape=[360]), "'shape' is not 2 dimensions"),
    "many axes": (set_in_layer(shape=[1] * 9), "'shape' is not"),
    "no shape": (set_in_layer(shape=None), "'shape' is not"),
    "axis of nothing": (set_in_layer(shape=[0, 30]), "'shape' is not"),
    "unheard-of kind": (set_in_layer(kind="attention"), "'kind' is not"),
    "no name": (set_in_layer(name=7), "'name' is not a string"),
    "a name twice": (twice, "'fc.weight' twice"),
    "behind the end": (behind_the_end, "of 330 weights"),
    "far from the end": (far_from_the_end, "of 372 weights"),
    "codebook not finite": (
        set_section(0, lambda data: data[:-4] + struct.pack("<f", float("inf"))),
        "its codebook cannot be",
    ),
    "fillers that are weights": (
        set_section(0, lambda data: struct.pack("<f", 1) + data[4:]),
        "its codebook cannot be",
    ),
    "half a float": (set_section(0, lambda data: data[:-1]), "'sections' is not"),
    "no codebook": (set_section(0, lambda data: b""), "'sections' is not"),
    "code words of nothing": (set_section(1, lambda data: bytes(len(data))), "no complete code"),
    "code words too long": (set_section(1, lambda data: b"\xff" * len(data)), "no complete code"),
    "gaps of nothing": (set_section(4, lambda data: bytes(len(data))), "no complete code"),
    "blocks too long": (long_blocks, "bytes for 65535 bits"),
    "codes cut": (set_section(3, lambda data: data[:1]), "bytes for"),
    "gaps gone": (set_section(6, lambda data: b""), "bytes for"),
    "unheard-of type": (set_in_tensor(dtype="object"), "'dtype' is not"),
    "neither true nor false": (set_in_tensor(dtype="bool", shape=[20]), "neither 0 nor 1"),
    "tensor of another size": (set_in_tensor(shape=[1 << 20]), "'section' is not"),
    "absurd tensor": (set_in_tensor(shape=[1 << 40]), "more than 1073741824 weights"),
    "absurd tensor of nothing": (set_in_tensor(shape=[0, 1 << 60]), "more than 1073741824"),
    "no model": (set_at_top(model=None), "'model' is not a string"),
    "no preprocess": (without_preprocess, "'preprocess' is not an object or null"),
    "preprocess no object": (set_at_top(preprocess=[1]), "'preprocess' is not"),
    "something left": (something_left, "something behind its last section"),
}


@pytest.mark.parametrize("name", LIES)
def test_lies_with_good_checksums_are_refused(tmp_path: Path, name: str) -> None:
    lie, words = LIES[name]
    path = write_lie(tmp_path / "net.dcz", lie)
    with little_memory(), pytest.raises(WeightsError, match=words) as caught:
        read_dcz(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_without_a_lie_the_file_is_good(tmp_path: Path) -> None:
    path = write_lie(tmp_path / "net.dcz", lambda metadata, sections: None)
    assert np.array_equal(read_dcz(path).layers[0].weights(), small_layer().weights())


def test_keys_of_a_later_minor_version_are_ignored(tmp_path: Path) -> None:
    path = write_lie(tmp_path / "net.dcz", set_at_top(later={"key": [1]}))
    assert len(read_dcz(path).layers) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "no JSON"),
        (b"[]", "no JSON object"),
        (b'{"model": NaN}', "no JSON"),
        (b'{"model": ' + b"9" * 10_000 + b"}", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"model": "\xff"}', "no JSON"),
        (b"{}", "'layers' is not an array of objects"),
        (b'{"layers": [1]}', "'layers' is not an array of objects"),
        (b'{"layers": [], "tensors": [{}]}', r"tensors\[0\]: 'name' is not"),
        (
            b'{"layers": [], "tensors": [{"name": "a", "dtype": "int8", "shape": [], '
            b'"section": [1, 0, 0]}]}',
            "'section' is not",
        ),
        (
            b'{"layers": [], "tensors": [{"name": "a", "dtype": "int8", "shape": [], '
            b'"section": [1, 0]}]}',
            "reaches behind its end",
        ),
    ],
    ids=range(11),
)
def test_metadata_that_cannot_be_are_refused(tmp_path: Path, text: bytes, words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        read_dcz(write_metadata(tmp_path / "net.dcz", text))


def test_sizes_in_the_header_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    path = write_small(tmp_path / "net.dcz")
    data = path.read_bytes()
    for length, size, words in [
        (0xFFFFFFFF, len(data), "bytes of metadata cannot be"),
        (len(data), len(data), "bytes of metadata cannot be"),
        (10, 1 << 62, "expected 4611686018427387904"),
    ]:
        start = data[:12] + struct.pack("<IQI", length, size, 0)
        path.write_bytes(start + struct.pack("<I", zlib.crc32(start)) + data[32:])
        with little_memory(), pytest.raises(WeightsError, match=words):
            unpack(path)
