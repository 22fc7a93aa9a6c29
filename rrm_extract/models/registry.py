"""The one door: a name becomes a LoadedModel."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..config.job import DARKNET
from ..errors import ModelError, PreprocessError
from .caffe_alexnet import CAFFE_ALEXNET, load_caffe_alexnet
from .catalogue import list_models
from .compressed_file import (
    DCZ,
    letterbox_of,
    load_dcz,
    load_published_net,
    own_letterbox,
    own_transform,
)
from .compression.dcz import DczDescription
from .compression.dcz_reader import describe_dcz
from .darknet import is_darknet_model, load_darknet
from .factory import load_factory
from .letterbox import Letterbox
from .loaded import LoadedModel, Transform
from .onnx_file import load_onnx
from .preprocess import parse_preprocess
from .rtpose import RTPOSE, RTPOSE_PREPROCESS, load_rtpose
from .timm_models import PREFIX, current_name, load_timm
from .torchvision_models import is_torchvision_model, load_torchvision
from .weights import WeightsChoice, parse_weights
from .xnor import is_xnor_model, load_xnor

__all__ = ["carries_weights", "is_classifier", "is_factory", "is_model_file", "load_model"]

_FILES = {".onnx": load_onnx, DCZ: load_dcz, ".net": load_published_net}
"""Files that are a network with its weights, by how their names end."""


def load_model(
    name: str,
    *,
    weights: str = "default",
    preprocess: str | Mapping[str, object] | None = None,
) -> LoadedModel:
    """Load a network by name, with its weights and its transform.

    Args:
        name: a classification network of torchvision ("resnet18"), "yolov2", "tiny_yolov2",
            "rtpose", "xnor_alexnet", "xnor_resnet18", "darknet:FILE.cfg", "timm/NAME",
            "FILE.onnx", "FILE.dcz" (of ``rrm-extract compress``), "caffe_alexnet", "FILE.net" (the
            published
            AlexNet_compressed.net), or "package.module:factory" (called without arguments; the
            current directory is importable).
        weights: "default"; another set of published weights ("IMAGENET1K_V2"); a .safetensors,
            .pth, .pt, .bin or .dcz file; Caffe's .caffemodel or Darknet's .weights file;
            "random" (seed 0) or "random:SEED" for an untrained network. Random weights are never
            used unasked.
        preprocess: None for that of the weights, or else the network's own; "imagenet"; or a
            description, see :func:`parse_preprocess`. ONNX files need one, and so do factories
            whose network has no ``preprocess`` mapping. Networks of Darknet's and "rtpose" take
            their size from it.

    Returns:
        The network in eval mode, float32, on the CPU. torch's random state is left as it was.

    Raises:
        ModelError: no such network, or it cannot be built.
        WeightsError: the weights cannot be had, cannot be read, or do not fit.
        PreprocessError: the description of the input is needed and missing, or unusable.
    """
    choice = parse_weights(weights)
    is_dcz = choice.kind == "file" and choice.text.lower().endswith(DCZ)
    file = describe_dcz(Path(choice.text)) if is_dcz else None
    described: Transform | None = None
    own = file if file is not None and _is_of(name, file) else None
    if preprocess is not None:
        letterbox = _own_letterbox(name, choice)
        if own is not None:
            with suppress(PreprocessError):  # an unusable one is what --preprocess replaces
                letterbox = letterbox_of(choice.text, own)
        described = parse_preprocess(preprocess, own=letterbox)
    elif own is not None:
        described = own_transform(choice.text, own)
    # timm's own transform goes with the tag, which the file may say where the name does not.
    loaded = _load(name if own is None else own.model, choice, described)
    if own is not None and own.model != name:
        loaded = replace(loaded, name=name, architecture=own.model)
    return loaded if file is None else replace(loaded, weights_origin=file.weights_id)


def _is_of(name: str, file: DczDescription) -> bool:
    """Whether a file's description of its network's input is that of the network ``name``.

    Code of the user's own, and a .cfg file, say themselves what their input is.
    """
    model = file.model
    if name.startswith(PREFIX):
        name = current_name(name)
        if "." not in name:  # a tag that the file has
            model = model.partition(".")[0]
    return model == name and ":" not in name


def _load(name: str, choice: WeightsChoice, described: Transform | None) -> LoadedModel:
    if is_darknet_model(name):
        return load_darknet(name, choice, described)
    if name.startswith(PREFIX):
        return load_timm(name, choice, described)
    for suffix, load in _FILES.items():
        if name.lower().endswith(suffix):
            return load(name, choice, described)
    if name == CAFFE_ALEXNET:
        return load_caffe_alexnet(name, choice, described)
    if name == RTPOSE:
        return load_rtpose(name, choice, described)
    if is_xnor_model(name):
        return load_xnor(name, choice, described)
    if is_torchvision_model(name):
        return load_torchvision(name, choice, described)
    if ":" in name:
        return load_factory(name, choice, described)
    known = [CAFFE_ALEXNET, *(entry.name for entry in list_models())]
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {', '.join(near)}?" if near else "`rrm-extract models` lists the names."
    raise ModelError(
        f"no model {name!r}; {hint} Expected a torchvision name, timm/NAME, FILE.onnx, FILE.dcz, "
        "FILE.net, yolov2, tiny_yolov2, rtpose, xnor_alexnet, xnor_resnet18, "
        f"{DARKNET}FILE.cfg or package.module:factory"
    )


def _own_letterbox(name: str, choice: WeightsChoice) -> Letterbox | None:
    """What a letterbox is that names its size alone; None for the ordinary one."""
    if name.lower().endswith(DCZ):
        return own_letterbox(name, choice)
    return RTPOSE_PREPROCESS if name == RTPOSE else None


def carries_weights(name: str) -> bool:
    """Whether a network brings weights of its own, so that its default ones need no download."""
    return ":" in name or is_model_file(name)


def is_factory(name: str) -> bool:
    """Whether a name is one of the user's own code, ``package.module:factory``."""
    is_other = is_darknet_model(name) or name.startswith(PREFIX) or is_model_file(name)
    return ":" in name and not is_other


def is_classifier(name: str) -> bool:
    """Whether a name is one of a classification network, as far as that is known from names."""
    return (
        is_torchvision_model(name)
        or is_xnor_model(name)
        or name == CAFFE_ALEXNET
        or name.startswith(PREFIX)
    )


def is_model_file(name: str) -> bool:
    """Whether a name is that of a file with a network and its weights."""
    return name.lower().endswith(tuple(_FILES))
