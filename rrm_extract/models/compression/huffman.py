"""Huffman codes (section 4 of the paper), in canonical form: the lengths say everything."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_LENGTH", "canonical_order", "canonical_words", "code_lengths", "is_complete"]

MAX_LENGTH = 57
"""Bits of the longest code word: a 64-bit read at any byte holds it whole. For an optimal code to
be longer it takes as many symbols as a Fibonacci number of that order, more than any file has."""


def code_lengths(counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Lengths in bits of an optimal prefix code.

    Args:
        counts: (S,) int64, how often each symbol occurs.

    Returns:
        (S,) uint8; 0 for a symbol that does not occur, 1 where only one does.
    """
    lengths = np.zeros(len(counts), np.uint8)
    used = np.flatnonzero(counts)
    if len(used) == 1:
        lengths[used] = 1
    # Of equal counts the node made first is taken first, so that the result is always the same.
    heap = [(int(counts[symbol]), order, [symbol]) for order, symbol in enumerate(used)]
    heapq.heapify(heap)
    for order in range(len(used), 2 * len(used) - 1):
        first, _, left = heapq.heappop(heap)
        second, _, right = heapq.heappop(heap)
        lengths[left + right] += 1
        heapq.heappush(heap, (first + second, order, left + right))
    return lengths


def canonical_words(lengths: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The code words of a complete code, (S,) uint64, right-aligned; 0 where there is none."""
    words = np.zeros(len(lengths), np.uint64)
    word, length = 0, 0
    for symbol in canonical_order(lengths):
        word <<= int(lengths[symbol]) - length
        length = int(lengths[symbol])
        words[symbol] = word
        word += 1
    return words


def canonical_order(lengths: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The symbols that occur, (used,) int64, by length and then by number."""
    order = np.argsort(lengths, kind="stable")
    return order[lengths[order] > 0]


def is_complete(lengths: NDArray[np.uint8]) -> bool:
    """Whether every sequence of bits is a sequence of words, of one symbol or more."""
    used = [int(length) for length in lengths if length]
    if not used or max(used) > MAX_LENGTH:
        return False
    return used == [1] or sum(1 << (MAX_LENGTH - length) for length in used) == 1 << MAX_LENGTH
