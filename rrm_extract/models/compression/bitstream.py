"""Streams of code words, in blocks that are decoded side by side.

Where a word begins is only known once the one before is read. Blocks of known size make as many
beginnings as there are blocks: the i-th words of all blocks are read by the same array operations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .huffman import MAX_LENGTH, canonical_order, canonical_words, code_lengths, is_complete

__all__ = ["BLOCK", "CodedStream", "DamagedStreamError", "decode_symbols", "encode_symbols"]

BLOCK = 1024
"""Symbols of a block. Its size in bits fits 16 bits; smaller blocks decode faster and take more."""

_AT_ONCE = 256 * BLOCK
"""Symbols that are encoded together: what bounds the memory of a layer of a hundred million."""


class DamagedStreamError(ValueError):
    """The bits are no stream of that many code words."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CodedStream:
    """Symbols as code words; see sections 3 and 4 of docs/dcz.md."""

    lengths: NDArray[np.uint8]
    """(S,) bits of each symbol's word."""
    blocks: NDArray[np.uint16]
    """(B,) bits of each block."""
    data: bytes
    """The words."""

    @property
    def bits(self) -> int:
        """Of all words together."""
        return int(self.blocks.sum(dtype=np.int64))


def encode_symbols(symbols: NDArray[np.uint8], n_symbols: int) -> CodedStream:
    """Code (E,) uint8 symbols below ``n_symbols`` with an optimal code of their own."""
    lengths = code_lengths(np.bincount(symbols, minlength=n_symbols))
    words = canonical_words(lengths)
    pieces: list[NDArray[np.uint8]] = []
    blocks: list[NDArray[np.uint16]] = []
    rest = np.zeros(0, np.uint8)
    for start in range(0, len(symbols), _AT_ONCE):
        part = symbols[start : start + _AT_ONCE]
        sizes = lengths[part].astype(np.int64)
        blocks.append(np.add.reduceat(sizes, np.arange(0, len(part), BLOCK)).astype(np.uint16))
        ends = np.cumsum(sizes)
        # How far the bit is from the end of its word: 0 for the last one.
        shifts = np.repeat(ends, sizes) - 1 - np.arange(ends[-1])
        bits = (np.repeat(words[part], sizes) >> shifts.astype(np.uint64)) & np.uint64(1)
        pending = np.concatenate([rest, bits.astype(np.uint8)])
        whole = len(pending) // 8 * 8
        pieces.append(np.packbits(pending[:whole]))
        rest = pending[whole:]
    pieces.append(np.packbits(rest))
    return CodedStream(
        lengths=lengths,
        blocks=np.concatenate([np.zeros(0, np.uint16), *blocks]),
        data=b"".join(piece.tobytes() for piece in pieces),
    )


def decode_symbols(stream: CodedStream, count: int) -> NDArray[np.uint8]:
    """The (count,) uint8 symbols of a stream.

    Raises:
        DamagedStreamError: they are not what the stream holds.
    """
    n_blocks = -(-count // BLOCK)
    if len(stream.blocks) != n_blocks:
        raise DamagedStreamError(f"{len(stream.blocks)} blocks, expected {n_blocks}")
    if len(stream.data) != -(-stream.bits // 8):
        raise DamagedStreamError(f"{len(stream.data)} bytes for {stream.bits} bits")
    if count > stream.bits:
        raise DamagedStreamError(f"{count} symbols in {stream.bits} bits")
    if count == 0:
        if stream.lengths.any():
            raise DamagedStreamError("code words without symbols")
        return np.zeros(0, np.uint8)
    if not is_complete(stream.lengths):
        raise DamagedStreamError("the lengths of the code words make no complete code")
    # Of a single symbol the only word is 0; every other code has a word for any bits.
    if np.count_nonzero(stream.lengths) == 1 and np.frombuffer(stream.data, np.uint8).any():
        raise DamagedStreamError("bits that are no code word")
    ends = np.cumsum(stream.blocks, dtype=np.int64)
    sizes = np.full(n_blocks, BLOCK)
    sizes[-1] = count - (n_blocks - 1) * BLOCK
    symbols, reached = _decode_blocks(stream, ends - stream.blocks, sizes)
    if not np.array_equal(reached, ends):
        raise DamagedStreamError("code words and sizes of the blocks do not agree")
    if stream.bits % 8 and stream.data[-1] & (0xFF >> stream.bits % 8):
        raise DamagedStreamError("bits behind the last code word")
    return symbols.reshape(-1)[:count]


def _decode_blocks(
    stream: CodedStream, starts: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Symbols of each block, (B, BLOCK) uint8, and the bit behind its last word, (B,) int64.

    Only the last block may be short; what follows its symbols means nothing.
    """
    order = canonical_order(stream.lengths)
    lengths = stream.lengths[order].astype(np.uint64)
    # Left-aligned, words ascend in canonical order: the last one not above the bits is theirs.
    firsts = canonical_words(stream.lengths)[order] << (MAX_LENGTH - lengths)
    symbols_of, lengths_of = order.astype(np.uint8), lengths.astype(np.int64)
    # A damaged table may lead a block past its end, but no further than its longest words.
    data = stream.data + bytes(BLOCK * MAX_LENGTH // 8 + 16)
    reads = np.ndarray((len(data) - 7,), ">u8", data, strides=(1,))  # one at every byte
    symbols = np.empty((BLOCK, len(starts)), np.uint8)
    bits = starts.copy()
    reached = bits
    for step in range(int(sizes.max())):
        if step == sizes[-1]:
            reached = bits.copy()
        read = reads[bits >> 3].astype(np.uint64) << (bits & 7).astype(np.uint64)
        ranks = np.searchsorted(firsts, read >> np.uint64(64 - MAX_LENGTH), side="right") - 1
        symbols[step] = symbols_of[ranks]
        bits += lengths_of[ranks]
    bits[-1] = reached[-1]
    return symbols.T, bits
