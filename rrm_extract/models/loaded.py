"""What a loaded network is, and the last steps every kind of network goes through."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor, nn

from rrm_extract.graph import Program, add_tensor, trace

from .region import Region
from .skeleton import Skeleton

__all__ = ["LoadedModel", "Source", "Transform", "freeze", "hash_joined", "hash_state"]

Source = Literal["torchvision", "timm", "onnx", "factory", "darknet", "caffe", "dcz", "xnor"]


class Transform(Protocol):
    """From frames to network input; picklable, without state."""

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """One frame of network input."""

    def __call__(self, frames: Tensor, /) -> Tensor:
        """Take (T, 3, H, W) uint8 RGB, give (T, *input_shape) float32, frame by frame."""

    def describe(self) -> dict[str, object]:
        """Everything that determines the output, as JSON-able values."""

    def undo(self, points: Tensor, height: int, width: int) -> Tensor:
        """Where points (..., 2) of the input, x and y in pixels, lie in a frame of this size."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A network ready for inference, and where it came from."""

    name: str
    """As it was asked for."""
    architecture: str | None = None
    """The name that builds the same network without its weights, where that is another one."""
    module: nn.Module = field(repr=False)
    """In eval mode, float32, on the CPU, no parameter requires a gradient."""
    transform: Transform
    """(T, 3, H, W) uint8 RGB -> (T, *input_shape) float32."""
    preprocess: dict[str, object]
    """JSON-able description of ``transform``."""
    assumed_transform: str | None = None
    """Whose transform was taken for weights that do not say theirs, where the network's published
    weights have several: "ResNet50_Weights.IMAGENET1K_V2"."""
    input_shape: tuple[int, int, int]
    """One frame after ``transform``: (C, h, w), or (h, w, C) where the network takes NHWC."""
    weights_id: str
    """"ResNet18_Weights.IMAGENET1K_V1", "random:0", "file:NAME", "timm:TAG", "factory:NAME"."""
    weights_origin: str | None = None
    """Of weights in a .dcz file: the ``weights_id`` of what was compressed, as the file says it."""
    weights_sha256: str
    """Over the sorted names, dtypes, shapes and bytes of the state dict, and what else makes the
    network: what a .cfg file says of the layers, the nodes of a FILE.onnx, what the code of a
    factory computes; of a FILE.dcz or FILE.net, over the file."""
    missing_keys: frozenset[str] = frozenset()
    """Parameters and buffers that the weights did not give. They hold NaN."""
    unexpected_keys: frozenset[str] = frozenset()
    """Entries of the weights file, by the file's names, that the network has no use for."""
    leaf_modules: tuple[type[nn.Module], ...] = ()
    """Module types that torch.fx must not trace into."""
    leaf_functions: tuple[Callable[..., object], ...] = field(default=(), repr=False)
    """Functions that torch.fx must not trace into (its ``autowrap_functions``)."""
    source: Source
    categories: tuple[str, ...] | None = field(default=None, repr=False)
    """Names of the classifier's or detector's classes, where they are known."""
    region: Region | None = None
    """How a detector's output, the last value of :meth:`trace`, is to be read."""
    skeleton: Skeleton | None = None
    """How a pose network's output, the last value of :meth:`trace`, is to be read."""

    @property
    def weights_text(self) -> str:
        """Where the weights come from: ``weights_id``, "file:NAME.dcz of random:0"."""
        origin = "" if self.weights_origin is None else f" of {self.weights_origin}"
        return f"{self.weights_id}{origin}"

    @property
    def is_untrained(self) -> bool:
        """Whether the weights are generated ones, also where they were compressed since."""
        return self.weights_text.rpartition(" of ")[2].startswith("random:")

    def trace(self) -> Program:
        """The whole network as a Program.

        Raises:
            TraceError: the network cannot be turned into one.
        """
        return trace(
            self.module, leaf_modules=self.leaf_modules, leaf_functions=self.leaf_functions
        )


def freeze(module: nn.Module) -> nn.Module:
    """Put ``module`` (in place) in eval mode, float32, on the CPU, without gradients."""
    return module.cpu().float().eval().requires_grad_(False)


def hash_state(module: nn.Module) -> str:
    """SHA-256 over the state dict: names (sorted), dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    state = module.state_dict()
    for name in sorted(state):
        digest.update(f"{name}\0".encode())
        add_tensor(digest, state[name])
    return digest.hexdigest()


def hash_joined(*texts: str) -> str:
    """SHA-256 over several texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
