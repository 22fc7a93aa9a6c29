"""Caffe's AlexNet, as the authors of Deep Compression had it: not the one of torchvision.

The layers are those of bvlc_alexnet's deploy.prototxt, under its names: two groups in conv2, conv4
and conv5, local response normalisation behind conv1 and conv2, an input of 227 pixels in BGR.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from ..errors import WeightsError
from .checkpoint import all_nan_keys, load_chosen_file
from .loaded import LoadedModel, Transform, freeze, hash_state
from .preprocess import Preprocess
from .weights import WeightsChoice, seeded

__all__ = ["CAFFE_ALEXNET", "CAFFE_PREPROCESS", "caffe_alexnet", "load_caffe_alexnet"]

CAFFE_ALEXNET = "caffe_alexnet"
"""Name of the network."""

CAFFE_PREPROCESS = Preprocess(
    resize=256,
    crop=(227, 227),
    mean=(104.0, 117.0, 123.0),
    std=(1.0, 1.0, 1.0),
    scale=255,
    channels="bgr",
)
"""The mean is ImageNet's per channel, which Caffe's examples use for the mean image."""


def caffe_alexnet() -> nn.Module:
    """The network, with random weights: (N, 3, 227, 227) float32 to (N, 1000) scores."""
    # Caffe's LRN divides alpha by the number of channels summed over, and so does torch.
    layers: list[tuple[str, nn.Module]] = [
        ("conv1", nn.Conv2d(3, 96, 11, stride=4)),
        ("relu1", nn.ReLU(inplace=True)),
        ("norm1", nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)),
        ("pool1", nn.MaxPool2d(3, stride=2)),
        ("conv2", nn.Conv2d(96, 256, 5, padding=2, groups=2)),
        ("relu2", nn.ReLU(inplace=True)),
        ("norm2", nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)),
        ("pool2", nn.MaxPool2d(3, stride=2)),
        ("conv3", nn.Conv2d(256, 384, 3, padding=1)),
        ("relu3", nn.ReLU(inplace=True)),
        ("conv4", nn.Conv2d(384, 384, 3, padding=1, groups=2)),
        ("relu4", nn.ReLU(inplace=True)),
        ("conv5", nn.Conv2d(384, 256, 3, padding=1, groups=2)),
        ("relu5", nn.ReLU(inplace=True)),
        ("pool5", nn.MaxPool2d(3, stride=2)),
        ("flatten", nn.Flatten()),
        ("fc6", nn.Linear(256 * 6 * 6, 4096)),
        ("relu6", nn.ReLU(inplace=True)),
        ("drop6", nn.Dropout(0.5)),
        ("fc7", nn.Linear(4096, 4096)),
        ("relu7", nn.ReLU(inplace=True)),
        ("drop7", nn.Dropout(0.5)),
        ("fc8", nn.Linear(4096, 1000)),
    ]
    return nn.Sequential(OrderedDict(layers))


def load_caffe_alexnet(
    name: str, choice: WeightsChoice, preprocess: Transform | None
) -> LoadedModel:
    """Build the network with the weights of ``choice``, a file or random ones.

    Raises:
        WeightsError: others are asked for, or the file cannot be read or does not fit.
    """
    if choice.kind in ("default", "named"):
        raise WeightsError(
            f"{name} has no weights {choice.text!r}; give AlexNet_compressed.net (of "
            "github.com/songhan/Deep-Compression-AlexNet) or another file, or random:SEED for an "
            "untrained network"
        )
    with seeded(choice.seed):
        module = freeze(caffe_alexnet())
    unexpected = load_chosen_file(module, choice)
    transform = preprocess or CAFFE_PREPROCESS
    return LoadedModel(
        name=name,
        module=module,
        transform=transform,
        preprocess=transform.describe(),
        input_shape=transform.output_shape,
        weights_id=choice.weights_id,
        weights_sha256=hash_state(module),
        missing_keys=all_nan_keys(module),
        unexpected_keys=unexpected,
        source="caffe",
    )
