"""What the paper did to which network: densities, and bits of codes and gaps.

The densities are those of Table 4 (AlexNet) and Table 5 (VGG-16), reached there by pruning and
training in turns. Gaps have 4 and 5 bits in these tables, and 4 in the published
AlexNet_compressed.net; section 2 names 8 bits for convolutions and 5 for fully-connected layers,
which other networks get.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .layer import LayerKind

__all__ = ["CODE_BITS", "INDEX_BITS", "PUBLISHED", "PublishedLayer", "PublishedNetwork"]

CODE_BITS: Mapping[LayerKind, int] = MappingProxyType({"convolution": 8, "fully-connected": 5})
"""Width of a code before Huffman coding."""

INDEX_BITS: Mapping[LayerKind, int] = MappingProxyType({"convolution": 8, "fully-connected": 5})
"""Width of a gap before Huffman coding, where no table says otherwise."""


@dataclass(frozen=True, kw_only=True)
class PublishedLayer:
    """One row of a table."""

    name: str
    """The paper's."""
    density: float


@dataclass(frozen=True, kw_only=True)
class PublishedNetwork:
    """One table of the paper."""

    index_bits: int
    """Width of a gap before Huffman coding, in all layers."""
    layers: Mapping[str, PublishedLayer]
    """By the name of our module."""


def _network(index_bits: int, rows: Mapping[str, tuple[str, float]]) -> PublishedNetwork:
    layers = {
        module: PublishedLayer(name=name, density=density)
        for module, (name, density) in rows.items()
    }
    return PublishedNetwork(index_bits=index_bits, layers=MappingProxyType(layers))


PUBLISHED: Mapping[str, PublishedNetwork] = MappingProxyType(
    {
        "alexnet": _network(
            4,
            {
                "features.0": ("conv1", 0.84),
                "features.3": ("conv2", 0.38),
                "features.6": ("conv3", 0.35),
                "features.8": ("conv4", 0.37),
                "features.10": ("conv5", 0.37),
                "classifier.1": ("fc6", 0.09),
                "classifier.4": ("fc7", 0.09),
                "classifier.6": ("fc8", 0.25),
            },
        ),
        "caffe_alexnet": _network(
            4,
            {
                "conv1": ("conv1", 0.84),
                "conv2": ("conv2", 0.38),
                "conv3": ("conv3", 0.35),
                "conv4": ("conv4", 0.37),
                "conv5": ("conv5", 0.37),
                "fc6": ("fc6", 0.09),
                "fc7": ("fc7", 0.09),
                "fc8": ("fc8", 0.25),
            },
        ),
        "vgg16": _network(
            5,
            {
                "features.0": ("conv1_1", 0.58),
                "features.2": ("conv1_2", 0.22),
                "features.5": ("conv2_1", 0.34),
                "features.7": ("conv2_2", 0.36),
                "features.10": ("conv3_1", 0.53),
                "features.12": ("conv3_2", 0.24),
                "features.14": ("conv3_3", 0.42),
                "features.17": ("conv4_1", 0.32),
                "features.19": ("conv4_2", 0.27),
                "features.21": ("conv4_3", 0.34),
                "features.24": ("conv5_1", 0.35),
                "features.26": ("conv5_2", 0.29),
                "features.28": ("conv5_3", 0.36),
                "classifier.0": ("fc6", 0.04),
                "classifier.3": ("fc7", 0.04),
                "classifier.6": ("fc8", 0.23),
            },
        ),
    }
)
"""By the network's name. torchvision's AlexNet is not quite the paper's, which is Caffe's."""
