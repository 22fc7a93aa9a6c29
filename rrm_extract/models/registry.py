"""The one door: a name becomes a LoadedModel."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from ..errors import ModelError
from .catalogue import list_models
from .darknet import PREFIX as DARKNET_PREFIX
from .darknet import is_darknet_model, load_darknet
from .factory import load_factory
from .loaded import LoadedModel
from .onnx_file import load_onnx
from .preprocess import parse_preprocess
from .timm_models import PREFIX, load_timm
from .torchvision_models import is_torchvision_model, load_torchvision
from .weights import parse_weights

__all__ = ["load_model"]


def load_model(
    name: str,
    *,
    weights: str = "default",
    preprocess: str | Mapping[str, object] | None = None,
) -> LoadedModel:
    """Load a network by name, with its weights and its transform.

    Args:
        name: a classification network of torchvision ("resnet18"), "yolov2" or "tiny_yolov2",
            "darknet:FILE.cfg", "timm/NAME", "FILE.onnx", or "package.module:factory" (called
            without arguments; the current directory is importable).
        weights: "default"; another set of published weights ("IMAGENET1K_V2"); a .safetensors,
            .pth, .pt or .bin file; Darknet's .weights file; "random" (seed 0) or "random:SEED" for
            an untrained network. Random weights are never used unasked.
        preprocess: None for the network's own; "imagenet"; or a description, see
            :func:`parse_preprocess`. ONNX files need one, and so do factories whose network has
            no ``preprocess`` mapping. A network of Darknet's takes its size from it.

    Returns:
        The network in eval mode, float32, on the CPU. torch's random state is left as it was.

    Raises:
        ModelError: no such network, or it cannot be built.
        WeightsError: the weights cannot be had, cannot be read, or do not fit.
        PreprocessError: the description of the input is needed and missing, or unusable.
    """
    choice = parse_weights(weights)
    described = None if preprocess is None else parse_preprocess(preprocess)
    if is_darknet_model(name):
        return load_darknet(name, choice, described)
    if name.startswith(PREFIX):
        return load_timm(name, choice, described)
    if name.lower().endswith(".onnx"):
        return load_onnx(name, choice, described)
    if is_torchvision_model(name):
        return load_torchvision(name, choice, described)
    if ":" in name:
        return load_factory(name, choice, described)
    near = difflib.get_close_matches(name, [entry.name for entry in list_models()], n=3)
    hint = f"did you mean {', '.join(near)}?" if near else "`rrm-extract models` lists the names."
    raise ModelError(
        f"no model {name!r}; {hint} Expected a torchvision name, timm/NAME, FILE.onnx, yolov2, "
        f"tiny_yolov2, {DARKNET_PREFIX}FILE.cfg or package.module:factory"
    )
