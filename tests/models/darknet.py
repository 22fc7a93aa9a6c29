"""Darknet networks made up for tests, and what OpenCV computes from the same files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rrm_extract.models.darknet import (
    DarknetNetwork,
    build_network,
    parse_cfg,
    read_weights,
    write_weights,
)

NET = "[net]\nwidth={side}\nheight={side}\nchannels=3\n"
REGION = "[region] anchors=1,1.5,3,2 num=2 classes=3 coords=4 softmax=1 thresh=0"
"""For 16 channels; with this threshold OpenCV shows every score."""


def cfg(*sections: str, side: int = 16) -> str:
    """The text of a .cfg file; sections such as "[maxpool] size=2 stride=1"."""
    lines = "\n".join(section.replace(" ", "\n") for section in sections)
    return NET.format(side=side) + lines + "\n"


def conv(filters: int, size: int = 3, **options: object) -> str:
    """A [convolutional] section; ``options`` replace or add to the usual ones."""
    values = {"filters": filters, "size": size, "pad": 1, "activation": "leaky", **options}
    return "[convolutional] " + " ".join(f"{key}={value}" for key, value in values.items())


def build(text: str, *, seed: int = 0) -> DarknetNetwork:
    """The network of a .cfg text with lively weights, ready for inference."""
    sections = parse_cfg(text, file="net.cfg")
    width, height = (int(re.findall(rf"{key}=(\d+)", text)[0]) for key in ("width", "height"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(sections, size=(height, width)).eval().requires_grad_(False)
        for part in network.modules():
            # Every number of a file has to matter.
            if isinstance(part, nn.BatchNorm2d):
                part.weight.uniform_(0.7, 1.3)
                part.bias.normal_(std=0.2)
                part.running_mean.normal_(std=0.2)  # type: ignore[union-attr]
                part.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            elif isinstance(part, nn.Conv2d) and part.bias is not None:
                part.bias.normal_(std=0.2)
    return network


def images(network: DarknetNetwork, count: int = 2, *, seed: int = 1) -> Tensor:
    """(count, *input_shape) float32 in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *network.input_shape, generator=generator)


def by_opencv(text: str, network: DarknetNetwork, x: Tensor, folder: Path) -> list[np.ndarray]:
    """What OpenCV computes, image by image, from the text and a file of the network's weights."""
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    if not hasattr(cv2.dnn, "readNetFromDarknet"):
        pytest.skip(f"OpenCV {cv2.__version__} reads no Darknet files")
    (folder / "net.cfg").write_text(text)
    write_weights(network, folder / "net.weights")
    read_weights(network, folder / "net.weights")  # what is compared has been through the file
    net = cv2.dnn.readNetFromDarknet(str(folder / "net.cfg"), str(folder / "net.weights"))
    outputs = []
    for image in x:
        net.setInput(image[None].numpy())
        outputs.append(np.array(net.forward()))
    return outputs


def without_region(text: str) -> str:
    """The network alone: OpenCV then shows the raw output."""
    return text.partition("[region]")[0]


def resized(text: str, side: int) -> str:
    """The same network for an input of side x side pixels."""
    return re.sub(r"(?m)^(width|height)=\d+$", rf"\1={side}", text)
