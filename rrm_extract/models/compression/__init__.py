"""Deep Compression (Han, Mao and Dally, arXiv 1510.00149): pruning, weight sharing, Huffman coding.

A network's convolutions and fully-connected layers become :class:`CompressedLayer`; a .dcz file
keeps them (docs/dcz.md), and :func:`read_dcz` gives them back, exactly. The paper trains the
network between the stages; here it is taken as it is.
"""

from __future__ import annotations

from .columns import CompressedColumns, compressed_columns
from .dcz import CompressedNetwork
from .dcz_reader import read_dcz
from .dcz_writer import dcz_bytes
from .densities import parse_density
from .encoded import EncodedLayer, encode_layer
from .layer import CompressedLayer, LayerKind, compress_weights
from .network import LayerPlan, compress_layers, plan_compression
from .published_net import read_published_net

__all__ = [
    "CompressedColumns",
    "CompressedLayer",
    "CompressedNetwork",
    "EncodedLayer",
    "LayerKind",
    "LayerPlan",
    "compress_layers",
    "compress_weights",
    "compressed_columns",
    "dcz_bytes",
    "encode_layer",
    "parse_density",
    "plan_compression",
    "read_dcz",
    "read_published_net",
]
