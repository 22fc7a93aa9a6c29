"""A layer in the form in which it is stored, and what that takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bitstream import CodedStream, decode_symbols, encode_symbols
from .layer import CompressedLayer

__all__ = ["FLOAT_BITS", "EncodedLayer", "decode_layer", "encode_layer"]

FLOAT_BITS = 32
"""Of an ordinary weight, which ratios are relative to."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedLayer:
    """A compressed layer with its Huffman streams; docs/dcz.md (section 6) says what is counted."""

    layer: CompressedLayer
    codes: CodedStream
    gaps: CodedStream

    @property
    def sections(self) -> tuple[bytes, ...]:
        """What the file holds of it, in order."""
        return (
            self.layer.codebook.astype("<f4").tobytes(),
            *_stream_sections(self.codes),
            *_stream_sections(self.gaps),
        )

    @property
    def dense_bits(self) -> int:
        """Of the ordinary weight."""
        return FLOAT_BITS * self.layer.n_weights

    @property
    def pruned_bits(self) -> int:
        """Of the kept weights alone, without their positions."""
        return FLOAT_BITS * self.layer.n_kept

    @property
    def quantised_bits(self) -> int:
        """Of codes, gaps and the codebook, in fixed widths."""
        width = self.layer.bits + self.layer.index_bits
        return self.layer.n_entries * width + FLOAT_BITS * len(self.layer.codebook)

    @property
    def coded_bits(self) -> int:
        """Of everything that the file holds of it."""
        return 8 * sum(map(len, self.sections))


def encode_layer(layer: CompressedLayer) -> EncodedLayer:
    """Huffman-code the codes and the gaps of a layer (section 4 of the paper)."""
    return EncodedLayer(
        layer=layer,
        codes=encode_symbols(layer.codes, len(layer.codebook)),
        gaps=encode_symbols(layer.gaps, 1 << layer.index_bits),
    )


def decode_layer(
    layer: CompressedLayer, sections: tuple[memoryview, ...], n_entries: int
) -> CompressedLayer:
    """Fill in the arrays of a layer that has everything else.

    Args:
        layer: with empty arrays.
        sections: as :attr:`EncodedLayer.sections`, of possible sizes.
        n_entries: E.

    Raises:
        DamagedStreamError: the sections hold something else.
    """
    codebook, *streams = sections
    codes = decode_symbols(_read_stream(streams[:3]), n_entries)
    gaps = decode_symbols(_read_stream(streams[3:]), n_entries)
    return CompressedLayer(
        name=layer.name,
        kind=layer.kind,
        shape=layer.shape,
        bits=layer.bits,
        index_bits=layer.index_bits,
        codebook=np.frombuffer(codebook, "<f4").astype(np.float32),
        codes=codes,
        gaps=gaps,
    )


def _stream_sections(stream: CodedStream) -> tuple[bytes, bytes, bytes]:
    return stream.lengths.tobytes(), stream.blocks.astype("<u2").tobytes(), stream.data


def _read_stream(sections: list[memoryview]) -> CodedStream:
    lengths, blocks, data = sections
    return CodedStream(
        lengths=np.frombuffer(lengths, np.uint8),
        blocks=np.frombuffer(blocks, "<u2").astype(np.uint16),
        data=bytes(data),
    )
