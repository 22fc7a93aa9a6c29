"""Untrained networks that answer to their input as trained ones do, beside their Programs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torchvision.transforms as T
from torch import Tensor, nn

from rrm_extract.graph import Program, default_layer, fold_batch_norm, select
from rrm_extract.models import Preprocess, load_model
from tests.real import real_frames

VIEWS = 16
"""Pictures that the batch-norm statistics are taken from."""
SOURCE_SIZE = 256
"""Height and width of the real frames before a network's own transform."""
FAMILIES = {
    "alexnet": 95,
    "convnext_tiny": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "efficientnet_v2_s": 64,
    "googlenet": 96,
    "inception_v3": 139,
    "mnasnet0_5": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "regnet_x_400mf": 64,
    "regnet_y_400mf": 64,
    "resnet18": 64,
    "resnext50_32x4d": 64,
    "shufflenet_v2_x0_5": 64,
    "squeezenet1_1": 64,
    "vgg11": 64,
    "vgg11_bn": 64,
}
"""Small networks of every family of CNNs, and an input size that their pooling layers can take."""


@dataclass(frozen=True, kw_only=True)
class Lively:
    """A network, and what it makes of some real frames without the recurrence."""

    program: Program
    """Batch-norm folded; its outputs are the penultimate feature and the logits."""
    inputs: Tensor
    """(T, 3, h, w) float32, consecutive frames, normalised as the weights' transform does."""
    expected: tuple[Tensor, Tensor]
    """The module's own penultimate feature and logits, (T, ...) each."""


def lively(name: str, *, frames: int, size: int | None = None) -> Lively:
    """A network with drawn weights, on real frames.

    Args:
        name: one of torchvision's classification networks, or ``timm/NAME``.
        frames: T.
        size: height and width of the input; None for the weights' own.
    """
    preprocess = "imagenet" if name.startswith("timm/") else None
    loaded = load_model(name, weights="random:0", preprocess=preprocess)
    transform = loaded.transform
    assert isinstance(transform, Preprocess)
    if size is not None:
        transform = replace(transform, resize=size, crop=(size, size))
    pictures = real_frames(frames, SOURCE_SIZE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _enliven(loaded.module, transform(_views(pictures, transform.crop)))
    inputs = transform(pictures)
    whole = loaded.trace()
    program = fold_batch_norm(select(whole, (default_layer(whole), whole.outputs[0])))
    last = whole.linear_ops[-1]
    head = last.source or last.name.rpartition(".")[0]  # a module with a function inside
    expected = _ordinary(loaded.module, head, inputs)
    return Lively(program=program, inputs=inputs, expected=expected)


@torch.no_grad()
def _enliven(module: nn.Module, views: Tensor) -> None:
    """Draws weights and batch-norm statistics that leave nothing without effect.

    With torchvision's initial weights some networks forget their input: the output is their
    biases (AlexNet), branches are scaled by 1e-6 (ConvNeXt), batch-norms divide by 1. There, a
    recurrence that never updates would pass for exact. Drawn carelessly a deep network is chaos
    instead, and magnifies its own rounding a hundredfold: hence the positive shifts, which leave
    most of a ReLU's inputs alone, and statistics of views as different as a data set's. A
    feature then changes by 7-50 % from frame to frame, about as trained ones do.
    """
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.normal_(part.bias, std=0.1)
    for name, parameter in module.named_parameters():
        if name.endswith("layer_scale"):
            parameter.uniform_(0.2, 0.5)
    for norm in norms:
        norm.weight.uniform_(0.5, 1.0)
        norm.bias.normal_(mean=1.0, std=0.3)
        norm.momentum = 1.0  # the statistics become those of the one pass below
    if norms:
        module.train()(views)
    module.eval()


def _views(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """(VIEWS, 3, h, w) uint8: parts of the pictures in other sizes and colours."""
    view = T.Compose(
        [
            T.RandomResizedCrop(size, scale=(0.1, 1.0), antialias=True),
            T.RandomHorizontalFlip(),
            T.ColorJitter(brightness=0.6, contrast=0.6, saturation=0.6, hue=0.3),
        ]
    )
    return torch.stack([view(pictures[i % len(pictures)]) for i in range(VIEWS)])


@torch.inference_mode()
def _ordinary(module: nn.Module, head: str, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The penultimate feature is what the last layer reads: no graph of ours is involved."""
    features: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        features.append(args[0])

    handle = module.get_submodule(head).register_forward_pre_hook(keep)
    logits = module(inputs)
    handle.remove()
    (feature,) = features
    return feature, logits
