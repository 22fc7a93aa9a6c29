"""Pruning, weight sharing, gaps and Huffman codes, each by itself."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rrm_extract.models.compression.bitstream import (
    BLOCK,
    CodedStream,
    DamagedStreamError,
    decode_symbols,
    encode_symbols,
)
from rrm_extract.models.compression.gaps import bridge_gaps, entry_positions, trailing_fillers
from rrm_extract.models.compression.huffman import canonical_words, code_lengths, is_complete
from rrm_extract.models.compression.kmeans import share_weights
from rrm_extract.models.compression.prune import kept_count, largest_weights
from tests.models.compression import float_arrays


@given(float_arrays(), st.data())
def test_the_largest_are_kept(weights: NDArray[np.float32], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(weights)))
    kept = largest_weights(weights, count)
    # Plainly: by magnitude, then by position, without zeros.
    order = sorted(range(len(weights)), key=lambda i: (-abs(weights[i]), i))
    assert kept.tolist() == sorted(i for i in order[:count] if weights[i] != 0)


def test_kept_count_is_the_nearest_and_never_none() -> None:
    assert [kept_count(n, d) for n, d in [(100, 0.09), (10, 0.04), (3, 1.0), (1728, 0.58)]] == [
        9, 1, 3, 1002,
    ]  # fmt: skip


def plain_kmeans(values: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Lloyd's algorithm as it is written in books; the centroids that have members."""
    centroids = np.linspace(values.min().astype(float), values.max().astype(float), k)
    while True:
        nearest = np.abs(values[:, None].astype(float) - centroids).argmin(1)
        moved = np.array(
            [
                values[nearest == j].mean(dtype=float) if (nearest == j).any() else centroids[j]
                for j in range(k)
            ]
        )
        if np.allclose(moved, centroids, rtol=1e-12, atol=0):
            return moved[np.unique(nearest)].astype(np.float32)
        centroids = moved


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_sharing_is_lloyds_algorithm_from_an_even_start(k: int) -> None:
    values = np.random.default_rng(k).uniform(-1, 3, size=500).astype(np.float32)
    shared, numbers = share_weights(values, k)
    np.testing.assert_allclose(shared, plain_kmeans(values, k), rtol=1e-6)
    assert np.unique(numbers).tolist() == list(range(len(shared)))


@pytest.mark.parametrize("k", [2, 15, 31, 255])
def test_no_cluster_is_left_without_values(k: int) -> None:
    """Of what pruning leaves, nothing lies around 0, where evenly spaced centroids are."""
    values = np.random.default_rng(k).normal(size=20_000).astype(np.float32)
    values = values[np.abs(values) > 1.5]
    shared, numbers = share_weights(values, k)
    assert len(shared) == k
    for number, value in enumerate(shared):
        members = values[numbers == number]
        assert value == np.float32(members.mean(dtype=np.float64))
    distances = np.abs(values[:, None].astype(float) - shared)
    own = distances[np.arange(len(values)), numbers]
    np.testing.assert_allclose(own, distances.min(1), atol=1e-7)


def test_values_of_all_sizes_are_shared_in_order() -> None:
    values = np.float32([-3e38, -1e-38, 1e-45, 1e-38, 2e-38, 1e-10, 1.0, 1e30, 2e38, 3e38])
    for k in range(1, 12):
        shared, numbers = share_weights(values, k)
        assert np.isfinite(shared).all()
        assert (shared[1:] >= shared[:-1]).all()
        assert (np.diff(numbers.astype(int)) >= 0).all()


@given(float_arrays(), st.integers(1, 12))
def test_each_value_has_the_nearest_shared_one(values: NDArray[np.float32], k: int) -> None:
    shared, numbers = share_weights(values, k)
    assert len(shared) <= k
    assert shared.dtype == np.float32
    distances = np.abs(values[:, None].astype(float) - shared.astype(float))
    own = distances[np.arange(len(values)), numbers]
    assert (own <= distances.min(1) + 1e-4).all()
    if len(np.unique(values)) <= k:
        assert np.array_equal(shared[numbers], values), "few values are shared exactly"


def test_sharing_does_not_depend_on_the_order() -> None:
    values = np.random.default_rng(3).normal(size=2000).astype(np.float32)
    order = np.random.default_rng(4).permutation(len(values))
    shared, numbers = share_weights(values, 15)
    again, permuted = share_weights(values[order], 15)
    assert np.array_equal(shared, again)
    assert np.array_equal(numbers[order], permuted)


def test_the_papers_gaps() -> None:
    # Figure 2: weights at 1, 4 and 15, gaps of 3 bits; the one of 11 takes a filler at 12.
    codes, gaps = bridge_gaps(np.array([1, 2, 10]), np.array([5, 6, 7], np.uint8), index_bits=3)
    assert codes.tolist() == [5, 6, 0, 7]
    assert gaps.tolist() == [1, 2, 7, 2]
    assert entry_positions(gaps).tolist() == [1, 4, 12, 15]


@given(
    st.sets(st.integers(0, 2000), max_size=60).map(sorted),
    st.integers(1, 8),
    st.integers(0, 1500),
)
def test_gaps_give_the_positions_back(kept: list[int], bits: int, behind: int) -> None:
    positions = np.array(kept, np.int64)
    codes = (positions % 255 + 1).astype(np.uint8)
    n_left = behind + (0 if kept else 1)
    trailing = trailing_fillers(n_left, index_bits=bits)
    all_codes, gaps = bridge_gaps(
        np.diff(positions, prepend=-1) - 1, codes, index_bits=bits, trailing=trailing
    )
    where = entry_positions(gaps)
    assert where[all_codes > 0].tolist() == kept
    assert np.array_equal(all_codes[all_codes > 0], codes)
    assert gaps.size == 0 or gaps.max() < 1 << bits
    end = (kept[-1] + 1 if kept else 0) + n_left
    reached = int(where[-1]) + 1 if len(where) else 0
    assert reached <= end <= reached + (1 << bits)


