"""From a name to a network: its module, its weights and its transform.

    loaded = load_model("resnet18", weights="random:0")
    y = loaded.module(loaded.transform(frames))      # frames: (T, 3, H, W) uint8 RGB

Names are torchvision's classification networks, Darknet's detectors ``yolov2`` and
``tiny_yolov2``, OpenPose's ``rtpose``, ``xnor_alexnet`` and ``xnor_resnet18``,
``darknet:FILE.cfg``, ``timm/NAME``, ``FILE.onnx``, ``FILE.dcz``
(:mod:`rrm_extract.models.compression`), ``FILE.net`` and ``package.module:factory``.
"""

from __future__ import annotations

from rrm_extract import light_torchvision  # noqa: F401 - before torchvision is imported

from .catalogue import list_models
from .darknet import coco_ids, coco_names
from .entry import ModelEntry
from .letterbox import Letterbox
from .loaded import LoadedModel, Transform
from .placement import Placement
from .preprocess import Preprocess, parse_preprocess
from .region import Region
from .registry import load_model
from .skeleton import Limb, Skeleton

__all__ = [
    "Letterbox",
    "Limb",
    "LoadedModel",
    "ModelEntry",
    "Placement",
    "Preprocess",
    "Region",
    "Skeleton",
    "Transform",
    "coco_ids",
    "coco_names",
    "list_models",
    "load_model",
    "parse_preprocess",
]
