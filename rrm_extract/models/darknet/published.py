"""The networks of the Darknet project that are known by name."""

from __future__ import annotations

from importlib import resources

import torch

from ..entry import ModelEntry
from .build import build_network, input_size
from .cfg import Section, parse_cfg

__all__ = [
    "PUBLISHED",
    "coco_ids",
    "coco_names",
    "darknet_entries",
    "published_cfg",
    "published_text",
]

PUBLISHED = {"yolov2": "yolov2.weights", "tiny_yolov2": "yolov2-tiny.weights"}
"""Names, with that of the file in which the Darknet project publishes the weights."""


_UNUSED_COCO_IDS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})


def published_text(name: str) -> str:
    """The .cfg text of one of ``PUBLISHED``."""
    return _data(f"{name}.cfg")


def published_cfg(name: str) -> list[Section]:
    """The sections of one of ``PUBLISHED``."""
    return parse_cfg(published_text(name), file=f"{name}.cfg")


def coco_names() -> tuple[str, ...]:
    """The 80 classes of COCO as the Darknet project names and orders them."""
    return tuple(_data("coco.names").splitlines())


def coco_ids() -> tuple[int, ...]:
    """The ids of the same classes in COCO's annotations, which use some of 1 to 90."""
    return tuple(number for number in range(1, 91) if number not in _UNUSED_COCO_IDS)


def darknet_entries() -> list[ModelEntry]:
    """The published networks. Nothing is allocated."""
    return [_entry(name) for name in PUBLISHED]


def _entry(name: str) -> ModelEntry:
    sections = published_cfg(name)
    height, width = input_size(sections)
    with torch.device("meta"):
        network = build_network(sections, size=(height, width))
    return ModelEntry(
        name=name,
        family="yolov2",
        source="darknet",
        is_cnn=True,
        paper=True,
        default_weights="",
        weights_file=PUBLISHED[name],
        n_parameters=sum(parameter.numel() for parameter in network.parameters()),
        input_shape=network.input_shape,
    )


def _data(file: str) -> str:
    folder = resources.files("rrm_extract.models.darknet") / "data"
    return (folder / file).read_text(encoding="utf-8")