def best_cost(counts: list[int]) -> int:
    """Bits of the best prefix code, by trying all lengths that the Kraft inequality allows."""
    used = [count for count in counts if count]
    if len(used) < 2:
        return sum(used)
    longest = len(used) - 1
    return min(
        sum(count * length for count, length in zip(used, lengths, strict=True))
        for lengths in itertools.product(range(1, longest + 1), repeat=len(used))
        if sum(2.0**-length for length in lengths) <= 1
    )


@settings(max_examples=60)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_no_prefix_code_is_shorter(counts: list[int]) -> None:
    lengths = code_lengths(np.array(counts))
    assert sum(c * int(n) for c, n in zip(counts, lengths, strict=True)) == best_cost(counts)
    assert [n > 0 for n in lengths] == [c > 0 for c in counts]
    assert is_complete(lengths) == any(counts)


def test_canonical_words() -> None:
    assert code_lengths(np.array([1, 0, 9, 1, 3])).tolist() == [3, 0, 1, 3, 2]
    words = canonical_words(np.array([3, 0, 1, 3, 2], np.uint8))
    assert words.tolist() == [0b110, 0, 0b0, 0b111, 0b10]


def test_the_bits_are_those_of_the_format() -> None:
    stream = encode_symbols(np.array([2, 2, 4, 0, 2, 3, 4, 2, 2, 2], np.uint8), 5)
    assert stream.lengths.tolist() == [3, 0, 1, 3, 2]
    words = ["0", "0", "10", "110", "0", "111", "10", "0", "0", "0"]
    bits = "".join(words)
    assert stream.blocks.tolist() == [len(bits)]
    padded = bits.ljust(-(-len(bits) // 8) * 8, "0")
    assert stream.data == int(padded, 2).to_bytes(len(padded) // 8, "big")


@pytest.mark.parametrize("count", [0, 1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
@pytest.mark.parametrize("n_symbols", [1, 2, 256])
def test_streams_give_the_symbols_back(count: int, n_symbols: int) -> None:
    rng = np.random.default_rng(count)
    symbols = np.minimum(rng.geometric(0.05, count) - 1, n_symbols - 1).astype(np.uint8)
    stream = encode_symbols(symbols, n_symbols)
    assert len(stream.blocks) == -(-count // BLOCK)
    assert np.array_equal(decode_symbols(stream, count), symbols)


def test_long_streams_are_encoded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    symbols = np.random.default_rng(0).binomial(20, 0.3, 5 * BLOCK + 3).astype(np.uint8)
    whole = encode_symbols(symbols, 21)
    monkeypatch.setattr("rrm_extract.models.compression.bitstream._AT_ONCE", 2 * BLOCK)
    pieces = encode_symbols(symbols, 21)
    assert pieces.data == whole.data
    assert np.array_equal(pieces.blocks, whole.blocks)


def test_the_longest_words() -> None:
    """Fibonacci counts make the most unequal lengths there are."""
    counts = [1, 1]
    while len(counts) < 20:
        counts.append(counts[-1] + counts[-2])
    symbols = np.repeat(np.arange(20), counts).astype(np.uint8)
    np.random.default_rng(0).shuffle(symbols)
    stream = encode_symbols(symbols, 20)
    assert stream.lengths.max() == 19
    assert np.array_equal(decode_symbols(stream, len(symbols)), symbols)


def changed(stream: CodedStream, **fields: object) -> CodedStream:
    return CodedStream(**{**vars(stream), **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        ([1, 1, 1], "no complete code"),
        ([1, 2, 0], "no complete code"),
        ([0, 0, 0], "no complete code"),
        ([58, 1, 2], "no complete code"),
        ([2, 0, 0], "no complete code"),
        ([1, 1, 0], "do not agree"),
    ],
)
def test_lengths_that_fit_nothing_fail(lengths: list[int], words: str) -> None:
    stream = encode_symbols(np.array([0, 0, 0, 0, 1, 1, 2, 2] * 300, np.uint8), 3)
    assert stream.lengths.tolist() == [1, 2, 2]
    with pytest.raises(DamagedStreamError, match=words):
        decode_symbols(changed(stream, lengths=np.array(lengths, np.uint8)), 2400)


def test_streams_that_contradict_themselves_fail() -> None:
    stream = encode_symbols(np.array([0, 0, 0, 1, 2] * 300, np.uint8), 3)
    for lie, count in [
        (changed(stream, data=stream.data[:-1]), 1500),
        (changed(stream, data=stream.data + b"\0"), 1500),
        (changed(stream, data=stream.data[:-1] + b"\xff"), 1500),
        (changed(stream, blocks=stream.blocks[:1]), 1500),
        (changed(stream, blocks=stream.blocks[::-1].copy()), 1500),
        (stream, 1499),
        (stream, 1501),
        (stream, 3000),
        (stream, 0),
        (changed(stream, blocks=stream.blocks[:0], data=b""), 0),
    ]:
        with pytest.raises(DamagedStreamError):
            decode_symbols(lie, count)


def test_bits_that_are_no_word_of_a_single_symbol_fail() -> None:
    stream = encode_symbols(np.full(20, 2, np.uint8), 3)
    assert (stream.lengths.tolist(), stream.data) == ([0, 0, 1], b"\0\0\0")
    for data in (b"\x80\0\0", b"\0\1\0", b"\0\0\x10"):
        with pytest.raises(DamagedStreamError, match="bits that are no code word"):
            decode_symbols(changed(stream, data=data), 20)
