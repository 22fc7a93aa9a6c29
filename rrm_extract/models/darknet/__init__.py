"""Networks of the Darknet project: a .cfg file and its .weights.

    network = build_network(read_cfg(Path("yolov2.cfg")), size=(416, 416))
    read_weights(network, Path("yolov2.weights"))

Sections that are supported: convolutional, maxpool, avgpool, upsample, reorg, route, shortcut, and
a region at the end. Other sections, and options that would change the result, are refused.
"""

from __future__ import annotations

from .build import build_network, input_size
from .cfg import Section, parse_cfg, read_cfg
from .load import is_darknet_model, load_darknet
from .network import DarknetNetwork
from .published import coco_ids, coco_names, darknet_entries
from .weights_file import read_weights, write_weights

__all__ = [
    "DarknetNetwork",
    "Section",
    "build_network",
    "coco_ids",
    "coco_names",
    "darknet_entries",
    "input_size",
    "is_darknet_model",
    "load_darknet",
    "parse_cfg",
    "read_cfg",
    "read_weights",
    "write_weights",
]
