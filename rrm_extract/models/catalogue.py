"""The networks that can be had by name."""

from __future__ import annotations

from .darknet import darknet_entries
from .entry import ModelEntry
from .rtpose import rtpose_entries
from .torchvision_models import torchvision_entries
from .xnor import xnor_entries

__all__ = ["list_models"]


def list_models() -> list[ModelEntry]:
    """Every classification network of torchvision, Darknet's, OpenPose's, then XNOR-Nets.

    Nothing is allocated or downloaded.
    """
    return [*torchvision_entries(), *darknet_entries(), *rtpose_entries(), *xnor_entries()]
