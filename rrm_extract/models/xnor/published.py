"""The XNOR-Nets that are known by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ..caffe_alexnet import CAFFE_PREPROCESS
from ..entry import ModelEntry
from ..preprocess import Preprocess
from .alexnet import xnor_alexnet
from .resnet import xnor_resnet18

__all__ = ["NETWORKS", "XnorNetwork", "xnor_entries"]


@dataclass(frozen=True)
class XnorNetwork:
    """How one is built, and what its input is."""

    build: Callable[[], nn.Module]
    preprocess: Preprocess


NETWORKS: Mapping[str, XnorNetwork] = {
    # The port was trained on the pictures and the mean of Caffe's tools.
    "xnor_alexnet": XnorNetwork(xnor_alexnet, CAFFE_PREPROCESS),
    "xnor_resnet18": XnorNetwork(
        xnor_resnet18,
        Preprocess(
            resize=256, crop=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
        ),
    ),
}


def xnor_entries() -> list[ModelEntry]:
    """All of them. Nothing is allocated."""
    return [_entry(name, network) for name, network in NETWORKS.items()]


def _entry(name: str, network: XnorNetwork) -> ModelEntry:
    with torch.device("meta"):
        module = network.build()
    return ModelEntry(
        name=name,
        family="xnor",
        source="xnor",
        is_cnn=True,
        paper=True,
        default_weights="",
        weights_file="FILE.pth",
        n_parameters=sum(parameter.numel() for parameter in module.parameters()),
        input_shape=network.preprocess.output_shape,
    )
