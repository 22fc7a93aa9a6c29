"""``yolov2``, ``tiny_yolov2`` and ``darknet:FILE.cfg``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ...config.job import DARKNET
from ...errors import ModelError, PreprocessError, WeightsError
from ...given_file import lack_of_file
from ..checkpoint import all_nan_keys, fit_checkpoint, read_checkpoint
from ..letterbox import Letterbox
from ..loaded import LoadedModel, Transform, freeze, hash_state
from ..weights import WeightsChoice, seeded
from .build import build_network, input_size
from .cfg import Section, read_cfg
from .network import DarknetNetwork
from .published import PUBLISHED, coco_names, published_cfg
from .weights_file import SUFFIX, read_weights

__all__ = ["is_darknet_model", "load_darknet"]


def is_darknet_model(name: str) -> bool:
    """Whether ``name`` is one of the published networks, or "darknet:FILE.cfg"."""
    return name in PUBLISHED or name.startswith(DARKNET)


def load_darknet(name: str, choice: WeightsChoice, preprocess: Transform | None) -> LoadedModel:
    """Build the network of a .cfg file, with the weights of ``choice``.

    Its input has the size of ``preprocess``; without, it is the letterbox of the size that [net]
    asks for. The output is the last layer's, for a detector the raw input of its [region].

    Raises:
        ModelError: the file cannot be read, or something in it is not supported.
        PreprocessError: the transform gives NHWC.
        WeightsError: no weights are named, or they cannot be had or do not fit.
    """
    sections = _sections(name)
    transform = preprocess or Letterbox(size=input_size(sections))
    channels, height, width = transform.output_shape
    if channels != 3:
        raise PreprocessError(
            f"{name} takes (3, h, w), preprocess gives {transform.output_shape}; give layout=nchw"
        )
    if choice.kind in ("default", "named"):
        raise _refusal(name, choice)
    with seeded(choice.seed):
        module = build_network(sections, size=(height, width))
    freeze(module)
    unexpected: frozenset[str] = frozenset()
    if choice.kind == "file":
        unexpected = _load_file(module, Path(choice.text))
    return LoadedModel(
        name=name,
        module=module,
        transform=transform,
        preprocess=transform.describe(),
        input_shape=transform.output_shape,
        weights_id=choice.weights_id,
        weights_sha256=_hash(module, sections),
        missing_keys=all_nan_keys(module),
        unexpected_keys=unexpected,
        source="darknet",
        categories=coco_names() if name in PUBLISHED else None,
        region=module.region,
    )


def _sections(name: str) -> list[Section]:
    if name in PUBLISHED:
        return published_cfg(name)
    path = Path(name.removeprefix(DARKNET))
    if lack := lack_of_file(path):
        raise ModelError(f"model {name!r}: {str(path)!r} {lack}; expected {DARKNET}FILE.cfg")
    return read_cfg(path)


def _hash(module: DarknetNetwork, sections: list[Section]) -> str:
    """Of the weights and the layers: another activation is another network with the same weights.

    Not of [net], whose size is part of the transform.
    """
    layers = [
        [section.kind, *sorted((key, option.text) for key, option in section.options.items())]
        for section in sections[1:]
    ]
    return hashlib.sha256(f"{hash_state(module)}\0{json.dumps(layers)}".encode()).hexdigest()


def _refusal(name: str, choice: WeightsChoice) -> WeightsError:
    file = PUBLISHED.get(name, f"FILE{SUFFIX}")
    published = " (as the Darknet project publishes it)" if name in PUBLISHED else ""
    missing = (
        f"{name} comes without weights"
        if choice.kind == "default"
        else f"{name} has no weights {choice.text!r}, and no such file exists"
    )
    return WeightsError(
        f"{missing}: give --weights {file}{published}, a .safetensors or .pth file, or --weights "
        "random:0 for an untrained network"
    )


def _load_file(module: DarknetNetwork, path: Path) -> frozenset[str]:
    """The names in the file that the network has no use for."""
    if path.suffix.lower() == SUFFIX:
        read_weights(module, path)
        return frozenset()
    tensors = read_checkpoint(path)
    return fit_checkpoint(module, tensors, what=f"weights file {str(path)!r}").unexpected
