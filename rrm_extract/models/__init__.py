"""From a name to a network: its module, its weights and its transform.

    loaded = load_model("resnet18", weights="random:0")
    y = loaded.module(loaded.transform(frames))      # frames: (T, 3, H, W) uint8 RGB

Names are torchvision's classification networks, ``timm/NAME``, ``FILE.onnx``, ``FILE.dcz``
(:mod:`rrm_extract.models.compression`), ``FILE.net`` and ``package.module:factory``.
"""

from __future__ import annotations

from .loaded import LoadedModel, Transform
from .preprocess import Preprocess, parse_preprocess
from .registry import load_model
from .torchvision_models import ModelEntry, list_models

__all__ = [
    "LoadedModel",
    "ModelEntry",
    "Preprocess",
    "Transform",
    "list_models",
    "load_model",
    "parse_preprocess",
]
