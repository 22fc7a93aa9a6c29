"""One line of the list of networks."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ModelEntry"]


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One network that can be had by name."""

    name: str
    family: str
    """torchvision's module: "resnet", "vgg", ...; "yolov2" for Darknet's, "openpose", "xnor"."""
    source: str
    """"torchvision", "darknet", "caffe" or "xnor"."""
    is_cnn: bool
    """False where attention does the work."""
    paper: bool
    """True for the networks that the paper applies the recurrence to."""
    default_weights: str
    """"ResNet18_Weights.IMAGENET1K_V1"; "" where weights have to be given."""
    weights_file: str = ""
    """Where weights have to be given, the name under which they are published."""
    n_parameters: int | None
    """With the default weights, where their description says."""
    input_shape: tuple[int, int, int]
    """One frame of network input with the default weights, (C, h, w)."""
